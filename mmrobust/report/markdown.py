"""The report as Markdown: for a pull request, a wiki or a model card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from mmrobust.report.escaping import code, pipes, plain
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
        f"## {plain(table.dataset)}, {plain(table.split)}: {plain(table.metric)}",
        f"{table.n:,} samples{natural}; {table.uncertainty}. Values in %, by missing rate η."
        + (" Bold: the best checkpoint of a column, for the same scenario and prompting." if several else ""),
        pipes(head, rows, left=3),
        "AUC-η: area under the curve over η, divided by the range of rates. Relative: AUC-η in % of the complete "
        "value. Drop: percentage points lost per 10 points of missing rate (least squares).",
    ]


def _section(section: Section) -> list[str]:
    rows = [
        [f"**{text}**" if section.place(number, column) == 1 else text for column, text in enumerate(map(plain, cells))]
        for number, cells in enumerate(section.rows)
    ]
    columns = [plain(name) for name in section.columns]
    best = " Bold: the best of what compares." if any(section.better) else ""
    return [f"## {plain(section.title)}", plain(section.note) + best, pipes(columns, rows, section.labels)]


def _row(table: Table, row: Row) -> list[str]:
    values = []
    for rate in table.rates:
        text = percent(row.points[rate].value) if rate in row.points else UNKNOWN
        values.append(f"**{text}**" if table.is_best(row, rate) else text)
    worst = UNKNOWN
    if not math.isnan(row.worst_value):
        worst = f"{percent(row.worst_value)} (η {row.worst_rate:g}, seed {row.worst_seed:.0f})"
    figures = [percent(row.auc_eta), percent(row.relative_robustness), worst, percent(row.drop_per_10_points)]
    return [*map(plain, (row.scenario, row.prompting, row.checkpoint)), *values, *figures]


def _published(published: Published) -> Iterator[str]:
    yield f"## Published figures: {plain(published.title)}"
    yield f"As published ({published.source}), not measured here. {published.metric} in %; ours at η = 1."
    for comparison in published.comparisons:
        promptings = ", ".join(f"{name} {percent(value)}" for name, value in comparison.promptings.items())
        yield f"### {plain(comparison.dataset)}"
        rows = [
            [plain(line.source), *(percent(value) for value in line.values), percent(line.average)]
            for line in comparison.lines
        ]
        yield pipes(["source", *published.cases, "average"], rows, left=1)
        yield f"Ours: {plain(comparison.remark)}. The paper's average by prompting: {promptings}."
    yield f"### What the methods cost ({plain(published.title)})"
    costs = [
        [f"paper: {plain(name)}", *(f"{value:g}" for value in values)] for name, values in published.efficiency.items()
    ]
    yield pipes(["source", *published.efficiency_columns], costs, left=1)


def _checkpoints(report: Report) -> str:
    facts = {name: report.facts(name) for name in report.checkpoints}
    names = list(next(iter(facts.values()), {}))
    rows = [[*map(plain, (name, *about.values()))] for name, about in facts.items()]
    return pipes(["checkpoint", *names], rows, left=1 + len(names))


def _provenance(report: Report) -> Iterable[str]:
    for provenance in report.provenances:
        dataset, versions, git = (provenance.get(key) or {} for key in ("dataset", "versions", "git"))
        lines = {
            "command": code(provenance["command"]) if provenance.get("command") else None,
            "data": f"{plain(str(dataset.get('name')))}, split {plain(str(dataset.get('split')))}, "
            f"fingerprint {code(str(dataset.get('fingerprint')))}",
            "versions": plain(", ".join(f"{name} {version}" for name, version in versions.items())),
            "git": git.get("commit") and code(git["commit"]) + (" (dirty)" if git.get("dirty") else ""),
            "device": plain(", ".join(str(provenance[key]) for key in ("device", "dtype") if provenance.get(key))),
            "finished": plain(provenance.get("finished") or ""),
        }
        yield "### " + ", ".join(map(plain, provenance.get("checkpoints") or ["results"]))
        yield "\n".join(f"- {name}: {said}" for name, said in lines.items() if said)
