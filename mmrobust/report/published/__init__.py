"""Figures that papers published, to print beside ours: always named as the paper's, never mixed with measured ones.

Adding a paper: one JSON file in this folder, with its source, and one line in :data:`PUBLISHED`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from mmrobust.cases import SITUATION
from mmrobust.errors import unknown_name
from mmrobust.report.curve_table import Curve, CurveTable
from mmrobust.report.numbers import percent
from mmrobust.scoring.metrics import SKIP, metric_settings

COMPLETE = "complete"
"""The column of complete data."""

PUBLISHED = {"ptm": "ptm.json", "dpl": "dpl.json", "dcp": "dcp.json", "mmp": "mmp.json"}


@dataclass(frozen=True)
class PublishedLine:
    """One method's figures over the columns of a paper's table."""

    source: str
    """Whose figures: ``paper: PTM``, or ``ours: ptm-prototype``."""
    ours: bool
    values: tuple[float, ...]
    """By column, in [0, 1]; NaN where there is none."""

    @property
    def numbers(self) -> list[str]:
        """The values in per cent: a paper's with its second decimal, where it gives one."""
        return [percent(value) if self.ours or math.isnan(value) else _as_given(value) for value in self.values]


def _as_given(value: float) -> str:
    text = f"{100 * value:.2f}"
    return text.removesuffix("0")


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper, with our figures below."""

    dataset: str
    """The paper's data set."""
    metric: str
    columns: tuple[str, ...]
    """What the values are of: a case at η = 1, or a scenario and a missing rate; and their average, if the paper has
    it."""
    lines: tuple[PublishedLine, ...]
    """The paper's first."""
    promptings: Mapping[str, float]
    """Prompting → the paper's average under it; empty if it has none."""
    remark: str
    """How far our figures are comparable."""


@dataclass(frozen=True)
class Published:
    """The figures of a paper beside ours."""

    title: str
    source: str
    comparisons: tuple[PublishedTable, ...]
    efficiency_columns: tuple[str, ...]
    efficiency: Mapping[str, tuple[float, ...]]
    """Method → the paper's figures of its costs; empty if it has none."""


def beside(
    name: str,
    tables: Sequence[CurveTable],
    checkpoints: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    provenances: Sequence[Mapping[str, Any]] = (),
) -> Published:
    """The figures of the paper ``name``, with those that ``tables`` (of any metric) have in the same places.

    Our value in a column is that of its scenario at its missing rate; where the paper trained a model for each column,
    only if the checkpoint was trained under the same, as far as its description in ``checkpoints`` says. If we have
    several promptings, situation is shown, as in the papers' tables. Where the paper has tables of our data sets, its
    others are left out. The ``provenances`` say how we scored.

    Raises:
        UsageError: no such paper.
    """
    if name not in PUBLISHED:
        raise unknown_name("published figures", name, PUBLISHED)
    paper = json.loads((files(__package__) / PUBLISHED[name]).read_text(encoding="utf-8"))
    comparisons = []
    prepared = {table.dataset.partition(" (")[0] for table in tables}  # without what distinguishes those of one name
    at_hand = [theirs for theirs in paper["tables"] if theirs["prepared_as"] in prepared]
    for theirs in at_hand or paper["tables"]:
        columns = [_Column(**column) for column in theirs["columns"]]
        same_metric = [table for table in tables if table.metric == theirs["metric"]]
        # Data sets that share a name are distinguished by a fingerprint in brackets.
        same_data = [table for table in same_metric if table.dataset.partition(" (")[0] == theirs["prepared_as"]]
        chosen = same_data or same_metric
        averaged = bool(theirs.get("averages"))
        trained = checkpoints if theirs.get("trained_as_tested") else {}
        ours = [line for table in chosen for line in _our_lines(table, columns, averaged, trained)]
        published = [
            PublishedLine(
                f"paper: {method}",
                False,
                tuple(
                    math.nan if value is None else value
                    for value in (*values, *([theirs["averages"][method]] if averaged else []))
                ),
            )
            for method, values in theirs["methods"].items()
        ]
        named = {table.dataset.partition(" (")[0] for table in chosen}
        scored = {
            metric_settings(one).f1_absent for one in provenances if (one.get("dataset") or {}).get("name") in named
        }
        absent = _absent(scored if ours else set()) if theirs.get("f1_absent") == SKIP else ""
        remark = _remark(theirs["dataset"], bool(same_data), chosen, ours)
        comparisons.append(
            PublishedTable(
                dataset=theirs["dataset"],
                metric=theirs["metric"],
                columns=(*(column.title for column in columns), *(("average",) if averaged else ())),
                lines=(*published, *ours),
                promptings=theirs.get("promptings", {}),
                remark="; ".join(filter(None, (remark, theirs.get("note"), absent))),
            )
        )
    costs = paper.get("efficiency", {"columns": (), "methods": {}})
    return Published(
        title=paper["title"],
        source=paper["source"],
        comparisons=tuple(comparisons),
        efficiency_columns=tuple(costs["columns"]),
        efficiency={method: tuple(figures) for method, figures in costs["methods"].items()},
    )


