"""Keyed draws: every random number of a degradation comes from blake2b of its key, the same on every machine.

A key names the seed, the degradation, the modality and the sample, so a sample is degraded alike in any order, batch,
worker or shard. Draws are raw words of a bit generator, whose stream NumPy guarantees for all versions, turned into
integers and float64 here. The distributions of a library are not used: their streams change with its version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mmrobust.errors import DataError

GAP = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Share of an input that a gap takes, by severity, whatever its kind."""


class Recordings(Protocol):
    """The recordings of a WHOLE split, however much of it is loaded. Babble is made of them."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the samples that have a recording, sorted."""

    def read(self, sample_id: str, rate: int) -> npt.NDArray[np.float32]:
        """The waveform [n] of a sample, n ≥ 1, at ``rate`` Hz.

        Raises:
            DataError: it cannot be read.
        """


class Draws:
    """A stream of random draws that depends only on its key.

    Degradations that need other recordings draw them from ``recordings``, but never that of the degraded sample.
    """

    def __init__(self, key: str, sample_id: str = "", recordings: Recordings | None = None) -> None:
        self._bits = np.random.PCG64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big"))
        self._sample_id, self._recordings = sample_id, recordings

    def between(self, low: int, high: int) -> int:
        """Draw a whole number in [low, high], both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def happens(self, share: float) -> bool:
        """Draw whether an event of probability ``share`` happens."""
        return int(self._bits.random_raw()) < share * 2**64

    def force(self) -> float:
        """Draw how strongly a cause acts in a sample: 0.75 to 1.25 of what its severity says."""
        return (48 + self.between(0, 32)) / 64

    def stretch(self, length: int, share: float) -> tuple[int, int]:
        """Draw a stretch of this share of ``length`` places: where it begins, and where it has ended.

        It takes at least one place, and leaves at least one of several.
        """
        width = min(max(1, round(length * share)), max(1, length - 1))
        start = self.between(0, length - width)
        return start, start + width

    def words(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
        """Whole numbers, uniform in [0, 2³²)."""
        words = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        return (words >> np.uint64(32)).reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """White noise of mean 0 and variance 1: sums of eight bytes, close enough to a normal distribution."""
        words = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype="<u8")
        sums = words.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64) - 8 * 255 // 2
        return np.asarray(sums / np.sqrt(8 * (256**2 - 1) / 12), dtype=np.float64).reshape(shape)

    def others(self, count: int, rate: int) -> list[npt.NDArray[np.float32]]:
        """Draw ``count`` different recordings of other samples, at ``rate`` Hz, or all where there are fewer.

        A recording that cannot be read is skipped: the error is reported where the sample itself is read. Having none
        that can be read is a ``DataError``.
        """
        recordings = self._recordings
        left = [] if recordings is None else [i for i in recordings.ids if i != self._sample_id]
        drawn: list[npt.NDArray[np.float32]] = []
        while left and recordings is not None and len(drawn) < count:
            at = self.between(0, len(left) - 1)
            left[at], left[-1] = left[-1], left[at]
            with suppress(DataError):
                drawn.append(recordings.read(left.pop(), rate))
        if not drawn:
            raise DataError(f"sample '{self._sample_id}': its split has no other recording to make babble of")
        return drawn
