"""Percentile bootstrap intervals over samples.

A resample draws N of the N samples with replacement; all that a metric needs of it is how often each sample was drawn.
The draws depend on the number of samples and the seed only, so every cell, checkpoint and metric of a split sees the
same resamples, and differences between them are paired. Efron, B., Tibshirani, R. (1993), An Introduction to the
Bootstrap, chapter 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
CONFIDENCE = 0.95
CHUNK_BYTES = 64 * 2**20
"""Weights held at a time: 10,000 samples × 1,000 resamples are one chunk."""
_DRAWS_AT_ONCE = 2**20


def resample_weights(
    samples: int, resamples: int = RESAMPLES, seed: int = 0, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[npt.NDArray[np.float32]]:
    """How often each of ``resamples`` bootstrap resamples drew each sample: [r, N], chunk after chunk.

    The chunks together are the same whatever ``chunk_bytes`` is. Each is the transpose of a C-contiguous array, which
    is the order in which the metrics read it.
    """
    random = np.random.default_rng([seed, samples])
    rows = max(1, chunk_bytes // (4 * max(1, samples)))
    for start in range(0, resamples, rows):
        yield _draw(random, min(rows, resamples - start), samples)


def _draw(random: np.random.Generator, rows: int, samples: int) -> npt.NDArray[np.float32]:
    """``rows`` resamples, drawn in blocks so that the 64-bit draws never take more than some megabytes."""
    counts = np.empty((samples, rows), dtype=np.float32)
    block = max(1, _DRAWS_AT_ONCE // max(1, samples))
    for start in range(0, rows, block):
        size = min(block, rows - start)
        drawn = random.integers(0, samples, size=(size, samples), dtype=np.int64)
        drawn += samples * np.arange(size)[:, None]
        block_counts = np.bincount(drawn.ravel(), minlength=size * samples).reshape(size, samples)
        counts[:, start : start + size] = block_counts.T
    return counts.T


def percentile_interval(
    values: npt.NDArray[np.floating[Any]], confidence: float = CONFIDENCE
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lower and upper ends [K] of the percentile interval of K × R bootstrap values.

    Resamples in which the metric is not defined (NaN) are left out; the ends are NaN where none is defined.
    """
    tails = [100 * (1 - confidence) / 2, 100 * (1 + confidence) / 2]
    ends = np.full((2, len(values)), np.nan)
    undefined = np.isnan(values)
    whole = ~undefined.any(axis=1)
    if values.shape[1] and whole.any():
        ends[:, whole] = np.percentile(values[whole], tails, axis=1)
    for row in np.flatnonzero(~whole & ~undefined.all(axis=1)):
        ends[:, row] = np.percentile(values[row][~undefined[row]], tails)
    return ends[0], ends[1]
