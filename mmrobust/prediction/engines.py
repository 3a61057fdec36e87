"""Engines: where predictions are made. Whichever makes them, they are the same, and go into the same store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmrobust.checkpoint import Checkpoint
from mmrobust.degradations import Noise
from mmrobust.devices import DEFAULT_BATCH_SIZE, BatchSize
from mmrobust.errors import UsageError, unknown_name
from mmrobust.prediction.parts import Part
from mmrobust.prediction.plan import Plan
from mmrobust.prediction.shards import EvaluationSplit, predict_shards
from mmrobust.prediction.store import Predictions
from mmrobust.progress import Progress

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


Engine = Callable[[Checkpoint, EvaluationSplit, Plan, Noise, Running, Progress], Iterator[Predictions]]
"""Makes the predictions of a plan, some stretches of the split after the other, in any order."""


def local(
    checkpoint: Checkpoint, samples: EvaluationSplit, plan: Plan, noise: Noise, running: Running, progress: Progress
) -> Iterator[Predictions]:
    """In this process, on the device that the checkpoint was loaded on."""
    yield from predict_shards(
        checkpoint.classifier, samples, plan, running.batch_size, progress, noise, workers=running.workers
    )


def on_ray(
    checkpoint: Checkpoint, samples: EvaluationSplit, plan: Plan, noise: Noise, running: Running, progress: Progress
) -> Iterator[Predictions]:
    """With Ray Data: :mod:`mmrobust.prediction.on_ray`, which imports Ray."""
    from mmrobust.prediction.on_ray import predict

    yield from predict(checkpoint, samples, plan, noise, running, progress)


ENGINES: dict[str, Engine] = {"local": local, "ray": on_ray}
"""Name → engine. Adding one: a function, and a line here."""
