"""Make the predictions that are missing, in this process or with Ray."""

from __future__ import annotations

from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.evaluation.model import IdentifiedModel
from mmrobust.evaluation.plan import ALWAYS, RAY, PredictionSettings
from mmrobust.runtime.progress import Progress, Say, deferred_interrupt
from mmrobust.scoring.truth import Plan
from mmrobust.scoring.writer import PredictionWriter


def predict_missing(
    model: IdentifiedModel,
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
        Whether it holds all of them now: other processes may not have finished their shares.

    Raises:
        DataError: a sample cannot be read.
        KeyboardInterrupt: Ctrl-C; the current piece of work is finished, and everything predicted is stored.
    """
    if settings.overwrite == ALWAYS:
        store.clear()
    todo = store.missing(plan)
    wanted, left = (sum(map(len, one.values())) for one in (plan, todo))
    if left < wanted and not (left and settings.share):  # others may be making the rest of them just now
        some = f"{wanted - left:,} of {wanted:,} predictions" if left else "its predictions"
        own = store.described.get("own")
        version = f", of version '{own['version']}'" if own else ""
        say(f"{store.name}: {some} are there from before{version}; --overwrite {ALWAYS} makes them again")
    if settings.share:
        todo = settings.share.within(todo)
    if todo:
        if settings.engine == RAY:
            from mmrobust.evaluation.on_ray import predict_on_ray

            pieces = predict_on_ray(model, samples, todo, noise, settings, progress)
        else:
            batch_size, workers = settings.batch_size, settings.workers
            pieces = model.predict(samples, todo, noise, batch_size=batch_size, workers=workers, progress=progress)
        try:
            with deferred_interrupt(say, "this batch") as stop_if_asked:
                for predicted in pieces:
                    store.add(predicted)
                    stop_if_asked()
        finally:  # store everything predicted, whatever ended the loop
            store.flush()
    if settings.share:
        store.refresh()
    return not store.missing(plan)
