"""CAV-MAE as three streams: audio, image, then both together; and its own two ways with a missing one.

The joint layers hold three pairs of norms: for both modalities together, for audio alone, for images alone. The
reference can therefore run on one modality (its ``audioonly`` and ``videoonly``: the joint layers with that modality's
norms) and average that with the joint layers' usual pass over the one modality (``missingaudioonly`` and
``missingvideoonly``, named after what is there). :attr:`CavMaeSettings.missing_path` chooses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrobust.data.processor import Processor
from mmrobust.errors import CheckpointError, UsageError, unknown_name
from mmrobust.models.backbone import Backbone, BackboneSettings, Begun, Pooling, PromptSource, run_stream
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel
from mmrobust.models.backbones.filterbank import log_mel_filterbank
from mmrobust.models.backbones.images import describe_images, fill_image
from mmrobust.models.layers import LayerView
from mmrobust.models.sequence import TokenSequence
from mmrobust.storage.files import read_json, write_json
from mmrobust.storage.untrusted import check_range

JOINT = "joint"
ALONE = {"audio": "joint-audio", "image": "joint-image"}
"""Modality → where the joint layers' pass over it alone, with its own norms, lies among the streams that are done."""
FUSION = {"audio": "fusion-audio", "image": "fusion-image"}
"""Modality → what methods know its queries in the fusion block by, where the model has one."""
FILL, SINGLE, AVERAGE = MISSING_PATHS = ("fill", "single", "average")
PROCESSOR_FILE = "preprocessor_config.json"
LARGEST_FILTER_BANK = 2**24
"""Numbers: 22 minutes at 128 mel bins. One that stands for a missing sound is made before any sound is read."""


@dataclass(frozen=True)
class CavMaeSettings(BackboneSettings):
    """How a CAV-MAE runs.

    Raises:
        UsageError: an unknown path.
    """

    missing_path: str = FILL
    """What becomes of a stream that is known to be missing. ``fill``: it runs on its fill (Prompt the Missing's way);
    ``single``: the other runs alone, with its own norms; ``average``: the mean of that and of the usual pass over the
    other alone. Under concat prompting, where the case is unknown, it is always ``fill``."""

    def __post_init__(self) -> None:
        if self.missing_path not in MISSING_PATHS:
            raise unknown_name("missing path", self.missing_path, MISSING_PATHS)


@dataclass(frozen=True)
class AudioSettings:
    """How a waveform becomes the model's filter bank.

    The normalisation of the defaults is the one of the reference on VGGSound.
    """

    sampling_rate: int = 16_000
    frames: int = 1024
    mel_bins: int = 128
    mean: float = -5.081
    std: float = 4.4849

    def __post_init__(self) -> None:
        ranges = (("sampling_rate", 1, 10**6), ("frames", 1, 10**6), ("mel_bins", 1, 10**4), ("std", 1e-6, 1e6))
        check_range(dataclasses.asdict(self), (*ranges, ("mean", -1e6, 1e6)), "audio settings")


class CavMaeProcessor(Processor):
    """Audio to a normalised log mel filter bank of fixed length, images by an image processor.

    Args:
        audio: the filter bank's settings.
        image_processor: a ``CLIPImageProcessorPil`` (resize, centre crop, normalise): the reference's transform.
    """

    def __init__(self, audio: AudioSettings, image_processor: Any) -> None:
        self.audio, self.image_processor = audio, image_processor

    @classmethod
    def load(cls, source: str) -> CavMaeProcessor:
        """The processor that :meth:`save` wrote into the folder ``source``."""
        from transformers import CLIPImageProcessorPil

        file = Path(source) / PROCESSOR_FILE
        values = read_json(file, "input settings of a CAV-MAE", CheckpointError)
        try:
            audio = AudioSettings(**values["audio"])
        except (KeyError, TypeError) as cause:
            raise CheckpointError(f"{file}: no or unknown audio settings ({cause})") from cause
        return cls(audio, CLIPImageProcessorPil(**values.get("image", {})))

    def encode(self, modality: str, raw: Any) -> Tensor:
        """See :meth:`Processor.encode`: audio [frames, mel], cut or padded with zeros, then normalised."""
        if modality == "image":
            return torch.from_numpy(self.image_processor(raw)["pixel_values"][0])
        waveform, rate = raw
        settings = self.audio
        bank = log_mel_filterbank(waveform, rate, settings.sampling_rate, settings.mel_bins, settings.frames)
        padded = np.zeros((settings.frames, settings.mel_bins), dtype=np.float32)
        padded[: len(bank)] = bank
        return torch.from_numpy((padded - settings.mean) / settings.std)

    def fill(self, modality: str, fill: str) -> Tensor:
        """See :meth:`Processor.fill`: a zero filter bank, or an image of the model's size."""
        if modality == "audio":
            return torch.zeros(self.audio.frames, self.audio.mel_bins)
        crop = self.image_processor.crop_size
        return fill_image(fill, (int(crop["height"]), int(crop["width"])), self.image_processor)

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """audio_values [B, frames, mel], pixel_values [B, 3, H, W]: all of one size, nothing is padded."""
        inputs = {"audio": "audio_values", "image": "pixel_values"}
        return {name: torch.stack([s[m] for s in samples]) for m, name in inputs.items() if m in samples[0]}

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """All samples are of one size."""
        del sample
        return ()

    def save(self, folder: Path) -> None:
        """See :meth:`Processor.save`."""
        keys = ("size", "crop_size", "image_mean", "image_std", "resample")
        image = {key: value for key, value in self.image_processor.to_dict().items() if key in keys}
        write_json(folder / PROCESSOR_FILE, {"audio": dataclasses.asdict(self.audio), "image": image})

    def described(self) -> dict[str, Any]:
        """See :meth:`Processor.described`."""
        return {"audio": dataclasses.asdict(self.audio), "image": describe_images(self.image_processor)}


