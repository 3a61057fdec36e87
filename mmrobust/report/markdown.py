"""The report as Markdown: for a pull request, a wiki or a model card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from mmrobust.report.published import Published
from mmrobust.report.rows import UNKNOWN, Row, Section, Table, percent
from mmrobust.report.tables import Report


def render(report: Report) -> str:
    """``report`` as Markdown: the tables, what was evaluated, and where the numbers come from."""
    blocks = ["# Robustness report", *(block for table in report.tables for block in _table(table))]
    for section in report.sections:
        blocks += _section(section)
    if report.published is not None:
        blocks += _published(report.published)
    blocks += ["## Checkpoints", _checkpoints(report), "## Provenance", *_provenance(report)]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> list[str]:
    several = len({row.checkpoint for row in table.rows}) > 1
    rows = [_row(table, row) for row in table.rows]
    head = ["scenario", "prompting", "checkpoint", *(f"{rate:g}" for rate in table.rates)]
    head += ["AUC-η", "relative", "worst cell", "drop / 10 pts"]
    natural = f", {table.n_naturally_missing} of them naturally incomplete" if table.n_naturally_missing else ""
    return [
        f"## {_escape(table.dataset)}, {_escape(table.split)}: {_escape(table.metric)}",
        f"{table.n:,} samples{natural}; {table.uncertainty}. Values in %, by missing rate η."
        + (" Bold: the best checkpoint of a column, for the same scenario and prompting." if several else ""),
        _pipes(head, rows, left=3),
        "AUC-η: area under the curve over η, divided by the range of rates. Relative: AUC-η in % of the complete "
        "value. Drop: percentage points lost per 10 points of missing rate (least squares).",
    ]


def _section(section: Section) -> list[str]:
    rows = [
        [f"**{text}**" if section.place(number, column) == 1 else text for column, text in enumerate(cells)]
        for number, cells in enumerate(section.rows)
    ]
    best = " Bold: the best of what compares." if any(section.better) else ""
    return [f"## {_escape(section.title)}", section.note + best, _pipes(section.columns, rows, section.labels)]


def _row(table: Table, row: Row) -> list[str]:
    values = []
    for rate in table.rates:
        text = percent(row.points[rate].value) if rate in row.points else UNKNOWN
        values.append(f"**{text}**" if table.is_best(row, rate) else text)
    worst = UNKNOWN
    if not math.isnan(row.worst_value):
        worst = f"{percent(row.worst_value)} (η {row.worst_rate:g}, seed {row.worst_seed:.0f})"
    figures = [percent(row.auc_eta), percent(row.relative_robustness), worst, percent(row.drop_per_10_points)]
    return [row.scenario, row.prompting, row.checkpoint, *values, *figures]


def _published(published: Published) -> Iterator[str]:
    yield f"## Published figures: {_escape(published.title)}"
    yield f"As published ({published.source}), not measured here. {published.metric} in %; ours at η = 1."
    for comparison in published.comparisons:
        promptings = ", ".join(f"{name} {percent(value)}" for name, value in comparison.promptings.items())
        yield f"### {_escape(comparison.dataset)}"
        rows = [
            [line.source, *(percent(value) for value in line.values), percent(line.average)]
            for line in comparison.lines
        ]
        yield _pipes(["source", *published.cases, "average"], rows, left=1)
        yield f"Ours: {_escape(comparison.remark)}. The paper's average by prompting: {promptings}."
    yield f"### What the methods cost ({_escape(published.title)})"
    costs = [[f"paper: {name}", *(f"{value:g}" for value in values)] for name, values in published.efficiency.items()]
    yield _pipes(["source", *published.efficiency_columns], costs, left=1)


def _checkpoints(report: Report) -> str:
    facts = {name: report.facts(name) for name in report.checkpoints}
    names = list(next(iter(facts.values()), {}))
    rows = [[name, *about.values()] for name, about in facts.items()]
    return _pipes(["checkpoint", *names], rows, left=1 + len(names))


def _provenance(report: Report) -> Iterable[str]:
    for provenance in report.provenances:
        dataset, versions, git = (provenance.get(key) or {} for key in ("dataset", "versions", "git"))
        lines = {
            "command": f"`{provenance['command']}`" if provenance.get("command") else None,
            "data": f"{dataset.get('name')}, split {dataset.get('split')}, fingerprint `{dataset.get('fingerprint')}`",
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "git": git.get("commit") and f"`{git['commit']}`" + (" (dirty)" if git.get("dirty") else ""),
            "device": ", ".join(str(provenance[key]) for key in ("device", "dtype") if provenance.get(key)),
            "finished": provenance.get("finished"),
        }
        yield "### " + ", ".join(map(_escape, provenance.get("checkpoints") or ["results"]))
        yield "\n".join(f"- {name}: {said}" for name, said in lines.items() if said)


def _pipes(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A pipe table whose first ``left`` columns are aligned left, the others right."""
    rule = [":---" if i < left else "---:" for i in range(len(head))]
    lines = [head, rule, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escape(text: str) -> str:
    """``text`` with what Markdown would take for a column's end or for HTML made plain."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
