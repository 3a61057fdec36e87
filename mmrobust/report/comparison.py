"""A comparison of two checkpoints, in the terminal, as JSON, and as one self-contained page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmrobust.gate.compare import LOST, Comparison
from mmrobust.report.numbers import BOTH, Scale, interval, p_value, samples, scale_of
from mmrobust.runtime.printable import one_line
from mmrobust.runtime.terminal import SafeConsole
from mmrobust.storage.files import strict_json
from mmrobust.storage.tasks import sign_of

MOST_IDS = 8
"""How many flipped samples of a case the terminal names; JSON and HTML name all."""
_COLUMNS = ("scenario", "prompting", "η", "first", "second", "diff", "interval", "p", "lost", "gained")
_FLIP_COLUMNS = ["change", "id", "label", "first", "second"]


def show(comparison: Comparison, console: Console) -> None:
    """Print every cell, and the samples that flipped."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    scale = scale_of(comparison.metric)
    for name in _columns(scale):
        table.add_column(name, justify="left" if name in ("scenario", "prompting") else "right", no_wrap=True)
    colours = {"better": "green", "worse": "red", "": "dim"}
    for row in _shown(comparison).to_dict("records"):
        scenario, prompting, rate, first, second, *rest = (escape(one_line(text)) for text in _cell(row, scale))
        style = colours[_change(row, comparison)]
        table.add_row(scenario, prompting, rate, first, second, *(f"[{style}]{text}[/]" for text in rest))
    wide = (
        console if console.is_terminal else SafeConsole(file=console.file, width=10_000, highlight=False, emoji=False)
    )
    wide.print(table)
    console.print()
    console.print(one_line(summary(comparison)), style="bold", markup=False)
    flips = _folded(comparison.flips, ["case"]).groupby(["case", "prompting", "change"], sort=False, observed=True)
    for (case, its_prompting, change), flipped in flips["id"]:
        ids = flipped.tolist()
        more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
        named = ", ".join(ids[:MOST_IDS])
        console.print(one_line(f"{case} {its_prompting}: {len(ids)} {change}: {named}{more}"), markup=False)
    for warning in comparison.warnings:
        console.print(one_line(f"Warning: {warning}."), style="yellow", markup=False)
    console.print(f"Note: {note(comparison)}", style="dim", markup=False)


def summary(comparison: Comparison) -> str:
    """The outcome in a sentence."""
    cells = _shown(comparison)
    changes = [_change(row, comparison) for row in cells.to_dict("records")]
    return (
        f"{comparison.second} against {comparison.first}, {comparison.metric}, {samples(comparison.samples)}: "
        f"surely better in {changes.count('better')}, surely worse in {changes.count('worse')} of {len(changes)} cells"
    )


def note(comparison: Comparison) -> str:
    """How to read the figures."""
    scale = scale_of(comparison.metric)
    # Of differences that were found, nobody asks whether they would be.
    undecided = comparison.cells[~(comparison.cells["p_value"] <= comparison.alpha)]
    smallest = undecided["smallest"].dropna().sort_values()
    shown = smallest[smallest < scale.span]
    holm = "Holm-corrected" if comparison.correction == "holm" else "uncorrected"
    tests = " and ".join(sorted(set(comparison.cells["test"])))
    power = ""
    if len(shown):
        power = (
            f" Where none was found, these samples would show differences of {scale.amount(shown.median())}"
            f"{scale.differences} (median; at most {scale.amount(shown.max())}), so corrected, with 80 % power."
        )
    if hidden := len(smallest) - len(shown):
        power += f" In {hidden} of {len(comparison.cells)} cells, these samples are too few to show any difference."
    units = "values in %, differences in points" if scale.is_share else f"values and differences {scale.values}"
    lost = " Lost: right for the first only." if scale.is_share else ""
    return (
        f"{units}, means over mask seeds; {100 * (1 - comparison.alpha):g} % "
        f"{comparison.interval} intervals over samples, paired, uncorrected; p-values ({tests}) {holm} over "
        f"{comparison.tests} distinct columns."
        f"{power}{lost}"
    )


def as_json(comparison: Comparison) -> str:
    """Every cell and every flipped sample, for another program."""
    return json.dumps(strict_json(comparison.as_dict()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_html(comparison: Comparison) -> str:
    """One self-contained page without scripts or network, in light and dark."""
    from mmrobust.report.html import fill_template

    scale = scale_of(comparison.metric)
    return fill_template(
        "comparison.html",
        title=f"{comparison.second} against {comparison.first}",
        summary=summary(comparison),
        note=" ".join([*(f"Warning: {warning}." for warning in comparison.warnings), note(comparison)]),
        columns=_columns(scale),
        rows=[(_cell(row, scale), _change(row, comparison)) for row in _shown(comparison).to_dict("records")],
        flip_columns=_FLIP_COLUMNS,
        flips_by_case=[
            (case, prompting, int((flips["change"] == LOST).sum()), flips[_FLIP_COLUMNS].to_numpy().tolist())
            for (case, prompting), flips in _folded(comparison.flips, ["case"]).groupby(
                ["case", "prompting"], sort=False, observed=True
            )
        ],
    )


def _shown(comparison: Comparison) -> pd.DataFrame:
    return _folded(comparison.cells, ["scenario", "missing_rate"])


def _folded(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """``rows``, once each where all of the same ``keys`` are the same under both promptings."""
    alike = rows.duplicated([name for name in rows if name != "prompting"], keep=False)
    same = alike.groupby([rows[key] for key in keys], observed=True).transform("all")
    return rows.assign(prompting=rows["prompting"].mask(same, BOTH)).drop_duplicates()


def _columns(scale: Scale) -> tuple[str, ...]:
    """The columns; numbers are neither lost nor gained."""
    return _COLUMNS if scale.is_share else _COLUMNS[:-2]


def _cell(value: Mapping[Any, Any], scale: Scale) -> tuple[str, ...]:
    """A cell's row as text, columns as :func:`_columns`."""
    same = value["difference"] == 0 and math.isnan(value["smallest"])  # the same logits on both sides
    return (
        value["scenario"],
        value["prompting"],
        f"{value['missing_rate']:g}",
        scale.value(value["first"]),
        scale.value(value["second"]),
        scale.difference(value["difference"]),
        "same" if same else interval(value["low"], value["high"], scale.difference),
        p_value(value["p_value"]),
        f"{value['lost']:.0f}",
        f"{value['gained']:.0f}",
    )[: len(_columns(scale))]


def _change(row: Mapping[Any, Any], comparison: Comparison) -> str:
    """``better`` or ``worse`` if the difference in a cell is significant, else empty."""
    if not row["p_value"] <= comparison.alpha:  # NaN is not significant
        return ""
    return "better" if sign_of(comparison.metric) * row["difference"] > 0 else "worse"
