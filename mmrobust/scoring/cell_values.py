"""The values of metrics in many cells, under many rows of sample weights at once.

Every figure of a cell is such a value: the metric itself under weights of one, its bootstrap under counts of resamples.
Two kinds of metric go together: those of counts, cell by cell on every core, and those of a ranking, for which one walk
down the ranking of a class serves all cells (:mod:`mmrobust.scoring.ranking`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import on_every_core
from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scoring.metrics import RANKED, MetricSettings, WeightedTruth, metrics_of, target_matrix
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.ranking import RankedCells

Weights = npt.NDArray[np.floating[Any]]
Keys = Sequence[tuple[int, str]]
"""(table, prompting), as in :class:`mmrobust.scenarios.cell_tables.CellTables`."""

CELLS_AT_ONCE = 32
"""What one core is given at a time."""
_OF_SAMPLES = ("accuracy", "samples_f1")


@dataclass(frozen=True)
class CellValues:
    """Values of metrics over cells, and what all of them share."""

    predictions: Predictions
    tables: CellTables
    settings: MetricSettings

    @functools.cached_property
    def targets(self) -> npt.NDArray[np.bool_]:
        """[N, C]: whether each sample belongs to each class."""
        return target_matrix(self.predictions.truth.labels, self.predictions.truth.classes)

    def cost(self, metrics: Iterable[str]) -> int:
        """Units of progress per cell and row of weights."""
        return sum(self.predictions.truth.classes if name == "map" else 1 for name in metrics)

    def counted(
        self, keys: Keys, metrics: Sequence[str], weights: Weights, advance: Advance
    ) -> npt.NDArray[np.float64]:
        """Metrics of counts: their values [keys, metrics, R].

        Args:
            keys: the cells, those of nested tables beside each other.
            metrics: names.
            weights: [R, N], whole numbers.
            advance: counts values.
        """
        functions = list(metrics_of(self.predictions.truth.task, metrics).values())
        weighted = WeightedTruth(self.targets, weights)

        def values(part: Keys) -> npt.NDArray[np.float64]:
            found, near = np.empty((len(part), len(metrics), len(weights))), None
            for row, (table, prompting) in enumerate(part):
                logits = self.predictions.of_table(self.tables, table, prompting)
                # The tables of a scenario and seed are nested: from one rate to the next, a few samples change.
                outcomes = self.predictions.outcomes(logits, weighted, self.settings, near)
                found[row] = [function(outcomes) for function in functions]
                near = outcomes.tally
            return found

        done = [np.empty((0, len(metrics), len(weights)))]
        if metrics and len(weights):
            for found in on_every_core(
                values, [keys[i : i + CELLS_AT_ONCE] for i in range(0, len(keys), CELLS_AT_ONCE)]
            ):
                done.append(found)
                advance(found.size)
        return np.concatenate(done) if len(done) > 1 else np.empty((len(keys), len(metrics), len(weights)))

    def ranked(self, keys: Keys, metrics: Sequence[str], weights: Weights, advance: Advance) -> npt.NDArray[np.float64]:
        """Metrics of a ranking: their values [keys, metrics, R]; those of the first row of weights in double precision.

        Args:
            keys: the cells.
            metrics: names.
            weights: [R, N].
            advance: counts values.
        """
        found = np.empty((len(keys), len(metrics), len(weights)))
        for prompting in dict.fromkeys(prompting for _, prompting in keys) if metrics else ():
            rows = [row for row, key in enumerate(keys) if key[1] == prompting]
            cells = RankedCells(
                [self.predictions.get(case, prompting) for case in self.tables.cases],
                np.stack([self.tables.tables[keys[row][0]] for row in rows]),
                self.targets,
                weights,
            )
            for column, name in enumerate(metrics):
                found[rows, column] = RANKED[name](cells, lambda done: advance(done * len(weights)))
        return found


def resampled_values(
    predictions: Predictions, tables: CellTables, metric: str, weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """The value of one metric in every key of ``tables``, under every row of weights.

    Args:
        predictions: of one model.
        tables: the cells.
        metric: a metric of the task.
        weights: [R, N], as :func:`mmrobust.scoring.bootstrap.resample_weights` gives them; ones for the value itself.

    Returns:
        [keys, R].

    Raises:
        UsageError: no such metric.
        DataError: a prediction that a cell needs is missing.
    """
    metrics_of(predictions.truth.task, [metric])
    if (shares := sample_shares(predictions, tables, metric)) is not None:
        return np.asarray((shares @ weights.T).astype(np.float64) / weights.sum(axis=1, dtype=np.float64))
    cells = CellValues(predictions, tables, predictions.settings)
    order = sorted(range(len(tables.keys)), key=lambda key: (tables.keys[key][1], tables.keys[key][0]))
    values = np.empty((len(order), len(weights)))
    of_kind = cells.ranked if metric in RANKED else cells.counted
    values[order] = of_kind([tables.keys[key] for key in order], [metric], weights, lambda done: None)[:, 0]
    return values


def sample_shares(predictions: Predictions, tables: CellTables, metric: str) -> npt.NDArray[np.float32] | None:
    """What each sample adds to a metric that is a mean over samples [keys, N]; ``None`` for any other metric.

    To the accuracy: whether it is right. To the samples F1: its own.
    """
    if metric not in _OF_SAMPLES:
        return None
    targets = target_matrix(predictions.truth.labels, predictions.truth.classes)
    shares = np.empty((len(tables.keys), len(targets)), dtype=np.float32)
    for key in range(len(tables.keys)):
        predicted = predictions.predicted(predictions.chosen(tables, key))
        hits, both = (predicted & targets).sum(axis=1), predicted.sum(axis=1) + targets.sum(axis=1)
        shares[key] = np.divide(2 * hits, both, out=np.zeros(len(hits)), where=both > 0)
    return shares
