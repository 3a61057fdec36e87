"""The regression gate: whether a candidate is as good as its baseline.

What is compared is the mean over mask seeds of each (checkpoint, scenario, missing rate, prompting, metric). The mask
seeds are repetitions of one measurement: a limit on every single seed would fail more often the more seeds there are,
with nothing having changed. Both sides must have the same seeds, so that both means are over the same missing tables.

Of the rules that are for a cell the most specific one decides (metric, then scenario, then missing rate), once among
the drops and once among the floors: a floor does not lift a limit on the drop. A cell that no rule is for is not
judged. In this first form the limit alone decides: there is no paired interval yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmrobust.errors import NotComparableError, UsageError, unknown_name
from mmrobust.results import CELL_KEYS, Results
from mmrobust.rules import DROP, DROP_PERCENT, FLOOR, Rule

DEFAULT_DROP = 0.01
"""What the headline metric may lose in any cell where no rule is given."""
BASIS = "limit alone: no paired interval"
_TOLERANCE = 1e-9  # 0.93 - 0.92 is 0.01 and a little more
_SAME_DATA = {
    "fingerprint": "the data differs",
    "split": "the split differs",
    "task": "the task differs",
    "headline_metric": "the headline metric differs",
    "classes": "the classes differ",
}
_MEAN_KEYS = tuple(key for key in CELL_KEYS if key != "seed")


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
    limit: float
    """The smallest value that passes."""
    passed: bool

    @property
    def difference(self) -> float:
        """Candidate − baseline: negative where the candidate is worse."""
        return self.candidate - self.baseline

    @property
    def margin(self) -> float:
        """How far the candidate is above what the rule asks for; negative where it fails."""
        return self.candidate - self.limit


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


def check(candidate: Results, baseline: Results, rules: Sequence[Rule] = ()) -> Verdict:
    """Compare ``candidate`` with ``baseline``.

    Args:
        candidate: the results to judge.
        baseline: the results to judge by.
        rules: at most one for the same cells; without any, the headline metric may lose 0.01 anywhere.

    Raises:
        NotComparableError: other data, split, task, metric, fill or noise; cells, seeds or checkpoints of the baseline
            that the candidate does not have; another number of samples; a value that is not defined; nothing to
            compare.
        UsageError: a rule that is for no cell.
    """
    _same_data(candidate.provenance, baseline.provenance)
    _same_noise(candidate.provenance, baseline.provenance)
    pairs = _pairs(candidate, baseline)
    for theirs, ours in pairs.items():
        _same_fill(candidate.provenance, ours, baseline.provenance, theirs)
    before = baseline.frame.assign(checkpoint=baseline.frame["checkpoint"].map(pairs))
    after = candidate.frame[candidate.frame["checkpoint"].isin(list(pairs.values()))]
    rules = rules or (Rule(baseline.headline_metric, None, None, DROP, DEFAULT_DROP),)
    _refuse_idle(rules, before)

    relevant = before[before["metric"].isin({rule.metric for rule in rules})]
    means = _means(relevant, after)
    outcomes = [outcome for cell in means.to_dict("records") for outcome in _judge(cell, rules)]
    if not outcomes:
        raise NotComparableError("nothing to compare: no cell of the baseline is under a rule")
    notes = [BASIS]
    if unjudged := len(before.drop_duplicates(["checkpoint", *_MEAN_KEYS])) - len({_cell(o) for o in outcomes}):
        notes.append(f"{unjudged} cells of the baseline are under no rule")
    if extra := sorted(set(candidate.frame["checkpoint"]) - set(pairs.values())):
        notes.append(f"not in the baseline, not compared: {', '.join(extra)}")
    return Verdict(tuple(sorted(outcomes, key=lambda o: (o.passed, o.margin, _cell(o)))), tuple(notes))


def _same_data(candidate: dict[str, Any], baseline: dict[str, Any]) -> None:
    ours, theirs = candidate.get("dataset") or {}, baseline.get("dataset") or {}
    for side, about in (("candidate", ours), ("baseline", theirs)):
        if not about.get("fingerprint"):
            raise NotComparableError(f"the {side} does not say which data it was made on (no fingerprint)")
    for key, what in _SAME_DATA.items():
        if ours.get(key) != theirs.get(key):
            names = f" ({ours.get('name')} and {theirs.get('name')})" if key == "fingerprint" else ""
            raise NotComparableError(
                f"{what}{names}: candidate {_short(ours.get(key))}, baseline {_short(theirs.get(key))}; "
                "evaluate both on the same data"
            )


def _pairs(candidate: Results, baseline: Results) -> dict[str, str]:
    """Name in the baseline → name in the candidate."""
    ours, theirs = (list(dict.fromkeys(results.frame["checkpoint"])) for results in (candidate, baseline))
    if len(ours) == len(theirs) == 1:
        return {theirs[0]: ours[0]}
    if absent := [name for name in theirs if name not in ours]:
        raise NotComparableError(
            f"checkpoint '{absent[0]}' of the baseline is not in the candidate, which has {', '.join(ours)}; "
            "several checkpoints are compared by name"
        )
    return {name: name for name in theirs}


def _same_fill(candidate: dict[str, Any], ours: str, baseline: dict[str, Any], theirs: str) -> None:
    """Raise where a missing input was filled differently: the two then did not see the same samples."""
    fills = [
        (provenance.get("checkpoints", {}).get(name) or {}).get("fill")
        for provenance, name in ((candidate, ours), (baseline, theirs))
    ]
    if fills[0] != fills[1]:
        raise NotComparableError(f"the fill of '{ours}' differs: candidate {fills[0]}, baseline {fills[1]}")


def _same_noise(candidate: dict[str, Any], baseline: dict[str, Any]) -> None:
    """Raise where noisy inputs were degraded differently; results without noisy scenarios say nothing of noise."""
    ours, theirs = candidate.get("noise"), baseline.get("noise")
    if ours and theirs and ours != theirs:
        said = [f"{noise['profile']}, seed {noise['seed']}" for noise in (ours, theirs)]
        raise NotComparableError(f"the noise differs: candidate {said[0]}, baseline {said[1]}")


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


def _means(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Every cell of the baseline with the means over mask seeds of both sides."""
    keys = ["checkpoint", *CELL_KEYS]
    columns = [*keys, "n", "n_affected", "value"]
    if before.duplicated(keys).any() or after.duplicated(keys).any():
        raise NotComparableError("a cell occurs twice: results of several data sets or splits are in one table")
    both = before[columns].merge(after[columns], on=keys, how="left", suffixes=("_baseline", "_candidate"))
    _refuse(both, both["n_candidate"].isna(), "the candidate does not have {cell}, which the baseline has")
    for column, what in (("n", "samples"), ("n_affected", "affected samples")):
        differs = both[f"{column}_candidate"] != both[f"{column}_baseline"]
        message = f"{{cell}} is over another number of {what}: candidate {{{column}_candidate:.0f}}, "
        _refuse(both, differs, message + f"baseline {{{column}_baseline:.0f}}")
    for side in ("candidate", "baseline"):
        _refuse(both, both[f"value_{side}"].isna(), f"the {side} has no value in {{cell}}: the metric is not defined")
    grouped = both.groupby(["checkpoint", *_MEAN_KEYS], sort=True)
    return grouped.agg(
        baseline=("value_baseline", "mean"), candidate=("value_candidate", "mean"), seeds=("seed", "nunique")
    ).reset_index()


def _refuse(cells: pd.DataFrame, wrong: pd.Series[bool], message: str) -> None:
    """Raise where some of the ``cells`` are ``wrong``, naming the first."""
    if wrong.any():
        first: Any = cells[wrong].iloc[0]
        cell = f"{first['metric']} of '{first['checkpoint']}' at {first['scenario']}/{first['missing_rate']:g}, "
        cell += f"seed {first['seed']}, {first['prompting']}"
        more = f" ({int(wrong.sum()) - 1} more like it)" if wrong.sum() > 1 else ""
        raise NotComparableError(message.format(cell=cell, **first) + more)


def _judge(cell: dict[Any, Any], rules: Sequence[Rule]) -> list[Outcome]:
    """What the deciding drop and the deciding floor say of a cell."""
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
        outcomes.append(Outcome(**cell, rule=str(rule), limit=limit, passed=passed))
    return outcomes


def _cell(outcome: Outcome) -> tuple[str, str, float, str, str]:
    return outcome.checkpoint, outcome.scenario, outcome.missing_rate, outcome.prompting, outcome.metric


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
