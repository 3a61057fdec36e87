"""``mmrobust baseline``: keep results to judge later ones by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.console import with_common_options
from mmrobust.cli.options import flag

EXAMPLE = "Example: mmrobust baseline save runs/grid baselines/main"

app = typer.Typer(help="Keep results to judge later ones by.", no_args_is_help=True)


def save(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="results.parquet, or its folder.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder to make.")],
    allow_dirty: Annotated[
        bool, flag("Accept results made from a tree with uncommitted changes.", "--allow-dirty")
    ] = False,
    replace: Annotated[bool, flag("Replace the baseline in PATH.", "--replace")] = False,
) -> None:
    """Copy RESULTS, with the predictions behind them, to PATH, as a whole or not at all."""
    from mmrobust.gate.baseline import save_baseline

    for note in save_baseline(results, path, allow_dirty=allow_dirty, replace=replace):
        console.remark(f"note: {note}")
    console.print_line(str(path))


app.command("save", epilog=EXAMPLE)(with_common_options(save))
