"""The regression gate: whether a candidate is as good as its baseline.

What is compared is the mean over mask seeds in each (checkpoint, scenario, missing rate, prompting, metric). Mask seeds
repeat one measurement: a limit on every single seed would fail more often the more seeds there are, with nothing having
changed. Both sides must have the same seeds, so that both means are over the same missing tables.

In each cell the most specific rule on the drop decides (metric, then scenario, then missing rate), and so does the most
specific floor: a floor does not lift a limit on the drop. A cell without a rule is not judged.

A drop fails if it passes its limit *and* is significant: the one-sided interval of the paired difference (see
:mod:`mmrobust.scoring.paired`), corrected for the number of cells, lies below zero. If a side has no predictions, the
limit alone decides, and the verdict says so. For a floor the limit alone always decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmrobust.errors import DataError, NotComparableError, UsageError, unknown_name
from mmrobust.gate.comparable import MEAN_KEYS, check_statistics, comparable_checkpoints, pair_cells
from mmrobust.gate.rules import DROP, DROP_PERCENT, FLOOR, Rule
from mmrobust.scoring import paired
from mmrobust.scoring.paired import PAIR_KEYS, Pair, differences
from mmrobust.scoring.significance import holm, p_values, smallest_shown, upper_ends
from mmrobust.storage.results import Results, read_results

DEFAULT_DROP = 0.01
"""What the headline metric may lose in any cell if no rules are given."""
DEFAULT_ALPHA = 0.05
LIMIT_ALONE = "limit alone: no paired interval"
_TOLERANCE = 1e-9  # 0.93 - 0.92 is slightly more than 0.01
_SAME = 1e-6  # by how much two ways to add up the same numbers may differ

_Cell = tuple[str, str, float, str, str]
PairReader = Callable[[str, str], Pair]
"""(name in the baseline, name in the candidate) → the predictions of both. Raises DataError if there are none."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one rule in one cell. Values are shares, means over mask seeds."""

    checkpoint: str
    """Its name in the candidate."""
    scenario: str
    missing_rate: float
    prompting: str
    metric: str
    seeds: int
    baseline: float
    candidate: float
    rule: str
    """The deciding rule, as written."""
    kind: str
    """Kind of the rule: ``drop``, ``drop_percent`` or ``floor``."""
    limit: float
    """The smallest value that passes."""
    passed: bool
    p_value: float | None = None
    """One-sided p-value of the drop, corrected over cells; ``None`` if the limit alone decided."""
    at_most: float | None = None
    """Upper end of the one-sided interval of the difference."""
    smallest: float | None = None
    """The smallest drop that the samples of this cell would show with 80 % power."""

    @property
    def cell(self) -> _Cell:
        """What identifies the cell: checkpoint, scenario, missing rate, prompting and metric."""
        return self.checkpoint, self.scenario, self.missing_rate, self.prompting, self.metric

    @property
    def difference(self) -> float:
        """Candidate − baseline: negative if the candidate is worse."""
        return self.candidate - self.baseline

    @property
    def margin(self) -> float:
        """How far the candidate lies above the limit; negative if it lies below."""
        return self.candidate - self.limit

    @property
    def below_limit(self) -> bool:
        """Whether the value lies below the limit, significantly or not."""
        return self.margin < -_TOLERANCE


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check."""

    outcomes: tuple[Outcome, ...]
    """Worst first."""
    notes: tuple[str, ...]
    """What was left out of the comparison, and how it was decided."""

    @property
    def passed(self) -> bool:
        """Whether every outcome passed."""
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes that did not pass, worst first."""
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {
            "passed": self.passed,
            "compared": len(self.outcomes),
            "failed": len(self.failures),
            "notes": list(self.notes),
            "outcomes": [{**asdict(o), "difference": o.difference} for o in self.outcomes],
        }


