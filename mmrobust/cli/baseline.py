"""``mmrobust baseline``: results that later ones are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.console import with_common_options

EXAMPLE = "Example: mmrobust baseline save runs/grid baselines/main"

app = typer.Typer(help="Keep results to judge later ones by.", no_args_is_help=True)


def save(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="results.parquet, or the folder that holds one.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder to make.")],
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Also results made from a tree with uncommitted changes.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of the baseline that is there.")] = False,
) -> None:
    """Copy RESULTS, and the predictions behind them, to PATH: whole or not at all."""
    from mmrobust.gate.baseline import save_baseline

    for note in save_baseline(results, path, allow_dirty=allow_dirty, replace=replace):
        console.remark(f"note: {note}")
    console.out().print(str(path), markup=False)


app.command("save", epilog=EXAMPLE)(with_common_options(save))
