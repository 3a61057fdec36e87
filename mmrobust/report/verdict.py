"""The verdict of the gate, worst cell first, in the formats of ``mmrobust check``."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmrobust.gate.drops import hides_any
from mmrobust.gate.evidence import IDENTICAL
from mmrobust.gate.outcome import FAIL, INCONCLUSIVE, PASS, WARN, Outcome, Verdict
from mmrobust.gate.rules import FLOOR
from mmrobust.report.markdown import code_span, escape_markdown, pipe_row
from mmrobust.report.numbers import BOTH, UNKNOWN, p_value, scale_of
from mmrobust.runtime.printable import one_line, printable
from mmrobust.runtime.terminal import SafeConsole
from mmrobust.storage.files import strict_json

MOST_PASSED = 10
"""How many passed cells a table shows if nothing failed; JSON has all."""
MOST_ANNOTATIONS = 10
"""GitHub shows at most this many errors, and as many warnings, of one step."""
SUMMARY_BYTES = 2**20
"""GitHub accepts a step summary of at most this length."""
_COLOURS = {PASS: "green", FAIL: "red", INCONCLUSIVE: "yellow"}
_SIGNS = {PASS: "✅", FAIL: "❌", INCONCLUSIVE: "⚠️"}
_TITLE = "mmrobust check"
_STATISTICS = ["surely", "p", "allowed", "detectable"]


def show(verdict: Verdict, console: Console) -> None:
    """Print ``verdict``: the cells that failed or are inconclusive, or, if none, those that came closest to failing.

    Without a terminal the rows are not wrapped, so that grep finds them; a log wraps them itself.
    """
    if not console.is_terminal:
        console.file.write(table(verdict))
        return
    console.print(_rows(verdict))
    console.print()
    console.print(one_line(summary(verdict)), style=f"bold {_COLOURS[verdict.value]}", markup=False)
    for line in _lines(verdict):
        console.print(one_line(line), style="dim" if line.startswith("Note") else "yellow", markup=False)


def table(verdict: Verdict) -> str:
    """``verdict`` as plain text."""
    text = io.StringIO()
    SafeConsole(file=text, width=10_000, color_system=None, emoji=False).print(_rows(verdict))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, "", *map(one_line, (summary(verdict), *_lines(verdict)))]) + "\n"


def _lines(verdict: Verdict) -> list[str]:
    """What stands below the table."""
    return [*(f"Warning: {text}." for text in verdict.warnings), *(f"Note: {text}." for text in _notes(verdict))]


def _rows(verdict: Verdict) -> Table:
    rows = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    several, statistics = len({outcome.checkpoint for outcome in verdict.outcomes}) > 1, _STATISTICS * _paired(verdict)
    for name in ("verdict", *["checkpoint"] * several, "cell", "base", "cand", "diff", *statistics, "rule"):
        number = name in ("base", "cand", "diff", *_STATISTICS)
        rows.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for outcome in _shown(verdict):
        style = _COLOURS[outcome.verdict]
        labels = [
            f"[{style}]{outcome.verdict}[/]",
            *[escape(one_line(outcome.checkpoint))] * several,
            escape(one_line(cell_name(outcome))),
        ]
        base, candidate, difference = _values(outcome)
        numbers = [base, candidate, f"[{style}]{difference}[/]"]
        rows.add_row(*labels, *numbers, *_statistics(outcome) * bool(statistics), escape(one_line(outcome.rule)))
    return rows


def markdown(verdict: Verdict, most_bytes: int | None = None) -> str:
    """``verdict`` as Markdown, for a pull request or a step summary.

    Args:
        verdict: the verdict.
        most_bytes: length of the result at most, as UTF-8; the least bad rows are left out to keep to it.
    """
    statistics = _STATISTICS * _paired(verdict)
    head = ["checkpoint", "cell", "baseline", "candidate", "difference", *statistics, "rule"]
    title = f"### {_SIGNS[verdict.value]} {escape_markdown(summary(verdict))}"
    rule = [":---"] * 3 + ["---:"] * (len(head) - 3) + [":---"]
    lines = [title, "", f"| {pipe_row(head)}", pipe_row(rule)]
    said = [
        *(f"**Warning**: {escape_markdown(text)}" for text in verdict.warnings),
        *map(escape_markdown, _notes(verdict)),
    ]
    notes = ["", *(f"- {line}" for line in said)]
    rows = []
    for outcome in _shown(verdict):
        names = map(escape_markdown, (outcome.checkpoint, cell_name(outcome)))
        values = _values(outcome)
        rule_cell = code_span(outcome.rule, in_table=True)
        mark = "pass" if outcome.passed else f"**{outcome.verdict}**"
        rows.append(pipe_row([mark, *names, *values, *_statistics(outcome) * bool(statistics), rule_cell]))
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
    return json.dumps(strict_json(verdict.as_dict()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def junit(verdict: Verdict) -> str:
    """``verdict`` as JUnit XML, which every CI system shows, with one test case per cell and rule.

    An inconclusive cell is a skipped test case, or a failed one where it counts as a failure. Follows the schema that
    Jenkins publishes for its xUnit plugin.
    """
    failed = verdict.failures + verdict.inconclusive * (verdict.inconclusive_as == FAIL)
    skipped = () if verdict.inconclusive_as == FAIL else verdict.inconclusive
    counts = {"tests": len(verdict.outcomes), "failures": len(failed), "errors": 0}
    root, suite = _suite(counts, len(skipped))
    for outcome in verdict.outcomes:
        name = _xml(f"{cell_name(outcome)} {outcome.rule}")
        about = {"name": name, "classname": _xml(f"mmrobust.{outcome.checkpoint}"), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", about)
        said = _xml(_sentence(outcome))
        if outcome in failed:
            kind = "regression" if outcome.kind != FLOOR else FLOOR
            kind = INCONCLUSIVE if outcome.verdict == INCONCLUSIVE else kind
            ElementTree.SubElement(case, "failure", {"message": said, "type": kind}).text = said
        elif outcome in skipped:
            ElementTree.SubElement(case, "skipped", {"message": said})
    ElementTree.SubElement(suite, "system-out").text = _xml("\n".join([summary(verdict), *_lines(verdict)]))
    return _document(root)


def _junit_of_error(message: str) -> str:
    root, suite = _suite({"tests": 1, "failures": 0, "errors": 1}, 0)
    case = ElementTree.SubElement(suite, "testcase", {"name": "check", "classname": "mmrobust", "time": "0"})
    ElementTree.SubElement(case, "error", {"message": _xml(message), "type": "error"}).text = _xml(message)
    return _document(root)


def _suite(counts: Mapping[str, int], skipped: int) -> tuple[ElementTree.Element, ElementTree.Element]:
    """The root of a JUnit document, and its only suite."""
    about = {"name": _TITLE, **{name: str(count) for name, count in counts.items()}}
    root = ElementTree.Element("testsuites", about)
    return root, ElementTree.SubElement(root, "testsuite", {**about, "skipped": str(skipped), "time": "0"})


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    # Declared by hand: the library would declare the locale's encoding, and files are written as UTF-8.
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ElementTree.tostring(root, encoding="unicode") + "\n"


def github(verdict: Verdict) -> str:
    """``verdict`` as GitHub workflow commands.

    The verdict as an error, a warning or a notice; an error for each of the worst failures; a warning for each
    inconclusive cell, the last of which names those that are too many; and one for all that the verdict warns of.
    """
    failures, inconclusive = _folded(verdict.failures), _folded(verdict.inconclusive)
    kind = "error" if failures else "notice" if verdict.passed else "warning"
    lines = [_annotation(kind, _TITLE, "; ".join([summary(verdict), *_advice(verdict)]))]
    most = MOST_ANNOTATIONS - 1 - (len(failures) >= MOST_ANNOTATIONS)
    lines += [_annotation("error", _named(o), _sentence(o)) for o in failures[:most]]
    if rest := failures[most:]:
        lines.append(_annotation("error", _TITLE, f"and {len(rest)} more in the summary"))
    # A model that did not change is no reason to worry.
    same = [text for text in verdict.warnings if text.endswith(IDENTICAL)]
    for kind, texts in (("warning", [text for text in verdict.warnings if text not in same]), ("notice", same)):
        lines += [_annotation(kind, _TITLE, "; ".join(texts))] * bool(texts)
    kind, most = "error" if verdict.inconclusive_as == FAIL else "warning", MOST_ANNOTATIONS - 3
    lines += [_annotation(kind, _named(o), _sentence(o)) for o in inconclusive[:most]]
    if rest := inconclusive[most:]:
        lines.append(_annotation(kind, f"{len(rest)} more inconclusive cells", ", ".join(map(_named, rest))))
    return "".join(lines)


def _annotation(kind: str, title: str, text: str) -> str:
    return f"::{kind} title={_command(title, of_property=True)}::{_command(text)}\n"


def _named(outcome: Outcome) -> str:
    return f"{cell_name(outcome)} ({outcome.checkpoint})"


VERDICT_FORMATS: dict[str, Callable[[Verdict], str]]
VERDICT_FORMATS = {"table": table, "md": markdown, "json": as_json, "junit": junit, "github": github}
"""The formats of ``mmrobust check --format``."""
ERROR_FORMATS: dict[str, Callable[[str], str]] = {
    "table": lambda message: f"ERROR: {message}\n",
    "md": lambda message: f"### {_SIGNS[FAIL]} ERROR: {escape_markdown(message)}\n",
    "json": lambda message: json.dumps({"verdict": "error", "passed": False, "message": message}, indent=2) + "\n",
    "junit": _junit_of_error,
    "github": lambda message: _annotation("error", _TITLE, f"ERROR: {message}"),
}
"""What stands in place of a verdict where there is none: a file of an earlier run must not pass for this one's."""


