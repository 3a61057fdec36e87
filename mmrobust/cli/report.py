"""``mmrobust report``: results as a table in the terminal, and as files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, listed
from mmrobust.errors import UsageError
from mmrobust.report import FORMATS

EXAMPLE = "Example: mmrobust report runs/mmp/eval runs/none/eval --html report.html --latex table.tex --figures figures"


def _with_formats(function: Callable[..., None]) -> Callable[..., None]:
    """``function(files=…)`` as a command with a flag for every format of the registry: ``--html FILE`` and so on."""

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
            annotation=Annotated[Path | None, typer.Option(f"--{name}", metavar="FILE", help=format.help)],
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
        typer.Argument(
            metavar="RESULTS...", help="results.parquet, or the folder that holds one; several side by side."
        ),
    ],
    files: dict[str, Path],
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the charts as PNG, SVG and PDF (extra: report).")
    ] = None,
    published: Annotated[
        str | None, typer.Option(metavar="NAME", help="A paper's figures beside these, named as such: ptm.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The data set: the page then shows the samples that lose most."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric of the tables; the data set's headline metric where not given.")
    ] = None,
    prompting: Annotated[
        list[str] | None, typer.Option(help="situation, concat or both; all that there are where not given.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Effective robustness against this one of the checkpoints.")
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Also how sure the standings are, which classes break first, and calibration; reads the predictions.",
        ),
    ] = False,
    efficiency: Annotated[
        bool, typer.Option("--efficiency", help="Also what the trainings cost, as shares of full fine-tuning.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show results: scenarios × missing rates with robustness figures, several checkpoints side by side.

    Values are means over mask seeds. AUC-η is the mean height of the curve over the missing rate.
    """
    from mmrobust.report import json as as_json
    from mmrobust.report import sections, tables, terminal

    if data is not None and "html" not in files:
        raise UsageError("--data is for the samples on the page: name it with --html FILE")
    paths = tables.distinct(results)
    read = tables.read(paths)
    built = tables.build(read, metric=metric, promptings=listed(prompting, "--prompting"))
    stored = sections.read_behind(paths, read) if details else None
    built = sections.with_sections(built, baseline=baseline, stored=stored, progress=console.progress_bar)
    if efficiency:
        built = sections.with_costs(built)
    if published is not None:
        built = built.with_published(published)
    if data is not None:
        from mmrobust.report.samples import find_worst

        built = built.with_samples(find_worst(paths, read, data))
    # Files first: a reader of the pipe that leaves early must not cost the files.
    for name, file in files.items():
        console.write(file, FORMATS[name](built))
    if figures is not None:
        from mmrobust.report.figures import draw

        drawn = draw(built, figures, console.progress_bar)
        console.remark(f"wrote {len(drawn)} pictures into {figures}")
    if json:
        console.print_json(as_json.render(built))
    else:
        terminal.show(built, console.out())
