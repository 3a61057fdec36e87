"""A comparison of two checkpoints in the terminal, and as one self-contained page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmrobust.gate.compare import LOST, Comparison
from mmrobust.report.rows import UNKNOWN, p_value, percent

MOST_IDS = 8
"""How many flipped samples of a case the terminal names; JSON and HTML name all."""
_COLUMNS = ("scenario", "prompting", "η", "first", "second", "diff", "interval", "p", "lost", "gained")


def show(comparison: Comparison, console: Console) -> None:
    """Print every cell, and the samples that flipped."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        label = name in ("scenario", "prompting")
        table.add_column(name, justify="left" if label else "right", no_wrap=True)
    for row in comparison.cells.to_dict("records"):
        sure = row["p_value"] <= comparison.alpha
        style = ("green" if row["difference"] > 0 else "red") if sure else "dim"
        scenario, prompting, rate, first, second, *rest = map(escape, _cell(row))
        table.add_row(scenario, prompting, rate, first, second, *(f"[{style}]{text}[/]" for text in rest))
    wide = console if console.is_terminal else Console(file=console.file, width=10_000, highlight=False, emoji=False)
    wide.print(table)
    console.print()
    console.print(escape(summary(comparison)), style="bold")
    for case, prompting, change, ids in _flips(comparison):
        named = ", ".join(ids[:MOST_IDS]) + (f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else "")
        console.print(f"{case} {prompting}: {len(ids)} {change}: {named}", markup=False)
    console.print(f"Note: {note(comparison)}", style="dim", markup=False)


def summary(comparison: Comparison) -> str:
    """The outcome in a sentence."""
    cells = comparison.cells
    better = int(((cells["difference"] > 0) & (cells["p_value"] <= comparison.alpha)).sum())
    worse = comparison.different - better
    return (
        f"{comparison.second} against {comparison.first}, {comparison.metric}, {comparison.samples:,} samples: "
        f"surely better in {better}, surely worse in {worse} of {len(cells)} cells"
    )


def note(comparison: Comparison) -> str:
    """How the figures are to be read."""
    smallest, tested = comparison.cells["smallest"].dropna(), int(comparison.cells["p_value"].notna().sum())
    holm = "Holm-corrected" if comparison.correction == "holm" else "uncorrected"
    tests = " and ".join(sorted(set(comparison.cells["test"])))
    power = (
        f" These samples would show differences of {100 * smallest.median():.1f} points (median; at most "
        f"{100 * smallest.max():.1f}) in one cell alone, with 80 % power."
    )
    return (
        f"values in %, differences in points, means over mask seeds; {100 * (1 - comparison.alpha):g} % "
        f"{comparison.interval} intervals over samples, paired; p-values ({tests}) {holm} over {tested} cells."
        f"{power if len(smallest) else ''} Lost: right for the first only."
    )


def as_json(comparison: Comparison) -> str:
    """Every cell and every flipped sample, for another program."""
    return json.dumps(comparison.as_dict(), indent=2, ensure_ascii=False) + "\n"


def as_html(comparison: Comparison) -> str:
    """One page that needs nothing else: no script, no network, light and dark."""
    rows = "\n".join(
        _row(map(html.escape, _cell(row)), _class(row, comparison)) for row in comparison.cells.to_dict("records")
    )
    flips = "\n".join(
        f"<details><summary>{html.escape(f'{case}, {prompting}')}: {len(own)} flipped, "
        f"{int((own['change'] == LOST).sum())} lost</summary>{_flip_table(own)}</details>"
        for (case, prompting), own in comparison.flips.groupby(["case", "prompting"], sort=False, observed=True)
    )
    title = html.escape(f"{comparison.second} against {comparison.first}")
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in _COLUMNS)
    return _PAGE.format(
        title=title,
        summary=html.escape(summary(comparison)),
        note=html.escape(note(comparison)),
        head=head,
        rows=rows,
        flips=flips or "<p>No sample flipped.</p>",
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th:nth-child(-n+2), td:nth-child(-n+2), .flips th, .flips td {{ text-align: left; }}
tr.better td {{ color: light-dark(#0a6b2d, #5fd38a); }}
tr.worse td {{ color: light-dark(#a3160f, #ff8f85); }}
summary {{ cursor: pointer; padding: .3rem 0; }}
.note {{ opacity: .75; }}
</style>
<h1>{title}</h1>
<p><strong>{summary}.</strong></p>
<div class="scroll" tabindex="0" role="region" aria-label="Cells"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<p class="note">{note}</p>
<h2>Samples that flipped</h2>
{flips}
</html>
"""


def _cell(value: Mapping[Any, Any]) -> tuple[str, ...]:
    """A cell's row as text, columns as ``_COLUMNS``."""
    return (
        value["scenario"],
        value["prompting"],
        f"{value['missing_rate']:g}",
        percent(value["first"]),
        percent(value["second"]),
        _signed(value["difference"]),
        f"[{_signed(value['low'])}, {_signed(value['high'])}]",
        p_value(value["p_value"]),
        f"{value['lost']:.0f}",
        f"{value['gained']:.0f}",
    )


def _signed(share: float) -> str:
    return UNKNOWN if math.isnan(share) else f"{100 * share:+.1f}"


def _class(row: Mapping[Any, Any], comparison: Comparison) -> str:
    if not row["p_value"] <= comparison.alpha:  # not defined is not sure
        return ""
    return "better" if row["difference"] > 0 else "worse"


def _row(cells: Iterator[str], name: str) -> str:
    return f'<tr class="{name}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _flip_table(flips: pd.DataFrame) -> str:
    columns = ("change", "id", "label", "first", "second")
    head = "".join(f"<th scope=col>{name}</th>" for name in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in columns) + "</tr>"
        for row in flips.to_dict("records")
    )
    return f'<div class="scroll flips"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _flips(comparison: Comparison) -> Iterator[tuple[str, str, str, list[str]]]:
    for key, own in comparison.flips.groupby(["case", "prompting", "change"], sort=False, observed=True):
        case, prompting, change = map(str, key)
        yield case, prompting, change, own["id"].tolist()
