"""Parts of the work of an evaluation, so that several processes or machines share it.

A part is every N-th stretch of the split. Batches are formed within a stretch, so who predicts it changes no batch, and
no logit by as much as a bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.data.selection import STRETCH_SAMPLES
from mmrobust.errors import UsageError, unknown_name
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize
from mmrobust.scoring.truth import Plan


@dataclass(frozen=True)
class Part:
    """Part ``index`` (from 1) of ``of``.

    Raises:
        UsageError: no such part.
    """

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise UsageError(f"--shard {self}: shards count from 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part of that name, ``I/N``.

        Raises:
            UsageError: no such part, or not of that form.
        """
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(of)):
            raise UsageError(f"--shard '{text}': give I/N, from 1/N to N/N, as in --shard 2/8")
        return cls(int(index), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def within(self, plan: Plan) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
        """This part of ``plan``."""
        mine = {key: p[p // STRETCH_SAMPLES % self.of == self.index - 1] for key, p in plan.items()}
        return {key: positions for key, positions in mine.items() if len(positions)}


ENGINES = ("local", "ray")
OVERWRITE = ("never", "only-missing", "always")


@dataclass(frozen=True)
class Running:
    """How predictions are made.

    Raises:
        UsageError: a name that does not exist, or settings that contradict each other.
    """

    batch_size: int | BatchSize = DEFAULT_BATCH_SIZE
    engine: str = "local"
    ray_address: str | None = None
    """Of a running Ray cluster; ``None``: this machine."""
    ray_workers: int | None = None
    """Copies of the model; ``None``: one per GPU, or per CPU where there is no GPU."""
    backbone: str | None = None
    """Where the frozen backbone lies now, if not where the checkpoint remembers it; for copies of the model."""
    part: Part | None = None
    """Which part of the work; ``None``: all of it."""
    overwrite: str = "only-missing"
    """``never``: refuse a folder that holds results; ``always``: make every prediction again."""
    workers: int = 0
    """Processes that decode for this one; a Ray worker decodes for itself."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.overwrite not in OVERWRITE:
            raise unknown_name("--overwrite", self.overwrite, OVERWRITE)
        if self.engine != "ray" and (self.ray_address or self.ray_workers):
            raise UsageError("--ray-address and --ray-workers go with --engine ray")
        if self.ray_workers is not None and self.ray_workers < 1:
            raise UsageError(f"--ray-workers {self.ray_workers}: at least one is needed")
        if self.part is not None and self.overwrite != "only-missing":
            raise UsageError(f"--shard goes with --overwrite only-missing, not with {self.overwrite}")
