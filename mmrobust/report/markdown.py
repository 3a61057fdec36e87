"""The report as Markdown, for a pull request, a wiki or a model card; and how text becomes Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from mmrobust.report.curve_table import Curve, CurveTable
from mmrobust.report.numbers import UNKNOWN, interval, percent, samples
from mmrobust.report.published import Published
from mmrobust.report.report import Report
from mmrobust.report.section import Section
from mmrobust.runtime.printable import printable

_MARKUP = re.compile(r"[\\|*`\[\]~]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown takes for markup. An underscore within a word is none: ``macro_f1`` stays as it is."""


def render(report: Report) -> str:
    """Write ``report`` as Markdown: the tables, the checkpoints, and where the numbers come from."""
    blocks = ["# Robustness report", *(block for table in report.tables for block in _table(table.folded))]
    for section in report.sections:
        blocks += _section(section.folded)
    if report.published is not None:
        blocks += _published(report.published)
    blocks += ["## Checkpoints", _checkpoints(report), "## Provenance", *_provenance(report)]
    return "\n\n".join(blocks) + "\n"


def escape_markdown(text: str) -> str:
    r"""Escape ``text`` so that Markdown shows it as it is, in one line, also in a table cell.

    >>> escape_markdown("a|b<c> *d* macro_f1 _e_")
    'a\\|b&lt;c> \\*d\\* macro_f1 \\_e\\_'
    """
    whole = printable(re.sub(r"\s+", " ", text)).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\g<0>", whole)


def code_span(text: str, *, in_table: bool = False) -> str:
    """``text`` as a code span, in one line.

    >>> code_span("a`b")
    '``a`b``'
    """
    line = printable(re.sub(r"\s+", " ", text))
    line = line.replace("|", "\\|") if in_table else line  # in a table, a bar ends the cell even within a code span
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def pipe_row(cells: Iterable[str]) -> str:
    """One row of a pipe table; the cells are escaped already."""
    return f"| {' | '.join(cells)} |"


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A pipe table whose first ``left`` columns are aligned left, the others right; the cells are escaped already."""
    rule = [":---" if i < left else "---:" for i in range(len(head))]
    return "\n".join(map(pipe_row, (head, rule, *rows)))


def _table(table: CurveTable) -> list[str]:
    several = len(table.checkpoints) > 1
    head = ["scenario", "prompting", "checkpoint", *(f"{rate:g}" for rate in table.rates)]
    head += ["AUC-η", "relative", "worst cell", "drop / 10 pts"]
    natural = f", {table.n_naturally_missing} of them naturally incomplete" if table.n_naturally_missing else ""
    relative, drop = "AUC-η in % of the complete value", "percentage points lost per 10 points of missing rate"
    if not table.scale.is_share:
        relative, drop = table.scale.relative, table.scale.drop
    return [
        f"## {escape_markdown(table.dataset)}, {escape_markdown(table.split)}: {escape_markdown(table.metric)}",
        f"{samples(table.n)}{natural}; {table.uncertainty}. Values {table.scale.values}, by missing rate η."
        + (" Bold: the best checkpoint of a column, for the same scenario and prompting." if several else ""),
        pipe_table(head, (_row(table, row) for row in table.rows), left=3),
        f"AUC-η: area under the curve over η, divided by the range of rates. Relative: {relative}. Drop: {drop} (least "
        "squares). In brackets: 95 % intervals over samples.",
    ]


def _row(table: CurveTable, row: Curve) -> list[str]:
    value = table.scale.value
    values = [_bold_if_best(value(row.at(rate).value), table.place(row, rate)) for rate in table.rates]
    worst = UNKNOWN
    if not math.isnan(row.worst_value):
        worst = f"{_with_interval(row, 'worst_value', value)} (η {row.worst_rate:g}, seed {row.worst_seed:.0f})"
    auc, drop = (_with_interval(row, name, value) for name in ("auc_eta", "drop_per_10_points"))
    relative = _with_interval(row, "relative_robustness", percent)
    figures = [auc, relative, worst, drop]
    return [*map(escape_markdown, (row.scenario, row.prompting, row.checkpoint)), *values, *figures]


def _with_interval(row: Curve, figure: str, number: Callable[[float], str]) -> str:
    """A figure, printed by ``number``, with its 95 % interval where it is known."""
    value, low, high = (getattr(row, name) for name in (figure, f"{figure}_low", f"{figure}_high"))
    return number(value) if math.isnan(low) else f"{number(value)} {interval(low, high, number)}"


def _section(section: Section) -> list[str]:
    rows = [
        [_bold_if_best(escape_markdown(text), section.place(number, column)) for column, text in enumerate(cells)]
        for number, cells in enumerate(section.rows)
    ]
    best = " Bold: the best of what compares." if any(section.better) else ""
    return [
        f"## {escape_markdown(section.title)}",
        escape_markdown(section.note) + best,
        pipe_table([*map(escape_markdown, section.columns)], rows, section.labels),
    ]


def _bold_if_best(text: str, place: int | None) -> str:
    return f"**{text}**" if place == 1 else text


def _published(published: Published) -> Iterator[str]:
    yield f"## Published figures: {escape_markdown(published.title)}"
    yield f"As published ({escape_markdown(published.source)}), not measured here."
    for comparison in published.comparisons:
        yield f"### {escape_markdown(comparison.dataset)}: {escape_markdown(comparison.metric)} in %"
        rows = ([escape_markdown(line.source), *line.numbers] for line in comparison.lines)
        yield pipe_table(["source", *comparison.columns], rows, left=1)
        promptings = ", ".join(f"{name} {percent(value)}" for name, value in comparison.promptings.items())
        average = f" The paper's average by prompting: {promptings}." if promptings else ""
        yield f"Ours: {escape_markdown(comparison.remark)}.{average}"
    if not published.efficiency:
        return
    yield f"### What the methods cost ({escape_markdown(published.title)})"
    costs = ([f"paper: {escape_markdown(name)}", *map("{:g}".format, of)] for name, of in published.efficiency.items())
    yield pipe_table(["source", *published.efficiency_columns], costs, left=1)


def _checkpoints(report: Report) -> str:
    facts = {name: report.facts(name) for name in report.checkpoints}
    names = list(next(iter(facts.values()), {}))
    rows = [[*map(escape_markdown, (name, *about.values()))] for name, about in facts.items()]
    return pipe_table(["checkpoint", *names], rows, left=1 + len(names))


def _provenance(report: Report) -> Iterator[str]:
    for provenance in report.provenances:
        dataset, versions, git = (provenance.get(key) or {} for key in ("dataset", "versions", "git"))
        name, split, fingerprint = (str(dataset.get(key)) for key in ("name", "split", "fingerprint"))
        device = ", ".join(str(provenance[key]) for key in ("device", "dtype") if provenance.get(key))
        lines = {
            "command": code_span(provenance["command"]) if provenance.get("command") else None,
            "data": f"{escape_markdown(name)}, split {escape_markdown(split)}, fingerprint {code_span(fingerprint)}",
            "versions": escape_markdown(", ".join(f"{name} {version}" for name, version in versions.items())),
            "git": git.get("commit") and code_span(git["commit"]) + (" (dirty)" if git.get("dirty") else ""),
            "device": escape_markdown(device),
            "finished": escape_markdown(provenance.get("finished") or ""),
        }
        yield "### " + ", ".join(map(escape_markdown, provenance.get("checkpoints") or ["results"]))
        yield "\n".join(f"- {name}: {text}" for name, text in lines.items() if text)
