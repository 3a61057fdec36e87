"""Figures that papers published, to print beside ours: always named as the paper's, never mixed with measured ones.

Adding a paper: one JSON file in this folder, with its source, and one line in :data:`PUBLISHED`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from mmrobust.cases import SITUATION
from mmrobust.errors import unknown_name
from mmrobust.report.curve_table import Curve, CurveTable

PUBLISHED = {"ptm": "ptm.json"}


@dataclass(frozen=True)
class PublishedLine:
    """One method's figures over the cases of a paper's table."""

    source: str
    """Whose figures: ``paper: PTM``, or ``ours: ptm-prototype``."""
    ours: bool
    values: tuple[float, ...]
    """By case, in [0, 1]; NaN where there is none."""
    average: float


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper, with our figures below."""

    dataset: str
    """The paper's data set."""
    lines: tuple[PublishedLine, ...]
    """The paper's first."""
    promptings: Mapping[str, float]
    """Prompting → the paper's average under it."""
    remark: str
    """How far our figures are comparable."""


@dataclass(frozen=True)
class Published:
    """The figures of a paper beside ours."""

    title: str
    source: str
    metric: str
    cases: tuple[str, ...]
    comparisons: tuple[PublishedTable, ...]
    efficiency_columns: tuple[str, ...]
    efficiency: Mapping[str, tuple[float, ...]]
    """Method → the paper's figures of its costs."""


def beside(name: str, tables: Sequence[CurveTable]) -> Published:
    """The figures of the paper ``name``, with those that ``tables`` (of any metric) have for the same cases.

    Our value in a case is that of the scenario of the same name at η = 1, where it affects every sample; for
    ``complete`` it is the value at η = 0. If we have several promptings, situation is shown, as in the paper's table.

    Raises:
        UsageError: no such paper.
    """
    if name not in PUBLISHED:
        raise unknown_name("published figures", name, PUBLISHED)
    paper = json.loads((files(__package__) / PUBLISHED[name]).read_text(encoding="utf-8"))
    cases = tuple(paper["cases"])
    same_metric = [table for table in tables if table.metric == paper["metric"]]
    comparisons = []
    for theirs in paper["tables"]:
        # Data sets that share a name are distinguished by a fingerprint in brackets.
        same_data = [table for table in same_metric if table.dataset.partition(" (")[0] == theirs["prepared_as"]]
        chosen = same_data or same_metric
        ours = [line for table in chosen for line in _our_lines(table, cases)]
        published = [
            PublishedLine(f"paper: {method}", False, tuple(figures["values"]), figures["average"])
            for method, figures in theirs["methods"].items()
        ]
        remark = _remark(theirs["dataset"], bool(same_data), chosen, ours)
        comparisons.append(PublishedTable(theirs["dataset"], (*published, *ours), theirs["promptings"], remark))
    return Published(
        title=paper["title"],
        source=paper["source"],
        metric=paper["metric"],
        cases=cases,
        comparisons=tuple(comparisons),
        efficiency_columns=tuple(paper["efficiency"]["columns"]),
        efficiency={method: tuple(figures) for method, figures in paper["efficiency"]["methods"].items()},
    )


def _our_lines(table: CurveTable, cases: Sequence[str]) -> list[PublishedLine]:
    """A line for each checkpoint of ``table`` that was evaluated in any of ``cases``."""
    rows: dict[str, dict[str, Curve]] = {}
    for row in table.rows:
        if row.prompting == SITUATION or SITUATION not in table.promptings:
            rows.setdefault(row.checkpoint, {})[row.scenario] = row
    lines = []
    for checkpoint, scenarios in rows.items():
        complete = next((row.complete for row in scenarios.values() if not math.isnan(row.complete)), math.nan)
        all_affected = {scenario: row.at(1.0).value for scenario, row in scenarios.items()} | {"complete": complete}
        values = tuple(all_affected.get(case, math.nan) for case in cases)
        if not all(map(math.isnan, values)):
            average = sum(values) / len(values)  # NaN if a case is missing
            lines.append(PublishedLine(f"ours: {checkpoint} on {table.dataset}", True, values, average))
    return lines


def _remark(dataset: str, same_data: bool, tables: Sequence[CurveTable], ours: Sequence[PublishedLine]) -> str:
    if not ours:
        return "nothing of this metric and these cases"
    remarks = [] if same_data else [f"on {', '.join(sorted({table.dataset for table in tables}))}, not on {dataset}"]
    if any(math.isnan(line.average) for line in ours):
        remarks.append("a dash is a case that was not evaluated at η = 1")
    return "; ".join(remarks) or "the same data set, prepared by us"
