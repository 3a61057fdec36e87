"""``mmrobust check``: the regression gate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, flag, listed, set_by_environment, unknown_in_environment
from mmrobust.errors import UsageError, unknown_name
from mmrobust.runtime.printable import one_line
from mmrobust.runtime.terminal import speaks_utf_8

EXAMPLE = 'Example: mmrobust check runs/new --baseline runs/main --fail "accuracy@missing-image/0.7:-0.01"'

_SYNTAX = r"METRIC\[@SCENARIO\[/RATE]]:-DROP, …:-P% or …>=FLOOR"  # escaped: help texts are markup


def check(
    context: typer.Context,
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="results.parquet to judge, or its folder.")],
    baseline: Annotated[Path, flag("results.parquet to judge by, or its folder.")],
    rules: Annotated[Path | None, flag('TOML file of rules, as in fail = ["accuracy:-0.01"].', metavar="FILE")] = None,
    fail: Annotated[
        list[str] | None, flag(f"{_SYNTAX}. Overrides the file's rule for the same cells.", metavar="RULE")
    ] = None,
    format: Annotated[
        list[str] | None,
        flag(
            "table, md, json, junit or github; written to FILE if given. Repeatable.",
            "--format",
            metavar="FORMAT[=FILE]",
        ),
    ] = None,
    json: AsJson = False,
    alpha: Annotated[float, flag("Probability that a comparison of equals fails by chance.", metavar="P")] = 0.05,
    no_stats: Annotated[bool, flag("Let the limits alone decide, without statistics.", "--no-stats")] = False,
    correction: Annotated[
        str, flag("Correction of the p-values for the number of distinct prediction columns: holm or none.")
    ] = "holm",
    inconclusive: Annotated[
        str, flag("What a cell counts as that could not have shown a drop as large as its limit: warn, fail or pass.")
    ] = "warn",
    informational: Annotated[
        bool, flag("Print the verdict, but exit with 0 even if it is a failure.", "--informational")
    ] = False,
) -> None:
    """Compare CANDIDATE with a baseline: exit code 0 passed, 1 a regression, 2 not comparable.

    The most specific rule decides. Without any rule, the headline metric may lose 0.01 (one point) in a cell. A rule
    may also name a figure: auc (AUC-η), relative_robustness, worst_cell, effective_robustness (of the headline metric,
    or of another: auc.macro_f1), worth, shapley (worth@missing-text>=0.1), equity, worst_class, ece, flip_rate. Of
    the last two less is better: ece:+0.01 or ece<=0.1.

    Means over mask seeds are compared. A cell fails if it lies below its limit and, by the predictions of both sides,
    is significantly worse than the baseline: the upper end of the interval of the paired difference lies below zero.
    For a floor (>=) the limit alone decides. A cell whose data could not have shown a drop as large as its limit is
    inconclusive. Predictions that do not give the values of their results are an error, exit code 2.
    """
    from mmrobust.gate.check import check_files
    from mmrobust.gate.rules import choose_rules, parse_rule, read_rules
    from mmrobust.report.verdict import ERROR_FORMATS, VERDICT_FORMATS, markdown, show

    outputs = [(name, file) for name, _, file in (text.partition("=") for text in listed(format, "--format") or ())]
    outputs += [("json", "")] if json else []
    for name, _ in outputs:
        if name not in VERDICT_FORMATS:
            raise unknown_name("format", name, VERDICT_FORMATS)
    # GitHub reads annotations from the log. They may stand below a table, but would break JSON.
    annotated = any(name == "github" for name, _ in outputs)
    printed = list(dict.fromkeys(name for name, file in outputs if not file and name not in ("github", "table")))
    if annotated and printed:
        printed.append("github")
    if len(printed) > 1:
        raise UsageError(f"formats {' and '.join(printed)} are both for standard output: name a file, as in md=FILE")

    try:
        given = [parse_rule(text) for text in listed(fail, "--fail") or ()]
        chosen = choose_rules([] if rules is None else read_rules(rules), given)
        verdict = check_files(
            candidate,
            baseline,
            chosen,
            stats=not no_stats,
            alpha=alpha,
            correction=correction,
            inconclusive=inconclusive,
            progress=console.progress_bar,
        )
    except Exception as error:  # whatever it is, it must not leave the files of an earlier run
        message = one_line(" ".join(str(error).split()) or type(error).__name__)
        texts = {name: form(message) for name, form in ERROR_FORMATS.items()}
        _write_files(outputs, texts, lambda _: texts["md"], silent=True)
        for name in printed or ["github"] * annotated:
            _print(name, texts[name])
        raise
    told = (
        *unknown_in_environment(context),
        *set_by_environment(context),
        *["--informational: a failure exits with 0"] * informational,
    )
    verdict = replace(verdict, warnings=(*told, *verdict.warnings))
    console.settings.verdict = int(verdict.failed and not informational)
    texts = {name: VERDICT_FORMATS[name](verdict) for name in {"github", *(name for name, _ in outputs)}}
    _write_files(outputs, texts, partial(markdown, verdict))
    if printed:
        _print(printed[0], texts[printed[0]])
    else:
        show(verdict, console.out())
    if annotated:
        sys.stdout.write(texts["github"])
    if console.settings.verdict:
        raise typer.Exit(console.settings.verdict)


def _print(form: str, text: str) -> None:
    """Print a verdict in one of the formats."""
    if form == "json":
        console.print_json(text)
    elif form == "junit":
        text = "\n".join(map(one_line, text.split("\n")))
        # It is declared as UTF-8, which ASCII is as well.
        sys.stdout.write(text if speaks_utf_8() else text.encode("ascii", "xmlcharrefreplace").decode())
    else:
        sys.stdout.write(text)


def _write_files(
    outputs: Iterable[tuple[str, str]],
    texts: Mapping[str, str],
    summary: Callable[[int], str],
    *,
    silent: bool = False,
) -> None:
    """Write what the formats have to say to the files that ``outputs`` name, and the ``summary`` for GitHub."""
    for name, file in outputs:
        if name == "github":
            _write_step_summary(file, summary, silent=silent)
        elif file:
            console.write(Path(file), texts[name], silent=silent)


def _write_step_summary(file: str, markdown: Callable[[int], str], *, silent: bool) -> None:
    """Append to the step summary in ``file``, by default the one that GitHub names."""
    from mmrobust.report.verdict import SUMMARY_BYTES

    if not (path := file or os.environ.get("GITHUB_STEP_SUMMARY", "")):
        return
    summary = Path(path)
    before = summary.read_text(encoding="utf-8") if summary.is_file() else ""
    console.write(summary, before + markdown(SUMMARY_BYTES - len(before.encode())), silent=silent)
