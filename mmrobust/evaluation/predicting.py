"""Making the predictions that are missing: in this process, or with Ray."""

from __future__ import annotations

from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.evaluation.model import Model
from mmrobust.evaluation.plan import RAY, PredictionSettings
from mmrobust.runtime.interrupts import finishing
from mmrobust.runtime.progress import Progress, Say
from mmrobust.scoring.truth import Plan
from mmrobust.scoring.writer import PredictionWriter


def predict_missing(
    model: Model,
    plan: Plan,
    store: PredictionWriter,
    samples: SelectedSamples,
    noise: Noise,
    settings: PredictionSettings,
    progress: Progress,
    say: Say,
) -> bool:
    """Make the predictions of ``plan`` that ``store`` does not hold yet.

    Returns:
        Whether it holds all of them now: other processes may still be at their shares.

    Raises:
        DataError: samples that cannot be read.
        KeyboardInterrupt: Ctrl-C; the piece of work that was begun is finished, and everything predicted is stored.
    """
    if settings.overwrite == "always":
        store.forget()
    todo = store.missing(plan)
    if settings.share:
        todo = settings.share.within(todo)
    if todo:
        if settings.engine == RAY:
            from mmrobust.evaluation.on_ray import predict_on_ray

            pieces = predict_on_ray(model, samples, todo, noise, settings, progress)
        else:
            pieces = model.predict(
                samples, todo, noise, batch_size=settings.batch_size, workers=settings.workers, progress=progress
            )
        try:
            with finishing(say, "this shard") as stop_if_asked:
                for predicted in pieces:
                    store.add(predicted)
                    stop_if_asked()
        finally:  # everything predicted is stored, whatever ended the loop
            store.flush()
    if settings.share:
        store.refresh()
    return not store.missing(plan)
