"""Engines: where predictions are made. Whichever makes them, they are the same, and go into the same store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.evaluation.parts import Running
from mmrobust.evaluation.shards import predict_shards
from mmrobust.models.checkpoint import Checkpoint
from mmrobust.runtime.progress import Progress
from mmrobust.scoring.truth import Plan, PredictedRows

Engine = Callable[[Checkpoint, SelectedSamples, Plan, Noise, Running, Progress], Iterator[PredictedRows]]
"""Makes the predictions of a plan, some stretches of the split after the other, in any order."""


def local(
    checkpoint: Checkpoint, samples: SelectedSamples, plan: Plan, noise: Noise, running: Running, progress: Progress
) -> Iterator[PredictedRows]:
    """In this process, on the device that the checkpoint was loaded on."""
    yield from predict_shards(
        checkpoint.classifier, samples, plan, running.batch_size, progress, noise, workers=running.workers
    )


def on_ray(
    checkpoint: Checkpoint, samples: SelectedSamples, plan: Plan, noise: Noise, running: Running, progress: Progress
) -> Iterator[PredictedRows]:
    """With Ray Data: :mod:`mmrobust.evaluation.on_ray`, which imports Ray."""
    from mmrobust.evaluation.on_ray import predict

    yield from predict(checkpoint, samples, plan, noise, running, progress)


ENGINES: dict[str, Engine] = {"local": local, "ray": on_ray}
"""Name → engine. Adding one: a function, and a line here."""
