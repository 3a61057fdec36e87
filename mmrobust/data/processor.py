"""The interface that turns raw modalities into a model's tensors, and the fills of missing modalities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.errors import check_name

if TYPE_CHECKING:
    from torch import Tensor

FILLS = {"ones": "all ones", "zeros": "all zeros", "mean": "the image processor's mean colour"}
"""Fills of a missing image, after the transform. A missing text is ``''``, a missing audio all zeros."""
LONG = 512
"""Tokens of a text that is long enough to pad any other by much."""


class Processor(ABC):
    """Turns raw modalities into the backbone's tensors.

    A raw image is a ``PIL.Image`` (RGB), a raw text a ``str``, a raw audio a pair (waveform float32 [n], rate in Hz).
    """

    recordings: Sequence[str] = ()
    """The modalities of kind audio whose tensors are no filter banks; noise profiles have no noise for these."""

    @abstractmethod
    def encode(self, modality: str, raw: Any) -> Tensor:
        """One modality of one sample: image [3, H, W], text ids [L], audio [frames, mel]."""

    def encode_all(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """One modality of several samples: the tensors of :meth:`encode`, to the last bit."""
        return [self.encode(modality, raw) for raw in raws]

    def pack(self, modality: str, raws: Sequence[Any]) -> list[Tensor]:
        """One modality of several samples as it is loaded, kept and copied to a device; smaller, where it can be."""
        return self.encode_all(modality, raws)

    def unpack(self, modality: str, tensor: Tensor) -> Tensor:
        """The tensor of :meth:`encode`, to the last bit, from a packed one, or many from those of a batch.

        Any other tensor of a batch is returned as it is, as is one that was never packed.
        """
        del modality
        return tensor

    @abstractmethod
    def fill(self, modality: str, fill: str) -> Tensor:
        """The tensor that replaces the modality where it is missing, the same for the whole data set.

        Its shape must not depend on the sample: a fill of the sample's own size would reveal that size to the model.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Mapping[str, Tensor]], *, pinned: bool = False) -> dict[str, Tensor]:
        """One batch of the backbone's inputs from encoded samples (modality → tensor), padded where sizes differ.

        All samples must have the same modalities; the batch holds the inputs of those modalities. If ``pinned``, large
        ones are made in memory that a GPU reads by itself, and that PyTorch uses again for later batches.
        """

    @abstractmethod
    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Sizes in tokens that samples of one batch should have in common, so that little is padded."""

    def larger(self, modality: str, tensor: Tensor) -> Tensor:
        """A tensor of the modality beside which this one is padded, if there can be one; else this one."""
        del modality
        return tensor

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is needed to load the same processor into the backbone's ``folder``."""

    def described(self) -> dict[str, Any]:
        """The settings that affect its tensors, as plain values: part of :meth:`Backbone.inputs_fingerprint`.

        They must be the same before saving and after loading, in all versions of the libraries. Processors that return
        nothing here cannot be distinguished.
        """
        return {}


def repeated(ids: Tensor, longest: int) -> Tensor:
    """Token ids [L], over and over up to a length of ``longest``, or of :data:`LONG` if that is less."""
    longest = min(longest, LONG)
    return ids.repeat(-(-longest // len(ids)))[:longest]


def check_fill(fill: str) -> str:
    """Return ``fill``; raise a ``UsageError`` unless it is one of :data:`FILLS`."""
    check_name("fill", fill, FILLS)
    return fill
