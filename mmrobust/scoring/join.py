"""The join: cell = metrics(predictions ⋈ missing table).

A model gives a sample the same logits in the same case, whatever cell asks, so a cell is nothing but a choice of rows.
Cells that choose the same rows (rate 0 of every scenario and seed, rate 1 of a scenario with one case, both promptings
of a model to which knowing the case makes no difference) are scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scenarios.grid import Cell
from mmrobust.scoring.bootstrap import RESAMPLES, percentile_interval, resample_weights
from mmrobust.scoring.cell_values import CellValues
from mmrobust.scoring.metrics import RANKED, MetricSettings, metrics_of
from mmrobust.scoring.predictions import Predictions


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
    cells, samples = CellValues(predictions, tables, scoring.of_metrics), len(truth.ids)
    counted = [name for name in functions if name not in RANKED]
    ranked = [name for name in functions if name in RANKED]
    value = np.empty((len(keys), len(functions)))
    bootstrap = np.empty((*value.shape, scoring.resamples))
    at_counted, at_ranked = (np.isin(list(functions), names) for names in (counted, ranked))
    none = iter([np.zeros((0, samples), dtype=np.float32)])
    draws = resample_weights(samples, scoring.resamples, scoring.bootstrap_seed) if scoring.resamples else none
    with progress("scoring", len(keys) * (scoring.resamples + 1) * cells.cost(functions)) as advance:
        value[:, at_counted] = cells.counted(keys, counted, np.ones((1, samples)), advance)[..., 0]
        done = 0
        for weights in draws:
            part = slice(done, done + len(weights))
            bootstrap[:, at_counted, part] = cells.counted(keys, counted, weights, advance)
            # One walk for the value and its resamples: it costs nearly as much for one row of weights as for many.
            both = weights if done else np.concatenate([np.ones((samples, 1), np.float32), weights.T], axis=1).T
            of_ranking = cells.ranked(keys, ranked, both, advance)
            if not done:
                value[:, at_ranked] = of_ranking[..., 0]
            bootstrap[:, at_ranked, part] = of_ranking[..., len(both) - len(weights) :]
            done += len(weights)
    low = high = np.full_like(value, np.nan)
    if scoring.resamples:
        ends = percentile_interval(bootstrap.reshape(value.size, -1))
        low, high = (end.reshape(value.shape) for end in ends)

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
