"""The paired difference of two checkpoints on the same samples in every cell, with its standard error.

Both are scored in the same bootstrap resamples of the samples, so what makes a sample hard for both cancels out.
Differences are between means over mask seeds, under the same missing tables on both sides.

The standard error, for the choice of samples, is the standard deviation of the bootstrap values (Efron & Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 6). For a mean over samples (accuracy) the limit of infinitely many
resamples is known in closed form, s / √N with s the standard deviation over samples, and is used instead: the noise of
a thousand resamples would make false alarms more likely. The variation over mask seeds is reported separately, as the
spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import DataError
from mmrobust.scenarios.draws import CellTables
from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import RESAMPLES, jackknife_weights, resample_weights
from mmrobust.scoring.cell_values import resampled_values, sample_shares
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results

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
class Differences:
    """The differences of one metric, candidate − baseline, in K cells (averaged over mask seeds)."""

    frame: pd.DataFrame
    """K rows: ``PAIR_KEYS``, ``metric``, ``seeds``, ``baseline``, ``candidate``, ``difference``, ``error`` (standard,
    over samples) and ``spread`` (standard deviation of the difference over mask seeds; NaN for one)."""
    bootstrap: Floats
    """[K, R]: the differences in each resample."""


def read_pair(baseline: Path, before: Results, candidate: Path, after: Results, theirs: str, ours: str) -> Pair:
    """Read the predictions of the checkpoint ``theirs`` of one results file and ``ours`` of another.

    Raises:
        DataError: one side has no predictions, or they are of different samples.
    """
    return make_pair(predictions_behind(baseline, before, theirs), predictions_behind(candidate, after, ours))


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


def differences(pair: Pair, metric: str, *, resamples: int = RESAMPLES) -> Differences:
    """The difference of a metric in every cell of a pair, with its bootstrap.

    With 0 ``resamples``, none are drawn for a metric whose standard error has a closed form.

    Raises:
        UsageError: the task has no such metric.
        DataError: a prediction that a cell needs is missing.
    """
    samples = len(pair.baseline.truth.ids)
    average, frame = seed_means(pair.tables)
    before, after = (of_side[:, 0] for of_side in pair.values(metric, np.ones((1, samples), dtype=np.float32)))
    shares = [sample_shares(side, pair.tables, metric) for side in pair.sides]
    if shares[0] is None or shares[1] is None:
        resamples = resamples or RESAMPLES
    chunks = [pair.differences(metric, weights) for weights in resample_weights(samples, resamples)]
    bootstrap = average @ np.concatenate([np.empty((len(before), 0)), *chunks], axis=1)
    if shares[0] is not None and shares[1] is not None:
        error = (average @ (shares[1] - shares[0])).std(axis=1, ddof=1) / np.sqrt(samples)
    else:
        error = np.full(len(bootstrap), np.nan)
        defined = (~np.isnan(bootstrap)).sum(axis=1) > 1  # the AUROC of samples of one class is not
        error[defined] = np.nanstd(bootstrap[defined], axis=1, ddof=1)
    by_seed = over_seeds(pair.tables, difference=(after - before)[pair.tables.of_cell])
    frame = frame.assign(
        metric=metric,
        baseline=average @ before,
        candidate=average @ after,
        difference=average @ (after - before),
        error=error,
        spread=by_seed["difference"].std(ddof=1).to_numpy(),
    )
    return Differences(frame, bootstrap)


def jackknife(pair: Pair, metric: str) -> Floats:
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
