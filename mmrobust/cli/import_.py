"""``mmrobust import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrobust.cli import console

if TYPE_CHECKING:
    from mmrobust.models.importing.checkpoint import Outcome

EXAMPLE = "Example: mmrobust import mmp mmimdb.ckpt --out checkpoints/mmp-mmimdb"


def import_(
    kind: Annotated[str, typer.Argument(help="Whose code wrote it: mmp, dcp or cav-mae.", metavar="KIND")],
    file: Annotated[Path, typer.Argument(help="A .ckpt, .pth, .pt or .safetensors file.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="The checkpoint folder to make.")],
    head_from: Annotated[
        str | None, typer.Option(help="mmimdb, food101 or hatememes: which head, where there are several.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON with the paper's own configuration names, for what the file does not carry."),
    ] = None,
    processor: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of the tokenizer. Default: the paper's, where it is in reach."),
    ] = None,
) -> None:
    """Make a checkpoint that was trained with a paper's own code into one that every command here takes.

    No code of the file's is ever run. --config names what a plain state dict does not carry.
    """
    from mmrobust.models.backbone import without_bars
    from mmrobust.models.importing.checkpoint import import_checkpoint

    with without_bars():
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