def check(
    candidate: Results,
    baseline: Results,
    rules: Sequence[Rule] = (),
    *,
    read_pair: PairReader | None = None,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
) -> Verdict:
    """Judge ``candidate`` by ``baseline``.

    There is at most one rule for the same cells; without any, the headline metric may lose 0.01 anywhere. Without
    ``read_pair``, which gives the predictions behind two checkpoints, the limits alone decide. ``alpha`` is the
    probability that a comparison of equals fails by chance: over all cells with the correction ``holm`` of the p-values
    for their number, per cell with ``none``.

    Raises:
        NotComparableError: data, split, task, metric, fill, noise or metric settings differ; cells, seeds or
            checkpoints of the baseline are missing in the candidate; the numbers of samples differ; a value is not
            defined; or there is nothing to compare.
        UsageError: a rule covers no cell, ``alpha`` is not a probability, or the correction is unknown.
    """
    check_statistics(alpha, correction)
    names = comparable_checkpoints(candidate, baseline)
    before = baseline.frame.assign(checkpoint=baseline.frame["checkpoint"].map(names))
    after = candidate.frame[candidate.frame["checkpoint"].isin(list(names.values()))]
    rules = rules or (Rule(baseline.headline_metric, None, None, DROP, DEFAULT_DROP),)
    _refuse_unused(rules, before)

    relevant = before[before["metric"].isin({rule.metric for rule in rules})]
    means = pair_cells(relevant, after)
    outcomes = [outcome for cell in means.to_dict("records") for outcome in _judge(cell, rules)]
    if not outcomes:
        raise NotComparableError("nothing to compare: no cell of the baseline is under a rule")
    errors, notes = _standard_errors(outcomes, names, read_pair)
    outcomes = _pass_insignificant(outcomes, errors, alpha, correction)
    notes += _basis(outcomes, alpha, correction)
    if unjudged := len(before.drop_duplicates(["checkpoint", *MEAN_KEYS])) - len({o.cell for o in outcomes}):
        notes.append(f"{unjudged} cells of the baseline are under no rule")
    if extra := sorted(set(candidate.frame["checkpoint"]) - set(names.values())):
        notes.append(f"not in the baseline, not compared: {', '.join(extra)}")
    return Verdict(tuple(sorted(outcomes, key=lambda o: (o.passed, o.margin, o.cell))), tuple(notes))


def check_files(
    candidate: Path,
    baseline: Path,
    rules: Sequence[Rule] = (),
    *,
    stats: bool = True,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
) -> Verdict:
    """Run :func:`check` on the results in two files or folders, with the predictions behind them.

    With ``stats=False`` the predictions are not read, and the limits alone decide. All other arguments are those of
    :func:`check`.

    Raises:
        DataError: results are missing or cannot be read.
        NotComparableError, UsageError: as for :func:`check`.
    """
    after, before = read_results(candidate), read_results(baseline)
    read_pair = partial(paired.read_pair, baseline, before, candidate, after) if stats else None
    return check(after, before, rules, read_pair=read_pair, alpha=alpha, correction=correction)


def _refuse_unused(rules: Iterable[Rule], cells: pd.DataFrame) -> None:
    """Raise if a rule covers no cell: a mistyped rule must not look like one that passed."""
    known = cells[["metric", "scenario", "missing_rate"]].drop_duplicates()
    for rule in rules:
        if any(rule.covers(*cell) for cell in known.itertuples(index=False, name=None)):
            continue
        for kind, name, column in (("metric", rule.metric, "metric"), ("scenario", rule.scenario, "scenario")):
            there = sorted(known[column].unique())
            if name is not None and name not in there:
                raise UsageError(f"rule '{rule}' applies to no cell of the baseline: {unknown_name(kind, name, there)}")
        rates = ", ".join(f"{rate:g}" for rate in sorted(known["missing_rate"].unique()))
        raise UsageError(f"rule '{rule}' applies to no cell of the baseline, whose missing rates are {rates}")


def _judge(cell: dict[Any, Any], rules: Sequence[Rule]) -> list[Outcome]:
    """Judge a cell by the limits of the deciding drop and of the deciding floor."""
    covering = [r for r in rules if r.covers(cell["metric"], cell["scenario"], cell["missing_rate"])]
    kinds = ([r for r in covering if r.kind != FLOOR], [r for r in covering if r.kind == FLOOR])
    outcomes = []
    for rule in (max(kind, key=lambda rule: rule.specificity) for kind in kinds if kind):
        limit = {
            DROP: cell["baseline"] - rule.limit,
            DROP_PERCENT: cell["baseline"] * (1 - rule.limit / 100),
            FLOOR: rule.limit,
        }[rule.kind]
        passed = bool(cell["candidate"] >= limit - _TOLERANCE)
        outcomes.append(Outcome(**cell, rule=str(rule), kind=rule.kind, limit=limit, passed=passed))
    return outcomes


