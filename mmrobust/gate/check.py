"""The regression gate: whether a candidate is as good as its baseline.

What is compared is the mean over mask seeds of each (checkpoint, scenario, missing rate, prompting, metric). The mask
seeds are repetitions of one measurement: a limit on every single seed would fail more often the more seeds there are,
with nothing having changed. Both sides must have the same seeds, so that both means are over the same missing tables.

Of the rules that are for a cell the most specific one decides (metric, then scenario, then missing rate), once among
the drops and once among the floors: a floor does not lift a limit on the drop. A cell that no rule is for is not
judged.

A drop fails where it passes its limit *and* chance alone would hardly do it: where the one-sided interval of the paired
difference (see :mod:`mmrobust.scoring.paired`), corrected for the number of cells, lies below zero. Where a side has no
predictions the limit alone decides, and the verdict says so. A floor is a limit alone, always.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import DataError, NotComparableError, UsageError, unknown_name
from mmrobust.gate.comparable import MEAN_KEYS, comparable_checkpoints, seed_means
from mmrobust.gate.rules import DROP, DROP_PERCENT, FLOOR, Rule
from mmrobust.scoring.paired import Pair, differences, read_pair
from mmrobust.scoring.significance import CORRECTIONS, holm, normal_p_values, smallest_shown, upper_ends
from mmrobust.storage.results import Results, read_results

DEFAULT_DROP = 0.01
"""What the headline metric may lose in any cell where no rule is given."""
DEFAULT_ALPHA = 0.05
LIMIT_ALONE = "limit alone: no paired interval"
_TOLERANCE = 1e-9  # 0.93 - 0.92 is 0.01 and a little more
_SAME = 1e-6  # what two ways to add up the same numbers may differ by

_Key = tuple[str, str, float, str, str]
_Floats = npt.NDArray[np.float64]
Predictions = Callable[[str, str], Pair]
"""(name in the baseline, name in the candidate) → the predictions of both. Raises DataError where there are none."""


@dataclass(frozen=True)
class Outcome:
    """What one rule says of one cell. Values are shares, means over mask seeds."""

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
    """The rule that decides, as it is written."""
    kind: str
    """Of the rule: ``drop``, ``drop_percent`` or ``floor``."""
    limit: float
    """The smallest value that passes."""
    passed: bool
    p_value: float | None = None
    """How likely chance alone is to do this, corrected over cells; ``None`` where the limit alone decided."""
    at_most: float | None = None
    """Upper end of the one-sided interval of the difference: surely not above this."""
    smallest: float | None = None
    """The smallest drop in this cell that its samples would show with 80 % power."""

    @property
    def difference(self) -> float:
        """Candidate − baseline: negative where the candidate is worse."""
        return self.candidate - self.baseline

    @property
    def margin(self) -> float:
        """How far the candidate is above what the rule asks for; negative where it is below."""
        return self.candidate - self.limit

    @property
    def below_limit(self) -> bool:
        """Whether the value alone is below what the rule asks for, sure or not."""
        return self.margin < -_TOLERANCE


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check."""

    outcomes: tuple[Outcome, ...]
    """Worst first."""
    notes: tuple[str, ...]
    """What was left out of the comparison, and on what basis it was decided."""

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
            "outcomes": [{**dataclasses.asdict(o), "difference": o.difference} for o in self.outcomes],
        }


