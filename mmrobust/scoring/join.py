"""The join: cell = metrics(predictions ⋈ missing table).

A model gives a sample the same logits in the same case, whatever cell asks, so a cell is nothing but a choice of rows.
Cells that choose the same rows (rate 0 of every scenario and seed, rate 1 of a scenario with one case) are scored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.progress import Advance, Progress, no_progress
from mmrobust.runtime.threads import on_every_core
from mmrobust.scenarios.grid import Cell, Grid
from mmrobust.scoring.bootstrap import RESAMPLES, percentile_interval, resample_weights
from mmrobust.scoring.metrics import RANKED, Metric, MetricSettings, Outcomes, WeightedTruth, metrics_of, target_matrix
from mmrobust.scoring.ranking import RankedCells
from mmrobust.scoring.tables import CellTables, cell_tables
from mmrobust.scoring.truth import Logits, SplitTruth

CELLS_AT_ONCE = 32
"""What one core is given at a time."""


@dataclass(frozen=True)
class ScoringSettings:
    """How cells are scored, beside which.

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
    truth: SplitTruth,
    logits: Logits,
    grid: Grid,
    *,
    metrics: Sequence[str] | None = None,
    settings: MetricSettings | None = None,
    resamples: int = RESAMPLES,
    bootstrap_seed: int = 0,
    way_out: str = "run mmrobust eval to make it",
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """The results of one checkpoint over ``grid``, from its predictions.

    Args:
        truth: the samples of the split.
        logits: the predictions: every (sample, case, prompting) that the grid asks for.
        grid: which cells to score.
        metrics: names of metrics of the task; all of the task's where ``None``.
        settings: the threshold, and what absent classes count.
        resamples: bootstrap resamples behind the intervals; 0: no intervals.
        bootstrap_seed: seed of the resamples, which all cells share.
        way_out: what to do where a prediction is not there, for the message.
        progress: told of scored tables.

    Returns:
        One row per (scenario, missing_rate, seed, prompting, metric), in that order, with ``n``, ``n_affected``,
        ``n_naturally_missing``, ``value``, and the ends ``ci_low``, ``ci_high`` of the 95 % percentile interval over
        samples (NaN without resamples). ``value`` is NaN where the metric is not defined (AUROC of one class).

    Raises:
        UsageError: a scenario or metric that does not fit.
        DataError: a prediction that a cell needs is not there or not finite, or has another shape.
    """
    functions = metrics_of(truth.task, metrics)
    cells = sorted(grid.cells())
    tables = cell_tables(truth, cells, grid.tables)
    _require(truth, logits, tables, grid.promptings, way_out)
    targets = target_matrix(truth.labels, truth.classes)
    # Promptings between which a model makes no difference share their predictions, and so their values.
    distinct = _distinct(logits, tables.cases, grid.promptings)
    keys = [(table, name) for name in dict.fromkeys(distinct.values()) for table in range(len(tables.tables))]
    scoring = _Scoring(truth, logits, tables, targets, settings or MetricSettings())
    samples, ranked = len(truth.ids), scoring.ranked(functions)
    value = np.empty((len(keys), len(functions)))
    chunks = []
    with progress("scoring", len(keys) * (resamples + 1) * scoring.cost(functions)) as advance:
        value[:, ~ranked] = scoring.of_cells(keys, functions, np.ones((1, samples)), advance)[..., 0]
        draws = resample_weights(samples, resamples, bootstrap_seed)
        for number, weights in enumerate(draws if resamples else iter([np.zeros((0, samples), dtype=np.float32)])):
            chunk = np.empty((len(keys), len(functions), len(weights)))
            if len(weights):
                chunk[:, ~ranked] = scoring.of_cells(keys, functions, weights, advance)
            # One walk for the value and its resamples: it costs nearly as much for one row of weights as for many.
            both = weights if number else np.concatenate([np.ones((samples, 1), np.float32), weights.T], axis=1).T
            of_ranking = scoring.of_rankings(keys, functions, both, advance)
            if not number:
                value[:, ranked] = of_ranking[..., 0]
            chunk[:, ranked] = of_ranking[..., len(both) - len(weights) :]
            chunks.append(chunk)
    low = high = np.full_like(value, np.nan)
    if resamples:
        bootstrap = np.concatenate(chunks, axis=-1).reshape(value.size, -1)
        low, high = (end.reshape(value.shape) for end in percentile_interval(bootstrap))

    rows = {key: row for row, key in enumerate(keys)}
    at = [rows[table, distinct[prompting]] for table, prompting in (tables.keys[key] for key in tables.of_cell)]
    natural = sum(case.present != case.modalities for case in truth.natural or ())
    return _frame(cells, tuple(functions)).assign(
        n=len(truth.ids),
        n_affected=np.repeat(tables.affected, len(functions)),
        n_naturally_missing=natural,
        value=value[at].ravel(),
        ci_low=low[at].ravel(),
        ci_high=high[at].ravel(),
    )