class CavMaePooling(Pooling):
    """Final norm, then the mean over all tokens (pooled), or over each modality's (parts); prompts are left out.

    Where a modality ran alone, that pass has its own final norm, and several passes are averaged.
    """

    def __init__(self, model: CavMaeModel) -> None:
        super().__init__()
        self.norm, self.norm_a, self.norm_v = model.norm, model.norm_a, model.norm_v
        self.pooled_size = model.config.hidden_size
        self.part_sizes = dict.fromkeys(("audio", "image"), self.pooled_size)

    def pooled(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """Mean of the normed audio and image tokens [B, D], or of those of the one that ran alone."""
        passes = [norm(sequence.content()).mean(1) for norm, sequence in self._passes(streams)]
        return torch.stack(passes).mean(0)

    def parts(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → mean of its normed tokens [B, D]; one that did not run has none."""
        return {
            m: torch.stack([norm(sequence.segment(m)).mean(1) for norm, sequence in self._passes(streams)]).mean(0)
            for m in ("audio", "image")
            if m in streams
        }

    def _passes(self, streams: Mapping[str, TokenSequence]) -> list[tuple[nn.Module, TokenSequence]]:
        """The passes through the joint layers that were made, each with its final norm."""
        norms = {JOINT: self.norm, ALONE["audio"]: self.norm_a, ALONE["image"]: self.norm_v}
        return [(norm, streams[name]) for name, norm in norms.items() if name in streams]


class CavMaeBackbone(Backbone):
    """CAV-MAE: a stream per modality, then the joint layers."""

    family = "cavmae"
    settings_class = CavMaeSettings
    modalities = ("audio", "image")
    streams = ("audio", "image", JOINT)
    normed_head = True
    lora_targets = ("attn.qkv",)

    def __init__(self, model: CavMaeModel, processor: CavMaeProcessor, source: str) -> None:
        super().__init__(model, processor, source)

    @property
    def width(self) -> Mapping[str, int]:
        """See :attr:`Backbone.width`."""
        return dict.fromkeys(self.streams, self.model.config.hidden_size)

    def layers(self, stream: str) -> Sequence[LayerView]:
        """See :meth:`Backbone.layers`."""
        model = self.model
        blocks = {"audio": model.blocks_a, "image": model.blocks_v, JOINT: model.blocks_u}[stream]
        return [_view(block) for block in blocks]

    def first_layer(self, stream: str) -> int:
        """See :meth:`Backbone.first_layer`."""
        return int(self.model.config.num_specific_layers) if stream == JOINT else 0

    def pooling(self) -> CavMaePooling:
        """See :meth:`Backbone.pooling`."""
        return CavMaePooling(self.model)

    @property
    def meetings(self) -> Mapping[str, tuple[str, ...]]:
        """See :attr:`Backbone.meetings`: the fusion block's two cross-attentions, else the joint layers."""
        if self.model.config.fusion:
            return {FUSION["audio"]: ("image",), FUSION["image"]: ("audio",)}
        return {JOINT: self.modalities}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """See :meth:`Backbone.configure`.

        Raises:
            UsageError: also a missing path that a model with a fusion block does not have.
        """
        super().configure(settings)
        if self.model.config.fusion and self.settings.missing_path != FILL:
            raise UsageError(
                f"missing path {self.settings.missing_path}: this CAV-MAE has a fusion block, which needs both "
                f"streams; take {FILL}"
            )

    @property
    def knows_case(self) -> bool:
        """See :attr:`Backbone.knows_case`."""
        return bool(self.settings.missing_path != FILL)

    def meet(
        self,
        alone: Mapping[str, TokenSequence],
        prompts: PromptSource | None = None,
        begun: Mapping[str, Begun] | None = None,
    ) -> dict[str, TokenSequence]:
        """See :meth:`Backbone.meet`: the fusion block where the model has one, then the joint layers.

        With another missing path than ``fill``, what is missing is not there to be met. A method adds the same to the
        joint layers whichever norms they run with.
        """
        if len(alone) == 1:
            ((modality, own),) = alone.items()
            return self._single(modality, own, prompts)
        done = self._fused(alone, prompts) if self.model.config.fusion else dict(alone)
        return {**done, JOINT: self.run(JOINT, Begun(self.join(done), 0), prompts)}

    def join(self, alone: Mapping[str, TokenSequence]) -> TokenSequence:
        """See :meth:`Backbone.join`: audio, then image."""
        return alone["audio"].followed_by(alone["image"])

    def _single(self, modality: str, own: TokenSequence, prompts: PromptSource | None) -> dict[str, TokenSequence]:
        """The joint layers over the one modality that is there, with its own norms; for the average, the usual too."""
        suffix = {"audio": "_a", "image": "_v"}[modality]
        layers = [_view(block, suffix) for block in self.model.blocks_u]
        done = {
            modality: own,
            ALONE[modality]: run_stream(JOINT, layers, own, prompts, checkpointing=self.checkpointing),
        }
        if self.settings.missing_path == AVERAGE:
            done[JOINT] = self.run(JOINT, Begun(own, 0), prompts)
        return done

    def _fused(self, alone: Mapping[str, TokenSequence], prompts: PromptSource | None) -> dict[str, TokenSequence]:
        """Both streams after the fusion block."""
        added = [None if prompts is None else prompts(FUSION[m], 0, alone[m]) for m in self.modalities]
        # What the audio's queries see in front of the image's tokens, and the reverse.
        context = [None if new is None else new.context_PD for new in added]
        fused = self.model.fusion_block(*(alone[m].tokens_BLD for m in self.modalities), *context)
        return {m: alone[m].with_tokens(tokens) for m, tokens in zip(self.modalities, fused, strict=True)}

    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """Patches with position and modality embeddings."""
        model = self.model
        if modality == "audio":  # [B, frames, mel] → [B, 1, mel, frames]: tokens run along time, mel row by mel row
            patches = model.patch_embed_a(inputs["audio_values"].transpose(1, 2)[:, None])
            tokens = patches + model.pos_embed_a + model.modality_a
        else:
            tokens = model.patch_embed_v(inputs["pixel_values"]) + model.pos_embed_v + model.modality_v
        return TokenSequence(tokens, None, ((modality, tokens.shape[1]),))


def _view(block: Any, suffix: str = "") -> LayerView:
    """The parts of a CAV-MAE block, with the norms for both modalities together, or for one alone (``_a``, ``_v``)."""

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = block.attn.qkv(x).chunk(3, dim=-1)
        return query, key, value

    return LayerView(
        norm1=getattr(block, f"norm1{suffix}"),
        project=project,
        out=lambda x: block.attn.proj_drop(block.attn.proj(x)),
        norm2=getattr(block, f"norm2{suffix}"),
        mlp=block.mlp,
        heads=block.attn.num_heads,
    )


def load(place: str, source: str) -> CavMaeBackbone:
    """The CAV-MAE whose weights and processor lie in the folder ``place``."""
    # The position tables are computed of these before a weight is read.
    ranges = (("audio_frames", 1, 10**5), ("mel_bins", 1, 10**4), ("image_size", 1, 10**4), ("patch_size", 1, 10**3))
    config = CavMaeConfig.from_pretrained(place).to_dict()
    check_range(config, ranges, f"backbone {source}")
    numbers = {"audio_frames × mel_bins": config["audio_frames"] * config["mel_bins"]}
    check_range(numbers, [("audio_frames × mel_bins", 1, LARGEST_FILTER_BANK)], f"backbone {source}")
    return CavMaeBackbone(CavMaeModel.from_pretrained(place), CavMaeProcessor.load(place), source)
