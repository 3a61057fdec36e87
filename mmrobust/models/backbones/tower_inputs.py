"""What feeds the encoders of ``towers``: one input per modality, each a raw medium → a tensor.

A tensor's first axis is the one along which samples may differ in length (tokens of a text, time steps, samples of a
waveform); pictures may differ in both sides. A batch holds, under the name of each modality, its tensors padded to the
largest, and under ``NAME.sizes`` their own sizes [B, axes], so that an encoder never depends on the padding.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from mmrobust.configuration import check_json
from mmrobust.data.processor import Processor, repeated
from mmrobust.data.resampling import resample
from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.backbones.filterbank import AudioSettings, encode_filterbank
from mmrobust.models.backbones.pixels import Pixels
from mmrobust.models.backbones.processors import (
    LARGEST_SIDE,
    describe_images,
    describe_tokenizer,
    fill_image,
    square_images,
)
from mmrobust.storage.files import read_json, write_json

FACTS_FILE = "input.json"
PROBE_SIDE = 64
"""Pixels. The size of a blank picture that shows what size an image processor makes."""


def sizes_of(modality: str) -> str:
    """The name in a batch of the sizes of a modality's tensors. No modality can have it."""
    return f"{modality}.sizes"


class TowerInput(ABC):
    """Turns one modality's raw media into the tensors of its encoder, and keeps what that takes in a folder."""

    padding: float = 0
    """What tensors are padded with."""
    varies: bool = False
    """Whether samples differ in length."""

    @abstractmethod
    def encode(self, raw: Any) -> Tensor:
        """The tensor of one medium."""

    def encode_all(self, raws: Sequence[Any]) -> list[Tensor]:
        """The tensors of several media."""
        return [self.encode(raw) for raw in raws]

    def pack(self, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`Processor.pack`."""
        return self.encode_all(raws)

    def unpack(self, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.unpack`."""
        return tensor

    def larger(self, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`."""
        return tensor

    @abstractmethod
    def fill(self, fill: str) -> Tensor:
        """The tensor that replaces a missing one; ``fill`` says of which kind an image is."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is needed to make it again."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """The settings that affect its tensors, as plain values."""


@dataclasses.dataclass(frozen=True)
class FeaturesInput(TowerInput):
    """Features [D] or [T, D], standardised: [T, D], where T is 1 for a single vector. The fill is 0, the mean.

    Raises:
        ValueError: features of another width.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    steps: bool
    """Whether they are [T, D], along time."""

    @property
    def varies(self) -> bool:  # type: ignore[override]  # as the data do
        """See :attr:`TowerInput.varies`."""
        return self.steps

    def encode(self, raw: Any) -> Tensor:
        """See :meth:`TowerInput.encode`."""
        values = np.asarray(raw, dtype=np.float64)
        if values.shape[-1] != len(self.mean) or values.ndim != 1 + self.steps:
            expected = f"[T, {len(self.mean)}]" if self.steps else f"[{len(self.mean)}]"
            raise ValueError(f"features of shape {list(values.shape)}, the model takes {expected}")
        std = np.asarray(self.std)
        standard = (values - np.asarray(self.mean)) / np.where(std > 0, std, 1.0)
        return torch.from_numpy(np.atleast_2d(standard).astype(np.float32))

    def larger(self, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`: twice as many steps."""
        return tensor.repeat(2, 1) if self.steps else tensor

    def fill(self, fill: str) -> Tensor:
        """See :meth:`TowerInput.fill`."""
        return torch.zeros(1, len(self.mean))

    def save(self, folder: Path) -> None:
        """See :meth:`TowerInput.save`."""
        write_json(folder / FACTS_FILE, self.described())

    @classmethod
    def load(cls, folder: Path) -> FeaturesInput:
        """The input that :meth:`save` wrote into ``folder``."""
        values = _facts(folder, {"mean": [float], "std": [float], "steps": bool})
        if len(values["mean"]) != len(values["std"]) or not values["mean"]:
            raise CheckpointError(f"{folder / FACTS_FILE}: mean and std must have one number per dimension")
        return cls(tuple(values["mean"]), tuple(values["std"]), values["steps"])

    def described(self) -> dict[str, Any]:
        """See :meth:`TowerInput.described`."""
        return {"mean": list(self.mean), "std": list(self.std), "steps": self.steps}


class TextInput(TowerInput):
    """Texts as token ids [L]; the fill is ``''``."""

    varies = True

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
            raise CheckpointError("its tokenizer has no token for padding")
        # Masked, so that any token will do.
        padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.padding = int(padding)

    def encode(self, raw: Any) -> Tensor:
        """See :meth:`TowerInput.encode`."""
        return self.encode_all([raw])[0]

    def encode_all(self, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`TowerInput.encode_all`; a tokenizer takes several at once."""
        found = self.tokenizer(list(raws), truncation=True, max_length=self.max_length)["input_ids"]
        return [torch.tensor(ids or [int(self.padding)], dtype=torch.long) for ids in found]

    def larger(self, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`."""
        return repeated(tensor, self.max_length)

    def fill(self, fill: str) -> Tensor:
        """See :meth:`TowerInput.fill`."""
        return self.encode("")

    def save(self, folder: Path) -> None:
        """See :meth:`TowerInput.save`."""
        self.tokenizer.save_pretrained(folder)
        write_json(folder / FACTS_FILE, {"max_length": self.max_length})

    @classmethod
    def load(cls, folder: Path) -> TextInput:
        """The input that :meth:`save` wrote into ``folder``."""
        length = _facts(folder, {"max_length": int})["max_length"]
        if not 2 <= length <= 2**16:
            raise CheckpointError(f"{folder / FACTS_FILE}: max_length = {length}: must be from 2 to {2**16}")
        return cls(transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False), length)

    def described(self) -> dict[str, Any]:
        """See :meth:`TowerInput.described`; the tokenizer by what it does."""
        return {"tokenizer": describe_tokenizer(self.tokenizer), "max_length": self.max_length}


class ImageInput(TowerInput):
    """Pictures [3, H, W] by an image processor of ``transformers``."""

    def __init__(self, image_processor: Any) -> None:
        from PIL import Image

        self.image_processor, self._pixels = image_processor, Pixels(image_processor)
        _, *size = self.encode(Image.new("RGB", (PROBE_SIDE, PROBE_SIDE))).shape
        self._size: tuple[int, int] = (size[0], size[1])
        if max(self._size) > LARGEST_SIDE:
            raise CheckpointError(f"its image processor makes images of {max(self._size):,} pixels a side")

    def encode(self, raw: Any) -> Tensor:
        """See :meth:`TowerInput.encode`."""
        return self._pixels.encode([raw])[0]

    def pack(self, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`TowerInput.pack`: bytes."""
        return self._pixels.pack(raws)

    def unpack(self, tensor: Tensor) -> Tensor:
        """See :meth:`TowerInput.unpack`."""
        return self._pixels.unpack(tensor)

    def fill(self, fill: str) -> Tensor:
        """See :meth:`TowerInput.fill`: an image of the size that the processor makes of a square one."""
        return fill_image(fill, self._size, self.image_processor)

    def save(self, folder: Path) -> None:
        """See :meth:`TowerInput.save`."""
        self.image_processor.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> ImageInput:
        """The input that :meth:`save` wrote into ``folder``."""
        return cls(read_image_processor(str(folder)))

    def described(self) -> dict[str, Any]:
        """See :meth:`TowerInput.described`."""
        return describe_images(self.image_processor)


class SquareImages(ImageInput):
    """Pictures of ``side`` × ``side`` pixels, for a small encoder of our own."""

    def __init__(self, side: int) -> None:
        self.side = side
        super().__init__(square_images(side))

    def save(self, folder: Path) -> None:
        """See :meth:`TowerInput.save`."""
        write_json(folder / FACTS_FILE, {"side": self.side})

    @classmethod
    def load(cls, folder: Path) -> SquareImages:
        """The input that :meth:`save` wrote into ``folder``."""
        side = _facts(folder, {"side": int})["side"]
        if not 1 <= side <= LARGEST_SIDE:
            raise CheckpointError(f"{folder / FACTS_FILE}: side = {side}: must be from 1 to {LARGEST_SIDE}")
        return cls(side)


class FilterbankInput(TowerInput):
    """Recordings as a normalised log mel filter bank [frames, mel] of fixed length; the fill is zeros."""

    def __init__(self, audio: AudioSettings) -> None:
        self.audio = audio

    def encode(self, raw: Any) -> Tensor:
        """See :meth:`TowerInput.encode`."""
        return encode_filterbank(raw, self.audio)

    def fill(self, fill: str) -> Tensor:
        """See :meth:`TowerInput.fill`."""
        return torch.zeros(self.audio.frames, self.audio.mel_bins)

    def save(self, folder: Path) -> None:
        """See :meth:`TowerInput.save`."""
        write_json(folder / FACTS_FILE, self.described())

    @classmethod
    def load(cls, folder: Path) -> FilterbankInput:
        """The input that :meth:`save` wrote into ``folder``."""
        whole, number = ("sampling_rate", "frames", "mel_bins"), ("mean", "std")
        return cls(AudioSettings(**_facts(folder, dict.fromkeys(whole, int) | dict.fromkeys(number, float))))

    def described(self) -> dict[str, Any]:
        """See :meth:`TowerInput.described`."""
        return dataclasses.asdict(self.audio)


class RecordingInput(TowerInput):
    """Recordings by a feature extractor of ``transformers``: a waveform [n] or a spectrogram. The fill is zeros."""

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor
        silence = np.zeros(int(extractor.sampling_rate), dtype=np.float32)
        self._shape = tuple(self.encode((silence, int(extractor.sampling_rate))).shape)

    def encode(self, raw: Any) -> Tensor:
        """See :meth:`TowerInput.encode`; the recording is resampled to the encoder's rate."""
        waveform, rate = raw
        target = int(self.extractor.sampling_rate)
        wave = resample(waveform, rate, target)
        found = self.extractor(wave, sampling_rate=target, return_tensors="np")
        name = next(name for name in ("input_values", "input_features") if name in found)
        return torch.from_numpy(np.ascontiguousarray(found[name][0], dtype=np.float32))

    def larger(self, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`: a recording twice as long; spectrograms have one size."""
        return tensor.repeat(2) if tensor.ndim == 1 else tensor

    def fill(self, fill: str) -> Tensor:
        """See :meth:`TowerInput.fill`: of the shape of one second, or of the fixed shape of spectrograms."""
        return torch.zeros(self._shape)

    def save(self, folder: Path) -> None:
        """See :meth:`TowerInput.save`."""
        self.extractor.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> RecordingInput:
        """The input that :meth:`save` wrote into ``folder``."""
        return cls(transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False))

    def described(self) -> dict[str, Any]:
        """See :meth:`TowerInput.described`: plain settings, without versions and origins."""
        values = self.extractor.to_dict()
        left_out = ("transformers_version", "_name_or_path", "processor_class", "mel_filters", "window")
        return {key: value for key, value in sorted(values.items()) if key not in left_out and _is_plain(value)}


def read_image_processor(place: str) -> Any:
    """The image processor in a folder or on the Hub; on Pillow, which gives the same pixels on every machine."""
    # From its module: what transformers 5.17 exports under this name wants torchvision, whatever the backend.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(place, trust_remote_code=False, backend="pil")


class TowersProcessor(Processor):
    """The inputs of all modalities, in the model's order."""

    def __init__(self, inputs: Mapping[str, TowerInput]) -> None:
        self.inputs = dict(inputs)
        self.recordings = [name for name, each in self.inputs.items() if isinstance(each, RecordingInput)]

    def encode(self, modality: str, raw: Any) -> Tensor:
        """See :meth:`Processor.encode`."""
        return self.inputs[modality].encode(raw)

    def encode_all(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`Processor.encode_all`."""
        return self.inputs[modality].encode_all(raws)

    def pack(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`Processor.pack`."""
        return self.inputs[modality].pack(raws)

    def unpack(self, modality: str, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.unpack`."""
        return self.inputs[modality].unpack(tensor)

    def larger(self, modality: str, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`."""
        return self.inputs[modality].larger(tensor)

    def fill(self, modality: str, fill: str) -> Tensor:
        """See :meth:`Processor.fill`."""
        return self.inputs[modality].fill(fill)

    def collate(self, samples: Sequence[Mapping[str, Tensor]], *, pinned: bool = False) -> dict[str, Tensor]:
        """See :meth:`Processor.collate`: for each modality, its padded tensors [B, …] and their sizes [B, axes]."""
        batch: dict[str, Tensor] = {}
        for modality in (modality for modality in self.inputs if modality in samples[0]):
            tensors = [sample[modality] for sample in samples]
            sizes = torch.tensor([tensor.shape for tensor in tensors])
            largest = sizes.amax(0).tolist()
            shape, padding = (len(tensors), *largest), self.inputs[modality].padding
            padded = tensors[0].new_full(shape, padding, pin_memory=pinned)
            for row, tensor in zip(padded, tensors, strict=True):
                row[tuple(slice(size) for size in tensor.shape)] = tensor
            batch[modality], batch[sizes_of(modality)] = padded, sizes
        return batch

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """See :meth:`Processor.length`: of each modality whose samples differ in length."""
        return tuple(len(sample[modality]) for modality, each in self.inputs.items() if each.varies)

    def save(self, folder: Path) -> None:
        """See :meth:`Processor.save`; :class:`~mmrobust.models.backbones.towers.TowersBackbone` writes each input."""

    def described(self) -> dict[str, Any]:
        """See :meth:`Processor.described`."""
        return {modality: each.described() for modality, each in self.inputs.items()}


def _facts(folder: Path, shape: dict[str, Any]) -> dict[str, Any]:
    """The values in the ``input.json`` of a folder, of this shape."""
    file = folder / FACTS_FILE
    values = read_json(file, "input settings of an encoder", CheckpointError)
    try:
        check_json(values, shape)
    except UsageError as cause:
        raise CheckpointError(f"{file}: {cause}") from cause
    return {key: values[key] for key in shape}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
