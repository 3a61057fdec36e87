"""The verdict of the gate for people and for CI systems, worst first."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmrobust.gate.check import Outcome, Verdict
from mmrobust.report.escaping import code, plain
from mmrobust.report.rows import UNKNOWN, p_value, percent

MOST_PASSED = 10
"""How many passed cells a table shows where nothing failed; JSON has them all."""
MOST_ANNOTATIONS = 10
"""GitHub shows no more error annotations of one step."""
SUMMARY_BYTES = 2**20
"""GitHub takes no longer step summary."""


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
    Console(file=text, width=10_000, color_system=None, emoji=False).print(_rows(verdict))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, "", _summary(verdict), *(f"Note: {note}." for note in _notes(verdict))]) + "\n"


def _rows(verdict: Verdict) -> Table:
    rows = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    several, paired = _several(verdict), _paired(verdict)
    for name in (*["checkpoint"] * several, "cell", "base", "cand", "diff", *["surely", "p"] * paired, "rule"):
        number = name in ("base", "cand", "diff", "surely", "p")
        rows.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for outcome in _shown(verdict):
        style = "green" if outcome.passed else "red"
        labels = [escape(outcome.checkpoint)] * several + [escape(cell_name(outcome))]
        numbers = [percent(outcome.baseline), percent(outcome.candidate), f"[{style}]{_points(outcome)}[/]"]
        sure = [_surely(outcome), p_value(outcome.p_value)] * paired
        rows.add_row(*labels, *numbers, *sure, escape(outcome.rule))
    return rows


def markdown(verdict: Verdict, most_bytes: int | None = None) -> str:
    """``verdict`` for a pull request or a step summary; where it would be too long, the least bad rows go.

    Args:
        verdict: what to say.
        most_bytes: of UTF-8.
    """
    paired = _paired(verdict)
    head = ["", "checkpoint", "cell", "baseline", "candidate", "difference", *["surely", "p"] * paired, "rule"]
    lines = [f"### {'✅' if verdict.passed else '❌'} {plain(_summary(verdict))}", "", _pipe(head)]
    lines.append(_pipe([":---", ":---", ":---", *["---:"] * (len(head) - 4), ":---"]))
    notes = ["", *(f"- {plain(note)}" for note in _notes(verdict))]
    rows = []
    for outcome in _shown(verdict):
        said = [
            "pass" if outcome.passed else "**fail**",
            plain(outcome.checkpoint),
            plain(cell_name(outcome)),
            percent(outcome.baseline),
            percent(outcome.candidate),
            _points(outcome),
            *[_surely(outcome), p_value(outcome.p_value)] * paired,
            code(outcome.rule, in_table=True),
        ]
        rows.append(_pipe(said))
    if most_bytes is not None:
        room = most_bytes - len("\n".join([*lines, *notes]).encode()) - 100
        kept = _that_fit(rows, room)
        if kept < len(rows):
            notes.append(f"- {len(rows) - kept} more cells did not fit here")
        rows = rows[:kept]
    return "\n".join([*lines, *rows, *notes]) + "\n"


def as_json(verdict: Verdict) -> str:
    """``verdict`` with every cell, for another program."""
    return json.dumps(verdict.as_dict(), indent=2, ensure_ascii=False) + "\n"


def junit(verdict: Verdict) -> str:
    """``verdict`` as JUnit XML, one test case per cell and rule: every CI system shows it.

    After the schema that Jenkins publishes for its xUnit plugin.
    """
    counts = {"tests": str(len(verdict.outcomes)), "failures": str(len(verdict.failures)), "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "mmrobust check", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "mmrobust check", **counts, "skipped": "0", "time": "0"})
    for outcome in verdict.outcomes:
        name = _xml(f"{cell_name(outcome)} {outcome.rule}")
        about = {"name": name, "classname": _xml(f"mmrobust.{outcome.checkpoint}"), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", about)
        if not outcome.passed:
            kind = "floor" if outcome.kind == "floor" else "regression"
            failure = ElementTree.SubElement(case, "failure", {"message": _xml(_sentence(outcome)), "type": kind})
            failure.text = _xml(_sentence(outcome))
    ElementTree.SubElement(suite, "system-out").text = _xml("\n".join([_summary(verdict), *verdict.notes]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def github(verdict: Verdict) -> str:
    """``verdict`` as GitHub's workflow commands: an error annotation for each of the worst cells, or a notice."""
    if verdict.passed:
        return f"::notice title=mmrobust check::{_command(_summary(verdict))}\n"
    lines = []
    for outcome in verdict.failures[:MOST_ANNOTATIONS]:
        title = f"{cell_name(outcome)} ({outcome.checkpoint})"
        lines.append(f"::error title={_command(title, of_property=True)}::{_command(_sentence(outcome))}")
    return "\n".join(lines) + "\n"


