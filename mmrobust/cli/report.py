"""``mmrobust report``: results as tables in the terminal and as files."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, flag, listed
from mmrobust.errors import UsageError
from mmrobust.report import FORMATS

EXAMPLE = "Example: mmrobust report runs/mmp/eval runs/none/eval --html report.html --latex table.tex --figures figures"


def _with_formats(function: Callable[..., None]) -> Callable[..., None]:
    """Turn ``function(files=…)`` into a command with a flag for every format: ``--html FILE`` and so on."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        files = {name: kwargs.pop(name) for name in FORMATS}
        function(*args, files={name: file for name, file in files.items() if file is not None}, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, flag(format.help, f"--{name}", metavar="FILE")],
        )
        for name, format in FORMATS.items()
    ]
    results, *others = (parameter for parameter in signature.parameters.values() if parameter.name != "files")
    others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]
    command.__signature__ = signature.replace(parameters=[results, *flags, *others])  # type: ignore[attr-defined]  # typer reads it
    return command


@_with_formats
def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="results.parquet, its folder, or a folder of several, as a study's."),
    ],
    files: dict[str, Path],
    figures: Annotated[Path | None, flag("Draw the charts as PNG, SVG and PDF (extra: report).", metavar="DIR")] = None,
    every_eval_ever: Annotated[
        Path | None, flag("Write a record per checkpoint in Every Eval Ever's shared format (JSON).", metavar="DIR")
    ] = None,
    organization: Annotated[
        str | None, flag("Who made and evaluated the checkpoints, for --every-eval-ever.", metavar="NAME")
    ] = None,
    published: Annotated[
        str | None,
        flag("Show a paper's figures beside these, named as the paper's: ptm, dpl, dcp, mmp.", metavar="NAME"),
    ] = None,
    data: Annotated[
        Path | None, flag("The data set, to show on the page the samples that are harmed most.", metavar="DIR")
    ] = None,
    metric: Annotated[str | None, flag("Metric of the tables. Default: the headline metric of the data set.")] = None,
    prompting: Annotated[list[str] | None, flag("situation, concat or both. Default: all in the results.")] = None,
    baseline: Annotated[
        str | None, flag("Show effective robustness against this checkpoint.", metavar="CHECKPOINT")
    ] = None,
    details: Annotated[
        bool,
        flag(
            "Show intervals of the standings, which classes break first, and calibration; reads the predictions.",
            "--details",
        ),
    ] = False,
    efficiency: Annotated[
        bool, flag("Show what the trainings cost, as shares of full fine-tuning.", "--efficiency")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show results: scenarios × missing rates with robustness figures, several checkpoints side by side.

    Values are means over mask seeds. AUC-η is the mean height of the curve over the missing rate.
    """
    from mmrobust.report import json as as_json
    from mmrobust.report import terminal
    from mmrobust.report.analyses import read_behind, with_costs, with_sections
    from mmrobust.report.report import build_report, read_distinct

    if data is not None and "html" not in files:
        raise UsageError("--data adds samples to the page: give --html FILE as well")
    if organization is not None and every_eval_ever is None:
        raise UsageError("--organization is for the records: give --every-eval-ever DIR as well")
    read = read_distinct(results)
    built = build_report(read.values(), metric=metric, promptings=listed(prompting, "--prompting"))
    stored = read_behind(read) if details else None
    built = with_sections(built, baseline=baseline, stored=stored, progress=console.progress_bar)
    if efficiency:
        built = with_costs(built)
    if published is not None:
        built = built.with_published(published)
    if data is not None:
        from mmrobust.report.worst_samples import find_worst_samples

        built = dataclasses.replace(built, samples=find_worst_samples(read, data))
    # Files first: a reader of standard output that closes the pipe early must not prevent them.
    for name, file in files.items():
        console.write(file, FORMATS[name](built))
    if figures is not None:
        from mmrobust.report.figures import draw

        drawn = draw(built, figures, console.progress_bar)
        console.remark(f"wrote {len(drawn)} pictures into {figures}")
    if every_eval_ever is not None:
        from mmrobust.report.every_eval_ever import write_records

        written = write_records(read.values(), every_eval_ever, organization)
        console.remark(f"wrote {len(written)} files into {every_eval_ever}")
    if json:
        console.print_json(as_json.render(built))
    else:
        terminal.show(built, console.out())
