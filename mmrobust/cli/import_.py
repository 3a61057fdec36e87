"""``mmrobust import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrobust.cli import console

if TYPE_CHECKING:
    from mmrobust.models.importing.convert import Outcome

EXAMPLE = "Example: mmrobust import mmp mmimdb.ckpt --out checkpoints/mmp-mmimdb"


def import_(
    kind: Annotated[str, typer.Argument(help="Code that wrote it: mmp, dcp, dpl or cav-mae.", metavar="KIND")],
    file: Annotated[Path, typer.Argument(help="A .ckpt, .pth, .pt or .safetensors file.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="The checkpoint folder to create.")],
    head_from: Annotated[
        str | None, typer.Option(help="Head to take, if there are several: mmimdb, food101 or hatememes.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON with settings, under the paper's own names, that the file does not hold."),
    ] = None,
    processor: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of the tokenizer. Default: the paper's, if it is in the local cache."),
    ] = None,
) -> None:
    """Convert a checkpoint of a paper's own code into one that all commands take.

    No code in the file is run. --config gives the settings that a plain state dict does not hold.
    """
    from mmrobust.models.backbone import without_progress_bars
    from mmrobust.models.importing.convert import import_checkpoint

    with without_progress_bars():
        outcome = import_checkpoint(kind, file, out, head_from=head_from, config=config, processor=processor)
    for remark in outcome.remarks:
        console.remark(f"{file.name}: {remark}")
    console.out().print(_summary(outcome, out), markup=False)


def _summary(outcome: Outcome, out: Path) -> str:
    config = outcome.config
    settings = ", ".join(f"{key} {value}" for key, value in config.method.items() if key != "name" and value != [])
    return (
        f"{config.method['name']}{f' ({settings})' if settings else ''} + {config.head['name']} on "
        f"{config.backbone['family']} ({outcome.parameters / 1e6:,.1f} M weights); {config.dataset['name']}: "
        f"{len(config.classes)} {config.task} classes   {out}"
    )
