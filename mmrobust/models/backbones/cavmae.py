"""CAV-MAE as three streams (audio, image, then both together), with its own two ways to handle a missing modality.

The joint layers have three pairs of norms: for both modalities together, for audio alone and for images alone. The
reference can therefore run on one modality (its ``audioonly`` and ``videoonly``: the joint layers with that modality's
norms), or average this pass with the usual pass of the joint layers over the one modality (``missingaudioonly`` and
``missingvideoonly``, named after the modality that is present). :attr:`CavMaeSettings.missing_path` selects the way.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.data.processor import Processor
from mmrobust.data.resampling import RESAMPLING
from mmrobust.errors import CheckpointError, UsageError, unknown_name
from mmrobust.models.backbone import Backbone, BackboneSettings, PartialStream, PromptSource
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel
from mmrobust.models.backbones.filterbank import AudioSettings, check_range, encode_filterbank
from mmrobust.models.backbones.pixels import Pixels
from mmrobust.models.backbones.processors import describe_images, fill_image, stack
from mmrobust.models.layers import LayerView
from mmrobust.models.pooling import Pooling
from mmrobust.models.sequence import TokenSequence
from mmrobust.storage.files import read_json, write_json

JOINT = "joint"
UNIMODAL = {"audio": "joint-audio", "image": "joint-image"}
"""Modality → name of the stream that is the pass of the joint layers over it alone, with its own norms."""
FUSION = {"audio": "fusion-audio", "image": "fusion-image"}
"""Modality → name of the fusion point in which it gives the queries, in a model with a fusion block."""
FILL, SINGLE, AVERAGE = MISSING_PATHS = ("fill", "single", "average")
PROCESSOR_FILE = "preprocessor_config.json"
LARGEST_FILTER_BANK = 2**24
"""Numbers in a filter bank: 22 minutes at 128 mel bins. The fill is created before any recording is read."""


@dataclass(frozen=True)
class CavMaeSettings(BackboneSettings):
    """Settings of a CAV-MAE."""

    missing_path: str = FILL
    """How a modality that is known to be missing is handled. ``fill``: it runs on its fill (as in Prompt the Missing);
    ``single``: the other runs alone with its own norms; ``average``: the mean of ``single`` and of the usual pass over
    the other alone. Under concat prompting, where the case is unknown, always ``fill``."""

    def __post_init__(self) -> None:
        if self.missing_path not in MISSING_PATHS:
            raise unknown_name("missing path", self.missing_path, MISSING_PATHS)


class CavMaeProcessor(Processor):
    """Audio as a normalised log mel filter bank of fixed length, images by the reference's transform.

    That is a ``CLIPImageProcessorPil``: resize, centre crop, normalise.
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
            raise CheckpointError(f"{file}: audio settings are missing or unknown ({cause})") from cause
        return cls(audio, CLIPImageProcessorPil(**values.get("image", {})))

    def encode(self, modality: str, raw: Any) -> Tensor:
        """See :meth:`Processor.encode`: audio [frames, mel] is cut or padded with zeros, then normalised."""
        return self._pixels.encode([raw])[0] if modality == "image" else encode_filterbank(raw, self.audio)

    def pack(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`Processor.pack`: images are bytes."""
        return self._pixels.pack(raws) if modality == "image" else self.encode_all(modality, raws)

    def unpack(self, modality: str, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.unpack`."""
        return self._pixels.unpack(tensor) if modality == "image" else tensor

    @functools.cached_property
    def _pixels(self) -> Pixels:
        return Pixels(self.image_processor)

    def fill(self, modality: str, fill: str) -> Tensor:
        """See :meth:`Processor.fill`: a zero filter bank, or an image of the model's size."""
        if modality == "audio":
            return torch.zeros(self.audio.frames, self.audio.mel_bins)
        crop = self.image_processor.crop_size
        return fill_image(fill, (int(crop["height"]), int(crop["width"])), self.image_processor)

    def collate(self, samples: Sequence[Mapping[str, Tensor]], *, pinned: bool = False) -> dict[str, Tensor]:
        """audio_values [B, frames, mel] and pixel_values [B, 3, H, W]; all samples have the same size."""
        inputs = {"audio": "audio_values", "image": "pixel_values"}
        return {name: stack([s[m] for s in samples], pinned) for m, name in inputs.items() if m in samples[0]}

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """All samples have the same size."""
        return ()

    def save(self, folder: Path) -> None:
        """See :meth:`Processor.save`."""
        keys = ("size", "crop_size", "image_mean", "image_std", "resample")
        image = {key: value for key, value in self.image_processor.to_dict().items() if key in keys}
        write_json(folder / PROCESSOR_FILE, {"audio": dataclasses.asdict(self.audio), "image": image})

    def described(self) -> dict[str, Any]:
        """See :meth:`Processor.described`."""
        audio = dataclasses.asdict(self.audio) | {"resampling": RESAMPLING}
        return {"audio": audio, "image": describe_images(self.image_processor)}


class CavMaePooling(Pooling):
    """Final norm, then the mean over all tokens or over each modality's tokens, without prompts.

    A pass over one modality alone has its own final norm; several passes are averaged.
    """

    def __init__(self, model: CavMaeModel) -> None:
        super().__init__(model)
        self.norm, self.norm_a, self.norm_v = model.norm, model.norm_a, model.norm_v
        self.pooled_size = model.config.hidden_size
        self.modality_sizes = dict.fromkeys(("audio", "image"), self.pooled_size)

    def pooled(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """Mean of the normed audio and image tokens [B, D], or of those of the one modality that was run."""
        passes = [norm(sequence.content()).mean(1) for norm, sequence in self._passes(streams)]
        return torch.stack(passes).mean(0)

    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → mean of its normed tokens [B, D], for the modalities that were run."""
        return {
            m: torch.stack([norm(sequence.segment(m)).mean(1) for norm, sequence in self._passes(streams)]).mean(0)
            for m in ("audio", "image")
            if m in streams
        }

    def _passes(self, streams: Mapping[str, TokenSequence]) -> list[tuple[nn.Module, TokenSequence]]:
        """(final norm, output) of each pass through the joint layers."""
        norms = {JOINT: self.norm, UNIMODAL["audio"]: self.norm_a, UNIMODAL["image"]: self.norm_v}
        return [(norm, streams[name]) for name, norm in norms.items() if name in streams]


class CavMaeBackbone(Backbone):
    """CAV-MAE: one stream per modality, then the joint layers."""

    family = "cavmae"
    pooling_class = CavMaePooling
    settings_class = CavMaeSettings
    modalities = ("audio", "image")
    streams = ("audio", "image", JOINT)
    normed_head = True
    lora_targets = ("attn.qkv",)

    @classmethod
    def load(cls, place: str, source: str) -> CavMaeBackbone:
        """See :meth:`Backbone.load`; ``place`` is a folder."""
        # The position tables are computed from these values before any weight is read.
        limits = {"audio_frames": 10**5, "mel_bins": 10**4, "image_size": 10**4, "patch_size": 10**3}
        config = CavMaeConfig.from_pretrained(place).to_dict()
        check_range(config, [(name, 1, most) for name, most in limits.items()], f"backbone {source}")
        size, name = config["audio_frames"] * config["mel_bins"], "audio_frames × mel_bins"
        check_range({name: size}, [(name, 1, LARGEST_FILTER_BANK)], f"backbone {source}")
        return cls(CavMaeModel.from_pretrained(place), CavMaeProcessor.load(place), source)

    @property
    def width(self) -> Mapping[str, int]:
        """See :attr:`Backbone.width`."""
        return dict.fromkeys(self.streams, self.model.config.hidden_size)

    def layers(self, stream: str) -> Sequence[LayerView]:
        """See :meth:`Backbone.layers`."""
        blocks = {"audio": self.model.blocks_a, "image": self.model.blocks_v, JOINT: self.model.blocks_u}
        return [_view(block) for block in blocks[stream]]

    def layers_before(self, stream: str) -> int:
        """See :meth:`Backbone.layers_before`."""
        return int(self.model.config.num_specific_layers) if stream == JOINT else 0

    @property
    def fusion_points(self) -> Mapping[str, tuple[str, ...]]:
        """See :attr:`Backbone.fusion_points`: the two cross-attentions of the fusion block, else the joint layers."""
        if self.model.config.fusion:
            return {FUSION["audio"]: ("image",), FUSION["image"]: ("audio",)}
        return {JOINT: self.modalities}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """See :meth:`Backbone.configure`; with a fusion block, ``fill`` is the only missing path."""
        super().configure(settings)
        if self.model.config.fusion and self.settings.missing_path != FILL:
            raise UsageError(
                f"cavmae backbone: missing_path {self.settings.missing_path}: this CAV-MAE has a fusion block, which "
                f"needs both streams; use {FILL}"
            )

    @property
    def knows_case(self) -> bool:
        """See :attr:`Backbone.knows_case`."""
        return bool(self.settings.missing_path != FILL)

    @property
    def joint_stream(self) -> str | None:
        """See :attr:`Backbone.joint_stream`; a fusion block comes between."""
        return None if self.model.config.fusion else JOINT

    def fuse(
        self,
        encoded: Mapping[str, TokenSequence],
        prompts: PromptSource | None = None,
        partial: Mapping[str, PartialStream] | None = None,
    ) -> dict[str, TokenSequence]:
        """See :meth:`Backbone.fuse`: the fusion block if the model has one, then the joint layers.

        With a missing path other than ``fill``, there may be only one modality. A method adds the same to the joint
        layers whichever of their norms are used.
        """
        if len(encoded) == 1:
            ((modality, own),) = encoded.items()
            return self._unimodal(modality, own, prompts)
        streams = self._after_fusion_block(encoded, prompts) if self.model.config.fusion else dict(encoded)
        return {**streams, JOINT: self.run_remaining_layers(JOINT, self.joint_start(streams, partial), prompts)}

    def joint_input(self, encoded: Mapping[str, TokenSequence]) -> TokenSequence:
        """See :meth:`Backbone.joint_input`: audio, then image."""
        return encoded["audio"].followed_by(encoded["image"])

    def _unimodal(self, modality: str, own: TokenSequence, prompts: PromptSource | None) -> dict[str, TokenSequence]:
        """The joint layers over one modality with its own norms, and for the average also with the usual norms."""
        layers = [_view(block, {"audio": "_a", "image": "_v"}[modality]) for block in self.model.blocks_u]
        own_norms = self.run_layers(JOINT, layers, own, prompts)
        streams = {modality: own, UNIMODAL[modality]: own_norms}
        if self.settings.missing_path == AVERAGE:
            streams[JOINT] = self.run_remaining_layers(JOINT, PartialStream(own, 0), prompts)
        return streams

    def _after_fusion_block(
        self, encoded: Mapping[str, TokenSequence], prompts: PromptSource | None
    ) -> dict[str, TokenSequence]:
        added = [None if prompts is None else prompts(FUSION[m], 0, encoded[m]) for m in self.modalities]
        # Tokens that audio queries attend to in front of the image tokens, and vice versa.
        context = [None if new is None else new.context_PD for new in added]
        fused = self.model.fusion_block(*(encoded[m].tokens_BLD for m in self.modalities), *context)
        return {m: encoded[m].with_tokens(tokens) for m, tokens in zip(self.modalities, fused, strict=True)}

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
    """A CAV-MAE block, with its norms for both modalities together or for one alone (suffix ``_a`` or ``_v``)."""
    return LayerView(
        norm1=getattr(block, f"norm1{suffix}"),
        project=lambda x: block.attn.qkv(x).chunk(3, dim=-1),
        out=lambda x: block.attn.proj_drop(block.attn.proj(x)),
        norm2=getattr(block, f"norm2{suffix}"),
        mlp=block.mlp,
        heads=block.attn.num_heads,
    )
