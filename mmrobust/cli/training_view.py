"""The live line of ``mmrobust train``: loss, metric, speed, time left and memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmrobust.cli import console
from mmrobust.runtime.progress import Advance

if TYPE_CHECKING:
    from mmrobust.training.state import EpochRecord
    from mmrobust.training.trainer import StepRecord


class TrainingView:
    """Shows a training: a live line on a terminal, and a remark for every epoch.

    Args:
        epochs: the recipe's number of epochs.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: Any = None
        self._task: Any = None
        self._best = "–"

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """The :data:`mmrobust.runtime.progress.Progress` of a training."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        hidden = console.settings.quiet or not sys.stderr.isatty()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True, emoji=False), disable=hidden, transient=True) as bar:
            self._bar, self._task = bar, bar.add_task(description, total=total, status="")
            try:
                yield lambda units: bar.advance(self._task, units)
            finally:
                self._bar = None

    def on_step(self, record: StepRecord) -> None:
        """Update the live line."""
        if self._bar is not None:
            self._bar.update(self._task, status=self.line(record))

    def line(self, record: StepRecord) -> str:
        """The text beside the bar."""
        memory = "" if record.peak_memory is None else f"  {record.peak_memory / 2**20:,.0f} MiB"
        return (
            f"epoch {record.epoch}/{self._epochs}  loss {record.loss:.4f}  validation {self._best}  "
            f"{record.samples_per_second:,.0f} samples/s{memory}"
        )

    def on_epoch(self, record: EpochRecord, best: int) -> None:
        """Print the results of an epoch."""
        mark = "  best" if record.epoch == best else ""
        if mark:
            self._best = f"{record.validation:.4f}"
        memory = f"  {record.peak_memory / 2**20:,.0f} MiB" if record.peak_memory else ""
        console.remark(
            f"epoch {record.epoch}/{self._epochs}  loss {record.train_loss:.4f}  validation {record.validation:.4f}  "
            f"{record.samples_per_second:,.0f} samples/s{memory}{mark}"
        )
