"""Rules of the gate: how much a metric may drop, and a floor that it must not fall below.

As text, ``METRIC[@SCENARIO[/RATE]]:-DROP`` (absolute), ``METRIC[@…]:-P%`` (relative to the baseline) or
``METRIC[@…]>=FLOOR``. A metric is one of the results table, or one of :data:`mmrobust.gate.figures.FIGURES`; of one
of which less is better, a rule says how much it may rise, ``mae:+0.5`` or ``ece:+5%``, or a ceiling, ``ece<=0.05``.
In a TOML file, as text, as tables, or both::

    fail = ["accuracy:-0.01", "accuracy@missing-image/0.7:-2%"]

    [[rule]]
    metric = "accuracy"
    scenario = "missing-text"   # optional, and so is the rate
    rate = 1.0
    floor = 0.6                 # or drop = 0.02, or drop_percent = 5; of errors, ceiling, rise, rise_percent
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrobust.errors import UsageError, unknown_name
from mmrobust.gate.figures import figure_of, in_shares, less_is_better, with_headline
from mmrobust.storage.files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DROP, DROP_PERCENT, FLOOR = "drop", "drop_percent", "floor"
_KINDS = (DROP, DROP_PERCENT, FLOOR)
_RISES = ("rise", "rise_percent", "ceiling")
"""What a table of a rule calls these kinds for a metric of which less is better."""
_RULE_KEYS = ("metric", "scenario", "rate", *_KINDS, *_RISES)
_FILE_KEYS = ("fail", "rule")
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)(?:[eE]-?\d+)?"
_SYNTAX = re.compile(
    rf"(?P<metric>[\w.-]+)(?:@(?P<scenario>[\w+.:@^=-]+)(?:/(?P<rate>{_NUMBER}))?)?"
    rf"(?::(?P<sign>[-+])(?P<drop>{_NUMBER})(?P<percent>%?)|(?P<bound>[<>]=)(?P<floor>{_NUMBER}))"
)
_FORMS = "METRIC[@SCENARIO[/RATE]]:-DROP, …:-P% or …>=FLOOR, as in accuracy@missing-image/0.7:-0.01"


@dataclass(frozen=True)
class Rule:
    """One limit and the cells that it applies to.

    Raises:
        UsageError: a rate outside [0, 1], a rate without a scenario, or a limit out of its range.
    """

    metric: str
    scenario: str | None
    """``None`` for every scenario."""
    rate: float | None
    """``None`` for every missing rate."""
    kind: str
    """``drop`` (absolute), ``drop_percent`` (relative to the baseline) or ``floor``: where less is better, a rise and a
    ceiling."""
    limit: float
    """A share for ``drop`` and ``floor`` (of an error, in its unit), in percent for ``drop_percent``."""
    rises: bool = field(default=False, repr=False)
    """Whether it was written as a rise or a ceiling, of a figure whose direction is that of the headline metric."""

    def __post_init__(self) -> None:
        if self.rate is not None and self.scenario is None:
            raise UsageError(f"rule '{self}': names a rate but no scenario")
        figure = figure_of(self.metric)
        if self.rate is not None and figure is not None and figure.of_curve:
            raise UsageError(f"rule '{self}': {self.metric} is over all missing rates; leave out the rate")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise UsageError(f"rule '{self}': missing rate {self.rate:g} is not a share of the samples, from 0 to 1")
        most = 100 if self.kind == DROP_PERCENT else 1
        bounded = in_shares(self.metric) and not (figure is not None and figure.in_unit)
        if not 0 <= self.limit <= (most if bounded else math.inf):
            unit = "percent, from 0 to 100" if most == 100 else "a share, from 0 to 1 (0.01 is one point)"
            raise UsageError(f"rule '{self}': {self.limit:g} is not {unit}")

    @property
    def target(self) -> tuple[str, str | None, float | None, bool]:
        """What the rule applies to. Two rules from one source must not have the same target."""
        return self.metric, self.scenario, self.rate, self.kind == FLOOR

    @property
    def less_is_better(self) -> bool:
        """Whether a smaller value is a better one."""
        return less_is_better(self.metric) or self.rises

    def of_headline(self, headline: str) -> Rule:
        """The rule with the name of the headline metric where its figure has that metric's unit and direction.

        Raises:
            UsageError: the limit is on the side on which the figure gets better, or is no share where values are.
        """
        name = with_headline(self.metric, headline)
        if _follows_headline(self.metric) and self.rises != less_is_better(name):
            raise _other_direction(f"rule '{self}'", name, not self.rises)
        if self.limit > 1 and self.kind != DROP_PERCENT and in_shares(name):
            raise UsageError(f"rule '{self}': {self.limit:g} is not a share, from 0 to 1 (0.01 is one point)")
        return replace(self, metric=name, rises=False)

    @property
    def specificity(self) -> int:
        """0 for a metric, 1 for a metric in a scenario, 2 for a metric in a scenario at a missing rate."""
        return (self.scenario is not None) + (self.rate is not None)

    def covers(self, metric: str, scenario: str, rate: float | None) -> bool:
        """Whether the rule applies to this metric, scenario and missing rate; a curve has no rate."""
        return (
            metric == self.metric
            and self.scenario in (None, scenario)
            and (self.rate is None or (rate is not None and abs(self.rate - rate) < 1e-9))
        )

    def __str__(self) -> str:
        where = "" if self.scenario is None else f"@{self.scenario}"
        where += "" if self.rate is None else f"/{self.rate:g}"
        sign, bound = ("+", "<=") if self.less_is_better else ("-", ">=")
        limit = {
            DROP: f":{sign}{self.limit:g}",
            DROP_PERCENT: f":{sign}{self.limit:g}%",
            FLOOR: f"{bound}{self.limit:g}",
        }
        return f"{self.metric}{where}{limit[self.kind]}"


def parse_rule(text: str) -> Rule:
    """Parse a rule.

    >>> parse_rule("accuracy@missing-image/0.7:-2%")
    Rule(metric='accuracy', scenario='missing-image', rate=0.7, kind='drop_percent', limit=2.0)

    Raises:
        UsageError: ``text`` is not a rule.
    """
    found = _SYNTAX.fullmatch("".join(text.split()))
    if found is None:
        raise UsageError(f"rule '{text}' is not understood: write {_FORMS}")
    rate, falls = (
        None if found["rate"] is None else float(found["rate"]),
        found["sign"] == "-" or found["bound"] == ">=",
    )
    _refuse_direction(f"rule '{text}'", found["metric"], falls)
    kind = FLOOR if found["floor"] else DROP_PERCENT if found["percent"] else DROP
    limit = float(found["floor"] or found["drop"])
    return Rule(found["metric"], found["scenario"], rate, kind, limit, _rises(found["metric"], falls))


def _follows_headline(metric: str) -> bool:
    """Whether what a rule names has the direction of the headline metric, which is not known before the results."""
    figure = figure_of(metric)
    return figure is not None and figure.as_metric and "." not in metric


def _rises(metric: str, falls: bool) -> bool:
    return _follows_headline(metric) and not falls


def _refuse_direction(where: str, metric: str, falls: bool) -> None:
    """Raise if a limit is on the side on which the metric gets better."""
    if falls == less_is_better(metric) and not _follows_headline(metric):
        raise _other_direction(where, metric, falls)


def _other_direction(where: str, metric: str, falls: bool) -> UsageError:
    better, forms = ("less", ":+RISE or <=CEILING") if falls else ("more", ":-DROP or >=FLOOR")
    return UsageError(
        f"{where}: of {metric}, {better} is better; write {metric}{forms.replace(' or ', f' or {metric}')}"
    )


def read_rules(file: Path) -> list[Rule]:
    """Read the rules in a TOML file.

    Raises:
        UsageError: there is no such file, it is not TOML, or it holds an unknown key or a value that is not a rule.
    """
    text = read_text(file, "file of the gate's rules", UsageError)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as cause:
        raise UsageError(f"{file}: cannot be read as TOML ({cause})") from cause
    try:
        return _rules_of(content)
    except UsageError as cause:
        raise UsageError(f"{file}: {cause}") from None


def choose_rules(file: Sequence[Rule], line: Sequence[Rule]) -> list[Rule]:
    """Combine the rules of the file and of the command line, which override those of the file for the same cells.

    Raises:
        UsageError: one source has two rules for the same cells.
    """
    for source in (file, line):
        seen: dict[Any, Rule] = {}
        for rule in source:
            if rule.target in seen:
                raise UsageError(f"rules '{seen[rule.target]}' and '{rule}' are for the same cells: keep one")
            seen[rule.target] = rule
    return list({rule.target: rule for rule in (*file, *line)}.values())


def _rules_of(content: dict[str, Any]) -> list[Rule]:
    for key in content:
        if key not in _FILE_KEYS:
            raise unknown_name("key", key, _FILE_KEYS)
    lines, tables = content.get("fail", []), content.get("rule", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise UsageError("'fail' must be a list of rules: fail = [\"accuracy:-0.01\"]")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("'rule' must be a list of tables: write [[rule]]")
    rules = [*map(parse_rule, lines), *map(_rule_of_table, tables)]
    if not rules:
        raise UsageError("no rule in it: give 'fail' or [[rule]]")
    return rules


def _rule_of_table(table: dict[str, Any]) -> Rule:
    for key in table:
        if key not in _RULE_KEYS:
            raise unknown_name("key of a rule", key, _RULE_KEYS)
    limits = [key for key in (*_KINDS, *_RISES) if key in table]
    if "metric" not in table or len(limits) != 1:
        raise UsageError(f"a [[rule]] has a metric and one of {', '.join(_KINDS)}, not {', '.join(table) or 'nothing'}")
    for key, value in table.items():
        wanted: tuple[type, ...] = (str,) if key in ("metric", "scenario") else (int, float)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UsageError(f"key '{key}' of a rule is {value!r}: give {'text' if str in wanted else 'a number'}")
    rate, (key,) = table.get("rate"), limits
    rate, falls = None if rate is None else float(rate), key in _KINDS
    _refuse_direction(f"key '{key}' of a rule", table["metric"], falls)
    kind = key if falls else _KINDS[_RISES.index(key)]
    rises = _rises(table["metric"], falls)
    return Rule(table["metric"], table.get("scenario"), rate, kind, float(table[key]), rises)
