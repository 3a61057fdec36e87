"""Input processors shared by the families: a tokenizer and an image processor of ``transformers``, and their checks.

The processors are stored beside a backbone's weights. Weights alone can run on tensors; turning raw texts or images
into tensors needs the processor as well, so a missing one (:class:`Unavailable`) raises only when it is used.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrobust.configuration import plain
from mmrobust.data.processor import Processor, repeated
from mmrobust.errors import CheckpointError
from mmrobust.models.backbones.pixels import Pixels
from mmrobust.storage.fingerprints import fingerprint_settings

P = TypeVar("P", bound="TextImageProcessor")

FILES = {
    "tokenizer": ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json"),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}
"""Kind of processor → files, at least one of which a folder that holds one has."""
IMAGE_SETTINGS = (
    *("do_convert_rgb", "do_resize", "size", "size_divisor", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
"""The settings of an image processor of ``transformers`` that affect the pixels."""
SIDES = ("height", "width", "shortest_edge", "longest_edge")
LARGEST_SIDE = 4096
"""Pixels. An image processor that makes larger images is damaged or malicious."""
PROBE = "It's a TEST: naïve façades, 3.14 € (2nd edition) — привет, 東京 🙂\n\tunbelievably  spaced-out_words..."
"""A text that tokenizers split differently: case, accents, scripts, digits, punctuation, spaces."""
PROBE_WORDS = 4096
"""Number of vocabulary entries that are tokenized to describe a tokenizer: all of a small one, a twelfth of CLIP's."""


