"""What ``mmrobust train`` shows while it trains: loss, metric, speed, time left and memory, on one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmrobust.cli import console
from mmrobust.runtime.progress import Advance

if TYPE_CHECKING:
    from mmrobust.training.fit import Tick
    from mmrobust.training.state import EpochRecord


class TrainingView:
    """The live line of a training on a terminal, and a remark for every epoch.

    Args:
        epochs: of the recipe.
        metric: name of the headline metric, where it is known.
    """

    def __init__(self, epochs: int, metric: str = "validation") -> None:
        self._epochs, self._metric = epochs, metric
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
            TextColumn("{task.fields[said]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True, emoji=False), disable=hidden, transient=True) as bar:
            self._bar, self._task = bar, bar.add_task(description, total=total, said="")
            try:
                yield lambda units: bar.advance(self._task, units)
            finally:
                self._bar = None

    def watch(self, tick: Tick) -> None:
        """Show where the training is."""
        if self._bar is not None:
            self._bar.update(self._task, said=self.line(tick))

    def line(self, tick: Tick) -> str:
        """What stands beside the bar."""
        memory = "" if tick.peak_memory is None else f"  {tick.peak_memory / 2**20:,.0f} MiB"
        return (
            f"epoch {tick.epoch}/{self._epochs}  loss {tick.loss:.4f}  {self._metric} {self._best}  "
            f"{tick.samples_per_second:,.0f} samples/s{memory}"
        )

    def observe(self, record: EpochRecord, best: int) -> None:
        """Say how an epoch went."""
        mark = "  best" if record.epoch == best else ""
        if mark:
            self._best = f"{record.validation:.4f}"
        memory = f"  {record.peak_memory / 2**20:,.0f} MiB" if record.peak_memory else ""
        console.remark(
            f"epoch {record.epoch}/{self._epochs}  loss {record.train_loss:.4f}  validation {record.validation:.4f}  "
            f"{record.samples_per_second:,.0f} samples/s{memory}{mark}"
        )