def cell_name(outcome: Outcome) -> str:
    """Name the cell as a rule would, followed by its prompting."""
    rate = "" if outcome.missing_rate is None else f"/{outcome.missing_rate:g}"
    return f"{outcome.metric}@{outcome.scenario}{rate} {outcome.prompting}"


def _values(outcome: Outcome) -> tuple[str, str, str]:
    """The baseline's value, the candidate's, and their difference, as printed."""
    scale = scale_of(outcome.metric)
    return scale.value(outcome.baseline), scale.value(outcome.candidate), scale.difference(outcome.difference)


def _sentence(outcome: Outcome) -> str:
    """Say what happened in a cell that did not pass."""
    scale, (base, candidate, difference) = scale_of(outcome.metric), _values(outcome)
    unit = " %" if scale.is_share else ""
    values = f"{candidate}{unit}, baseline {base}{unit} ({difference}{scale.differences})"
    sure = "" if outcome.p_value is None else f", surely {_surely(outcome)}, p {p_value(outcome.p_value)}"
    if outcome.verdict == INCONCLUSIVE and outcome.few is not None:
        samples = "one sample stands" if outcome.few == 1 else f"{outcome.few} samples stand"
        sure = f"; inconclusive: only {samples} behind it, too few for the test to hold"
    elif outcome.verdict == INCONCLUSIVE and outcome.detectable is not None:
        shown = "nor any other" if hides_any(outcome) else f"only one of {scale.amount(outcome.detectable)}"
        sure = (
            f"; inconclusive: a {'drop' if scale.sign > 0 else 'rise'} of {scale.amount(outcome.allowed)}"
            f"{scale.differences} could not have been shown, {shown}"
        )
    return f"{cell_name(outcome)} of {outcome.checkpoint}: {values}{sure}; under rule {outcome.rule}"


