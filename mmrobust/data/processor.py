"""What turns raw modalities into a model's own tensors, and what stands in for a modality that is missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

FILLS = {"ones": "all ones", "zeros": "all zeros", "mean": "the image processor's mean colour"}
"""What stands in for a missing image, after the transform. A missing text is ``''``, a missing audio all zeros."""


class Processor(ABC):
    """Raw modalities to the backbone's own tensors.

    A raw image is a ``PIL.Image`` (RGB), a raw text a ``str``, a raw audio a pair (waveform float32 [n], rate in Hz).
    """

    @abstractmethod
    def encode(self, modality: str, raw: Any) -> Tensor:
        """One modality of one sample: image [3, H, W], text ids [L], audio [frames, mel]."""

    @abstractmethod
    def fill(self, modality: str, fill: str) -> Tensor:
        """What stands in for the modality where it is missing; one tensor for the whole data set.

        Its shape never depends on the sample: a fill in the sample's own size would tell the model about it.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Encoded samples (modality → tensor) to one batch of the backbone's inputs, padded where sizes differ.

        All samples give the same modalities; the batch holds the inputs of those.
        """

    @abstractmethod
    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Sizes, counted in tokens, in which samples of one batch should be alike, so that little is padded."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is needed to make the same processor again into the backbone's ``folder``."""

    def described(self) -> dict[str, Any]:
        """What decides the tensors that it makes, as plain values: part of :meth:`Backbone.inputs_fingerprint`.

        The same before it is saved and after it is loaded, in every version of the libraries. A processor that says
        nothing here is taken for any other one beside the same weights.
        """
        return {}


def check_fill(fill: str) -> str:
    """``fill`` itself, where it is one.

    Raises:
        UsageError: it is not.
    """
    if fill not in FILLS:
        raise unknown_name("fill", fill, FILLS)
    return fill
