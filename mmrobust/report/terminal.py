"""The report as tables in a terminal."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from mmrobust.report.curve_table import Curve, CurveTable
from mmrobust.report.numbers import even_subset, percent, samples
from mmrobust.report.published import Published
from mmrobust.report.report import Report
from mmrobust.report.section import Section
from mmrobust.runtime.printable import one_line

_GAP = 2
_SPACE = " " * _GAP
_NUMBER = 5  # "100.0"
_LONGEST_NAME = 28
_ENOUGH_RATES = 6
_LONGEST_SPARKLINE = 11
_BARS = "▁▂▃▄▅▆▇█"
_RELATIVE = "rel."
_FIGURES: dict[str, tuple[Callable[[Curve], float], Callable[[CurveTable], str]]] = {
    "AUC-η": (lambda row: row.auc_eta, lambda table: "mean height of the curve"),
    _RELATIVE: (lambda row: row.relative_robustness, lambda table: table.scale.relative),
    "worst": (lambda row: row.worst_value, lambda table: f"{table.scale.worst} cell"),
    "drop": (lambda row: row.drop_per_10_points, lambda table: table.scale.drop),
}
"""Name of a column → its value and what it means. A narrow terminal leaves out the last ones."""
DROP_STYLES = ((0.01, "green"), (0.05, "default"), (0.15, "yellow"), (0.30, "dark_orange"), (math.inf, "red"))
"""(limit, colour): a value has the colour of the first limit that its drop below the complete value does not exceed. Of
an error it is the rise, as a share of the complete value."""


def show(report: Report, console: Console, width: int | None = None) -> None:
    """Print every table of ``report`` to fit into ``width`` columns, by default those of the terminal.

    Into a pipe or a file every rate is printed, however wide that is, unless the environment variable COLUMNS sets the
    width.
    """
    if width is None and (console.is_terminal or os.environ.get("COLUMNS")):
        width = console.width
    for number, table in enumerate(report.tables):
        if number:
            console.print()
        _show_table(table.folded, console, width)
    for section in report.sections:
        console.print()
        _show_section(section.folded, console, width)
    if report.published is not None:
        _show_published(report.published, console, width)


def _show_table(table: CurveTable, console: Console, width: int | None) -> None:
    labels = _labels(table)
    layout = _layout(table, labels, width)
    natural = f" · {table.n_naturally_missing} naturally incomplete" if table.n_naturally_missing else ""
    title = f"{table.dataset} · {table.split} · {samples(table.n)}{natural} · {table.metric}{table.scale.of}"
    _print_line(console, title, "bold", width)
    _print(console, [layout.head()])
    for scenario in table.scenarios:
        _print_line(console, scenario, "bold cyan", width)
        rows = zip(table.rows, labels, strict=True)
        _print(console, [layout.row(table, row, label) for row, label in rows if row.scenario == scenario])
        console.print()
    noise = table.uncertainty
    left_out = len(table.rates) - len(layout.rates)
    steps = {round(after - before, 9) for before, after in itertools.pairwise(layout.rates)}
    uneven = ", in uneven steps" if len(steps) > 1 else ""
    some = f" {len(layout.rates)} of {len(table.rates)} rates{uneven}: a wider terminal shows all." if left_out else ""
    _print_line(console, f"Columns: missing rate η.{some} {noise[0].upper()}{noise[1:]}.", "dim", width)
    best = " Bold: the best checkpoint, same scenario and prompting." if len(table.checkpoints) > 1 else ""
    meanings = "; ".join(f"{name}: {_FIGURES[name][1](table)}" for name in layout.figures)
    _print_line(console, f"{meanings}.{best}", "dim", width)


def _show_section(section: Section, console: Console, width: int | None) -> None:
    """Print a further table; if it is too wide, leave out rates, evenly, or the last of its other columns."""
    head, *rows = ([one_line(cell) for cell in cells] for cells in (section.columns, *section.rows))
    widest = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    widths = [_shortened(size, width) for size in widest[: section.labels]] + widest[section.labels :]
    numbers: Sequence[float] = range(section.labels, len(section.columns))
    if width is not None:
        free = width - sum(size + _GAP for size in widths[: section.labels]) + _GAP
        if section.is_rate(section.labels):
            numbers = even_subset(numbers, max(1, free // (max(widths[section.labels :]) + _GAP)))
        else:
            ends = itertools.accumulate(size + _GAP for size in widths[section.labels :])
            numbers = numbers[: max(1, sum(end <= free for end in ends))]
    shown = [*range(section.labels), *map(int, numbers)]
    left_out = 0 if section.is_rate(section.labels) else len(section.columns) - len(shown)
    some = f" {left_out} more column{'s' * (left_out > 1)}: a wider terminal shows all." if left_out else ""

    def line(cells: Sequence[str]) -> str:
        aligned = (f"{cells[i]:>{widths[i]}}" if i >= section.labels else _fitted(cells[i], widths[i]) for i in shown)
        return _SPACE.join(aligned).rstrip()

    _print_line(console, section.title, "bold", width)
    _print(console, [Text(line(head), style="dim"), *(Text(line(row)) for row in rows)])
    _print_line(console, section.note + some, "dim", width)


def _show_published(published: Published, console: Console, width: int | None) -> None:
    """Print a paper's figures, with ours below."""
    for comparison in published.comparisons:
        names = [name.rjust(_NUMBER) for name in comparison.columns]
        free = (width or 10_000) - sum(len(name) + _GAP for name in names)
        label = max(_NUMBER, min(max((cell_len(line.source) for line in comparison.lines), default=0), free))
        console.print()
        title = f"{comparison.dataset} as published · {published.title} · {comparison.metric} in %"
        _print_line(console, title, "bold", width)
        lines = [Text(_SPACE.join((" " * label, *names)), style="dim")]
        for line in comparison.lines:
            numbers = (f"{text:>{len(name)}}" for text, name in zip(line.numbers, names, strict=True))
            text = _SPACE.join((_fitted(line.source, label), *numbers))
            lines.append(Text(text, style="" if line.ours else "magenta"))
        _print(console, lines)
        _print_line(console, f"Ours: {comparison.remark}.", "dim", width)
    _print_line(console, f"Source: {published.source}.", "dim", width)