@dataclass(frozen=True)
class _Scoring:
    """Values of metrics over cells, from what all of them share."""

    truth: SplitTruth
    logits: Logits
    tables: CellTables
    targets: npt.NDArray[np.bool_]
    settings: MetricSettings

    def cost(self, functions: Mapping[str, Metric]) -> int:
        """Units of progress per cell and resample."""
        return sum(self.truth.classes if name == "map" else 1 for name in functions)

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
        weighted = WeightedTruth(self.targets, weights)

        def scored(part: Sequence[tuple[int, str]]) -> npt.NDArray[np.float64]:
            values, near = np.empty((len(part), len(chosen), len(weights))), None
            for row, (table, prompting) in enumerate(part):
                logits = self.tables.choose(self.logits, table, prompting)
                # The tables of a scenario and seed are nested: from one rate to the next, a few samples change.
                outcomes = Outcomes(logits, weighted, self.truth.task == "multi-label", self.settings, near)
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
        """The same for those of a ranking; the first row of ``weights`` in double precision [K, M'', R]."""
        chosen = [RANKED[name] for name in functions if name in RANKED]
        scored = np.empty((len(keys), len(chosen), len(weights)))
        for prompting in dict.fromkeys(p for _, p in keys) if chosen else ():
            rows = [row for row, key in enumerate(keys) if key[1] == prompting]
            cells = RankedCells(
                [self.logits[case, prompting] for case in self.tables.cases],
                np.stack([self.tables.tables[keys[row][0]] for row in rows]),
                self.targets,
                weights,
            )
            for column, function in enumerate(chosen):
                scored[rows, column] = function(cells, lambda done: advance(done * len(weights)))
        return scored


def _distinct(logits: Logits, cases: Sequence[str], promptings: Sequence[str]) -> dict[str, str]:
    """Prompting → the first one whose predictions are the very same arrays."""
    first: dict[tuple[int, ...], str] = {}
    return {p: first.setdefault(tuple(id(logits[case, p]) for case in cases), p) for p in promptings}


def _require(truth: SplitTruth, logits: Logits, tables: CellTables, promptings: Sequence[str], way_out: str) -> None:
    """Raise where a cell needs a prediction that is not there, before anything is computed."""
    for number, case in enumerate(tables.cases):
        needed = np.zeros(len(truth.ids), dtype=np.bool_)
        for table in tables.tables:
            needed |= table == number
        for prompting in promptings:
            given = logits.get((case, prompting))
            where = f"in case '{case}' under prompting '{prompting}'"
            if given is None:
                sample = truth.ids[int(needed.argmax())]
                raise DataError(f"no prediction of sample '{sample}' {where}; {way_out}")
            if given.shape != (len(truth.ids), truth.classes):
                shape, wanted = " × ".join(map(str, given.shape)), f"{len(truth.ids)} × {truth.classes}"
                raise DataError(f"the predictions {where} are {shape} logits, not {wanted}; run mmrobust eval again")
            lacking = np.flatnonzero(needed & ~np.isfinite(given).all(axis=1))
            if lacking.size:
                sample, absent = truth.ids[int(lacking[0])], bool(np.isnan(given[lacking[0]]).all())
                said = "no prediction" if absent else "a prediction that is not finite"
                more = f" (and of {lacking.size - 1} more)" if lacking.size > 1 else ""
                raise DataError(f"{said} of sample '{sample}'{more} {where}; {way_out}")


def _frame(cells: Sequence[Cell], metrics: Sequence[str]) -> pd.DataFrame:
    """The key columns: every cell, once per metric."""
    return pd.DataFrame(
        [(c.scenario, c.missing_rate, c.seed, c.prompting, metric) for c in cells for metric in metrics],
        columns=["scenario", "missing_rate", "seed", "prompting", "metric"],
    )
