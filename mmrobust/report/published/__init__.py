"""Figures that papers published, to stand beside ours: named as theirs, and never mixed with what was measured here.

Adding a paper: one JSON file here, with its source, and one line in :data:`PUBLISHED`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from mmrobust.cases import SITUATION
from mmrobust.errors import unknown_name
from mmrobust.report.rows import Row, Table

PUBLISHED = {"ptm": "ptm.json"}


@dataclass(frozen=True)
class Line:
    """One method's figures over the cases of a paper's table."""

    source: str
    """Whose: ``paper: PTM``, or ``ours: ptm-prototype``."""
    ours: bool
    values: tuple[float, ...]
    """By case, in [0, 1]; NaN where there is none."""
    average: float


@dataclass(frozen=True)
class Comparison:
    """One table of a paper, and ours below it."""

    dataset: str
    """The paper's."""
    lines: tuple[Line, ...]
    """The paper's first."""
    promptings: Mapping[str, float]
    """Prompting → the paper's average under it."""
    remark: str
    """How far ours can be compared."""


@dataclass(frozen=True)
class Published:
    """A paper's figures beside ours."""

    title: str
    source: str
    metric: str
    cases: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    efficiency_columns: tuple[str, ...]
    efficiency: Mapping[str, tuple[float, ...]]
    """Method → the paper's figures of what it costs."""


def beside(name: str, tables: Sequence[Table]) -> Published:
    """The figures of the paper ``name``, with what ``tables`` (of any metric) have of the same cases.

    Our value in a case is that of the scenario of its name where it affects every sample (η = 1), and of η = 0 for
    ``complete``: there, scenario and case are the same. Of our promptings, situation is the paper's table.

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
        # Data sets of one name are told apart by what follows it, in brackets.
        own = [table for table in same_metric if table.dataset.partition(" (")[0] == theirs["prepared_as"]]
        chosen = own or same_metric
        ours = [line for table in chosen for line in _ours(table, cases)]
        comparisons.append(
            Comparison(
                dataset=theirs["dataset"],
                lines=(
                    *(
                        Line(f"paper: {method}", False, tuple(figures["values"]), figures["average"])
                        for method, figures in theirs["methods"].items()
                    ),
                    *ours,
                ),
                promptings=theirs["promptings"],
                remark=_remark(theirs["dataset"], bool(own), chosen, ours),
            )
        )
    return Published(
        title=paper["title"],
        source=paper["source"],
        metric=paper["metric"],
        cases=cases,
        comparisons=tuple(comparisons),
        efficiency_columns=tuple(paper["efficiency"]["columns"]),
        efficiency={method: tuple(figures) for method, figures in paper["efficiency"]["methods"].items()},
    )


def _ours(table: Table, cases: Sequence[str]) -> list[Line]:
    """What ``table`` has of ``cases``: a line for each checkpoint that has any."""
    rows: dict[str, dict[str, Row]] = {}
    for row in table.rows:
        if row.prompting == SITUATION or SITUATION not in table.promptings:
            rows.setdefault(row.checkpoint, {})[row.scenario] = row
    lines = []
    for checkpoint, scenarios in rows.items():
        complete = next((row.complete for row in scenarios.values() if not math.isnan(row.complete)), math.nan)
        values = tuple(complete if case == "complete" else _at_one(scenarios.get(case)) for case in cases)
        if not all(map(math.isnan, values)):
            average = sum(values) / len(values)  # NaN where a case is lacking
            lines.append(Line(f"ours: {checkpoint} on {table.dataset}", True, values, average))
    return lines


def _at_one(row: Row | None) -> float:
    return row.points[1.0].value if row is not None and 1.0 in row.points else math.nan


def _remark(dataset: str, same_data: bool, tables: Sequence[Table], ours: Sequence[Line]) -> str:
    if not ours:
        return "nothing of this metric and these cases"
    said = [] if same_data else [f"on {', '.join(sorted({table.dataset for table in tables}))}, not on {dataset}"]
    if any(math.isnan(line.average) for line in ours):
        said.append("a dash is a case that was not evaluated at η = 1")
    return "; ".join(said) or "the same data set, prepared by us"