def _standard_errors(
    outcomes: Sequence[Outcome], names: dict[str, str], read_pair: PairReader | None
) -> tuple[dict[_Cell, tuple[float, float]], list[str]]:
    """Error and degrees of freedom of each difference under a rule on the drop, and notes on why some have none."""
    found: dict[_Cell, tuple[float, float]] = {}
    notes = []
    for theirs, ours in names.items():
        drops = [outcome for outcome in outcomes if outcome.checkpoint == ours and outcome.kind != FLOOR]
        if read_pair is None or not drops:
            continue
        try:
            pair = read_pair(theirs, ours)
            for metric in dict.fromkeys(outcome.metric for outcome in drops):
                found |= _errors_of(pair, metric, [outcome for outcome in drops if outcome.metric == metric])
        except DataError as reason:
            notes.append(f"'{ours}' is judged by the limit alone: {reason}")
    return {cell: error for cell, error in found.items() if not math.isnan(error[0])}, notes


def _errors_of(pair: Pair, metric: str, outcomes: Sequence[Outcome]) -> dict[_Cell, tuple[float, float]]:
    """Standard error and degrees of freedom of the differences of one metric, by cell; NaN where it is not defined."""
    by_cell = differences(pair, metric).set_index(list(PAIR_KEYS)).to_dict("index")
    errors = {}
    for outcome in outcomes:
        row = by_cell.get((outcome.scenario, outcome.missing_rate, outcome.prompting))
        if row is None or any(abs(row[side] - getattr(outcome, side)) > _SAME for side in ("baseline", "candidate")):
            value = f"{metric} at {outcome.scenario}/{outcome.missing_rate:g}, {outcome.prompting}"
            raise DataError(f"its predictions do not give the {value} that its results have")
        errors[outcome.cell] = float(row["error"]), float(row["degrees"])
    return errors


def _pass_insignificant(
    outcomes: Sequence[Outcome], errors: dict[_Cell, tuple[float, float]], alpha: float, correction: str
) -> list[Outcome]:
    """The outcomes with their p-values and intervals; a drop that is not significant passes."""
    tested = [place for place, o in enumerate(outcomes) if o.kind != FLOOR and o.cell in errors]
    difference = np.asarray([outcomes[place].difference for place in tested])
    error, degrees = np.asarray([errors[outcomes[place].cell] for place in tested]).reshape(-1, 2).T
    p = p_values(difference, error, degrees, two_sided=False)
    corrected = holm(p) if correction == "holm" else p
    # The level at which each cell is tested, so that its interval and its corrected p-value agree.
    level = alpha * np.divide(p, corrected, out=np.full(len(p), 1 / max(len(p), 1)), where=corrected > 0)
    at_most = upper_ends(difference, error, degrees, level)
    smallest = smallest_shown(error, degrees, alpha, two_sided=False)
    judged = list(outcomes)
    for number, place in enumerate(tested):
        judged[place] = replace(
            judged[place],
            passed=judged[place].passed or bool(corrected[number] > alpha),
            p_value=float(min(corrected[number], 1.0)),
            at_most=float(at_most[number]),
            smallest=float(smallest[number]),
        )
    return judged


def _basis(outcomes: Sequence[Outcome], alpha: float, correction: str) -> list[str]:
    """Notes on how the outcomes were decided."""
    tested = [outcome for outcome in outcomes if outcome.p_value is not None]
    if not tested:
        return [LIMIT_ALONE]
    over = f"Holm over {len(tested)} cells" if correction == "holm" else "uncorrected"
    smallest = sorted(outcome.smallest for outcome in tested if outcome.smallest is not None)
    median, most = (100 * smallest[place] for place in (len(smallest) // 2, -1))
    notes = [
        f"a drop fails below its limit and where its paired interval lies below zero (α {alpha:g}, {over})",
        "smallest drop that these samples would show in one cell alone, with 80 % power: "
        f"{median:.1f} points (median), {most:.1f} (at most)",
    ]
    if unsure := sum(outcome.passed and outcome.below_limit for outcome in tested):
        notes.append(f"{unsure} cell{'s' * (unsure > 1)} below the limit, by no more than chance would do")
    return notes
