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
from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import RESAMPLES
from mmrobust.scoring.contributions import CellContributions
from mmrobust.scoring.curve_intervals import CellsOfCurve, score_curve
from mmrobust.scoring.intervals import few
from mmrobust.scoring.metrics import MetricSettings, metrics_of
from mmrobust.scoring.predictions import Predictions
from mmrobust.storage.results import INTERVALS


@dataclass(frozen=True)
class ScoringSettings(MetricSettings):
    """How cells are scored: the settings of the metrics, and whether there are intervals.

    Raises:
        UsageError: a setting is out of range.
    """

    resamples: int = RESAMPLES
    """0: no intervals. Any other number gives the same ones, since they need no resamples."""
    bootstrap_seed: int = 0
    """Has no effect any more; kept, as :attr:`resamples` is, for those who pass it."""

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
        ``metric``, ``n``, ``n_affected``, ``n_naturally_missing``, ``few``, ``value``, and the ends of the 95 %
        intervals over samples, as in ``RESULTS_SCHEMA`` (NaN without intervals). ``value`` is NaN where the metric is
        not defined (AUROC of one class).

    Raises:
        UsageError: the task has no such metric.
        DataError: a prediction that a cell needs is missing, not finite, or of the wrong shape.
    """
    scoring, truth = scoring or ScoringSettings(), predictions.truth
    names = list(metrics_of(truth.task, metrics))
    _require(predictions, tables, remedy)
    contributions = CellContributions(replace(predictions, settings=scoring), tables)
    curves: dict[tuple[str, str], list[int]] = {}
    for place, cell in enumerate(tables.cells):
        curves.setdefault((cell.scenario, cell.prompting), []).append(place)
    scored: dict[tuple[object, ...], dict[str, Floats]] = {}
    columns = {name: np.full((len(tables.cells), len(names)), np.nan) for name in ("value", *INTERVALS)}
    with progress("scoring", len(tables.cells)) as advance:
        for (scenario, prompting), places in curves.items():
            own = [tables.cells[place] for place in places]
            # Promptings that the model does not tell apart share their predictions, and so their curves.
            same = (scenario, predictions.prompting(prompting), tuple((c.missing_rate, c.seed) for c in own))
            if same not in scored:
                scored[same] = score_curve(
                    CellsOfCurve.of(contributions, [c.missing_rate for c in own], tables.of_cell[places], names)
                )
            for name, of_curve in scored[same].items():
                if name == "value" or scoring.resamples:
                    columns[name][places] = of_curve
            advance(len(places))
    cell_keys = [(c.scenario, c.missing_rate, c.seed, c.prompting, name) for c in tables.cells for name in names]
    return pd.DataFrame(cell_keys, columns=["scenario", "missing_rate", "seed", "prompting", "metric"]).assign(
        n=len(truth.ids),
        n_affected=np.repeat(tables.affected, len(names)),
        n_naturally_missing=sum(case.present != case.modalities for case in truth.natural or ()),
        few=np.tile(
            np.asarray([few(contributions.predictions, name) for name in names], dtype=np.float64), len(tables.cells)
        ),
        **{name: of_cells.ravel() for name, of_cells in columns.items()},
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
            # The largest and the smallest of some numbers are finite where all of them are.
            finite = np.isfinite(logits.max(axis=1)) & np.isfinite(logits.min(axis=1))
            missing = needed[~finite[needed]]
            if missing.size:
                sample, absent = truth.ids[int(missing[0])], bool(np.isnan(logits[missing[0]]).all())
                what = "no prediction" if absent else "a prediction that is not finite"
                more = f" (and of {missing.size - 1} more)" if missing.size > 1 else ""
                raise DataError(f"{what} of sample '{sample}'{more} {where}; {remedy}")