def check(
    candidate: Results,
    baseline: Results,
    rules: Sequence[Rule] = (),
    *,
    predictions: Predictions | None = None,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
) -> Verdict:
    """Compare ``candidate`` with ``baseline``.

    Args:
        candidate: the results to judge.
        baseline: the results to judge by.
        rules: at most one for the same cells; without any, the headline metric may lose 0.01 anywhere.
        predictions: gives the predictions behind two checkpoints; ``None``: the limits alone decide.
        alpha: how often a comparison of equals may fail by chance (with ``holm``: in any of its cells at all).
        correction: for asking in many cells: ``holm`` or ``none``.

    Raises:
        NotComparableError: other data, split, task, metric, fill, noise or metric settings; cells, seeds or checkpoints
            of the baseline that the candidate does not have; another number of samples; a value that is not defined;
            nothing to compare.
        UsageError: a rule that is for no cell, an ``alpha`` that is no probability, or an unknown correction.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha:g} is not a probability between 0 and 1: 0.05 is usual")
    if correction not in CORRECTIONS:
        raise unknown_name("correction", correction, CORRECTIONS)
    pairs = comparable_checkpoints(candidate, baseline)
    before = baseline.frame.assign(checkpoint=baseline.frame["checkpoint"].map(pairs))
    after = candidate.frame[candidate.frame["checkpoint"].isin(list(pairs.values()))]
    rules = rules or (Rule(baseline.headline_metric, None, None, DROP, DEFAULT_DROP),)
    _refuse_idle(rules, before)

    relevant = before[before["metric"].isin({rule.metric for rule in rules})]
    means = seed_means(relevant, after)
    outcomes = [outcome for cell in means.to_dict("records") for outcome in _judge(cell, rules)]
    if not outcomes:
        raise NotComparableError("nothing to compare: no cell of the baseline is under a rule")
    drops = [place for place, outcome in enumerate(outcomes) if outcome.kind != FLOOR]
    errors, notes = _standard_errors([outcomes[place] for place in drops], pairs, predictions)
    for place, outcome in zip(drops, _sure([outcomes[p] for p in drops], errors, alpha, correction), strict=True):
        outcomes[place] = outcome
    notes += _said_of(outcomes, alpha, correction)
    if unjudged := len(before.drop_duplicates(["checkpoint", *MEAN_KEYS])) - len({_cell(o) for o in outcomes}):
        notes.append(f"{unjudged} cells of the baseline are under no rule")
    if extra := sorted(set(candidate.frame["checkpoint"]) - set(pairs.values())):
        notes.append(f"not in the baseline, not compared: {', '.join(extra)}")
    return Verdict(tuple(sorted(outcomes, key=lambda o: (o.passed, o.margin, _cell(o)))), tuple(notes))


def check_files(
    candidate: Path,
    baseline: Path,
    rules: Sequence[Rule] = (),
    *,
    stats: bool = True,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
) -> Verdict:
    """Compare the results in one file or folder with those in another, by their predictions where both have them.

    Args:
        candidate: the results to judge.
        baseline: the results to judge by.
        rules: as for :func:`check`.
        stats: whether paired intervals decide too; otherwise the limits alone.
        alpha: as for :func:`check`.
        correction: as for :func:`check`.

    Raises:
        DataError: results that are not there or cannot be read.
        NotComparableError: as for :func:`check`.
        UsageError: as for :func:`check`.
    """
    after, before = read_results(candidate), read_results(baseline)
    predictions = partial(read_pair, baseline, before, candidate, after) if stats else None
    return check(after, before, rules, predictions=predictions, alpha=alpha, correction=correction)


def _refuse_idle(rules: Iterable[Rule], cells: pd.DataFrame) -> None:
    """Raise where a rule is for no cell: a mistyped rule must not look like a passed one."""
    known = cells[["metric", "scenario", "missing_rate"]].drop_duplicates()
    for rule in rules:
        if any(rule.covers(*cell) for cell in known.itertuples(index=False, name=None)):
            continue
        for kind, name, column in (("metric", rule.metric, "metric"), ("scenario", rule.scenario, "scenario")):
            there = sorted(known[column].unique())
            if name is not None and name not in there:
                raise UsageError(f"rule '{rule}' is for no cell of the baseline: {unknown_name(kind, name, there)}")
        rates = ", ".join(f"{rate:g}" for rate in sorted(known["missing_rate"].unique()))
        raise UsageError(f"rule '{rule}' is for no cell of the baseline, whose missing rates are {rates}")


def _judge(cell: dict[Any, Any], rules: Sequence[Rule]) -> list[Outcome]:
    """What the limits of the deciding drop and of the deciding floor say of a cell."""
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
    outcomes: Sequence[Outcome], pairs: dict[str, str], predictions: Predictions | None
) -> tuple[_Floats, list[str]]:
    """The standard error of each difference, NaN where there are no predictions for it, and why there are none."""
    found: dict[_Key, float] = {}
    notes = []
    for theirs, ours in pairs.items():
        own = [outcome for outcome in outcomes if outcome.checkpoint == ours]
        if predictions is None or not own:
            continue
        try:
            pair = predictions(theirs, ours)
            for metric in dict.fromkeys(outcome.metric for outcome in own):
                found |= _errors_of(pair, metric, [outcome for outcome in own if outcome.metric == metric])
        except DataError as reason:
            notes.append(f"'{ours}' is judged by the limit alone: {reason}")
    return np.asarray([found.get(_cell(outcome), math.nan) for outcome in outcomes]), notes


def _errors_of(pair: Pair, metric: str, outcomes: Sequence[Outcome]) -> dict[_Key, float]:
    """The standard errors of the differences of one metric, by cell.

    Raises:
        DataError: the predictions do not give the values of the results.
    """
    rows = differences(pair, metric, resamples=0).frame.to_dict("records")
    by_cell = {(row["scenario"], row["missing_rate"], row["prompting"]): row for row in rows}
    errors = {}
    for outcome in outcomes:
        row = by_cell.get((outcome.scenario, outcome.missing_rate, outcome.prompting))
        if row is None or any(abs(row[side] - getattr(outcome, side)) > _SAME for side in ("baseline", "candidate")):
            said = f"{metric} at {outcome.scenario}/{outcome.missing_rate:g}, {outcome.prompting}"
            raise DataError(f"its predictions do not give the {said} that its results have")
        errors[_cell(outcome)] = float(row["error"])
    return errors


def _sure(outcomes: Sequence[Outcome], errors: _Floats, alpha: float, correction: str) -> list[Outcome]:
    """The outcomes with what their intervals say: a drop of which one cannot be sure passes."""
    known: list[int] = np.flatnonzero(~np.isnan(errors)).tolist()
    difference, error = np.asarray([outcomes[i].difference for i in known]), errors[known]
    p = normal_p_values(difference, error, two_sided=False)
    corrected = holm(p) if correction == "holm" else p
    # The level at which each cell is asked, so that its interval and its corrected p-value say the same.
    level = alpha * np.divide(p, corrected, out=np.full(len(p), 1 / max(len(p), 1)), where=corrected > 0)
    at_most = upper_ends(difference, error, level)
    smallest = smallest_shown(error, alpha, two_sided=False)
    judged = list(outcomes)
    for at, i in enumerate(known):
        outcome = judged[i]
        judged[i] = dataclasses.replace(
            outcome,
            passed=outcome.passed or bool(corrected[at] > alpha),
            p_value=float(min(corrected[at], 1.0)),
            at_most=float(at_most[at]),
            smallest=float(smallest[at]),
        )
    return judged


def _said_of(outcomes: Sequence[Outcome], alpha: float, correction: str) -> list[str]:
    """On what basis the outcomes were decided."""
    paired = [outcome for outcome in outcomes if outcome.p_value is not None]
    if not paired:
        return [LIMIT_ALONE]
    over = f"Holm over {len(paired)} cells" if correction == "holm" else "uncorrected"
    notes = [f"a drop fails below its limit and where its paired interval lies below zero (α {alpha:g}, {over})"]
    smallest = sorted(outcome.smallest for outcome in paired if outcome.smallest is not None)
    median, most = (100 * smallest[place] for place in (len(smallest) // 2, -1))
    notes.append(
        "smallest drop that these samples would show in one cell alone, with 80 % power: "
        f"{median:.1f} points (median), {most:.1f} (at most)"
    )
    if unsure := sum(outcome.passed and outcome.below_limit for outcome in paired):
        notes.append(f"{unsure} cell{'s' * (unsure > 1)} below the limit, by no more than chance would do")
    return notes


def _cell(outcome: Outcome) -> _Key:
    return outcome.checkpoint, outcome.scenario, outcome.missing_rate, outcome.prompting, outcome.metric
