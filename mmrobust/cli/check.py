"""``mmrobust check``: the regression gate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, listed
from mmrobust.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from mmrobust.gate.check import Verdict

EXAMPLE = 'Example: mmrobust check runs/new --baseline runs/main --fail "accuracy@missing-image/0.7:-0.01"'

_SYNTAX = r"METRIC\[@SCENARIO\[/RATE]]:-DROP, …:-P% or …>=FLOOR"  # escaped: help texts are markup


def check(
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", help="results.parquet to judge, or the folder that holds one.")
    ],
    baseline: Annotated[Path, typer.Option(help="results.parquet to judge by, or the folder that holds one.")],
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help='TOML file of rules, as in fail = ["accuracy:-0.01"].')
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help=f"{_SYNTAX}. Overrides the file's rule for the same cells."),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT[=FILE]",
            help="table, md, json, junit or github; to a file where one is named. Repeatable.",
        ),
    ] = None,
    json: AsJson = False,
    alpha: Annotated[
        float, typer.Option(metavar="P", help="How often a comparison of equals may fail by chance.")
    ] = 0.05,
    no_stats: Annotated[bool, typer.Option("--no-stats", help="The limits alone decide.")] = False,
    correction: Annotated[str, typer.Option(help="For asking in many cells: holm or none.")] = "holm",
    informational: Annotated[
        bool, typer.Option("--informational", help="Print the verdict, but exit with 0 where it is a failure.")
    ] = False,
) -> None:
    """Compare CANDIDATE with a baseline: exit code 0 passed, 1 a regression, 2 not comparable.

    The most specific rule decides. Without any, the headline metric may lose 0.01 (one point) in a cell.

    Compared are the means over mask seeds. A cell fails where it is below its limit and, by the predictions of both
    sides, surely worse than the baseline: where the upper end of the paired difference's interval lies below zero.
    A floor (>=) is a limit alone.
    """
    from mmrobust.gate.check import check_files
    from mmrobust.gate.rules import choose_rules, parse_rule, read_rules
    from mmrobust.report.verdict import VERDICT_FORMATS, github, markdown, show

    wanted = [(name, file) for name, _, file in (text.partition("=") for text in listed(format, "--format") or ())]
    wanted += [("json", "")] if json else []
    for name, _ in wanted:
        if name not in VERDICT_FORMATS:
            raise unknown_name("format", name, VERDICT_FORMATS)
    # GitHub reads annotations from the log, where a table does not disturb them but JSON would be broken by them.
    annotated = any(name == "github" for name, _ in wanted)
    printed = list(dict.fromkeys(name for name, file in wanted if not file and name not in ("github", "table")))
    if annotated and printed:
        printed.append("github")
    if len(printed) > 1:
        raise UsageError(f"formats {' and '.join(printed)} are both for standard output: name a file, as in md=FILE")

    given = [parse_rule(text) for text in listed(fail, "--fail") or ()]
    chosen = choose_rules([] if rules is None else read_rules(rules), given)
    verdict = check_files(candidate, baseline, chosen, stats=not no_stats, alpha=alpha, correction=correction)
    for name, file in wanted:
        if name == "github":
            _write_step_summary(file, markdown, verdict)
        elif file:
            console.write(Path(file), VERDICT_FORMATS[name](verdict))
    if printed:
        sys.stdout.write(VERDICT_FORMATS[printed[0]](verdict))
    else:
        show(verdict, console.out())
    if annotated:
        sys.stdout.write(github(verdict))
    if not verdict.passed and not informational:
        raise typer.Exit(1)


def _write_step_summary(file: str, markdown: Callable[..., str], verdict: Verdict) -> None:
    """The step summary, added to what the step has said before: to ``file``, or where GitHub asks for it."""
    from mmrobust.report.verdict import SUMMARY_BYTES

    if not (where := file or os.environ.get("GITHUB_STEP_SUMMARY", "")):
        return
    summary = Path(where)
    said = summary.read_text(encoding="utf-8") if summary.is_file() else ""
    console.write(summary, said + markdown(verdict, SUMMARY_BYTES - len(said.encode())))
