"""The paired difference of two checkpoints on the same samples, with its standard error.

What a sample contributes to a difference is the difference of what it contributes to both sides, so what makes it hard
for both cancels out. Differences are between means over mask seeds, under the same missing tables on both sides. The
standard error is that of the jackknife (:mod:`mmrobust.scoring.intervals`), for the choice of samples; the variation
over mask seeds is reported separately, as the spread.

Beside the metrics of the task, every function takes the names of :data:`mmrobust.scoring.contributions.FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import DataError, UsageError
from mmrobust.scenarios.draws import CellTables
from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import RESAMPLES, jackknife_weights, resample_weights
from mmrobust.scoring.cell_values import resampled_values
from mmrobust.scoring.contributions import CellContributions
from mmrobust.scoring.curve_intervals import CellsOfCurve, area_weights
from mmrobust.scoring.intervals import few, sample_size, sampling_error
from mmrobust.scoring.predictions import Predictions
from mmrobust.storage.tasks import is_share, sign_of

PAIR_KEYS = ("scenario", "missing_rate", "prompting")
"""What identifies a difference of one metric."""


@dataclass(frozen=True)
class Pair:
    """The predictions of two checkpoints on the same samples in the same order, and the cells that both have."""

    baseline: Predictions
    candidate: Predictions
    tables: CellTables
    """The missing tables of these cells."""

    @property
    def sides(self) -> tuple[Predictions, Predictions]:
        """Baseline and candidate."""
        return self.baseline, self.candidate

    def values(self, metric: str, weights: Floats) -> tuple[Floats, ...]:
        """The values [keys, R] of both sides in every key of the tables, under weights [R, N]."""
        return tuple(resampled_values(side, self.tables, metric, weights) for side in self.sides)

    def differences(self, metric: str, weights: Floats) -> Floats:
        """Candidate − baseline of :meth:`values`."""
        return np.subtract(*reversed(self.values(metric, weights)))


@dataclass(frozen=True)
class PairedCurve:
    """Both sides of a pair at the R missing rates of one scenario and prompting, as means over mask seeds."""

    sign: int
    """1, or −1 for a figure of which less is better."""
    rates: Floats
    """[R], ascending."""
    seeds: npt.NDArray[np.int64]
    """[R]: how many mask seeds."""
    values: Floats
    """[2, R]: of the baseline, and of the candidate."""
    deviations: Floats
    """[2, R, N]: see :class:`mmrobust.scoring.contributions.Contributions`."""
    spread: Floats
    """[R]: standard deviation over mask seeds of the difference; NaN for one."""

    @classmethod
    def of(cls, sides: Sequence[CellsOfCurve]) -> PairedCurve:
        """The curve of one figure, from the cells of the baseline and of the candidate."""
        sampled = [side.sampled for side in sides]
        by_key = np.stack([of_keys[0, :, 0] for of_keys, _ in sampled])
        first = sides[0]
        by_cell = (by_key[1] - by_key[0])[first.key_of]
        groups = [by_cell[first.rate_of == rate] for rate in range(len(first.rates))]
        return cls(
            sign_of(first.figures[0]),
            first.rates,
            np.bincount(first.rate_of),
            first.mean(by_key.T).T,
            np.stack([deviations[0] for _, deviations in sampled]),
            np.asarray([group.std(ddof=1) if len(group) > 1 else np.nan for group in groups]),
        )

    def differences(self) -> dict[str, Floats]:
        """The columns of the differences at each rate [R], candidate − baseline."""
        return _columns(self.values, self.deviations[1] - self.deviations[0])

    def area(self) -> dict[str, Floats]:
        """The columns [1] of the difference in AUC-η, over the rates at which the figure is defined."""
        defined = ~np.isnan(self.values).any(axis=0)
        if not defined.any():
            return _columns(np.full((2, 1), np.nan), np.full((1, self.deviations.shape[-1]), np.nan))
        weights = area_weights(self.rates[defined])
        values, (before, after) = self.values[:, defined] @ weights, self.deviations[:, defined]
        return _columns(values[:, None], (weights @ (after - before))[None])

    def relative(self) -> dict[str, Floats]:
        """The columns [1] of the difference in relative robustness; NaN without a complete value."""
        weights = area_weights(self.rates)
        areas = self.values @ weights, np.einsum("r,srn->sn", weights, self.deviations)
        complete = self.values[:, 0], self.deviations[:, 0]
        # AUC-η over the complete value, or of an error the other way round.
        (value, deviations), (of, its) = (areas, complete)[:: self.sign]
        if self.rates[0] != 0 or not (of > 0).all():
            return _columns(np.full((2, 1), np.nan), np.full((1, self.deviations.shape[-1]), np.nan))
        values = value / of
        # The linear term of the quotient: (a − r c) / c for a change a of the area and c of the complete value.
        before, after = (deviations - values[:, None] * its) / of[:, None]
        return _columns(values[:, None], (after - before)[None])

    def worst(self) -> dict[str, Floats]:
        """The columns [1] of the difference between the worst values of both curves, each wherever it is worst."""
        if np.isnan(self.values).any():
            return _columns(np.full((2, 1), np.nan), np.full((1, self.deviations.shape[-1]), np.nan))
        (first, second), (before, after) = (self.sign * self.values).argmin(axis=1), self.deviations
        values = np.asarray([[self.values[0, first]], [self.values[1, second]]])
        return _columns(values, (after[second] - before[first])[None])

    def effective(self) -> dict[str, Floats]:
        """The columns [R] of the effective robustness of the candidate; NaN at rate 0, and without it."""
        samples = self.deviations.shape[-1]
        inside = np.clip(self.values, 0.5 / samples, 1 - 0.5 / samples)
        logits = np.log(inside / (1 - inside))
        (before, after), (of_before, of_after) = self.deviations, 1 / (inside * (1 - inside))
        expected = 1 / (1 + np.exp(-(logits[1, 0] + logits[0] - logits[0, 0])))
        # The linear term of the expected value in the candidate's complete value and both values of the baseline.
        moved = of_after[0] * after[0] + of_before[:, None] * before - of_before[0] * before[0]
        values = np.stack([np.zeros_like(expected), self.values[1] - expected])
        found = _columns(values, after - (expected * (1 - expected))[:, None] * moved)
        shown = (self.rates > 0) & (self.rates[0] == 0)
        return {name: np.where(shown, column, np.nan) for name, column in found.items()}


def _columns(values: Floats, deviations: Floats) -> dict[str, Floats]:
    """The columns of differences [R] from the values [2, R] and the deviations of the difference [R, N]."""
    (before, after), (error, degrees) = values, sampling_error(deviations)
    return {"baseline": before, "candidate": after, "difference": after - before, "error": error, "degrees": degrees}


def make_pair(baseline: Predictions, candidate: Predictions) -> Pair:
    """Pair the predictions of two checkpoints, sample by sample.

    Raises:
        DataError: they are of different samples, or have no cell in common.
    """
    (_, aligned), tables = align([baseline, candidate])
    return Pair(baseline, aligned, tables)


def align(predictions: Sequence[Predictions]) -> tuple[list[Predictions], CellTables]:
    """The predictions with their samples in the order of the first, and the tables of the cells that all of them have.

    Raises:
        DataError: they are of different samples, or have no cell in common.
    """
    first = predictions[0]
    aligned = [one.aligned_with(first) for one in predictions]
    shared = set(first.cells).intersection(*(one.cells for one in predictions))
    if not shared:
        raise DataError("the predictions have no cell in common")
    return aligned, first.truth.draw(sorted(shared))


def differences(pair: Pair, figure: str) -> pd.DataFrame:
    """The difference of a figure, candidate − baseline, in every cell of a pair (averaged over mask seeds).

    Args:
        pair: the predictions.
        figure: a metric of the task, or one of :data:`mmrobust.scoring.contributions.FIGURES`.

    Returns:
        One row per ``PAIR_KEYS``, sorted: ``seeds``, ``metric`` (the figure), ``baseline``, ``candidate``,
        ``difference``, ``error`` (standard, over samples) with its ``degrees`` of freedom, ``few`` (samples of the
        smallest class where they are too few for error and test to hold; else NaN), ``size`` (see
        :func:`mmrobust.scoring.intervals.sample_size`) and ``spread`` (standard deviation of the difference over mask
        seeds; NaN for one).

    Raises:
        UsageError: there is no such figure.
        DataError: a prediction that a cell needs is missing.
    """
    return _frame(pair, figure, PairedCurve.differences)


def area_differences(pair: Pair, figure: str) -> pd.DataFrame:
    """The difference of the area under the curve (AUC-η) of a figure, candidate − baseline, in every curve of a pair.

    Args:
        pair: the predictions.
        figure: as for :func:`differences`.

    Returns:
        One row per ``scenario`` and ``prompting``, sorted; the other columns are those of :func:`differences`, without
        ``seeds`` and ``spread``.

    Raises:
        UsageError: there is no such figure.
        DataError: a prediction that a cell needs is missing.
    """
    return _frame(pair, figure, PairedCurve.area).drop(columns=["missing_rate", "seeds", "spread"])


def relative_differences(pair: Pair, metric: str) -> pd.DataFrame:
    """The difference in relative robustness, candidate − baseline, in every curve; as :func:`area_differences`."""
    return _frame(pair, metric, PairedCurve.relative).drop(columns=["missing_rate", "seeds", "spread"])


def worst_differences(pair: Pair, metric: str) -> pd.DataFrame:
    """The difference between the worst values of a curve, means over mask seeds; as :func:`area_differences`."""
    return _frame(pair, metric, PairedCurve.worst).drop(columns=["missing_rate", "seeds", "spread"])


def effective_differences(pair: Pair, metric: str) -> pd.DataFrame:
    """The effective robustness of the candidate against the baseline, in every cell of a pair that misses inputs.

    :func:`mmrobust.scoring.robustness.effective_robustness` defines it; that of the baseline is 0. The error follows
    from the linear term in the four values that it is made of.

    Args:
        pair: the predictions.
        metric: a metric of the task.

    Returns:
        The rows of :func:`differences` with a missing rate above 0 in curves that have the rate 0, without ``spread``;
        ``baseline`` is 0.

    Raises:
        UsageError: there is no such metric, or it is no share.
        DataError: a prediction that a cell needs is missing.
    """
    if not is_share(metric):
        raise UsageError(f"effective robustness is defined for shares of 1; {metric} is none")
    frame = _frame(pair, metric, PairedCurve.effective).drop(columns="spread")
    return frame.dropna(subset="candidate").reset_index(drop=True)


def _frame(pair: Pair, figure: str, columns: Callable[[PairedCurve], dict[str, Floats]]) -> pd.DataFrame:
    """The columns that each curve of a pair has, sorted by ``PAIR_KEYS``; see :func:`differences`."""
    sides = [CellContributions(side, pair.tables) for side in pair.sides]
    places: dict[tuple[str, str], list[int]] = {}
    for place, cell in enumerate(pair.tables.cells):
        places.setdefault((cell.scenario, cell.prompting), []).append(place)
    smallest, frames = few(pair.baseline, figure), []
    for (scenario, prompting), own in places.items():
        rates = [pair.tables.cells[place].missing_rate for place in own]
        curve = PairedCurve.of([CellsOfCurve.of(side, rates, pair.tables.of_cell[own], [figure]) for side in sides])
        found = columns(curve)
        rows = len(found["error"])
        keys = {"scenario": scenario, "missing_rate": curve.rates[:rows], "prompting": prompting}
        frames.append(pd.DataFrame({**keys, "seeds": curve.seeds[:rows], **found, "spread": curve.spread[:rows]}))
    frame = pd.concat(frames).sort_values(list(PAIR_KEYS), ignore_index=True)
    return frame.assign(
        metric=figure,
        few=np.nan if smallest is None else float(smallest),
        size=sample_size(pair.baseline, figure),
    )


def bootstrap_differences(pair: Pair, metric: str, *, resamples: int = RESAMPLES) -> Floats:
    """The differences [K, R] of a metric in every cell (averaged over mask seeds), in bootstrap resamples.

    Raises:
        UsageError: the task has no such metric.
        DataError: a prediction that a cell needs is missing.
    """
    average, _ = seed_means(pair.tables)
    weights = resample_weights(len(pair.baseline.truth.ids), resamples)
    return np.concatenate([average @ pair.differences(metric, chunk) for chunk in weights], axis=1)


def grouped_jackknife(pair: Pair, metric: str) -> Floats:
    """The differences [K, G] without each sample, or group of samples, as a BCa interval needs them."""
    average, _ = seed_means(pair.tables)
    weights = jackknife_weights(len(pair.baseline.truth.ids))
    return np.concatenate([average @ pair.differences(metric, chunk) for chunk in weights], axis=1)


def seed_means(tables: CellTables) -> tuple[Floats, pd.DataFrame]:
    """The matrix [K, keys] that averages keys over mask seeds, and the ``PAIR_KEYS`` and ``seeds`` of its K rows."""
    groups = over_seeds(tables)
    average = np.zeros((groups.ngroups, len(tables.keys)))
    np.add.at(average, (groups.ngroup().to_numpy(), tables.of_cell), 1)
    return average / average.sum(axis=1, keepdims=True), groups["seed"].nunique().reset_index(name="seeds")


def over_seeds(tables: CellTables, **figures: npt.NDArray[Any]) -> pd.api.typing.DataFrameGroupBy[Any, Any]:
    """The cells, the ``key`` of each and ``figures`` of each, in groups of equal ``PAIR_KEYS``, sorted by them."""
    cells = pd.DataFrame(tables.cells).assign(key=tables.of_cell, **figures)
    return cells.groupby(list(PAIR_KEYS), sort=True, observed=True)
