"""The report as LaTeX tables for a paper: booktabs, the best in bold, the second underlined, intervals as ±."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from mmrobust.report.curve_table import Curve, CurveTable
from mmrobust.report.numbers import METRIC_NAMES, even_subset, percent, samples
from mmrobust.report.published import Published
from mmrobust.report.report import Report
from mmrobust.report.section import Section

MOST_RATES = 6
"""Columns of missing rates that fit across a page; the area under the curve stands for the others."""
MOST_ROWS = 40
"""Rows that fit on a page; a longer table runs over several."""

_HEAD = r"""% By mmrobust report. Compiles as it is; in a paper, \input it (packages: booktabs, longtable).
\makeatletter
\ifx\@nodocument\relax\else % nothing has begun a document: this file is compiled on its own
  \documentclass{article}
  \usepackage[a4paper,margin=18mm]{geometry}
  \usepackage{booktabs,longtable}
  \gdef\mmrobustend{\end{document}}
  \begin{document}
\fi
\makeatother
"""
_FOOT = "\\ifdefined\\mmrobustend\\expandafter\\mmrobustend\\fi\n"
_SMALL = r"\footnotesize\setlength{\tabcolsep}{3pt}"
_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "±": r"$\pm$",
    "−": r"$-$",
    **{character: f"{{{character}}}" for character in "[*"},  # at the start of a row, the \\ before would take it
    "×": r"$\times$",
    "η": r"$\eta$",
    "\n": " ",
}


def render(report: Report) -> str:
    """Write a LaTeX file with one table for each table and section of ``report``."""
    published = _published(report.published) if report.published is not None else ()
    return "\n".join(
        [
            _HEAD,
            *(_table(table.folded) for table in report.tables),
            *(_section(each.folded) for each in report.sections),
            *published,
            _FOOT,
        ]
    )


def render_sections(sections: Iterable[Section]) -> str:
    """Write a LaTeX file with one table for each section."""
    return "\n".join([_HEAD, *map(_section, sections), _FOOT])


def _table(table: CurveTable) -> str:
    rates = even_subset(table.rates, MOST_RATES)
    several = len(table.promptings) > 1
    head = [*["Prompting"] * several, "Checkpoint", *map("{:g}".format, rates), r"AUC-$\eta$", r"Rel.\,\%"]
    body = list(_body(table, rates, several, len(head)))
    return _float(_caption(table, rates), 1 + several, head, body, long=len(table.rows) > MOST_ROWS)


def _section(section: Section) -> str:
    """A further table; in columns that have a best, it is bold and the second underlined."""
    labels, columns = section.labels, section.columns
    rates = [column for column in range(labels, len(columns)) if section.is_rate(column)]
    dropped = set(rates) - set(even_subset(rates, MOST_RATES))
    shown = [column for column in range(len(columns)) if column not in dropped]
    body = [r"\midrule"]
    for number, row in enumerate(section.rows):
        if number and row[: labels - 1] != section.rows[number - 1][: labels - 1]:
            body.append(r"\addlinespace")
        cells = (_marked(_spread(escape(row[column])), section.place(number, column)) for column in shown)
        body.append(" & ".join(cells) + r" \\")
    some = f" {len(rates) - len(dropped)} of {len(rates)} rates shown." if dropped else ""
    several = len({row[labels - 1] for row in section.rows}) > 1
    best = r" \textbf{Best} and \underline{second} of what compares." if any(section.better) and several else ""
    caption = escape(f"{section.title}. {section.note}{some}") + best
    head = [_stacked(escape(columns[column])) for column in shown]
    left = len(head) if section.kind == "classes" else labels  # words and numbers
    return _float(caption, left, head, body, long=len(section.rows) > MOST_ROWS)


def _float(caption: str, left: int, head: Sequence[str], body: Sequence[str], *, long: bool) -> str:
    """A floating table, or a ``long`` one over several pages; the first ``left`` columns are aligned left."""
    columns = "l" * left + "r" * (len(head) - left)
    header = [r"\toprule", " & ".join(head) + r" \\"]
    caption = re.sub("`(.+?)`", r"\\texttt{\1}", rf"\caption{{{caption}}}")
    if long:
        begin = [r"{\scriptsize\setlength{\tabcolsep}{3pt}", rf"\begin{{longtable}}{{{columns}}}", caption + r"\\"]
        header += [r"\endfirsthead", *header, r"\midrule\endhead"]
        end = [r"\end{longtable}}"]
    else:
        begin = [r"\begin{table}[htbp]\centering", caption + r"\smallskip", _SMALL, rf"\begin{{tabular}}{{{columns}}}"]
        end = [r"\end{tabular}", r"\end{table}"]
    return "\n".join([*begin, *header, *body, r"\bottomrule", *end, ""])


def _published(published: Published) -> Iterator[str]:
    for comparison in published.comparisons:
        head = ["", *map(escape, comparison.columns)]
        caption = (
            f"{_metric(comparison.metric)} in % on {comparison.dataset} as published in {published.title} (source: "
            f"{published.source}), and ours: {comparison.remark}."
        )
        body = []
        for _, lines in itertools.groupby(comparison.lines, key=lambda line: line.ours):
            body.append(r"\midrule")
            for line in lines:
                values = map(escape, line.numbers)
                body.append(" & ".join([escape(line.source), *values]) + r" \\")
        yield _float(escape(caption), 1, head, body, long=False)


def _body(table: CurveTable, rates: Sequence[float], several: bool, width: int) -> Iterator[str]:
    for scenario, rows in itertools.groupby(table.rows, key=lambda row: row.scenario):
        yield r"\midrule"
        yield rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(_in_words(scenario))}}}}} \\"
        for number, (prompting, group) in enumerate(itertools.groupby(rows, key=lambda row: row.prompting)):
            if number:
                yield r"\addlinespace"
            for place, row in enumerate(group):
                label = [escape(prompting) if place == 0 else ""] if several else []
                yield " & ".join([*label, escape(row.checkpoint), *_values(table, row, rates)]) + r" \\"


def _values(table: CurveTable, row: Curve, rates: Iterable[float]) -> Iterator[str]:
    number = table.scale.value
    for rate in rates:
        point = row.at(rate)
        if math.isnan(point.value):
            yield "--"
            continue
        value = _marked(number(point.value), table.place(row, rate))
        yield value + _margin(point.ci_low, point.ci_high, number)
    area = _marked(escape(number(row.auc_eta)), table.place(row, "auc_eta"))
    yield area + _margin(row.auc_eta_low, row.auc_eta_high, number)
    relative = escape(percent(row.relative_robustness))
    yield relative + _margin(row.relative_robustness_low, row.relative_robustness_high)


def _margin(low: float, high: float, number: Callable[[float], str] = percent) -> str:
    """Half the width of an interval, small, to stand beside its value; empty if the interval is not known."""
    half = (high - low) / 2
    return "" if math.isnan(half) else rf"\,{{\scriptsize$\pm${number(half)}}}"


def _stacked(head: str) -> str:
    """The head of a column with what follows a comma in a line of its own: ``noisy-audio, concat``."""
    return rf"\shortstack[r]{{{head}}}".replace(", ", r",\\") if ", " in head else head


def _spread(cell: str) -> str:
    """A cell with what follows its ± small, as beside the values of curves."""
    return re.sub(r" \$\\pm\$ (\S+)$", r"\\,{\\scriptsize$\\pm$\1}", cell)


def _marked(text: str, place: int | None) -> str:
    """``text`` in bold if it has the first place, underlined if it has the second."""
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(place or 0, text)


def _caption(table: CurveTable, rates: Sequence[float]) -> str:
    some = f" ({len(rates)} of {len(table.rates)} shown)" if len(rates) < len(table.rates) else ""
    seeds = f"mean of {table.seeds} mask seeds" if table.seeds > 1 else "one mask seed"
    relative = "AUC-η in % of the complete value" if table.scale.sign > 0 else table.scale.relative
    text = (
        f"{_metric(table.metric)}{table.scale.of} on {table.dataset} ({table.split}, {samples(table.n)}) by missing "
        f"rate η{some}, {seeds}; ± is half the 95 % interval over samples. AUC-η: mean height of the curve over all "
        f"rates; Rel.: {relative}."
    )
    best = r" \textbf{Best} and \underline{second} checkpoint, same scenario and prompting."
    return escape(text) + (best if len(table.checkpoints) > 1 else "")


def _metric(name: str) -> str:
    return METRIC_NAMES.get(name, name)


def _in_words(scenario: str) -> str:
    """A scenario as a paper names it: ``missing-image`` is ``missing image``."""
    return scenario.replace("+", " + ").replace("missing-", "missing ").replace("noisy-", "noisy ")


def escape(text: str) -> str:
    r"""Escape ``text`` for LaTeX. A character without a Latin base letter, which fonts may not have, becomes ``?``.

    >>> escape("50 % of a_b")
    '50 \\% of a\\_b'
    >>> escape("--details")
    '-{}-details'
    """
    parts = ("".join(_SPECIAL.get(character) or _plain(character) for character in part) for part in text.split("--"))
    return "-{}-".join(parts)  # two hyphens of a flag would be a dash


def _plain(character: str) -> str:
    return character if " " <= unicodedata.normalize("NFD", character)[0] <= "~" else "?"