@dataclass(frozen=True)
class _Column:
    """A column of a paper's table: a scenario at a missing rate, or, where it is not known which, a name alone."""

    scenario: str | None = None
    rate: float = 1.0
    name: str = ""
    """What the paper calls it."""

    @property
    def title(self) -> str:
        where = self.scenario or ""
        if self.scenario not in (None, COMPLETE):
            where = f"{self.scenario} {self.rate:g}"
        return f"{where} ({self.name})" if where and self.name else where or self.name

    def of(self, about: Mapping[str, Any]) -> bool:
        """Whether a checkpoint was trained under the same, or does not say under what."""
        training = about.get("training") or {}
        rate = training.get("missing_rate")
        return rate is None or (training.get("scenario"), rate) == (self.scenario, self.rate)


def _our_lines(
    table: CurveTable, columns: Sequence[_Column], averaged: bool, trained: Mapping[str, Mapping[str, Any]]
) -> list[PublishedLine]:
    """A line for each checkpoint of ``table`` that was evaluated in any of ``columns``, and ``trained`` for it."""
    rows: dict[str, dict[str, Curve]] = {}
    for row in table.rows:
        if row.prompting == SITUATION or SITUATION not in table.promptings:
            rows.setdefault(row.checkpoint, {})[row.scenario] = row
    lines = []
    for checkpoint, scenarios in rows.items():
        complete = next((row.complete for row in scenarios.values() if not math.isnan(row.complete)), math.nan)
        values = tuple(
            complete
            if column.scenario == COMPLETE
            else scenarios[column.scenario].at(column.rate).value
            if column.scenario in scenarios and column.of(trained.get(checkpoint, {}))
            else math.nan
            for column in columns
        )
        if not all(map(math.isnan, values)):
            average = (sum(values) / len(values),) if averaged else ()  # NaN if a case is missing
            lines.append(PublishedLine(f"ours: {checkpoint} on {table.dataset}", True, (*values, *average)))
    return lines


def _absent(ours: set[str]) -> str:
    """That the paper's macro F1 leaves out classes that neither occur nor are predicted, and what ours does."""
    said = "the paper's macro F1 leaves out absent classes"
    if ours == {SKIP}:
        return f"{said}, as ours does"
    return f"{said}: score ours with --f1-absent {SKIP}" if ours else said


def _remark(dataset: str, same_data: bool, tables: Sequence[CurveTable], ours: Sequence[PublishedLine]) -> str:
    if not ours:
        return "nothing of this metric in these columns"
    remarks = [] if same_data else [f"on {', '.join(sorted({table.dataset for table in tables}))}, not on {dataset}"]
    if any(math.isnan(value) for line in ours for value in line.values):
        remarks.append("a dash is what was not evaluated")
    return "; ".join(remarks) or "the same data set, prepared by us"
