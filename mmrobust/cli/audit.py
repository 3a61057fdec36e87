"""``mmrobust audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, DataFolder, Device, listed

EXAMPLE = "Example: mmrobust audit checkpoints/mmp-linear --data data/digits"


def audit(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.", metavar="CHECKPOINT")],
    data: DataFolder,
    split: Annotated[str, typer.Option(help="Split to take samples from.")] = "test",
    limit: Annotated[int, typer.Option(help="How many samples at most, a seeded choice.")] = 128,
    seed: Annotated[int, typer.Option(help="Of that choice.")] = 0,
    only: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Names of checks. Default: all.")] = None,
    device: Device = "auto",
    backbone: Annotated[str | None, typer.Option(help="Where the frozen backbone lies now, if it was moved.")] = None,
    json: AsJson = False,
) -> None:
    """Say whether a checkpoint's numbers can be trusted: exit code 0 it passes, 1 a check fails.

    Asked of the model, in float32: whether logits depend on the batch, on padding, on the run, on the type of float, on
    the case that it is told; whether fills tell labels; whether the backbone has changed; how well it is calibrated.
    """
    from json import dumps

    from mmrobust.audit.run import audit_checkpoint
    from mmrobust.audit.terminal import show
    from mmrobust.data.dataset import Dataset
    from mmrobust.runtime.devices import resolve_device

    outcome = audit_checkpoint(
        checkpoint,
        Dataset(data),
        split=split,
        limit=limit,
        seed=seed,
        only=listed(only, "--only"),
        device=str(resolve_device(device)),
        backbone=backbone,
        progress=console.progress_bar,
    )
    if json:
        console.print_json(dumps(outcome.as_dict(), indent=2, ensure_ascii=False))
    else:
        show(outcome, console.out())
    if not outcome.passed:
        raise typer.Exit(1)
