"""Metrics of numbers, and what each sample contributes to them: mean absolute and root mean squared error, Pearson's r.

All are computed in double precision, the errors in the unit of the labels. Pearson's r is 0 where the predictions do
not vary, since they then explain nothing, and not defined (NaN) where the labels do not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmrobust.scoring import Floats
from mmrobust.scoring.pseudo_values import PseudoValues


def mae(predicted: Floats, actual: Floats, weights: Floats) -> Floats:
    """Mean absolute error [R] of predictions [N] of the numbers [N], under weights [R, N]."""
    return _mean(np.abs(predicted - actual), weights)


def rmse(predicted: Floats, actual: Floats, weights: Floats) -> Floats:
    """Root of the mean squared error [R]; arguments as for :func:`mae`."""
    return np.asarray(np.sqrt(_mean((predicted - actual) ** 2, weights)))


def pearson(predicted: Floats, actual: Floats, weights: Floats) -> Floats:
    """Pearson's correlation [R] of predictions and numbers; arguments as for :func:`mae`."""
    means = np.stack([_mean(term, weights) for term in _terms(predicted, actual)])
    return _correlation(means, _least(predicted), _least(actual))


def _mean(of_sample: Floats, weights: Floats) -> Floats:
    weights = weights.astype(np.float64)
    return np.asarray(weights @ of_sample / weights.sum(axis=1))


def _least(values: Floats) -> float:
    """The variance below which numbers like these [N] are equal but for rounding."""
    return float(max(1e-12 * values.var(), 1e-28 * np.mean(values**2)))


def _terms(predicted: Floats, actual: Floats) -> Floats:
    """[5, N]: both centred, their squares, and their product, whose means decide the correlation."""
    x, y = predicted - predicted.mean(), actual - actual.mean()
    return np.stack([x, y, x * x, y * y, x * y])


def _correlation(means: Floats, least_x: float, least_y: float) -> Floats:
    """Correlations [K] from the means [5, K] of :func:`_terms`, given what of a variance is rounding."""
    x, y, xx, yy, xy = means
    of_x, of_y = xx - x**2, yy - y**2
    found = np.where(of_y > least_y, 0.0, np.nan)
    both = (of_x > least_x) & (of_y > least_y)
    deviations = np.sqrt(np.where(both, of_x * of_y, 1.0))
    return np.asarray(np.clip(np.divide(xy - x * y, deviations, out=found, where=both), -1.0, 1.0))


def _of_mae(predicted: Floats, actual: Floats) -> PseudoValues:
    errors = np.abs(predicted - actual)
    return PseudoValues(float(errors.mean()), errors)


def _of_rmse(predicted: Floats, actual: Floats) -> PseudoValues:
    squares, count = (predicted - actual) ** 2, len(predicted)
    rest = np.sqrt(np.maximum(squares.sum() - squares, 0) / max(count - 1, 1))
    return PseudoValues.without_each(float(np.sqrt(squares.mean())), rest)


def _of_pearson(predicted: Floats, actual: Floats) -> PseudoValues:
    terms, least = _terms(predicted, actual), (_least(predicted), _least(actual))
    whole = _correlation(terms.mean(axis=1, keepdims=True), *least)
    rest = _correlation((terms.sum(axis=1, keepdims=True) - terms) / max(len(actual) - 1, 1), *least)
    return PseudoValues.without_each(float(whole[0]), rest)


OF_NUMBERS: dict[str, Callable[[Floats, Floats], PseudoValues]] = {
    "mae": _of_mae,
    "rmse": _of_rmse,
    "pearson": _of_pearson,
}
"""Metric of numbers → its pseudo-values from predictions [N] of the numbers [N]; the values are those of the functions
above."""


def best_constant(metric: str, actual: Floats) -> float:
    """The one prediction for all of the numbers [N] that is best by a metric: the median, or the mean."""
    return float(np.median(actual) if metric == "mae" else np.mean(actual))
