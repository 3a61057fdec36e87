"""The values of metrics in many cells, under many rows of sample weights at once.

Every figure of a cell is such a value: the metric itself under weights of one, its bootstrap under counts of resamples.
Metrics of counts are computed cell by cell, on every core; for metrics of a ranking, one walk down the ranking of a
class serves all cells (:mod:`mmrobust.scoring.ranking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import on_every_core
from mmrobust.scenarios.draws import CellTables
from mmrobust.scoring import Floats
from mmrobust.scoring.metrics import RANKED, WeightedTruth, metrics_of, numbers_of
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.ranking import RankedCells
from mmrobust.storage.tasks import REGRESSION

Keys = Sequence[tuple[int, str]]
"""(table, prompting), as in :class:`mmrobust.scenarios.draws.CellTables`."""

CELLS_AT_ONCE = 32
"""Cells per task of one core."""
_SAMPLE_MEANS = ("accuracy", "samples_f1")


@dataclass(frozen=True)
class CellValues:
    """Computes metrics in the cells of one model. Values are [keys, metrics, R] for weights [R, N]."""

    predictions: Predictions
    tables: CellTables

    def cost(self, metrics: Iterable[str]) -> int:
        """Units of progress per cell and row of weights."""
        return sum(self.predictions.truth.classes if name == "map" else 1 for name in metrics)

    def counted(self, keys: Keys, metrics: Sequence[str], weights: Floats, advance: Advance) -> Floats:
        """The values of metrics of counts, under weights that are whole numbers.

        Fastest where keys of nested tables are next to each other.
        """
        functions = metrics_of(self.predictions.truth.task, metrics).values()
        truth = WeightedTruth(self.predictions.truth.targets, weights)
        values = np.empty((len(keys), len(metrics), len(weights)))

        def compute(start: int) -> Floats:
            """Fill in the values of one task's cells."""
            rows, previous = values[start : start + CELLS_AT_ONCE], None
            for row, (table, prompting) in zip(rows, keys[start : start + CELLS_AT_ONCE], strict=True):
                logits = self.predictions.of_table(self.tables, table, prompting)
                # The tables of a scenario and seed are nested: from one rate to the next, a few samples change.
                outcomes = self.predictions.outcomes(logits, truth, previous)
                row[:] = [function(outcomes) for function in functions]
                previous = None if self.predictions.truth.task == REGRESSION else outcomes.tally
            return rows

        if values.size:
            for computed in on_every_core(compute, range(0, len(keys), CELLS_AT_ONCE)):
                advance(computed.size)
        return values

    def ranked(self, keys: Keys, metrics: Sequence[str], weights: Floats, advance: Advance) -> Floats:
        """The values of metrics of a ranking; those of the first row of weights in double precision."""
        values = np.empty((len(keys), len(metrics), len(weights)))
        for prompting in dict.fromkeys(prompting for _, prompting in keys) if metrics else ():
            rows = [row for row, key in enumerate(keys) if key[1] == prompting]
            cells = RankedCells(
                [self.predictions.get(case, prompting) for case in self.tables.cases],
                np.stack([self.tables.tables[keys[row][0]] for row in rows]),
                self.predictions.truth.targets,
                weights,
            )
            for column, name in enumerate(metrics):
                values[rows, column] = RANKED[name](cells, lambda done: advance(done * len(weights)))
        return values


def resampled_values(predictions: Predictions, tables: CellTables, metric: str, weights: Floats) -> Floats:
    """The value of one metric in every key of ``tables``, under every row of weights: [keys, R].

    ``weights`` are [R, N], as :func:`mmrobust.scoring.bootstrap.resample_weights` gives; ones for the value itself.

    Raises:
        UsageError: the task has no such metric.
        DataError: a prediction that a cell needs is missing.
    """
    metrics_of(predictions.truth.task, [metric])
    if (shares := sample_shares(predictions, tables, metric)) is not None:
        return weighted_means(shares, weights)
    cells = CellValues(predictions, tables)
    order = sorted(range(len(tables.keys)), key=lambda key: (tables.keys[key][1], tables.keys[key][0]))
    values = np.empty((len(order), len(weights)))
    compute = cells.ranked if metric in RANKED else cells.counted
    values[order] = compute([tables.keys[key] for key in order], [metric], weights, lambda done: None)[:, 0]
    return values


def weighted_means(shares: Floats, weights: Floats) -> Floats:
    """The means of ``shares`` [keys, N] under every row of weights [R, N]: [keys, R]."""
    return np.asarray((shares @ weights.T).astype(np.float64) / weights.sum(axis=1, dtype=np.float64))


def sample_shares(predictions: Predictions, tables: CellTables, metric: str) -> Floats | None:
    """What each sample contributes to a metric that is a mean over samples [keys, N]; ``None`` for any other metric.

    For the accuracy, whether it is predicted correctly; for the samples F1, its own F1; for the mean absolute error,
    its own error.
    """
    if metric == "mae":
        chosen = (predictions.chosen(tables, key) for key in range(len(tables.keys)))
        pairs = (numbers_of(logits, predictions.truth.targets) for logits in chosen)
        return np.stack([np.abs(predicted - actual) for predicted, actual in pairs])
    if metric not in _SAMPLE_MEANS:
        return None
    targets = predictions.truth.targets
    shares = np.empty((len(tables.keys), len(targets)), dtype=np.float32)
    for key in range(len(tables.keys)):
        predicted = predictions.predicted(predictions.chosen(tables, key))
        hits, both = (predicted & targets).sum(axis=1), predicted.sum(axis=1) + targets.sum(axis=1)
        shares[key] = np.divide(2 * hits, both, out=np.zeros(len(hits)), where=both > 0)
    return shares


def mean_over_seeds(tables: CellTables, figures: pd.DataFrame) -> pd.DataFrame:
    """Average ``figures``, one row per key of ``tables``, over mask seeds.

    Returns:
        One row per ``scenario``, ``prompting`` and ``missing_rate``, sorted.
    """
    by = ["scenario", "prompting", "missing_rate"]
    cells = pd.DataFrame(tables.cells)[by]
    by_cell = pd.concat([cells, figures.iloc[tables.of_cell].reset_index(drop=True)], axis=1)
    return by_cell.groupby(by, sort=True, observed=True).mean().reset_index()