class TextImageProcessor(Processor):
    """Texts by the backbone's tokenizer, images by its image processor.

    Args:
        tokenizer: a fast tokenizer that puts a start and an end token around the text.
        image_processor: an instance of the class that :attr:`image_processor_class` names.
        max_length: largest number of tokens of a text; longer ones are cut before their end token.
    """

    image_processor_class: ClassVar[str]
    """Name of the image processor's class in ``transformers``."""

    def __init__(self, tokenizer: Any, image_processor: Any, max_length: int) -> None:
        self.tokenizer, self.image_processor, self.max_length = tokenizer, image_processor, max_length

    @classmethod
    def load(cls: type[P], source: str, max_length: int) -> P:
        """The processor beside the weights in a folder or on the Hub; what a folder lacks is :class:`Unavailable`."""
        # Code that is stored beside the weights is never run, and the user is not asked whether to run it.
        read_tokenizer = partial(transformers.AutoTokenizer.from_pretrained, trust_remote_code=False)
        read_images = getattr(transformers, cls.image_processor_class).from_pretrained
        tokenizer = _load_if_stored(read_tokenizer, source, "tokenizer")
        return cls(tokenizer, _load_if_stored(read_images, source, "image processor"), max_length)

    def encode(self, modality: str, raw: Any) -> Tensor:
        """See :meth:`Processor.encode`."""
        return self._together(modality, [raw])[0]

    def encode_all(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`Processor.encode_all`; the libraries take several at once."""
        if type(self).encode is not TextImageProcessor.encode:  # a family that encodes in its own way
            return super().encode_all(modality, raws)
        return self._together(modality, raws)

    def _together(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        if modality == "text":
            found = self.tokenizer(list(raws), truncation=True, max_length=self.max_length)["input_ids"]
            return [torch.tensor(ids, dtype=torch.long) for ids in found]
        return self._pixels.encode(raws)

    def pack(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """See :meth:`Processor.pack`: images are bytes."""
        own_way = type(self).encode is not TextImageProcessor.encode
        return self.encode_all(modality, raws) if own_way or modality == "text" else self._pixels.pack(raws)

    def unpack(self, modality: str, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.unpack`."""
        return tensor if modality == "text" else self._pixels.unpack(tensor)

    @functools.cached_property
    def _pixels(self) -> Pixels:
        return Pixels(self.image_processor, do_pad=False)  # padded to one another, they would depend on each other

    @property
    @abstractmethod
    def fill_size(self) -> tuple[int, int]:
        """Height and width of the fill of a missing image."""

    def fill(self, modality: str, fill: str) -> Tensor:
        """See :meth:`Processor.fill`: ``''``, or an image of :attr:`fill_size`."""
        return self.encode("text", "") if modality == "text" else fill_image(fill, self.fill_size, self.image_processor)

    def collate(self, samples: Sequence[Mapping[str, Tensor]], *, pinned: bool = False) -> dict[str, Tensor]:
        """See :meth:`Processor.collate`: input_ids and, if any is padded, attention_mask [B, L] of texts; images'."""
        batch: dict[str, Tensor] = {}
        if "text" in samples[0]:
            texts, padding = [sample["text"] for sample in samples], self.tokenizer.pad_token_id
            batch["input_ids"] = pad_sequence(texts, batch_first=True, padding_value=padding)
            if len({len(text) for text in texts}) > 1:  # without a mask, attention has faster kernels
                batch["attention_mask"] = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        if "image" in samples[0]:
            batch |= self.collate_images([sample["image"] for sample in samples], pinned)
        return batch

    def collate_images(self, images: Sequence[Tensor], pinned: bool) -> dict[str, Tensor]:
        """pixel_values [B, 3, H, W], from images [3, H, W] of one size."""
        return {"pixel_values": stack(images, pinned)}

    def larger(self, modality: str, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`: images have one size."""
        return repeated(tensor, self.max_length) if modality == "text" else tensor

    def save(self, folder: Path) -> None:
        """See :meth:`Processor.save`."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def described(self) -> dict[str, Any]:
        """See :meth:`Processor.described`; a tokenizer by what it does, as its files differ between versions."""
        return {"tokenizer": describe_tokenizer(self.tokenizer), "image": describe_images(self.image_processor)}


def stack(tensors: Sequence[Tensor], pinned: bool) -> Tensor:
    """Tensors of one shape as a batch; see :meth:`Processor.collate` for ``pinned``."""
    batch = tensors[0].new_empty(len(tensors), *tensors[0].shape, pin_memory=pinned)
    return torch.stack(list(tensors), out=batch)


class Unavailable:
    """Stands in for a ``tokenizer`` or ``image processor`` that ``place`` does not hold, and raises when it is used."""

    def __init__(self, what: str, place: str) -> None:
        self._what, self._place = what, place

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing."""

    def __call__(self, *_: object, **__: object) -> Any:
        """Raise, as any other use does."""
        raise self._error()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # looked up by copying and pickling
            raise AttributeError(name)
        raise self._error()

    def _error(self) -> CheckpointError:
        return CheckpointError(
            f"{self._place}: holds no {self._what}, so raw inputs cannot be encoded (tensors can be classified); "
            f"put one beside the weights with its save_pretrained('{self._place}'), or import again with --processor"
        )


def _load_if_stored(load: Callable[[str], Any], source: str, what: str) -> Any:
    """``load(source)``, or an :class:`Unavailable` if ``source`` is a folder without the :data:`FILES` for it."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / file).is_file() for file in FILES[what]):
        return Unavailable(what, source)
    return load(source)


def describe_tokenizer(tokenizer: Any) -> str | None:
    """Fingerprint of a tokenizer's vocabulary, and of the ids of the probe and of words from the whole vocabulary."""
    if isinstance(tokenizer, Unavailable):
        return None
    words = sorted(vocabulary := tokenizer.get_vocab())
    texts = [PROBE, " ".join(words[:: max(1, len(words) // PROBE_WORDS)])]
    ids = [tokenizer(text, truncation=False, verbose=False)["input_ids"] for text in texts]
    return fingerprint_settings({"vocabulary": vocabulary, "ids": ids})


def describe_images(processor: Any) -> dict[str, Any]:
    """The :data:`IMAGE_SETTINGS` of an image processor as plain values, the same for all versions of its class."""
    if isinstance(processor, Unavailable):
        return {}
    return {name: _plain(getattr(processor, name, None)) for name in IMAGE_SETTINGS}


def _plain(value: Any) -> Any:
    """A setting as JSON would return it; a size without the sides that are not set."""
    sides = plain(value)
    if isinstance(sides, Mapping):
        return {side: length for side, length in sides.items() if length is not None}
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else sides  # an enum is a number


def square_images(side: int, **settings: Any) -> Any:
    """An image processor that resizes, crops the centre of ``side`` × ``side`` pixels, and normalises."""
    crop = {"height": side, "width": side}
    return transformers.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop, **settings)


def fill_image(fill: str, size: tuple[int, int], processor: Any) -> Tensor:
    """The fill [3, height, width] of a missing image, as it is after the transform.

    Args:
        fill: one of :data:`mmrobust.data.processor.FILLS`.
        size: height and width.
        processor: the image processor. ``mean`` is its mean colour, which is zero if it subtracts that colour.
    """
    if fill == "mean" and not processor.do_normalize:
        return torch.tensor(processor.image_mean, dtype=torch.float32)[:, None, None].expand(3, *size).clone()
    return torch.full((3, *size), 1.0 if fill == "ones" else 0.0)


def check_processor(processor: Processor, config: Any, source: str) -> None:
    """Raise a ``CheckpointError`` if ``processor`` gives what the model of ``config`` cannot take."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and not isinstance(tokenizer, Unavailable):
        table = getattr(config, "text_config", config).vocab_size
        highest = max(tokenizer.get_vocab().values(), default=0)
        if highest >= table:
            raise CheckpointError(f"{source}: its tokenizer gives ids up to {highest:,}, its table has {table:,} rows")
        if tokenizer.pad_token_id is None:
            raise CheckpointError(f"{source}: its tokenizer has no token for padding")
    images = getattr(processor, "image_processor", None)
    if images is not None and not isinstance(images, Unavailable):
        for side in (*_sides(images.size), *_sides(getattr(images, "crop_size", None))):
            if not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
                said = f"{side:,}" if isinstance(side, int) else repr(side)
                raise CheckpointError(f"{source}: its image processor makes images of {said} pixels a side")
        expected = getattr(config, "vision_config", config).image_size
        for side in _sides(images.crop_size) if getattr(images, "do_center_crop", False) else ():
            if side != expected:
                raise CheckpointError(
                    f"{source}: its image processor makes images of {side} pixels a side, its weights take {expected}"
                )
    audio = getattr(processor, "audio", None)
    if audio is not None and (audio.frames, audio.mel_bins) != (config.audio_frames, config.mel_bins):
        raise CheckpointError(
            f"{source}: its processor makes filter banks of {audio.frames} × {audio.mel_bins}, its weights take "
            f"{config.audio_frames} × {config.mel_bins}"
        )


def _sides(size: Any) -> list[Any]:
    """The side lengths in a processor's ``size``: a mapping, or the library's own class with the same names."""
    if size is None:
        return []
    values = size if isinstance(size, Mapping) else getattr(size, "__dict__", {"height": size})
    return [values[name] for name in SIDES if values.get(name) is not None]
