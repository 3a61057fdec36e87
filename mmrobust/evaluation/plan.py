"""What a grid asks of the models of one set of modalities, which share of it a process predicts, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.data.selection import STRETCH_SAMPLES, SelectedSamples
from mmrobust.errors import UsageError, unknown_name
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize
from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.truth import Key, Plan, SplitTruth


@dataclass(frozen=True)
class DrawnGrid:
    """A grid over the samples of a split: its missing tables are drawn, for the plan and the join alike."""

    grid: Grid
    truth: SplitTruth
    tables: CellTables

    @classmethod
    def draw(cls, grid: Grid, samples: SelectedSamples, modalities: Sequence[str]) -> DrawnGrid:
        """Draw the missing tables of ``grid`` for a model of these modalities.

        Raises:
            UsageError: a scenario that does not fit the modalities.
        """
        split = samples.split
        natural = split.natural_cases(modalities)
        truth = SplitTruth(
            ids=samples.ids,
            labels=split.labels[: samples.size],
            modalities=tuple(modalities),
            classes=len(split.info.classes),
            task=split.info.task,
            natural=None if natural is None else natural[: samples.size],
        )
        return cls(grid, truth, truth.draw_grid(grid))

    def plan(self, promptings: Sequence[str]) -> dict[Key, npt.NDArray[np.int64]]:
        """Which samples must be predicted under which (case, prompting): each once, and none that no cell asks for.

        Args:
            promptings: those that the model tells apart. Where that is one, it answers for every prompting of the grid.
        """
        asked = self.grid.promptings if len(promptings) > 1 else promptings
        return {
            (case, told): positions for case, positions in sorted(self.tables.positions().items()) for told in asked
        }


@dataclass(frozen=True)
class WorkShare:
    """Share ``index`` (from 1) of ``of`` equal ones, for processes or machines that evaluate together: ``--shard I/N``.

    A share is every N-th stretch of the split. Batches are formed within a stretch, so who predicts it changes no
    batch, and no logit by as much as a bit.

    Raises:
        UsageError: no such share.
    """

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise UsageError(f"--shard {self}: shards count from 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> WorkShare:
        """The share written as ``I/N``.

        Raises:
            UsageError: no such share, or not of that form.
        """
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(of)):
            raise UsageError(f"--shard '{text}': give I/N, from 1/N to N/N, as in --shard 2/8")
        return cls(int(index), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def within(self, plan: Plan) -> dict[Key, npt.NDArray[np.int64]]:
        """The part of ``plan`` that belongs to this share."""
        mine = {key: p[p // STRETCH_SAMPLES % self.of == self.index - 1] for key, p in plan.items()}
        return {key: positions for key, positions in mine.items() if len(positions)}


ENGINES = LOCAL, RAY = ("local", "ray")
OVERWRITE = ("never", "only-missing", "always")


@dataclass(frozen=True)
class PredictionSettings:
    """How predictions are made; none of it changes a result.

    Raises:
        UsageError: a name that does not exist, or settings that contradict each other.
    """

    batch_size: int | BatchSize = DEFAULT_BATCH_SIZE
    engine: str = LOCAL
    ray_address: str | None = None
    """Of a running Ray cluster; ``None``: this machine."""
    ray_workers: int | None = None
    """Copies of the model; ``None``: one per GPU, or per CPU where there is no GPU."""
    share: WorkShare | None = None
    """The part of the work to do; ``None``: all of it."""
    overwrite: str = "only-missing"
    """``never``: refuse a folder that holds results; ``always``: make every prediction again."""
    workers: int = 0
    """Processes that decode for this one; a Ray worker decodes for itself."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.overwrite not in OVERWRITE:
            raise unknown_name("--overwrite", self.overwrite, OVERWRITE)
        if self.engine != RAY and (self.ray_address or self.ray_workers):
            raise UsageError("--ray-address and --ray-workers go with --engine ray")
        if self.ray_workers is not None and self.ray_workers < 1:
            raise UsageError(f"--ray-workers {self.ray_workers}: at least one is needed")
        if self.share is not None and self.overwrite != "only-missing":
            raise UsageError(f"--shard goes with --overwrite only-missing, not with {self.overwrite}")
