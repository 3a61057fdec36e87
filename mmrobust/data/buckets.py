"""Bucketing: samples of like size share a batch, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def buckets(lengths: Sequence[Sequence[int]], size: int) -> list[npt.NDArray[np.int64]]:
    """Indices of the samples in batches of at most ``size``, all but one of them full.

    The samples are halved again and again along whichever of their sizes differs the most, until a batch is left. So
    both the texts of a batch and its images are of like size, whichever vary more.

    Args:
        lengths: of each sample the same number of sizes, in tokens.
        size: of a batch.
    """
    lengths_NS = np.asarray(lengths, dtype=np.int64).reshape(len(lengths), len(lengths[0]) if len(lengths) else 0)
    return _halved(np.arange(len(lengths), dtype=np.int64), lengths_NS, size)


def _halved(rows: npt.NDArray[np.int64], lengths_NS: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    if len(rows) <= size:
        return [rows] if len(rows) else []
    spreads = np.ptp(lengths_NS[rows], axis=0)
    if spreads.any():
        rows = rows[np.argsort(lengths_NS[rows, spreads.argmax()], kind="stable")]
    half = -(-len(rows) // size) // 2 * size
    return _halved(rows[:half], lengths_NS, size) + _halved(rows[half:], lengths_NS, size)
