"""``mmrobust compare``: compare two checkpoints, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, flag, listed
from mmrobust.errors import UsageError

EXAMPLE = "Example: mmrobust compare runs/grid-none runs/grid-mmp --html compare.html"


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="results.parquet, or its folder.")],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="B", help="The results to compare with A, by default A itself; differences are B − A."),
    ] = None,
    checkpoints: Annotated[
        list[str] | None, flag("The checkpoint of A and of B, if they hold several.", metavar="NAME,NAME")
    ] = None,
    metric: Annotated[str | None, flag("Default: the headline metric of the data set.")] = None,
    interval: Annotated[str, flag("jackknife; or by bootstrap, percentile or bca (take longer).")] = "jackknife",
    correction: Annotated[
        str, flag("Correction of the p-values for the number of distinct prediction columns: holm or none.")
    ] = "holm",
    alpha: Annotated[float, flag("Level of the p-values; intervals have confidence 1 − P.", metavar="P")] = 0.05,
    html: Annotated[Path | None, flag("Write one self-contained page.", metavar="FILE")] = None,
    json: AsJson = False,
) -> None:
    """Compare two checkpoints, paired: difference, interval and p-value per cell, and the samples that flipped."""
    from mmrobust.gate.compare import compare_files
    from mmrobust.report import comparison

    if second is None and checkpoints is None:
        raise UsageError(f"name B as well, or with --checkpoints two checkpoints of {first}")
    found = compare_files(
        first,
        second or first,
        listed(checkpoints, "--checkpoints"),
        metric=metric,
        alpha=alpha,
        interval=interval,
        correction=correction,
        progress=console.progress_bar,
    )
    if html is not None:
        console.write(html, comparison.as_html(found))
    if json:
        console.print_json(comparison.as_json(found))
    else:
        comparison.show(found, console.out())
