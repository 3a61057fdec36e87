"""``mmrobust audit``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mmrobust.cli import console
from mmrobust.cli.options import AsJson, CacheFolder, DataFolder, Device, flag, listed
from mmrobust.runtime.printable import one_line
from mmrobust.runtime.terminal import SafeConsole

if TYPE_CHECKING:
    from rich.table import Table

    from mmrobust.audit.audit import Audit

EXAMPLE = "Example: mmrobust audit checkpoints/mmp-linear --data data/digits"


def audit(
    model: Annotated[
        str,
        typer.Argument(
            help="Checkpoint folder or Hub id, or a model of your own: module:object or file.py:object.",
            metavar="MODEL",
        ),
    ],
    data: DataFolder,
    split: Annotated[str, flag("Split to take samples from.")] = "test",
    limit: Annotated[int, flag("Use at most this many samples, chosen by --seed.")] = 128,
    seed: Annotated[int, flag("Seed of the choice of samples.")] = 0,
    only: Annotated[list[str] | None, flag("Checks to run. Default: all.", metavar="CHECK")] = None,
    device: Device = "auto",
    cache: CacheFolder = None,
    backbone: Annotated[str | None, flag("Where the frozen backbone is now, if it was moved.")] = None,
    json: AsJson = False,
) -> None:
    """Check whether a model's numbers can be trusted: exit code 0 if it passes, 1 if a check fails.

    A checkpoint runs in float32. The checks ask whether logits depend on the batch, on padding, on the run, on the
    number format and on the case that the model is told; whether fills reveal labels; whether the backbone has changed;
    and how well the model is calibrated. What cannot be checked on a model of your own is said.
    """
    with console.waiting("load torch"):
        from mmrobust.audit.audit import audit_checkpoint, audit_own_model
    from mmrobust.cli.evaluate import load_models
    from mmrobust.data.dataset import Dataset
    from mmrobust.models.own.own_model import OwnModel
    from mmrobust.models.own.source import Source
    from mmrobust.runtime.devices import resolve_device

    dataset = Dataset(data, cache)
    on: dict[str, Any] = {"split": split, "limit": limit, "seed": seed, "only": listed(only, "--only")}
    if Source.parse(model):
        (own,) = load_models([model], device=device, backbone=backbone, cache=cache).values()
        assert isinstance(own, OwnModel)
        outcome = audit_own_model(own, dataset, **on, progress=console.progress_bar)
    else:
        place = str(resolve_device(device))
        outcome = audit_checkpoint(model, dataset, **on, device=place, backbone=backbone, progress=console.progress_bar)
    console.settings.verdict = int(not outcome.passed)
    if json:
        console.print_json(outcome.as_dict())
    else:
        _show(outcome, console.out())
    if not outcome.passed:
        raise typer.Exit(1)


def _show(audit: Audit, terminal: Console) -> None:
    """Print a row per check and a summary. Without a terminal each row is one line of any width, for grep."""
    title = f"{one_line(audit.checkpoint)}: {audit.about}"
    title += f"; {audit.dataset} · {audit.split} · {audit.samples} samples · {audit.seconds:.0f} s"
    if terminal.is_terminal:
        terminal.print(title, markup=False)
        terminal.print(_table(audit))
    else:
        text = io.StringIO()
        SafeConsole(file=text, width=10_000, color_system=None, emoji=False).print(_table(audit))
        terminal.file.write("\n".join([title, *(line.rstrip() for line in text.getvalue().splitlines())]) + "\n")
    for check, _ in audit.failures:
        terminal.print(f"{check.name}: {check.asks} {check.why}", markup=False)
    terminal.print(audit.summary, style="bold green" if audit.passed else "bold red", markup=False)


def _table(audit: Audit) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from mmrobust.audit.subject import FAILED, PASSED

    styles = {PASSED: "green", FAILED: "bold red"}
    rows = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("check", "verdict", "limit", "found"):
        rows.add_column(name, no_wrap=name != "found", overflow="fold")
    for check, finding in audit.findings:
        style = styles.get(finding.status, "dim")
        limit = "" if finding.limit is None else f"{'≥' if finding.at_least else '≤'} {finding.limit:.2g}"
        rows.add_row(check.name, f"[{style}]{finding.status}[/]", limit, escape(finding.said))
    return rows