def _print_line(console: Console, text: str, style: str, width: int | None) -> None:
    """Print ``text``, wrapped to the table where it is read on a screen; in one line where a program reads it."""
    console.print(Text(one_line(text), style=style), soft_wrap=width is None, width=width)


def _print(console: Console, lines: Sequence[Text]) -> None:
    """Print ``lines`` unchanged. One call without a rich table takes a tenth of the time for hundreds of rows."""
    console.print(Text("\n").join(lines), crop=False, no_wrap=True, soft_wrap=True)


@dataclass(frozen=True)
class _Layout:
    """Which columns are shown, and how wide."""

    labels: tuple[int, ...]
    """Widths of the label columns."""
    sparks: tuple[float, ...]
    """The rates of the sparkline; empty if it is left out."""
    rates: tuple[float, ...]
    figures: tuple[str, ...]
    number: int = _NUMBER
    """Width of the columns of numbers."""

    def head(self) -> Text:
        """The names of the columns."""
        blank = [" " * width for width in (*self.labels, *([len(self.sparks)] if self.sparks else []))]
        names = (*(f"{rate:g}" for rate in self.rates), *self.figures)
        return Text(_SPACE.join((*blank, *(f"{name:>{self.number}}" for name in names))), style="dim")

    def row(self, table: CurveTable, row: Curve, label: Sequence[str]) -> Text:
        """One checkpoint's line."""
        cells = [Text(_fitted(name, width)) for name, width in zip(label, self.labels, strict=True)]
        if self.sparks:
            cells.append(sparkline(table, row, self.sparks))
        cells += [_value(table, row, rate, self.number) for rate in self.rates]
        cells += [Text(f"{_figure(table, row, name):>{self.number}}", style="dim") for name in self.figures]
        return Text(_SPACE).join(cells)


