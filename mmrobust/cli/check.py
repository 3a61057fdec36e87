"""``mmrobust check``: the regression gate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, listed
from mmrobust.errors import UsageError, unknown_name

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
        typer.Option(metavar="RULE", help=f"{_SYNTAX}. Before the file's."),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="FORMAT[=FILE]", help="table, md or json; to a file where one is named."),
    ] = None,
    json: AsJson = False,
    informational: Annotated[
        bool, typer.Option("--informational", help="Print the verdict, but exit with 0 where it is a failure.")
    ] = False,
) -> None:
    """Compare CANDIDATE with a baseline: exit code 0 passed, 1 a regression, 2 not comparable.

    The most specific rule decides. Without any, the headline metric may lose 0.01 (one point) in a cell.

    Compared are the means over mask seeds.
    """
    from mmrobust.check import check as compare
    from mmrobust.files import atomic_file
    from mmrobust.report.verdict import VERDICT_FORMATS, show
    from mmrobust.results import read_results
    from mmrobust.rules import choose_rules, parse_rule, read_rules

    wanted = [(name, file) for name, _, file in (text.partition("=") for text in listed(format) or ())]
    wanted += [("json", "")] if json else []
    for name, _ in wanted:
        if name not in VERDICT_FORMATS:
            raise unknown_name("format", name, VERDICT_FORMATS)
    printed = list(dict.fromkeys(name for name, file in wanted if not file))
    if len(printed) > 1:
        raise UsageError(f"formats {' and '.join(printed)} are both for standard output: name a file, as in md=FILE")

    given = [parse_rule(text) for text in listed(fail) or ()]
    chosen = choose_rules([] if rules is None else read_rules(rules), given)
    verdict = compare(read_results(candidate), read_results(baseline), chosen)
    for name, file in wanted:
        if file:
            with atomic_file(Path(file)) as partial:
                partial.write_text(VERDICT_FORMATS[name](verdict), encoding="utf-8")
            console.remark(f"wrote {file}")
    if printed in ([], ["table"]):
        show(verdict, console.out())
    else:
        sys.stdout.write(VERDICT_FORMATS[printed[0]](verdict))
    if not verdict.passed and not informational:
        raise typer.Exit(1)