def summary(verdict: Verdict) -> str:
    """The verdict in a sentence."""
    compared, unsure = _compared(verdict.outcomes), verdict.inconclusive
    if failures := verdict.failures:
        worst = _folded(failures)[0]
        drop = f"{_values(worst)[2]}{scale_of(worst.metric).differences} under rule {worst.rule}"
        more = f"; {len(unsure)} inconclusive" if unsure else ""
        return f"FAIL: {len(failures)} of {compared}; worst: {cell_name(worst)}, {drop}{more}"
    if verdict.value == INCONCLUSIVE:
        scale = scale_of(max(unsure, key=lambda outcome: outcome.detectable or 0.0).metric)
        largest = verdict.largest_detectable or 0.0
        could = f"the largest that could have stayed hidden: {scale.amount(largest)}{scale.differences}"
        if any(map(hides_any, unsure)):
            could = "some could have shown none"
        few = sum(outcome.few is not None for outcome in unsure)
        if few == len(unsure):
            return f"INCONCLUSIVE: {few} of {compared} rest on too few samples for the test to hold"
        return f"INCONCLUSIVE: {len(unsure)} of {compared} could not have shown a drop as large as its limit ({could})"
    surely = " surely" if any(outcome.below_limit for outcome in verdict.outcomes) else ""
    return f"PASS: {compared}, none{surely} below its limit"


