"""Two checkpoints, sample by sample: the difference in every cell, its significance, and which samples flipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmrobust.errors import UsageError, unknown_name
from mmrobust.gate.comparable import check_statistics, refuse_other_measurement
from mmrobust.gate.evidence import columns_of, corrected, read_pair
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import bca_interval, percentile_interval
from mmrobust.scoring.intervals import difference_interval
from mmrobust.scoring.paired import (
    PAIR_KEYS,
    Pair,
    bootstrap_differences,
    differences,
    grouped_jackknife,
    over_seeds,
)
from mmrobust.scoring.significance import Placements, delong, detectable, mcnemar, p_values, placements
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results, read_results
from mmrobust.storage.tasks import RANGES, REGRESSION

INTERVALS = ("jackknife", "percentile", "bca")
LOST, GAINED = "lost", "gained"
_NEITHER = dict.fromkeys((LOST, GAINED), np.nan)


@dataclass(frozen=True)
class Comparison:
    """How ``second`` differs from ``first``: shares, means over mask seeds; differences are second − first."""

    first: str
    second: str
    metric: str
    samples: int
    interval: str
    correction: str
    alpha: float
    tests: int
    """Number of distinct prediction columns, for which the p-values are corrected."""
    cells: pd.DataFrame
    """One row per scenario, missing rate and prompting: ``first``, ``second``, ``difference``, ``low`` and ``high``
    (its interval at 1 − alpha, not corrected), ``spread`` (over mask seeds), ``p_value`` (two-sided, corrected),
    ``test`` (``mcnemar``, ``delong`` or ``jackknife``), ``smallest`` (the smallest difference that the samples would
    show, corrected; from the metric's range on they would show none; NaN where both sides have the same logits) and
    ``lost``, ``gained``: samples that only the first, or only the second, gets right (mean over mask seeds; NaN in a
    regression task)."""
    flips: pd.DataFrame
    """One row per case, prompting and sample that only one of the two gets right: ``id``, ``change`` (``lost`` or
    ``gained``), ``label``, and the classes that each predicts, ``first`` and ``second``."""
    warnings: tuple[str, ...] = ()
    """Why the comparison may say less than it seems to."""

    @property
    def different(self) -> int:
        """Number of cells whose corrected p-value is at most alpha."""
        return int((self.cells["p_value"] <= self.alpha).sum())

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, for JSON; ``None`` where not defined."""
        facts = ("first", "second", "metric", "samples", "interval", "correction", "alpha", "tests", "different")
        tables = {name: getattr(self, name).astype(object) for name in ("cells", "flips")}
        rows = {name: table.where(table.notna(), None).to_dict("records") for name, table in tables.items()}
        return {**{name: getattr(self, name) for name in facts}, "warnings": list(self.warnings), **rows}


def compare(
    pair: Pair,
    first: str,
    second: str,
    metric: str,
    classes: Sequence[str],
    *,
    alpha: float = 0.05,
    interval: str = "jackknife",
    correction: str = "holm",
) -> Comparison:
    """Compare two checkpoints, whose names are ``first`` and ``second``, on the samples and cells that both have.

    ``alpha`` is 1 − confidence of the intervals, and the level of the p-values, which are corrected for the number of
    cells (``holm``) or not (``none``). An ``interval`` is ``jackknife``; or by bootstrap, ``percentile`` or ``bca``,
    which take longer.

    Raises:
        UsageError: the metric, interval or correction is unknown, or ``alpha`` is not a probability.
        DataError: a prediction that a cell needs is missing.
    """
    if interval not in INTERVALS:
        raise unknown_name("interval", interval, INTERVALS)
    check_statistics(alpha, correction)
    found = differences(pair, metric)
    difference, error, degrees = (found[name].to_numpy() for name in ("difference", "error", "degrees"))
    if interval == "jackknife":
        low, high = difference_interval(difference, error, degrees, found["size"].to_numpy(), 1 - alpha)
    elif interval == "bca":
        resampled = bootstrap_differences(pair, metric)
        low, high = bca_interval(difference, resampled, grouped_jackknife(pair, metric), 1 - alpha)
    else:
        low, high = percentile_interval(bootstrap_differences(pair, metric), 1 - alpha)
    columns, keys = columns_of(pair, second, classes), list(found[list(PAIR_KEYS)].itertuples(index=False, name=None))
    lost, gained, one_table = map(np.asarray, zip(*(columns.flips[key] for key in keys), strict=True))
    p = p_values(difference, error, degrees, two_sided=True)
    test = np.full(len(p), "jackknife", dtype=object)
    if metric == "accuracy":
        # McNemar's test is for one table of right and wrong: a cell whose mask seeds all give the same missing table.
        p[one_table] = mcnemar(lost[one_table].round(), gained[one_table].round())
        test[one_table] = "mcnemar"
    if metric == "auroc":
        p, test[:] = _delong(pair), "delong"
    lowest, highest = RANGES[metric]
    span = highest - lowest  # no two values can lie farther apart
    frame = found.drop(columns=["error", "degrees", "size", "metric"]).rename(
        columns={"baseline": "first", "candidate": "second"}
    )
    adjusted, tests = corrected(p, [columns.of(metric, metric, key) for key in keys], correction)
    level = alpha / tests if correction == "holm" and tests else alpha
    same = np.asarray([key in columns.identical for key in keys])
    cells = frame.assign(
        low=np.maximum(low, -span),
        high=np.minimum(high, span),
        p_value=np.minimum(adjusted, 1),
        test=test,
        # The same logits are the same model there: there is no difference that could be found.
        smallest=np.where(same, np.nan, detectable(error, degrees, found["size"].to_numpy(), level / 2)),
        **({"lost": lost, "gained": gained} if pair.baseline.truth.task != REGRESSION else _NEITHER),
    )
    samples, flips = len(pair.baseline.truth.ids), flipped_samples(pair, classes)
    facts = first, second, metric, samples, interval, correction, alpha, tests
    return Comparison(*facts, cells, flips, columns.remarks)


def compare_files(
    first: Path,
    second: Path,
    names: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    interval: str = "jackknife",
    correction: str = "holm",
    progress: Progress = no_progress,
) -> Comparison:
    """Run :func:`compare` on the results in two files or folders, with the predictions behind them.

    ``names`` are the checkpoint of each, needed if one holds several; the two files may then be the same. ``metric`` is
    by default the headline metric. ``progress`` counts the cells. All other arguments are those of :func:`compare`.

    Raises:
        NotComparableError: the two were not measured in the same way.
        UsageError: a name does not exist, or it is not clear which checkpoint to take.
        DataError: results or predictions are missing, cannot be read, or contradict each other.
    """
    before, after = read_results(first), read_results(second)
    if names is not None and len(names) != 2:
        raise UsageError(f"--checkpoints {','.join(names)}: name two, one of {first} and one of {second}")
    sides = zip((first, second), (before, after), names or (None, None), strict=True)
    theirs, ours = (_choose(*side) for side in sides)
    refuse_other_measurement(after, ours, before, theirs)
    chosen = before.headline_metric if metric is None else metric
    readers = partial(predictions_behind, first, before), partial(predictions_behind, second, after)
    return compare(
        read_pair(readers, (before, after), (theirs, ours), [chosen], progress),
        theirs if theirs != ours else f"{theirs} ({first})",
        ours if theirs != ours else f"{ours} ({second})",
        chosen,
        before.provenance["dataset"]["classes"],
        alpha=alpha,
        interval=interval,
        correction=correction,
    )


def _choose(path: Path, results: Results, name: str | None) -> str:
    there = list(dict.fromkeys(results.frame["checkpoint"]))
    if name is None and len(there) == 1:
        return str(there[0])
    if name is None:
        raise UsageError(f"{path}: holds {', '.join(there)}; say which to compare with --checkpoints NAME,NAME")
    if name not in there:
        raise unknown_name(f"checkpoint of {path}", name, there)
    return name


def flipped_samples(pair: Pair, classes: Sequence[str]) -> pd.DataFrame:
    """The samples that only one side gets right, by case and prompting; columns as ``Comparison.flips``.

    A prediction belongs to a case, not to a cell, so each is listed once, however many cells it is in. In a multi-label
    task, right means exactly the true set of classes. In a regression task nothing flips.
    """
    rows = []
    truth = pair.baseline.truth
    shared = set(pair.baseline.keys) & set(pair.candidate.keys) if truth.task != REGRESSION else ()
    for case, prompting in sorted(shared):
        logits = [side.get(case, prompting) for side in pair.sides]
        both = ~np.isnan(logits[0][:, 0]) & ~np.isnan(logits[1][:, 0])
        predicted = [pair.baseline.predicted(values) for values in logits]
        right = [(of == truth.targets).all(axis=1) for of in predicted]
        flipped: list[int] = np.flatnonzero(both & (right[0] != right[1])).tolist()
        for at in flipped:
            names = ["|".join(classes[c] for c in np.flatnonzero(of[at]).tolist()) for of in predicted]
            label = "|".join(classes[c] for c in truth.labels[at])
            change = LOST if right[0][at] else GAINED
            rows.append((case, prompting, change, truth.ids[at], label, *names))
    columns = ["case", "prompting", "change", "id", "label", "first", "second"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["case", "prompting", "change", "id"], ascending=[True, True, False, True], kind="stable", ignore_index=True
    )


def _delong(pair: Pair) -> Floats:
    """Two-sided p-values [K] of the differences in AUROC, over mask seeds; NaN if all samples are of one class."""
    positive, cells = pair.baseline.truth.targets[:, 1], over_seeds(pair.tables)
    if positive.all() or not positive.any():  # samples of one class have no ROC curve
        return np.full(cells.ngroups, np.nan)
    by_side = []
    for side in pair.sides:
        logits = (side.chosen(pair.tables, key).astype(np.float64) for key in range(len(pair.tables.keys)))
        by_side.append([placements(z[:, 1] - z[:, 0], positive) for z in logits])
    means = ([Placements.mean([found[key] for key in keys]) for found in by_side] for _, keys in cells["key"])
    return np.asarray([delong(first, second)[1] for first, second in means])
