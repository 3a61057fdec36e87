"""Intervals and tests from what each sample contributes to a figure. Every function takes arrays of K figures at once.

The standard error is that of the jackknife (Tukey 1958; Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 11). Two more things make the intervals hold where samples are few or values near 1, as
``benchmarks/coverage.py`` measures:

- where few samples carry the error (a rare class, a handful of mistakes), the error is itself uncertain. The quantile
  is Student's, with the degrees of freedom that the kurtosis of the contributions leaves: Satterthwaite, An Approximate
  Distribution of Estimates of Variance Components, Biometrics Bulletin 2, 1946;
- errors in the unit of the labels have Student's interval on the scale of their logarithm, and a correlation has it on
  Fisher's, artanh r;
- a value between 0 and 1 has Wilson's score interval, which is asymmetric and never of zero width, for the number of
  samples at which a proportion would have the same error: Wilson, Probable Inference, JASA 22, 1927; Korn & Graubard,
  Confidence Intervals for Proportions with Small Expected Number of Positive Counts, Survey Methodology 24, 1998.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import CONFIDENCE
from mmrobust.scoring.predictions import Predictions
from mmrobust.storage.tasks import RANGES, SHARE, is_share

FEW = 15
"""Intervals may not hold where a class that counts as much as any other has fewer samples: with 10 to 14, 90 to 94 % of
them do in some cases of ``benchmarks/coverage.py``."""
FEW_NUMBERS = 100
"""Those of the figures of numbers in which squares count: with 50 samples, 88 to 92 % hold where tails are long."""
_OF_SQUARES = ("rmse", "pearson")
_BY_CLASS = ("macro_f1", "map", "auroc", "worst_class")
"""Figures in which every class counts alike."""
_MOST_DEGREES = 1e6
_MOST_SAMPLES = 1e14
_NO_DEVIATION = 1e-9  # pseudo-values closer than this are equal but for rounding


def sampling_error(deviations: Floats) -> tuple[Floats, Floats]:
    """The standard error [K] of figures, and its degrees of freedom [K], from the deviations [K, N] of their samples.

    error = √(Σ d²) / N; degrees = 2 N / (κ − 1) with the kurtosis κ = N Σ d⁴ / (Σ d²)²: N for normal deviations, few
    where few samples have nearly all of Σ d². Without any deviation the error is 0, with N degrees.
    """
    samples = deviations.shape[-1]
    square = deviations**2
    total = square.sum(axis=-1)
    none = total <= samples * _NO_DEVIATION**2
    kurtosis = np.divide(samples * (square**2).sum(axis=-1), total**2, out=np.full_like(total, 3.0), where=~none)
    degrees = np.clip(2 * samples / np.maximum(kurtosis - 1, 2 * samples / _MOST_DEGREES), 1, _MOST_DEGREES)
    return np.where(none, 0.0, np.sqrt(total)) / samples, degrees


def student(share: npt.ArrayLike, degrees: Floats) -> Floats:
    """The quantile of Student's distribution below which a share lies."""
    from scipy.special import stdtrit  # scoring imports it only where there is an interval to compute

    return np.asarray(stdtrit(degrees, share))


def value_interval(
    value: Floats, centre: Floats, error: Floats, degrees: Floats, size: npt.ArrayLike, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """The ends [K] of the intervals of figures between 0 and 1; NaN where the value or its error is.

    Args:
        value: the figures.
        centre: the same, corrected for bias.
        error: standard errors, from :func:`sampling_error`.
        degrees: their degrees of freedom.
        size: number of samples that stands for the error where there is none, from :func:`sample_size`.
        confidence: of the intervals.
    """
    size = np.asarray(size, dtype=np.float64)
    z = student((1 + confidence) / 2, degrees)
    middle = np.clip(centre, 0.0, 1.0)
    # As many samples as a proportion with this error would have.
    of_middle, of_value = (_divided(x * (1 - x), error**2) for x in (middle, value))
    samples = np.where(of_middle > 0, of_middle, np.where(of_value > 0, of_value, size))
    samples = np.where(np.isnan(error), np.nan, np.clip(samples, 1, _MOST_SAMPLES))
    shrunk = (middle + z**2 / (2 * samples)) / (1 + z**2 / samples)
    half = z / (1 + z**2 / samples) * np.sqrt(middle * (1 - middle) / samples + z**2 / (4 * samples**2))
    low, high = np.minimum(shrunk - half, value), np.maximum(shrunk + half, value)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def metric_interval(
    metric: str,
    value: Floats,
    centre: Floats,
    error: Floats,
    degrees: Floats,
    size: npt.ArrayLike,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats]:
    """The ends [K] of the intervals of figures in the range of a ``metric``; other arguments as :func:`value_interval`.

    Outside [0, 1] they are value ± t · error on another scale: of an error on that of its logarithm, since errors have
    long tails, and of a correlation r on that of artanh r. By the linear term, the errors there are those of the value
    divided by the value, and by 1 − r².
    """
    if is_share(metric):
        return value_interval(value, centre, error, degrees, size, confidence)
    half = student((1 + confidence) / 2, degrees) * error
    _, most = RANGES.get(metric, SHARE)
    if not np.isfinite(most):
        ratio = np.exp(_divided(half, value))
        return value / ratio, value * ratio
    inside = np.clip(value, -1 + 1e-12, 1 - 1e-12)
    on_scale, half = np.arctanh(inside), half / (1 - inside**2)
    return np.minimum(np.tanh(on_scale - half), value), np.maximum(np.tanh(on_scale + half), value)


def difference_interval(
    difference: Floats, error: Floats, degrees: Floats, size: npt.ArrayLike, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """The ends [K] of the intervals of figures that may have either sign; arguments as for :func:`value_interval`.

    Where no sample deviates, the width is that of a difference that not one of ``size`` samples showed, 0 where
    ``size`` is infinite.
    """
    z = student((1 + confidence) / 2, degrees)
    half = np.where(error > 0, z * error, z**2 / (np.asarray(size) + z**2))
    half = np.where(np.isnan(error), np.nan, half)
    return difference - half, difference + half


def smallest_class(predictions: Predictions, metric: str) -> int:
    """The number of samples of the smallest class that counts as much as any other; else the number of samples.

    Classes that do not occur count where the macro mean counts them.
    """
    truth = predictions.truth
    if metric not in _BY_CLASS:
        return len(truth.ids)
    sizes = truth.targets.sum(axis=0)
    if metric == "macro_f1" and predictions.settings.f1_absent == "skip":
        sizes = sizes[sizes > 0]
    return int(sizes.min()) if len(sizes) else 0


def few(predictions: Predictions, metric: str) -> int | None:
    """The number of samples, or that of the smallest class, where the intervals do not hold for it; else ``None``."""
    smallest = smallest_class(predictions, metric)
    return smallest if smallest < (FEW_NUMBERS if metric in _OF_SQUARES else FEW) else None


def sample_size(predictions: Predictions, metric: str) -> float:
    """The number of samples, or that of a split whose classes are all as small as the smallest, if this is less.

    Infinite for a metric that is no share, of which no number of samples bounds the error where none deviates.
    """
    if not is_share(metric):
        return np.inf
    samples, smallest = len(predictions.truth.ids), smallest_class(predictions, metric)
    return max(1, min(samples, smallest * predictions.truth.classes))


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, 0 where the denominator is not above 0."""
    zero = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    return np.divide(numerator, denominator, out=zero, where=denominator > 0)
