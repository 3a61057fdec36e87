"""Two checkpoints, sample by sample: the difference in every cell, how sure it is, and which samples flipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import UsageError, unknown_name
from mmrobust.gate.comparable import refuse_other_measurement
from mmrobust.scoring.bootstrap import bca_interval, percentile_interval
from mmrobust.scoring.metrics import target_matrix
from mmrobust.scoring.paired import PAIR_KEYS, Pair, differences, jackknife, make_pair
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.significance import (
    CORRECTIONS,
    Placements,
    delong,
    holm,
    mcnemar,
    normal_p_values,
    placements,
    smallest_shown,
)
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results, read_results

INTERVALS = ("percentile", "bca")
LOST, GAINED = "lost", "gained"
PLACEMENTS = ("positives", "negatives")

_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """What sets ``second`` apart from ``first``: shares, means over mask seeds; differences are second − first."""

    first: str
    second: str
    metric: str
    samples: int
    interval: str
    correction: str
    alpha: float
    cells: pd.DataFrame
    """One row per scenario, missing rate and prompting: ``first``, ``second``, ``difference``, ``low`` and ``high``
    (its interval at 1 − alpha, not corrected), ``spread`` (over mask seeds), ``p_value`` (two-sided, corrected),
    ``test`` (``mcnemar``, ``delong`` or ``bootstrap``), ``smallest`` (the smallest difference that the samples would
    show) and ``lost``, ``gained``: samples that are right only for the first, or only for the second (mean over mask
    seeds)."""
    flips: pd.DataFrame
    """One row per case, prompting and sample about which the two differ: ``id``, ``change`` (``lost`` or ``gained``),
    ``label``, and what each says, ``first`` and ``second``: class names."""

    @property
    def different(self) -> int:
        """In how many cells the corrected p-value is at most alpha."""
        return int((self.cells["p_value"] <= self.alpha).sum())

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, for JSON; what is not defined is ``None``."""
        facts = ("first", "second", "metric", "samples", "interval", "correction", "alpha", "different")
        tables = {name: getattr(self, name).astype(object) for name in ("cells", "flips")}
        rows = {name: table.where(table.notna(), None).to_dict("records") for name, table in tables.items()}
        return {**{name: getattr(self, name) for name in facts}, **rows}


def compare(
    pair: Pair,
    first: str,
    second: str,
    metric: str,
    classes: Sequence[str],
    *,
    alpha: float = 0.05,
    interval: str = "percentile",
    correction: str = "holm",
) -> Comparison:
    """Compare two checkpoints on the samples and cells that both have predictions for.

    Args:
        pair: their predictions; the baseline is the first.
        first: its name.
        second: the other's.
        metric: of the task.
        classes: the names of the classes.
        alpha: 1 − confidence of the intervals, and what a corrected p-value is held against.
        interval: ``percentile``, or ``bca``, which takes longer.
        correction: of the p-values, over cells: ``holm`` or ``none``.

    Raises:
        UsageError: an unknown metric, interval or correction, or an ``alpha`` that is no probability.
        DataError: a prediction that a cell needs is not there.
    """
    if interval not in INTERVALS:
        raise unknown_name("interval", interval, INTERVALS)
    if correction not in CORRECTIONS:
        raise unknown_name("correction", correction, CORRECTIONS)
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha:g} is not a probability between 0 and 1: 0.05 is usual")
    found = differences(pair, metric)
    frame = found.frame.rename(columns={"baseline": "first", "candidate": "second"})
    difference, error = frame["difference"].to_numpy(), frame["error"].to_numpy()
    if interval == "bca":
        low, high = bca_interval(difference, found.bootstrap, jackknife(pair, metric), 1 - alpha)
    else:
        low, high = percentile_interval(found.bootstrap, 1 - alpha)
    counts, alike = _flips_by_cell(pair)
    p = normal_p_values(difference, error, two_sided=True)
    test = np.full(len(p), "bootstrap", dtype=object)
    if metric == "accuracy":
        # A cell whose mask seeds are one and the same table is one table of right and wrong: McNemar's case.
        p[alike] = mcnemar(*counts[alike].T.round())
        test[alike] = "mcnemar"
    if metric == "auroc":
        p, test[:] = _delong(pair), "delong"
    cells = frame.assign(
        low=low,
        high=high,
        p_value=np.minimum(holm(p), 1) if correction == "holm" else p,
        test=test,
        smallest=smallest_shown(error, alpha, two_sided=True),
        lost=counts[:, 0],
        gained=counts[:, 1],
    )
    return Comparison(
        first,
        second,
        metric,
        len(pair.baseline.truth.ids),
        interval,
        correction,
        alpha,
        cells.drop(columns=["error", "metric"]),
        flipped_samples(pair, classes),
    )


