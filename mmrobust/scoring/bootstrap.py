"""Bootstrap intervals over samples: percentile, and bias-corrected and accelerated (BCa).

A resample draws N of the N samples with replacement; a metric only needs how often each sample was drawn. The draws
depend only on the number of samples and the seed, so every cell, checkpoint and metric of a split sees the same
resamples, and differences between them are paired. Efron, B., Tibshirani, R. (1993), An Introduction to the Bootstrap,
chapters 13 (percentile) and 14 (BCa).

These intervals are for the choice of samples. The choice of mask seeds is a separate uncertainty: the ``spread`` of
:mod:`mmrobust.scoring.robustness`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmrobust.scoring import Floats

RESAMPLES = 1000
CONFIDENCE = 0.95
CHUNK_BYTES = 64 * 2**20
"""Size of the weights held in memory at a time: 10,000 samples × 1,000 resamples are one chunk."""
JACKKNIFE_GROUPS = 500
_DRAWS_AT_ONCE = 2**20
_NO_SPREAD = 1e-30  # sums of squares below this are zero but for rounding


def resample_weights(
    samples: int, resamples: int = RESAMPLES, seed: int = 0, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Floats]:
    """How often each of ``resamples`` bootstrap resamples drew each sample: [r, N], in chunks.

    The concatenated chunks do not depend on ``chunk_bytes``. Each is the transpose of a C-contiguous array, the order
    in which the metrics read it.
    """
    random = np.random.default_rng([seed, samples])
    rows = max(1, chunk_bytes // (4 * max(1, samples)))
    for start in range(0, resamples, rows):
        yield _draw(random, min(rows, resamples - start), samples)


def _draw(random: np.random.Generator, rows: int, samples: int) -> Floats:
    """``rows`` resamples, drawn in blocks so that the 64-bit draws never take more than a few megabytes."""
    counts = np.empty((samples, rows), dtype=np.float32)
    block = max(1, _DRAWS_AT_ONCE // max(1, samples))
    for start in range(0, rows, block):
        size = min(block, rows - start)
        drawn = random.integers(0, samples, size=(size, samples), dtype=np.int64)
        drawn += samples * np.arange(size)[:, None]
        block_counts = np.bincount(drawn.ravel(), minlength=size * samples).reshape(size, samples)
        counts[:, start : start + size] = block_counts.T
    return counts.T


def percentile_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Lower and upper ends [K] of the percentile interval of K × R bootstrap values.

    Resamples in which the metric is not defined (NaN) are left out; the ends are NaN where it is defined in none.
    """
    tails = [100 * (1 - confidence) / 2, 100 * (1 + confidence) / 2]
    ends = np.full((2, len(values)), np.nan)
    undefined = np.isnan(values)
    defined = ~undefined.any(axis=1)
    if values.shape[1] and defined.any():
        ends[:, defined] = np.percentile(values[defined], tails, axis=1)
    for row in np.flatnonzero(~defined & ~undefined.all(axis=1)):
        ends[:, row] = np.percentile(values[row][~undefined[row]], tails)
    return ends[0], ends[1]


def jackknife_weights(samples: int, groups: int = JACKKNIFE_GROUPS) -> Iterator[Floats]:
    """Weights that each leave out one sample, or one of ``groups`` equal groups of samples: [g, N], in chunks.

    The skewness that BCa takes from the jackknife is that of a sum over samples, and a sum over groups has the same;
    so a few hundred groups are enough for many thousand samples.
    """
    count = min(samples, groups)
    member = np.arange(samples) % count
    rows = max(1, CHUNK_BYTES // (4 * samples))
    for start in range(0, count, rows):
        left_out = np.arange(start, min(count, start + rows))
        yield (member[:, None] != left_out).astype(np.float32).T


def bca_interval(
    value: Floats, bootstrap: Floats, jackknife: Floats, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Lower and upper ends [K] of the BCa interval, which is second-order accurate; the percentile interval is not.

    Efron & Tibshirani (1993), equations 14.9 to 14.15: percentiles of the bootstrap values at Φ(z0 + (z0 + z) / (1 −
    a (z0 + z))), with the bias z0 = Φ⁻¹ of the share of bootstrap values below the value (equal ones counting half),
    and the acceleration a = Σ d³ / (6 (Σ d²)^1.5), d the jackknife's mean minus its values.

    ``bootstrap`` holds the bootstrap values [K, R] of ``value`` [K], ``jackknife`` its values without each sample, or
    group of samples [K, G]. An end is NaN where a bootstrap value is, and the value itself where all equal it.
    """
    from scipy.special import ndtr, ndtri

    below = (bootstrap < value[:, None]).mean(axis=1) + 0.5 * (bootstrap == value[:, None]).mean(axis=1)
    bias = ndtri(np.clip(below, 0.5 / bootstrap.shape[1], 1 - 0.5 / bootstrap.shape[1]))
    distance = jackknife.mean(axis=1, keepdims=True) - jackknife
    square = (distance**2).sum(axis=1)
    acceleration = np.divide(
        (distance**3).sum(axis=1), 6 * square**1.5, out=np.zeros(len(value)), where=square > _NO_SPREAD
    )
    ends = np.empty((2, len(value)))
    for end, tail in zip(ends, (0.5 - confidence / 2, 0.5 + confidence / 2), strict=True):
        shifted = bias + ndtri(tail)
        shares = ndtr(bias + shifted / (1 - acceleration * shifted))
        end[:] = [np.quantile(row, share) for row, share in zip(bootstrap, shares, strict=True)]
    return ends[0], ends[1]
