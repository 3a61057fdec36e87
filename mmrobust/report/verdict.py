"""The verdict of the gate, as a terminal table, Markdown or JSON: worst first."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmrobust.check import Outcome, Verdict
from mmrobust.report.tables import percent

MOST_PASSED = 10
"""How many passed cells a table shows where nothing failed; JSON has them all."""


def show(verdict: Verdict, console: Console) -> None:
    """Print ``verdict``: what failed, else the cells that came nearest to failing.

    Without a terminal the rows keep their width, however wide: a log wraps them itself, and grep finds them.
    """
    if not console.is_terminal:
        console.file.write(table(verdict))
        return
    console.print(_rows(verdict))
    console.print()
    console.print(_summary(verdict), style="bold green" if verdict.passed else "bold red", markup=False)
    for note in _notes(verdict):
        console.print(f"Note: {note}.", style="dim", markup=False)


def table(verdict: Verdict) -> str:
    """``verdict`` as plain text."""
    text = io.StringIO()
    Console(file=text, width=10_000, color_system=None).print(_rows(verdict))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, "", _summary(verdict), *(f"Note: {note}." for note in _notes(verdict))]) + "\n"


def _rows(verdict: Verdict) -> Table:
    rows = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    several = len({outcome.checkpoint for outcome in verdict.outcomes}) > 1
    for name in (*["checkpoint"] * several, "cell", "base", "cand", "diff", "rule"):
        number = name in ("base", "cand", "diff")
        rows.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for outcome in _shown(verdict):
        style = "green" if outcome.passed else "red"
        labels = [escape(outcome.checkpoint)] * several + [escape(_cell(outcome))]
        numbers = [percent(outcome.baseline), percent(outcome.candidate), f"[{style}]{_points(outcome)}[/]"]
        rows.add_row(*labels, *numbers, escape(outcome.rule))
    return rows


def markdown(verdict: Verdict) -> str:
    """``verdict`` for a pull request or a step summary."""
    lines = [f"### {'✅' if verdict.passed else '❌'} {_summary(verdict)}", ""]
    lines += ["| | checkpoint | cell | baseline | candidate | difference | rule |"]
    lines += ["| :--- | :--- | :--- | ---: | ---: | ---: | :--- |"]
    for outcome in _shown(verdict):
        said = [
            "pass" if outcome.passed else "**fail**",
            outcome.checkpoint.replace("|", "\\|"),
            _cell(outcome),
            percent(outcome.baseline),
            percent(outcome.candidate),
            _points(outcome),
            f"`{outcome.rule}`",
        ]
        lines.append(f"| {' | '.join(said)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(verdict))]) + "\n"


def as_json(verdict: Verdict) -> str:
    """``verdict`` with every cell, for another program."""
    return json.dumps(verdict.as_dict(), indent=2, ensure_ascii=False) + "\n"


VERDICT_FORMATS: dict[str, Callable[[Verdict], str]] = {"table": table, "md": markdown, "json": as_json}
"""The formats of ``mmrobust check --format``."""


def _summary(verdict: Verdict) -> str:
    compared = f"{len(verdict.outcomes)} cell{'s' if len(verdict.outcomes) > 1 else ''} compared"
    if verdict.passed:
        return f"PASS: {compared}, none below its limit"
    worst = verdict.failures[0]
    points = f"{_points(worst)} points under rule {worst.rule}"
    return f"FAIL: {len(verdict.failures)} of {compared}; worst: {_cell(worst)}, {points}"


def _notes(verdict: Verdict) -> tuple[str, ...]:
    hidden = verdict.passed and len(verdict.outcomes) > MOST_PASSED
    return (*verdict.notes, f"shown are the {MOST_PASSED} cells nearest to their limits") if hidden else verdict.notes


def _shown(verdict: Verdict) -> tuple[Outcome, ...]:
    return verdict.failures or verdict.outcomes[:MOST_PASSED]


def _cell(outcome: Outcome) -> str:
    return f"{outcome.metric}@{outcome.scenario}/{outcome.missing_rate:g} {outcome.prompting}"


def _points(outcome: Outcome) -> str:
    """The difference in percentage points, signed."""
    return f"{100 * outcome.difference:+.1f}"
