"""``mmrobust compare``: two checkpoints, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, listed

EXAMPLE = "Example: mmrobust compare runs/grid-none runs/grid-mmp --html compare.html"


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="results.parquet, or the folder that holds one.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other; its difference to A is shown.")],
    checkpoints: Annotated[
        list[str] | None, typer.Option(metavar="NAME,NAME", help="Which of A's and of B's, where there are several.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The data set's headline metric where not given.")] = None,
    interval: Annotated[str, typer.Option(help="percentile, or bca (takes longer).")] = "percentile",
    correction: Annotated[str, typer.Option(help="Of p-values, over cells: holm or none.")] = "holm",
    alpha: Annotated[float, typer.Option(metavar="P", help="Intervals have the confidence 1 − P.")] = 0.05,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.")] = None,
    json: AsJson = False,
) -> None:
    """Compare two checkpoints, paired: difference, interval and p-value per cell, and the samples that flipped."""
    from mmrobust.gate.compare import compare_files
    from mmrobust.report import comparison

    found = compare_files(
        first,
        second,
        listed(checkpoints, "--checkpoints"),
        metric=metric,
        alpha=alpha,
        interval=interval,
        correction=correction,
    )
    if html is not None:
        console.write(html, comparison.as_html(found))
    if json:
        console.print_json(comparison.as_json(found))
    else:
        comparison.show(found, console.out())
