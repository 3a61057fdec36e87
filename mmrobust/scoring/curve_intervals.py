"""The cells of one curve with their intervals, those of its means over mask seeds, and of its robustness figures.

A figure of a curve is a sum of cells, or nearly one for small changes of them, so the deviation of a sample from it is
the same sum of its deviations in the cells. So it counts that all cells are of the same samples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import CONFIDENCE
from mmrobust.scoring.contributions import CellContributions
from mmrobust.scoring.intervals import difference_interval, metric_interval, sample_size, sampling_error
from mmrobust.storage.results import INTERVALS
from mmrobust.storage.tasks import sign_of


@dataclass(frozen=True)
class CellsOfCurve:
    """The cells of one curve: K cells at R distinct rates and with D distinct keys, for M figures."""

    contributions: CellContributions
    rates: Floats
    """[R], ascending."""
    rate_of: npt.NDArray[np.int64]
    """[K]: the rate of each cell."""
    keys: npt.NDArray[np.int64]
    """[D]: their indices in the tables."""
    key_of: npt.NDArray[np.int64]
    """[K]."""
    figures: tuple[str, ...]

    @classmethod
    def of(
        cls,
        contributions: CellContributions,
        rates: Sequence[float],
        keys: npt.NDArray[np.int64],
        figures: Sequence[str],
    ) -> CellsOfCurve:
        """From the rate and the key [K] of each cell, and the names of metrics or other figures [M]."""
        at_rate, rate_of = np.unique(np.asarray(rates, dtype=np.float64), return_inverse=True)
        distinct, key_of = np.unique(keys, return_inverse=True)
        return cls(contributions, at_rate, rate_of, distinct, key_of, tuple(figures))

    @functools.cached_property
    def share(self) -> Floats:
        """[R, D]: the share of each key in the mean over the mask seeds of a rate."""
        share = np.zeros((len(self.rates), len(self.keys)))
        np.add.at(share, (self.rate_of, self.key_of), 1)
        return np.asarray(share / share.sum(axis=1, keepdims=True))

    def mean(self, of_keys: Floats) -> Floats:
        """The means [R, …] over mask seeds of what is given for each key [D, …]."""
        return np.stack([row[row > 0] @ of_keys[row > 0] for row in self.share])

    @functools.cached_property
    def sampled(self) -> tuple[Floats, Floats]:
        """Value, centre, error and degrees of each key [4, D, M], and the deviations of the means [M, R, N]."""
        of_keys = np.empty((4, len(self.keys), len(self.figures)))
        samples = len(self.contributions.predictions.truth.ids)
        deviations = np.zeros((len(self.figures), len(self.rates), samples))
        for row, found in enumerate(self.contributions.of_keys(self.keys.tolist(), self.figures)):
            own = np.stack([one.deviations for one in found])
            values, centres = [one.value for one in found], [one.centre for one in found]
            of_keys[:, row] = values, centres, *sampling_error(own)
            for rate in np.flatnonzero(self.share[:, row]):
                deviations[:, rate] += self.share[rate, row] * own
        return of_keys, deviations


def score_curve(cells: CellsOfCurve) -> dict[str, Floats]:
    """Score the cells of one curve.

    Returns:
        ``value`` [K, M], and the ends of the intervals [K, M] by the names of :data:`INTERVALS`; all cells of one rate
        have the same mean, and all cells of the curve the same figures.
    """
    (values, centres, errors, degrees), deviations = cells.sampled
    sizes = [sample_size(cells.contributions.predictions, name) for name in cells.figures]
    of_columns = zip(cells.figures, values.T, centres.T, errors.T, degrees.T, sizes, strict=True)
    low, high = np.stack([metric_interval(*of_column) for of_column in of_columns], axis=-1)
    scored = {name: of_keys[cells.key_of] for name, of_keys in (("value", values), ("ci_low", low), ("ci_high", high))}
    scored |= {name: np.empty_like(scored["value"]) for name in INTERVALS if name not in scored}
    for column, size in enumerate(sizes):
        means, middles = cells.mean(values[:, column]), cells.mean(centres[:, column])
        curve = CurveDeviations(cells.rates, means, middles, deviations[column], size, cells.figures[column])
        for end, of_mean in zip(("low", "high"), curve.means(), strict=True):
            scored[f"mean_{end}"][:, column] = of_mean[cells.rate_of]
        for figure, ends in curve.figures(values[:, column], low[:, column], high[:, column]).items():
            for end, of_curve in zip(("low", "high"), ends, strict=True):
                scored[f"{figure}_{end}"][:, column] = of_curve
    return scored


@dataclass(frozen=True)
class CurveDeviations:
    """The means over mask seeds of one metric at the rates η₁ < … < η_R, with what N samples contribute to each."""

    rates: Floats
    """[R]."""
    values: Floats
    """[R]."""
    centres: Floats
    """[R]: the values, corrected for bias."""
    deviations: Floats
    """[R, N]: see :class:`mmrobust.scoring.contributions.Contributions`."""
    size: float
    """See :func:`mmrobust.scoring.intervals.sample_size`."""
    metric: str = ""
    """Whose range and direction count; by default those of a share."""

    def means(self, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
        """The ends [R] of the intervals of the means."""
        error, degrees = sampling_error(self.deviations)
        return metric_interval(self.metric, self.values, self.centres, error, degrees, self.size, confidence)

    def figures(self, values: Floats, low: Floats, high: Floats) -> dict[str, tuple[float, float]]:
        """The intervals of all figures, by name. ``values`` are those of the cells, with their intervals."""
        return {
            "auc_eta": self.auc_eta(),
            "relative_robustness": self.relative_robustness(),
            "worst_value": worst_interval(values, low, high, sign_of(self.metric)),
            "drop_per_10_points": self.drop_per_10_points(),
        }

    def auc_eta(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The interval of the area under the curve, divided by the range of the rates."""
        weights = area_weights(self.rates)
        error, degrees = sampling_error((weights @ self.deviations)[None])
        value, centre = (np.atleast_1d(weights @ of) for of in (self.values, self.centres))
        return _only(metric_interval(self.metric, value, centre, error, degrees, self.size, confidence))

    def relative_robustness(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The interval of relative robustness, by its linear term in area and complete value; NaN without it."""
        if self.rates[0] != 0:
            return np.nan, np.nan
        weights = area_weights(self.rates)
        both = (weights @ self.values, weights @ self.deviations), (self.values[0], self.deviations[0])
        (value, deviations), (of, its) = both[:: sign_of(self.metric)]
        if not of > 0:
            return np.nan, np.nan
        return self._of_difference(float(value / of), (deviations - value / of * its) / of, confidence)

    def drop_per_10_points(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The interval of −0.1 × the slope of the least-squares line; NaN for one rate."""
        if len(self.rates) < 2:
            return np.nan, np.nan
        weights = sign_of(self.metric) * drop_weights(self.rates)
        return self._of_difference(float(weights @ self.values), weights @ self.deviations, confidence)

    def _of_difference(self, value: float, deviations: Floats, confidence: float) -> tuple[float, float]:
        error, degrees = sampling_error(deviations[None])
        return _only(difference_interval(np.atleast_1d(value), error, degrees, self.size, confidence))


def area_weights(rates: Floats) -> Floats:
    """The weight [R] of each rate in the area under a curve by the trapezoid rule, divided by the range."""
    if len(rates) == 1:
        return np.ones(1)
    steps = np.diff(rates) / 2
    return np.asarray((np.append(steps, 0) + np.insert(steps, 0, 0)) / (rates[-1] - rates[0]))


def drop_weights(rates: Floats) -> Floats:
    """The weight [R] of each of several rates in −0.1 × the slope of the least-squares line."""
    offsets = rates - rates.mean()
    return np.asarray(-0.1 * offsets / (offsets**2).sum())


def worst_interval(values: Floats, low: Floats, high: Floats, sign: int = 1) -> tuple[float, float]:
    """The interval of the worst of several cells, from the intervals of each.

    The lower end is the lowest of all, since any of them may be the worst of the population; the upper end is that of
    the worst. Where less is better (``sign`` −1), the other way round.
    """
    if sign < 0:
        most, least = worst_interval(-values, -high, -low)
        return -least, -most
    if np.isnan(values).all() or np.isnan(low).any():
        return np.nan, np.nan
    return float(np.min(low)), float(high[int(np.nanargmin(values))])


def _only(ends: tuple[Floats, Floats]) -> tuple[float, float]:
    return float(ends[0][0]), float(ends[1][0])
