"""The join: cell = metrics(predictions ⋈ missing table).

A model gives a sample the same logits in the same case, whichever cell asks, so a cell is only a selection of rows.
Cells that select the same rows (rate 0 of every scenario and seed, rate 1 of a scenario with one case, both promptings
of a model that does not depend on prompting) are scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scenarios.draws import CellTables
from mmrobust.scoring.bootstrap import RESAMPLES, percentile_interval, resample_weights
from mmrobust.scoring.cell_values import CellValues
from mmrobust.scoring.metrics import RANKED, MetricSettings, metrics_of
from mmrobust.scoring.predictions import Predictions


@dataclass(frozen=True)
class ScoringSettings(MetricSettings):
    """How cells are scored: the settings of the metrics, and of the bootstrap.

    Raises:
        UsageError: a setting is out of range.
    """

    resamples: int = RESAMPLES
    """Bootstrap resamples for the intervals; 0: no intervals."""
    bootstrap_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("resamples", "bootstrap_seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: give a whole number from 0")
        super().__post_init__()


def score(
    predictions: Predictions,
    tables: CellTables,
    scoring: ScoringSettings | None = None,
    *,
    metrics: Sequence[str] | None = None,
    remedy: str = "run mmrobust eval to make it",
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """Score the cells of one model from its predictions.

    Args:
        predictions: every (sample, case, prompting) that the cells need.
        tables: the missing tables of the cells, over the samples of the predictions.
        scoring: threshold, absent classes, resamples.
        metrics: names of metrics of the task; ``None``: all of them.
        remedy: what to do where a prediction is missing, for the error message.
        progress: counts scored tables.

    Returns:
        One row per cell and metric, in the order of the cells: ``scenario``, ``missing_rate``, ``seed``, ``prompting``,
        ``metric``, ``n``, ``n_affected``, ``n_naturally_missing``, ``value``, and the ends ``ci_low``, ``ci_high`` of
        the 95 % percentile interval over samples (NaN without resamples). ``value`` is NaN where the metric is not
        defined (AUROC of one class).

    Raises:
        UsageError: the task has no such metric.
        DataError: a prediction that a cell needs is missing, not finite, or of the wrong shape.
    """
    scoring, truth = scoring or ScoringSettings(), predictions.truth
    names = list(metrics_of(truth.task, metrics))
    _require(predictions, tables, remedy)
    # Promptings that the model does not tell apart share their predictions, and so their values.
    key_of = [(table, predictions.prompting(prompting)) for table, prompting in tables.keys]
    keys = sorted(set(key_of), key=lambda key: (predictions.promptings.index(key[1]), key[0]))
    cells, samples = CellValues(replace(predictions, settings=scoring), tables), len(truth.ids)
    counted, ranked = ([name for name in names if (name in RANKED) is of_ranking] for of_ranking in (False, True))
    at_counted, at_ranked = (np.isin(names, of_kind) for of_kind in (counted, ranked))
    value = np.empty((len(keys), len(names)))
    bootstrap = np.empty((*value.shape, scoring.resamples))
    none = iter([np.zeros((0, samples), dtype=np.float32)])
    chunks = resample_weights(samples, scoring.resamples, scoring.bootstrap_seed) if scoring.resamples else none
    with progress("scoring", len(keys) * (scoring.resamples + 1) * cells.cost(names)) as advance:
        value[:, at_counted] = cells.counted(keys, counted, np.ones((1, samples)), advance)[..., 0]
        done = 0
        for weights in chunks:
            chunk = slice(done, done + len(weights))
            bootstrap[:, at_counted, chunk] = cells.counted(keys, counted, weights, advance)
            # One walk for the value and its resamples: it costs nearly as much for one row of weights as for many.
            both = weights if done else np.concatenate([np.ones((samples, 1), np.float32), weights.T], axis=1).T
            of_ranking = cells.ranked(keys, ranked, both, advance)
            if not done:
                value[:, at_ranked] = of_ranking[..., 0]
            bootstrap[:, at_ranked, chunk] = of_ranking[..., len(both) - len(weights) :]
            done += len(weights)
    low, high = percentile_interval(bootstrap.reshape(value.size, scoring.resamples))
    rows = {key: row for row, key in enumerate(keys)}
    at = [rows[key_of[key]] for key in tables.of_cell]
    cell_keys = [(c.scenario, c.missing_rate, c.seed, c.prompting, name) for c in tables.cells for name in names]
    return pd.DataFrame(cell_keys, columns=["scenario", "missing_rate", "seed", "prompting", "metric"]).assign(
        n=samples,
        n_affected=np.repeat(tables.affected, len(names)),
        n_naturally_missing=sum(case.present != case.modalities for case in truth.natural or ()),
        value=value[at].ravel(),
        ci_low=low.reshape(value.shape)[at].ravel(),
        ci_high=high.reshape(value.shape)[at].ravel(),
    )


def _require(predictions: Predictions, tables: CellTables, remedy: str) -> None:
    """Raise if a prediction that a cell needs is missing, before anything is computed."""
    truth, predicted = predictions.truth, set(predictions.keys)
    promptings = sorted({prompting for _, prompting in tables.keys}, key=PROMPTINGS.index)
    for case, needed in tables.positions().items():
        for prompting in promptings:
            where = f"in case '{case}' under prompting '{prompting}'"
            if (case, prompting) not in predicted:
                raise DataError(f"no prediction of sample '{truth.ids[int(needed[0])]}' {where}; {remedy}")
            logits = predictions.get(case, prompting)
            if logits.shape != (len(truth.ids), truth.classes):
                shape, expected = " × ".join(map(str, logits.shape)), f"{len(truth.ids)} × {truth.classes}"
                raise DataError(f"the predictions {where} are {shape} logits, not {expected}; run mmrobust eval again")
            missing = needed[~np.isfinite(logits[needed]).all(axis=1)]
            if missing.size:
                sample, absent = truth.ids[int(missing[0])], bool(np.isnan(logits[missing[0]]).all())
                what = "no prediction" if absent else "a prediction that is not finite"
                more = f" (and of {missing.size - 1} more)" if missing.size > 1 else ""
                raise DataError(f"{what} of sample '{sample}'{more} {where}; {remedy}")
