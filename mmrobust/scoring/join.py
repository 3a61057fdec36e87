"""The join: cell = metrics(predictions ⋈ missing table).

A model gives a sample the same logits in the same case, whatever cell asks, so a cell is nothing but a choice of rows.
Cells that choose the same rows (rate 0 of every scenario and seed, rate 1 of a scenario with one case, both promptings
of a model to which knowing the case makes no difference) are scored once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.progress import Advance, Progress, no_progress
from mmrobust.runtime.threads import on_every_core
from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scenarios.grid import Cell
from mmrobust.scoring.bootstrap import RESAMPLES, percentile_interval, resample_weights
from mmrobust.scoring.metrics import RANKED, Metric, MetricSettings, Outcomes, WeightedTruth, metrics_of, target_matrix
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.ranking import RankedCells

CELLS_AT_ONCE = 32
"""What one core is given at a time."""


@dataclass(frozen=True)
class ScoringSettings:
    """How cells are scored.

    Raises:
        UsageError: a setting that is out of range.
    """

    threshold: float = 0.5
    f1_absent: str = "zero"
    resamples: int = RESAMPLES
    """Bootstrap resamples behind the intervals; 0: no intervals."""
    bootstrap_seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 0 or self.bootstrap_seed < 0:
            name = "resamples" if self.resamples < 0 else "bootstrap_seed"
            raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: give a whole number from 0")
        self.of_metrics  # noqa: B018  # checks itself

    @property
    def of_metrics(self) -> MetricSettings:
        """What the metrics leave open."""
        return MetricSettings(self.threshold, self.f1_absent)


def score(
    predictions: Predictions,
    tables: CellTables,
    scoring: ScoringSettings | None = None,
    *,
    metrics: Sequence[str] | None = None,
    way_out: str = "run mmrobust eval to make it",
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """Score the cells of one model from its predictions.

    Args:
        predictions: every (sample, case, prompting) that the cells need.
        tables: the missing tables of the cells, over the samples of the predictions.
        scoring: threshold, absent classes, resamples.
        metrics: names of metrics of the task; ``None``: all of them.
        way_out: what to do where a prediction is missing, for the message.
        progress: counts scored tables.

    Returns:
        One row per cell and metric, in the order of the cells: ``scenario``, ``missing_rate``, ``seed``, ``prompting``,
        ``metric``, ``n``, ``n_affected``, ``n_naturally_missing``, ``value``, and the ends ``ci_low``, ``ci_high`` of
        the 95 % percentile interval over samples (NaN without resamples). ``value`` is NaN where the metric is not
        defined (AUROC of one class).

    Raises:
        UsageError: an unknown metric.
        DataError: a prediction that a cell needs is missing, not finite, or has another shape.
    """
    scoring, truth = scoring or ScoringSettings(), predictions.truth
    functions = metrics_of(truth.task, metrics)
    _require(predictions, tables, way_out)
    # Promptings between which the model makes no difference share their predictions, and so their values.
    columns = [(table, predictions.prompting(prompting)) for table, prompting in tables.keys]
    keys = sorted(set(columns), key=lambda key: (predictions.promptings.index(key[1]), key[0]))
    work = _Scoring(predictions, tables, scoring.of_metrics)
    samples, ranked = len(truth.ids), work.ranked(functions)
    value = np.empty((len(keys), len(functions)))
    chunks = []
    with progress("scoring", len(keys) * (scoring.resamples + 1) * work.cost(functions)) as advance:
        value[:, ~ranked] = work.of_cells(keys, functions, np.ones((1, samples)), advance)[..., 0]
        draws = resample_weights(samples, scoring.resamples, scoring.bootstrap_seed)
        none = iter([np.zeros((0, samples), dtype=np.float32)])
        for number, weights in enumerate(draws if scoring.resamples else none):
            chunk = np.empty((len(keys), len(functions), len(weights)))
            if len(weights):
                chunk[:, ~ranked] = work.of_cells(keys, functions, weights, advance)
            # One walk for the value and its resamples: it costs nearly as much for one row of weights as for many.
            both = weights if number else np.concatenate([np.ones((samples, 1), np.float32), weights.T], axis=1).T
            of_ranking = work.of_rankings(keys, functions, both, advance)
            if not number:
                value[:, ranked] = of_ranking[..., 0]
            chunk[:, ranked] = of_ranking[..., len(both) - len(weights) :]
            chunks.append(chunk)
    low = high = np.full_like(value, np.nan)
    if scoring.resamples:
        bootstrap = np.concatenate(chunks, axis=-1).reshape(value.size, -1)
        low, high = (end.reshape(value.shape) for end in percentile_interval(bootstrap))

    rows = {key: row for row, key in enumerate(keys)}
    at = [rows[columns[key]] for key in tables.of_cell]
    return _frame(tables.cells, tuple(functions)).assign(
        n=samples,
        n_affected=np.repeat(tables.affected, len(functions)),
        n_naturally_missing=sum(case.present != case.modalities for case in truth.natural or ()),
        value=value[at].ravel(),
        ci_low=low[at].ravel(),
        ci_high=high[at].ravel(),
    )


@dataclass(frozen=True)
class _Scoring:
    """Values of metrics over cells, from what all of them share."""

    predictions: Predictions
    tables: CellTables
    settings: MetricSettings

    @functools.cached_property
    def targets(self) -> npt.NDArray[np.bool_]:
        """[N, C]: whether each sample belongs to each class."""
        return target_matrix(self.predictions.truth.labels, self.predictions.truth.classes)

    def cost(self, functions: Mapping[str, Metric]) -> int:
        """Units of progress per cell and resample."""
        return sum(self.predictions.truth.classes if name == "map" else 1 for name in functions)

    def ranked(self, functions: Mapping[str, Metric]) -> npt.NDArray[np.bool_]:
        """Which of the metrics are of a ranking."""
        return np.array([name in RANKED for name in functions], dtype=np.bool_)

    def of_cells(
        self,
        keys: Sequence[tuple[int, str]],
        functions: Mapping[str, Metric],
        weights: npt.NDArray[np.floating[Any]],
        advance: Advance,
    ) -> npt.NDArray[np.float64]:
        """For each (table, prompting) of ``keys``, metric that is of no ranking, and row of ``weights`` [K, M', R]."""
        chosen = [function for name, function in functions.items() if name not in RANKED]
        weighted, several = WeightedTruth(self.targets, weights), self.predictions.truth.task == "multi-label"

        def scored(part: Sequence[tuple[int, str]]) -> npt.NDArray[np.float64]:
            values, near = np.empty((len(part), len(chosen), len(weights))), None
            for row, (table, prompting) in enumerate(part):
                logits = self.predictions.of_table(self.tables, table, prompting)
                # The tables of a scenario and seed are nested: from one rate to the next, a few samples change.
                outcomes = Outcomes(logits, weighted, several, self.settings, near)
                values[row] = [function(outcomes) for function in chosen]
                near = outcomes.tally
            return values

        parts = [keys[start : start + CELLS_AT_ONCE] for start in range(0, len(keys) if chosen else 0, CELLS_AT_ONCE)]
        done = []
        for values in on_every_core(scored, parts):
            done.append(values)
            advance(len(values) * len(chosen) * len(weights))
        return np.concatenate(done) if done else np.empty((len(keys), 0, len(weights)))

    def of_rankings(
        self,
        keys: Sequence[tuple[int, str]],
        functions: Mapping[str, Metric],
        weights: npt.NDArray[np.floating[Any]],
        advance: Advance,
    ) -> npt.NDArray[np.float64]:
        """For each key, metric of a ranking, and row of ``weights`` [K, M'', R]; the first row in double precision."""
        chosen = [RANKED[name] for name in functions if name in RANKED]
        scored = np.empty((len(keys), len(chosen), len(weights)))
        for prompting in dict.fromkeys(p for _, p in keys) if chosen else ():
            rows = [row for row, key in enumerate(keys) if key[1] == prompting]
            cells = RankedCells(
                [self.predictions.logits[case, prompting] for case in self.tables.cases],
                np.stack([self.tables.tables[keys[row][0]] for row in rows]),
                self.targets,
                weights,
            )
            for column, function in enumerate(chosen):
                scored[rows, column] = function(cells, lambda done: advance(done * len(weights)))
        return scored


def _require(predictions: Predictions, tables: CellTables, way_out: str) -> None:
    """Raise where a cell needs a prediction that is missing, before anything is computed."""
    truth, known = predictions.truth, set(predictions.keys)
    promptings = sorted({prompting for _, prompting in tables.keys}, key=PROMPTINGS.index)
    for case, needed in tables.positions().items():
        for prompting in promptings:
            where = f"in case '{case}' under prompting '{prompting}'"
            if (case, prompting) not in known:
                raise DataError(f"no prediction of sample '{truth.ids[int(needed[0])]}' {where}; {way_out}")
            given = predictions.get(case, prompting)
            if given.shape != (len(truth.ids), truth.classes):
                shape, wanted = " × ".join(map(str, given.shape)), f"{len(truth.ids)} × {truth.classes}"
                raise DataError(f"the predictions {where} are {shape} logits, not {wanted}; run mmrobust eval again")
            missing = needed[~np.isfinite(given[needed]).all(axis=1)]
            if missing.size:
                sample, absent = truth.ids[int(missing[0])], bool(np.isnan(given[missing[0]]).all())
                said = "no prediction" if absent else "a prediction that is not finite"
                more = f" (and of {missing.size - 1} more)" if missing.size > 1 else ""
                raise DataError(f"{said} of sample '{sample}'{more} {where}; {way_out}")


def _frame(cells: Sequence[Cell], metrics: Sequence[str]) -> pd.DataFrame:
    """The key columns: every cell, once per metric."""
    return pd.DataFrame(
        [(c.scenario, c.missing_rate, c.seed, c.prompting, metric) for c in cells for metric in metrics],
        columns=["scenario", "missing_rate", "seed", "prompting", "metric"],
    )