def sparkline(table: CurveTable, row: Curve, rates: Sequence[float]) -> Text:
    """Draw the curve of ``row``, one character per rate, scaled from the lowest to the highest value of ``table``."""
    (low, high), line = table.extent, Text()
    for rate in rates:
        value = row.at(rate).value
        height = 0 if math.isnan(value) or high == low else round((value - low) / (high - low) * (len(_BARS) - 1))
        line.append(" " if math.isnan(value) else _BARS[height], style=_style(table, row, value))
    return line


def _shortened(size: int, width: int | None) -> int:
    """The width of a column of names ``size`` wide; a pipe gets them whole."""
    return size if width is None else min(size, _LONGEST_NAME)


def _fitted(text: str, width: int) -> str:
    """Pad ``text`` to exactly ``width`` columns of the terminal, or cut it in the middle, as names often end alike.

    >>> _fitted("emoji/mmp-linear-s0", 10), _fitted("mmp", 5)
    ('emoji/…-s0', 'mmp  ')
    """
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    end = text[len(text) - width // 3 :]
    return set_cell_size(text, width - 1 - cell_len(end)) + "…" + end


def _labels(table: CurveTable) -> list[tuple[str, ...]]:
    """The labels of each row: the checkpoint, and the prompting if there are several."""
    names = [f"  {one_line(row.checkpoint)}" for row in table.rows]
    if len(table.promptings) == 1:
        return [(name,) for name in names]
    return [(name, row.prompting) for name, row in zip(names, table.rows, strict=True)]


def _layout(table: CurveTable, labels: Sequence[tuple[str, ...]], width: int | None) -> _Layout:
    """Choose what fits into ``width`` columns: labels first, then rates, figures and the sparkline.

    A pipe gets every rate and figure but no sparkline, since a program that reads it wants numbers.
    """
    longest = tuple(_shortened(max(map(cell_len, column)), width) for column in zip(*labels, strict=True))
    every = tuple(_FIGURES)
    number = _NUMBER
    if not table.scale.is_share:
        printed = [table.scale.value(point.value) for row in table.rows for point in row.points.values()]
        printed += [_figure(table, row, name) for row in table.rows for name in every]
        number = max(number, *map(len, printed))
    if width is None:
        return _Layout(longest, (), table.rates, every, number)
    free = width - sum(label + _GAP for label in longest) + _GAP
    sparks = even_subset(table.rates, _LONGEST_SPARKLINE)
    beside = (free - len(sparks) - _GAP) // (number + _GAP)
    if len(sparks) < 3 or beside < _ENOUGH_RATES:
        sparks, beside = (), max(3, free // (number + _GAP))
    enough = min(len(table.rates), _ENOUGH_RATES)
    roomy = (count for count in range(len(every), 1, -1) if beside - count >= enough)
    count = next(roomy, 2 if beside > 4 else 1)
    return _Layout(longest, sparks, even_subset(table.rates, beside - count), every[:count], number)


def _figure(table: CurveTable, row: Curve, name: str) -> str:
    """A robustness figure: relative robustness in per cent, the others as values of the metric."""
    return (percent if name == _RELATIVE else table.scale.value)(_FIGURES[name][0](row))


def _value(table: CurveTable, row: Curve, rate: float, width: int) -> Text:
    """A value, coloured by how far it lies below the complete one; the best is bold."""
    value = row.at(rate).value
    style = _style(table, row, value)
    return Text(f"{table.scale.value(value):>{width}}", style=f"bold {style}" if table.place(row, rate) == 1 else style)


def _style(table: CurveTable, row: Curve, value: float) -> str:
    if math.isnan(value):
        return "dim"
    if math.isnan(row.complete):
        return "default"
    drop = row.complete - value
    if table.scale.sign < 0:
        drop = -drop / row.complete if row.complete else math.copysign(math.inf, -drop) * bool(drop)
    return next(style for limit, style in DROP_STYLES if drop <= limit + 1e-9)
