"""What the gate says: the outcome of each rule in each cell, and the verdict over all of them.

Both have one of three values. ``fail``: worse than allowed, and surely so where predictions can tell. ``inconclusive``:
not worse than allowed, but the data could not have shown a drop as large as the rule allows, nor do they rule it out.
``pass``: neither.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
WARN = "warn"
INCONCLUSIVE_AS = (WARN, FAIL, PASS)
"""What to make of inconclusive cells: a warning, a failure, or a pass like any other."""
_TOLERANCE = 1e-9  # 0.93 - 0.92 is slightly more than 0.01
_WORST_FIRST = (FAIL, INCONCLUSIVE, PASS)

Cell = tuple[str, str, float, str, str]
"""Checkpoint, scenario, missing rate (−1: all of them), prompting and metric."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one rule in one cell. Values are shares, means over mask seeds."""

    checkpoint: str
    """Its name in the candidate."""
    scenario: str
    missing_rate: float | None
    """``None`` for a figure of a whole curve."""
    prompting: str
    metric: str
    """A metric of the results table, or a figure as the rule names it."""
    seeds: int
    baseline: float
    candidate: float
    rule: str
    """The deciding rule, as written."""
    kind: str
    """Kind of the rule: ``drop``, ``drop_percent`` or ``floor``."""
    limit: float
    """The worst value that passes."""
    verdict: str
    """``pass``, ``fail`` or ``inconclusive``."""
    less_is_better: bool = False
    p_value: float | None = None
    """One-sided p-value of the drop, corrected over distinct columns; ``None`` if the limit alone decided."""
    at_most: float | None = None
    """The better end of the one-sided interval of the difference: the upper one, unless less is better."""
    detectable: float | None = None
    """The smallest true drop that the gate would find in this cell with 80 % power, after the correction."""
    ruled_out: bool = False
    """Whether the samples of this cell rule out a drop as large as the rule allows, at α."""
    few: int | None = None
    """Samples of the smallest class, where they are too few for the metric's own test to hold."""

    @property
    def cell(self) -> Cell:
        """What identifies the cell: checkpoint, scenario, missing rate, prompting and metric."""
        rate = -1.0 if self.missing_rate is None else self.missing_rate
        return self.checkpoint, self.scenario, rate, self.prompting, self.metric

    @property
    def sign(self) -> int:
        """1, or −1 if less is better."""
        return -1 if self.less_is_better else 1

    @property
    def passed(self) -> bool:
        """Whether the verdict is ``pass``: an inconclusive cell did not pass."""
        return self.verdict == PASS

    @property
    def difference(self) -> float:
        """Candidate − baseline: negative if the candidate is worse, unless less is better."""
        return self.candidate - self.baseline

    @property
    def margin(self) -> float:
        """How far the candidate lies on the better side of the limit; negative if it lies on the other."""
        return self.sign * (self.candidate - self.limit)

    @property
    def allowed(self) -> float:
        """By how much the rule lets the baseline's value get worse."""
        return self.sign * (self.baseline - self.limit)

    @property
    def below_limit(self) -> bool:
        """Whether the value lies on the worse side of the limit, significantly or not."""
        return self.margin < -_TOLERANCE

    @property
    def unsure(self) -> bool:
        """Whether the samples cannot decide: they are too few, or could have hidden a drop as large as the limit."""
        hidden = self.detectable is not None and self.detectable > self.allowed + _TOLERANCE
        return self.verdict != FAIL and (self.few is not None or (hidden and not self.ruled_out))


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check."""

    outcomes: tuple[Outcome, ...]
    """Worst first: see :func:`worst_first`."""
    notes: tuple[str, ...]
    """What was left out of the comparison, and how it was decided."""
    warnings: tuple[str, ...] = ()
    """Why the verdict may say less than it seems to."""
    inconclusive_as: str = WARN
    """What inconclusive cells count as: ``warn``, ``fail`` or ``pass``."""

    @property
    def value(self) -> str:
        """``fail`` if any cell failed, else ``inconclusive`` if any is, else ``pass``."""
        if self.failures:
            return FAIL
        return INCONCLUSIVE if self.inconclusive and self.inconclusive_as != PASS else PASS

    @property
    def passed(self) -> bool:
        """Whether :attr:`value` is ``pass``."""
        return self.value == PASS

    @property
    def failed(self) -> bool:
        """Whether the exit code is 1: a cell failed, or is inconclusive where that counts as a failure."""
        return self.value == FAIL or (self.value == INCONCLUSIVE and self.inconclusive_as == FAIL)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes that failed, worst first."""
        return tuple(outcome for outcome in self.outcomes if outcome.verdict == FAIL)

    @property
    def inconclusive(self) -> tuple[Outcome, ...]:
        """The outcomes that are inconclusive."""
        return tuple(outcome for outcome in self.outcomes if outcome.verdict == INCONCLUSIVE)

    @property
    def largest_detectable(self) -> float | None:
        """The largest of the drops that can be detected in the inconclusive cells, or, if there are none, in all.

        ``None`` if the limits alone decided.
        """
        of = self.inconclusive or self.outcomes
        return max((o.detectable for o in of if o.detectable is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {
            "verdict": self.value,
            "passed": self.passed,
            "compared": len(self.outcomes),
            "failed": len(self.failures),
            "inconclusive": len(self.inconclusive),
            "inconclusive_as": self.inconclusive_as,
            "largest_detectable": self.largest_detectable,
            "notes": [*self.warnings, *self.notes],
            "warnings": list(self.warnings),
            "outcomes": [{**asdict(o), "passed": o.passed, "difference": o.difference} for o in self.outcomes],
        }


def worst_first(outcome: Outcome) -> tuple[int, float, Cell]:
    """Sorting key: failures, then inconclusive outcomes, then the others, each by their margin."""
    return _WORST_FIRST.index(outcome.verdict), outcome.margin, outcome.cell
