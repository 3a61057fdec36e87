"""From samples on disk to batches of a backbone's inputs: decode, encode, put fills in, collate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrobust.cases import Case
from mmrobust.data.dataset import Sample, Split
from mmrobust.data.decoding import decode_audio, decode_image

if TYPE_CHECKING:
    from torch import Tensor

    from mmrobust.backbones.base import Processor

CACHE_BYTES = 512 * 2**20
"""How much of a split stays in memory, encoded. Small data sets fit whole and are decoded once."""


class EncodedSplit:
    """The samples of a split as a backbone's tensors, each encoded when it is first asked for.

    Args:
        split: the samples.
        processor: the backbone's.
        modalities: those that the backbone takes.
        fill: what stands in for a missing image.
    """

    def __init__(self, split: Split, processor: Processor, modalities: Sequence[str], fill: str) -> None:
        self.split, self.processor, self.modalities = split, processor, tuple(modalities)
        self.fills = {modality: processor.fill(modality, fill) for modality in self.modalities}
        self._cache: OrderedDict[tuple[int, str], Tensor] = OrderedDict()
        self._cached_bytes = 0

    def samples(self, positions: Iterable[int], case: Case) -> list[dict[str, Tensor]]:
        """The samples at ``positions`` in ``case``: modality → tensor, the fill where it is missing.

        Nothing is read or decoded of a modality that the case calls missing.

        Raises:
            DataError: a sample that cannot be decoded, named.
        """
        return [
            {m: self.fills[m] if case.is_missing(m) else self._encoded(int(position), m) for m in self.modalities}
            for position in positions
        ]

    def batches(self, positions: Sequence[int], case: Case, size: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """``positions`` in batches of at most ``size``, samples of like length together, so that little is padded."""
        encoded = self.samples(positions, case)
        lengths = [self.processor.length(sample) for sample in encoded]
        order = sorted(range(len(positions)), key=lambda i: (lengths[i], i))
        ordered = np.asarray([positions[i] for i in order], dtype=np.int64)
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def _encoded(self, position: int, modality: str) -> Tensor:
        key = (position, modality)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        tensor = self.processor.encode(modality, decode(self.split.read([position])[0], modality))
        self._cache[key] = tensor
        self._cached_bytes += tensor.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return tensor


def decode(sample: Sample, modality: str) -> Any:
    """One modality of a sample as a processor takes it: ``PIL.Image``, ``str`` or (waveform, rate in Hz)."""
    origin = f"sample '{sample.id}' of {sample.origin}"
    if modality == "text":
        return sample.text
    media = sample.image if modality == "image" else sample.audio
    assert media is not None, f"{origin}: a naturally missing {modality} was asked for"
    return decode_image(media, origin) if modality == "image" else decode_audio(media, origin)