def compare_files(
    first: Path,
    second: Path,
    names: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    interval: str = "percentile",
    correction: str = "holm",
) -> Comparison:
    """Compare a checkpoint of one results file with one of another, or of the same.

    Args:
        first: the results file, or the folder that holds one, with its predictions.
        second: the other.
        names: which checkpoint of each; needed where one holds several.
        metric: of the task; the headline metric where ``None``.
        alpha: as for :func:`compare`.
        interval: as for :func:`compare`.
        correction: as for :func:`compare`.

    Raises:
        NotComparableError: the two were not measured in the same way.
        UsageError: names that do not exist, or a choice of checkpoints that is not clear.
        DataError: results or predictions that are not there or cannot be read.
    """
    files = (first, second)
    results = [read_results(path) for path in files]
    if names is not None and len(names) != 2:
        raise UsageError(f"--checkpoints {','.join(names)}: name two, one of {first} and one of {second}")
    theirs, ours = (
        _one_of(path, of, names[side] if names else None)
        for side, (path, of) in enumerate(zip(files, results, strict=True))
    )
    refuse_other_measurement(results[1], ours, results[0], theirs)
    pair = make_pair(predictions_behind(first, results[0], theirs), predictions_behind(second, results[1], ours))
    return compare(
        pair,
        *(theirs, ours) if theirs != ours else (f"{theirs} ({first})", f"{ours} ({second})"),
        results[0].headline_metric if metric is None else metric,
        results[0].provenance["dataset"]["classes"],
        alpha=alpha,
        interval=interval,
        correction=correction,
    )


def _one_of(path: Path, results: Results, name: str | None) -> str:
    there = list(dict.fromkeys(results.frame["checkpoint"]))
    if name is None and len(there) == 1:
        return str(there[0])
    if name is None:
        raise UsageError(f"{path}: holds {', '.join(there)}; say which to compare with --checkpoints NAME,NAME")
    if name not in there:
        raise unknown_name(f"checkpoint of {path}", name, there)
    return name


def flipped_samples(pair: Pair, classes: Sequence[str]) -> pd.DataFrame:
    """The samples about which the two sides differ, by case and prompting; columns as ``Comparison.flips``.

    A prediction belongs to a case, not to a cell, so each is listed once, however many cells it is in. Right is, in a
    multi-label task, the exact set of classes.
    """
    rows = []
    truth, targets = pair.baseline.truth, _targets(pair.baseline)
    for case, prompting in sorted(set(pair.baseline.keys) & set(pair.candidate.keys)):
        logits = [side.get(case, prompting) for side in (pair.baseline, pair.candidate)]
        both = ~np.isnan(logits[0][:, 0]) & ~np.isnan(logits[1][:, 0])
        said = [pair.baseline.predicted(values) for values in logits]
        right = [(predicted == targets).all(axis=1) for predicted in said]
        flipped: list[int] = np.flatnonzero(both & (right[0] != right[1])).tolist()
        for at in flipped:
            names = ["|".join(classes[c] for c in np.flatnonzero(predicted[at]).tolist()) for predicted in said]
            label = "|".join(classes[c] for c in truth.labels[at])
            change = LOST if right[0][at] else GAINED
            rows.append((case, prompting, change, truth.ids[at], label, *names))
    columns = ["case", "prompting", "change", "id", "label", "first", "second"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["case", "prompting", "change", "id"], ascending=[True, True, False, True], kind="stable", ignore_index=True
    )


def _flips_by_cell(pair: Pair) -> tuple[npt.NDArray[np.float64], _Bools]:
    """Lost and gained in each cell, means over mask seeds [K, 2], and whether its seeds are one table [K]."""
    targets, by_key = _targets(pair.baseline), []
    for key in range(len(pair.tables.keys)):
        right = [
            (side.predicted(side.chosen(pair.tables, key)) == targets).all(axis=1)
            for side in (pair.baseline, pair.candidate)
        ]
        by_key.append(((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()))
    cells = pd.DataFrame(pair.tables.cells)[list(PAIR_KEYS)].assign(key=pair.tables.of_cell)
    cells[[LOST, GAINED]] = np.asarray(by_key)[pair.tables.of_cell]
    groups = cells.groupby(list(PAIR_KEYS), sort=True, observed=True)
    return groups[[LOST, GAINED]].mean().to_numpy(), (groups["key"].nunique() == 1).to_numpy()


def _delong(pair: Pair) -> npt.NDArray[np.float64]:
    """Two-sided p-values [K] of the differences in AUROC, of placements averaged over mask seeds; NaN of one class."""
    positive = _targets(pair.baseline)[:, 1]
    cells = pd.DataFrame(pair.tables.cells)[list(PAIR_KEYS)]
    groups = cells.groupby(list(PAIR_KEYS), sort=True, observed=True)
    if positive.all() or not positive.any():  # samples of one class have no ROC curve
        return np.full(groups.ngroups, np.nan)
    by_key = []
    for key in range(len(pair.tables.keys)):
        sides = [side.chosen(pair.tables, key).astype(np.float64) for side in (pair.baseline, pair.candidate)]
        by_key.append([placements(logits[:, 1] - logits[:, 0], positive) for logits in sides])
    p = []
    for rows in groups.indices.values():
        keys = pair.tables.of_cell[rows]
        means = []
        for side in (0, 1):
            found = [by_key[key][side] for key in keys]
            means.append(Placements(*(np.mean([getattr(f, part) for f in found], axis=0) for part in PLACEMENTS)))
        p.append(delong(*means)[1])
    return np.asarray(p)


def _targets(stored: Predictions) -> _Bools:
    return target_matrix(stored.truth.labels, stored.truth.classes)
