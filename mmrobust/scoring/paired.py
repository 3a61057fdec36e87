"""Two checkpoints on the same samples: the difference in every cell, and how sure it is.

Both are scored in the same bootstrap resamples of the samples, so what makes a sample hard for both cancels out. A
difference is one of means over mask seeds, under the same missing tables on both sides.

Its standard error, the choice of samples, is the standard deviation of its bootstrap values (Efron & Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 6). For a mean over samples (accuracy) the bootstrap with endlessly many
resamples is known in closed form, s / √N with s the standard deviation over samples, and is taken: the noise of a
thousand resamples would make a false alarm likelier. How a difference varies over mask seeds stands beside it, as its
spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import DataError
from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scoring.bootstrap import RESAMPLES, jackknife_weights, resample_weights
from mmrobust.scoring.cell_values import resampled_values, sample_shares
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results

PAIR_KEYS = ("scenario", "missing_rate", "prompting")
"""What identifies a difference of one metric."""


@dataclass(frozen=True)
class Pair:
    """The predictions of two checkpoints on the same samples, in one order, and the cells that both have."""

    baseline: Predictions
    candidate: Predictions
    tables: CellTables
    """Of the cells, under the ids of the baseline."""


@dataclass(frozen=True)
class Differences:
    """The differences of one metric, candidate − baseline, in K cells (means over mask seeds)."""

    frame: pd.DataFrame
    """K rows: ``PAIR_KEYS``, ``metric``, ``seeds``, ``baseline``, ``candidate``, ``difference``, ``error`` (standard,
    over samples) and ``spread`` (standard deviation of the difference over mask seeds; NaN for one)."""
    bootstrap: npt.NDArray[np.float64]
    """[K, R]: the differences in the resamples."""


def read_pair(baseline: Path, before: Results, candidate: Path, after: Results, theirs: str, ours: str) -> Pair:
    """The predictions behind the checkpoint ``theirs`` of one results file and ``ours`` of another.

    Raises:
        DataError: one side has no predictions, or they are of different samples.
    """
    return make_pair(predictions_behind(baseline, before, theirs), predictions_behind(candidate, after, ours))


def make_pair(baseline: Predictions, candidate: Predictions) -> Pair:
    """Two checkpoints' predictions, sample by sample.

    Raises:
        DataError: they are of different samples, or have no cell in common.
    """
    ordered = candidate.beside(baseline)
    shared = set(candidate.cells) & set(baseline.cells)
    if not shared:
        raise DataError("the predictions have no cell in common")
    return Pair(baseline, ordered, baseline.truth.draw(sorted(shared)))


def differences(pair: Pair, metric: str, *, resamples: int = RESAMPLES, seed: int = 0) -> Differences:
    """The difference of a metric in every cell of a pair, with its bootstrap.

    Args:
        pair: the predictions.
        metric: of the task.
        resamples: of the bootstrap; 0 draws none where the standard error is known without.
        seed: of the resamples.

    Raises:
        UsageError: no such metric of the task.
        DataError: a prediction that a cell needs is not there.
    """
    sides = (pair.baseline, pair.candidate)
    samples = len(pair.baseline.truth.ids)

    def scored(weights: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], ...]:
        return tuple(resampled_values(side, pair.tables, metric, weights) for side in sides)

    average, frame = seed_means(pair.tables)
    before, after = (values[:, 0] for values in scored(np.ones((1, samples), dtype=np.float32)))
    shares = [sample_shares(side, pair.tables, metric) for side in sides]
    if shares[0] is None or shares[1] is None:
        resamples = resamples or RESAMPLES
    parts = [np.subtract(*reversed(scored(w))) for w in resample_weights(samples, resamples, seed)]
    bootstrap = average @ np.concatenate([np.empty((len(before), 0)), *parts], axis=1)
    if shares[0] is not None and shares[1] is not None:
        error = (average @ (shares[1] - shares[0])).std(axis=1, ddof=1) / np.sqrt(samples)
    else:
        error = np.full(len(bootstrap), np.nan)
        known = (~np.isnan(bootstrap)).sum(axis=1) > 1  # else not defined: the AUROC of samples of one class
        error[known] = np.nanstd(bootstrap[known], axis=1, ddof=1)
    by_seed = pd.Series((after - before)[pair.tables.of_cell])
    groups = pd.DataFrame(pair.tables.cells)[list(PAIR_KEYS)]
    frame = frame.assign(
        metric=metric,
        baseline=average @ before,
        candidate=average @ after,
        difference=average @ (after - before),
        error=error,
        spread=by_seed.groupby([groups[key] for key in PAIR_KEYS], observed=True).std(ddof=1).to_numpy(),
    )
    return Differences(frame, bootstrap)


def jackknife(pair: Pair, metric: str) -> npt.NDArray[np.float64]:
    """The differences [K, G] without each sample, or group of samples: what a BCa interval needs beside them."""
    average, _ = seed_means(pair.tables)
    parts = []
    for weights in jackknife_weights(len(pair.baseline.truth.ids)):
        before, after = (
            resampled_values(side, pair.tables, metric, weights) for side in (pair.baseline, pair.candidate)
        )
        parts.append(average @ (after - before))
    return np.concatenate(parts, axis=1)


def seed_means(tables: CellTables) -> tuple[npt.NDArray[np.float64], pd.DataFrame]:
    """The matrix [K, keys] that averages keys over mask seeds, and the K rows that it makes."""
    cells = pd.DataFrame(tables.cells)
    groups = cells.groupby(list(PAIR_KEYS), sort=True, observed=True)
    average = np.zeros((groups.ngroups, len(tables.keys)))
    np.add.at(average, (groups.ngroup().to_numpy(), tables.of_cell), 1)
    seeds = groups["seed"].nunique().reset_index(name="seeds")
    return average / average.sum(axis=1, keepdims=True), seeds