VERDICT_FORMATS: dict[str, Callable[[Verdict], str]] = {
    "table": table,
    "md": markdown,
    "json": as_json,
    "junit": junit,
    "github": github,
}
"""The formats of ``mmrobust check --format``."""


def cell_name(outcome: Outcome) -> str:
    """The cell as a rule would name it, and its prompting."""
    return f"{outcome.metric}@{outcome.scenario}/{outcome.missing_rate:g} {outcome.prompting}"


def _sentence(outcome: Outcome) -> str:
    """What happened in a cell that failed."""
    values = f"{percent(outcome.candidate)} %, baseline {percent(outcome.baseline)} % ({_points(outcome)} points)"
    sure = "" if outcome.p_value is None else f", surely {_surely(outcome)}, p {p_value(outcome.p_value)}"
    return f"{cell_name(outcome)} of {outcome.checkpoint}: {values}{sure}; under rule {outcome.rule}"


def _summary(verdict: Verdict) -> str:
    compared = f"{len(verdict.outcomes)} cell{'s' if len(verdict.outcomes) > 1 else ''} compared"
    if verdict.passed and any(outcome.below_limit for outcome in verdict.outcomes):
        return f"PASS: {compared}, none surely below its limit"
    if verdict.passed:
        return f"PASS: {compared}, none below its limit"
    worst = verdict.failures[0]
    points = f"{_points(worst)} points under rule {worst.rule}"
    return f"FAIL: {len(verdict.failures)} of {compared}; worst: {cell_name(worst)}, {points}"


def _notes(verdict: Verdict) -> tuple[str, ...]:
    hidden = verdict.passed and len(verdict.outcomes) > MOST_PASSED
    return (*verdict.notes, f"shown are the {MOST_PASSED} cells nearest to their limits") if hidden else verdict.notes


def _shown(verdict: Verdict) -> tuple[Outcome, ...]:
    return verdict.failures or verdict.outcomes[:MOST_PASSED]


def _several(verdict: Verdict) -> bool:
    return len({outcome.checkpoint for outcome in verdict.outcomes}) > 1


def _paired(verdict: Verdict) -> bool:
    return any(outcome.p_value is not None for outcome in verdict.outcomes)


def _points(outcome: Outcome) -> str:
    """The difference in percentage points, signed."""
    return f"{100 * outcome.difference:+.1f}"


def _surely(outcome: Outcome) -> str:
    """What the difference surely is not above, in points."""
    return UNKNOWN if outcome.at_most is None else f"≤ {100 * outcome.at_most:+.1f}"


def _xml(text: str) -> str:
    """``text`` with no character that XML 1.0 has not."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)


def _pipe(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |" if cells[0] else f"| | {' | '.join(cells[1:])} |"


def _that_fit(rows: list[str], room: int) -> int:
    """How many of the rows, from the first, fit into so many bytes."""
    taken = itertools.accumulate(len(row.encode()) + 1 for row in rows)
    return sum(total <= room for total in taken)


def _command(text: str, of_property: bool = False) -> str:
    """``text`` as a workflow command takes it."""
    for character, coded in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, coded)
    return text.replace(":", "%3A").replace(",", "%2C") if of_property else text
