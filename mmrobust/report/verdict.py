"""The verdict of the gate, worst cell first, in the formats of ``mmrobust check``."""

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
from mmrobust.report.markdown import code_span, escape_markdown, pipe_row
from mmrobust.report.numbers import UNKNOWN, p_value, percent, points

MOST_PASSED = 10
"""How many passed cells a table shows if nothing failed; JSON has all."""
MOST_ANNOTATIONS = 10
"""GitHub shows at most this many error annotations of one step."""
SUMMARY_BYTES = 2**20
"""GitHub accepts a step summary of at most this length."""


def show(verdict: Verdict, console: Console) -> None:
    """Print ``verdict``: the cells that failed, or, if none did, those that came closest to failing.

    Without a terminal the rows are not wrapped, so that grep finds them; a log wraps them itself.
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
    several, paired = len({outcome.checkpoint for outcome in verdict.outcomes}) > 1, _paired(verdict)
    for name in (*["checkpoint"] * several, "cell", "base", "cand", "diff", *["surely", "p"] * paired, "rule"):
        number = name in ("base", "cand", "diff", "surely", "p")
        rows.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for outcome in _shown(verdict):
        style = "green" if outcome.passed else "red"
        labels = [escape(outcome.checkpoint)] * several + [escape(cell_name(outcome))]
        numbers = [percent(outcome.baseline), percent(outcome.candidate), f"[{style}]{points(outcome.difference)}[/]"]
        rows.add_row(*labels, *numbers, *_statistics(outcome) * paired, escape(outcome.rule))
    return rows


def markdown(verdict: Verdict, most_bytes: int | None = None) -> str:
    """``verdict`` as Markdown, for a pull request or a step summary.

    Args:
        verdict: the verdict.
        most_bytes: length of the result at most, as UTF-8; the least bad rows are left out to keep to it.
    """
    paired = _paired(verdict)
    head = ["checkpoint", "cell", "baseline", "candidate", "difference", *["surely", "p"] * paired, "rule"]
    title = f"### {'✅' if verdict.passed else '❌'} {escape_markdown(_summary(verdict))}"
    rule = [":---"] * 3 + ["---:"] * (len(head) - 3) + [":---"]
    lines = [title, "", f"| {pipe_row(head)}", pipe_row(rule)]
    notes = ["", *(f"- {escape_markdown(note)}" for note in _notes(verdict))]
    rows = []
    for outcome in _shown(verdict):
        names = map(escape_markdown, (outcome.checkpoint, cell_name(outcome)))
        values = percent(outcome.baseline), percent(outcome.candidate), points(outcome.difference)
        rule_cell = code_span(outcome.rule, in_table=True)
        mark = "pass" if outcome.passed else "**fail**"
        rows.append(pipe_row([mark, *names, *values, *_statistics(outcome) * paired, rule_cell]))
    if most_bytes is not None:
        free = most_bytes - len("\n".join([*lines, *notes]).encode()) - 100
        ends = itertools.accumulate(len(row.encode()) + 1 for row in rows)
        fit = sum(end <= free for end in ends)
        if fit < len(rows):
            notes.append(f"- {len(rows) - fit} more cells did not fit here")
        rows = rows[:fit]
    return "\n".join([*lines, *rows, *notes]) + "\n"


def as_json(verdict: Verdict) -> str:
    """``verdict`` as JSON with every cell, for another program."""
    return json.dumps(verdict.as_dict(), indent=2, ensure_ascii=False) + "\n"


def junit(verdict: Verdict) -> str:
    """``verdict`` as JUnit XML, which every CI system shows, with one test case per cell and rule.

    Follows the schema that Jenkins publishes for its xUnit plugin.
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
    """``verdict`` as GitHub workflow commands: an error annotation for each of the worst cells, or a notice."""
    if verdict.passed:
        return f"::notice title=mmrobust check::{_command(_summary(verdict))}\n"
    lines = []
    for outcome in verdict.failures[:MOST_ANNOTATIONS]:
        title = _command(f"{cell_name(outcome)} ({outcome.checkpoint})", of_property=True)
        lines.append(f"::error title={title}::{_command(_sentence(outcome))}\n")
    return "".join(lines)


VERDICT_FORMATS: dict[str, Callable[[Verdict], str]]
VERDICT_FORMATS = {"table": table, "md": markdown, "json": as_json, "junit": junit, "github": github}
"""The formats of ``mmrobust check --format``."""


def cell_name(outcome: Outcome) -> str:
    """Name the cell as a rule would, followed by its prompting."""
    return f"{outcome.metric}@{outcome.scenario}/{outcome.missing_rate:g} {outcome.prompting}"


def _sentence(outcome: Outcome) -> str:
    """Say what happened in a cell that failed."""
    difference = points(outcome.difference)
    values = f"{percent(outcome.candidate)} %, baseline {percent(outcome.baseline)} % ({difference} points)"
    sure = "" if outcome.p_value is None else f", surely {_surely(outcome)}, p {p_value(outcome.p_value)}"
    return f"{cell_name(outcome)} of {outcome.checkpoint}: {values}{sure}; under rule {outcome.rule}"


def _summary(verdict: Verdict) -> str:
    compared = f"{len(verdict.outcomes)} cell{'s' if len(verdict.outcomes) > 1 else ''} compared"
    if verdict.passed:
        surely = " surely" if any(outcome.below_limit for outcome in verdict.outcomes) else ""
        return f"PASS: {compared}, none{surely} below its limit"
    worst = verdict.failures[0]
    drop = f"{points(worst.difference)} points under rule {worst.rule}"
    return f"FAIL: {len(verdict.failures)} of {compared}; worst: {cell_name(worst)}, {drop}"


def _notes(verdict: Verdict) -> tuple[str, ...]:
    hidden = verdict.passed and len(verdict.outcomes) > MOST_PASSED
    return (*verdict.notes, f"shown are the {MOST_PASSED} cells nearest to their limits") if hidden else verdict.notes


def _shown(verdict: Verdict) -> tuple[Outcome, ...]:
    return verdict.failures or verdict.outcomes[:MOST_PASSED]


def _paired(verdict: Verdict) -> bool:
    return any(outcome.p_value is not None for outcome in verdict.outcomes)


def _surely(outcome: Outcome) -> str:
    """The upper end of the interval of the difference, in points."""
    return UNKNOWN if outcome.at_most is None else f"≤ {points(outcome.at_most)}"


def _statistics(outcome: Outcome) -> list[str]:
    """The columns that verdicts with paired intervals have."""
    return [_surely(outcome), p_value(outcome.p_value)]


def _xml(text: str) -> str:
    """``text`` with every character that XML 1.0 does not allow replaced."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)


def _command(text: str, of_property: bool = False) -> str:
    """Escape ``text`` for a workflow command."""
    for character, coded in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, coded)
    return text.replace(":", "%3A").replace(",", "%2C") if of_property else text