def _compared(outcomes: Sequence[Outcome]) -> str:
    """How much was compared: a cell once for each rule that decides in it."""
    count, cells = len(outcomes), len({outcome.cell for outcome in outcomes})
    of_cells = f"{cells} cell{'s' * (cells > 1)}"
    return f"{of_cells} compared" if count == cells else f"{count} comparisons in {of_cells}"


def _notes(verdict: Verdict) -> tuple[str, ...]:
    notable = verdict.failures + verdict.inconclusive
    hidden = len(verdict.outcomes) - len(notable) if notable else len(_folded(verdict.outcomes)) - MOST_PASSED
    more = f"{hidden} passed cell{'s are' if hidden > 1 else ' is'} not shown"
    if not notable:
        more = f"shown are the {MOST_PASSED} cells nearest to their limits"
    return (*_advice(verdict), *verdict.notes, *[more] * (hidden > 0))


def _advice(verdict: Verdict) -> list[str]:
    """What an inconclusive verdict comes to, and what to do about it."""
    if verdict.value != INCONCLUSIVE:
        return []
    code, others = (1, f"{WARN} makes it 0") if verdict.failed else (0, f"{FAIL} makes it 1")
    return [
        f"inconclusive exits with {code} (--inconclusive {verdict.inconclusive_as}; {others}, and {PASS} counts such "
        "cells as passed); more samples, a wider limit or fewer cells would decide"
    ]


def _shown(verdict: Verdict) -> tuple[Outcome, ...]:
    return _folded(verdict.failures + verdict.inconclusive) or _folded(verdict.outcomes)[:MOST_PASSED]


def _folded(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The outcomes, with a single one of a cell that is the same under both promptings."""
    found: dict[Outcome, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(replace(outcome, prompting=BOTH), []).append(outcome)
    return tuple(both if len(alike) > 1 else alike[0] for both, alike in found.items())


def _paired(verdict: Verdict) -> bool:
    return any(outcome.detectable is not None for outcome in verdict.outcomes)


def _surely(outcome: Outcome) -> str:
    """The better end of the interval of the difference."""
    return (
        UNKNOWN
        if outcome.at_most is None
        else f"{'≥' if outcome.less_is_better else '≤'} {scale_of(outcome.metric).difference(outcome.at_most)}"
    )


def _statistics(outcome: Outcome) -> list[str]:
    """The columns that verdicts with paired intervals have, as ``_STATISTICS``."""
    allowed, shown = UNKNOWN, UNKNOWN
    if outcome.detectable is not None:
        scale = scale_of(outcome.metric)
        allowed = scale.amount(outcome.allowed)
        shown = "none" if hides_any(outcome) else scale.amount(outcome.detectable) if outcome.detectable else "same"
    return [_surely(outcome), p_value(outcome.p_value), allowed, shown]


def _xml(text: str) -> str:
    """``text`` with every character that XML 1.0 does not allow replaced."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)


def _command(text: str, of_property: bool = False) -> str:
    """Escape ``text`` for a workflow command."""
    text = printable(text, keep="\r\n").replace("##[", "##\\[")
    for character, coded in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, coded)
    return text.replace(":", "%3A").replace(",", "%2C") if of_property else text
