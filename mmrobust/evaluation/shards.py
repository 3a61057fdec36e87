"""Running a plan, a stretch of the split at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mmrobust.cases import SITUATION
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.evaluation.plan import plan_predictions
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.memory import MemoryBudget
from mmrobust.runtime.progress import Progress
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.truth import Plan, PredictedRows, SplitTruth


def truth_of(samples: SelectedSamples, modalities: Sequence[str]) -> SplitTruth:
    """What scoring must know of the samples, for a model of these modalities."""
    split = samples.split
    natural = split.natural_cases(modalities)
    return SplitTruth(
        ids=samples.ids,
        labels=split.labels[: samples.size],
        modalities=tuple(modalities),
        classes=len(split.info.classes),
        task=split.info.task,
        natural=None if natural is None else natural[: samples.size],
    )


def plan_for(classifier: Classifier, truth: SplitTruth, grid: Grid) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
    """The predictions that the grid needs of this classifier.

    Raises:
        UsageError: one in a case that the classifier was not trained for, under situation prompting.
    """
    promptings = grid.promptings if classifier.depends_on_prompting else (SITUATION,)
    plan = plan_predictions(truth.ids, grid, classifier.modalities, truth.natural, promptings)
    for case, prompting in plan:
        classifier.told(case, prompting)
    return plan


def under_every_prompting(
    classifier: Classifier, logits: Mapping[tuple[str, str], npt.NDArray[np.float32]], grid: Grid
) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """The predictions by prompting; a model to which it makes no difference gives the same ones under each."""
    if classifier.depends_on_prompting:
        return dict(logits)
    return {(case, prompting): values for (case, _), values in logits.items() for prompting in grid.promptings}


def predict_shards(
    classifier: Classifier,
    samples: SelectedSamples,
    plan: Plan,
    batch_size: int | BatchSize,
    progress: Progress,
    noise: Noise,
    *,
    workers: int = 0,
) -> Iterator[PredictedRows]:
    """Run ``plan``, a stretch of the split at a time, so that a sample is decoded once for all its cases.

    Yields:
        (case, prompting) → positions and logits, for one stretch.
    """
    processor, modalities = classifier.backbone.processor, classifier.modalities
    # Every sample is read once: nothing need stay in memory.
    encoded = EncodedSplit(
        samples.split, processor, modalities, classifier.fill, noise, workers=workers, memory=MemoryBudget(0)
    )
    try:
        with progress("predict", sum(len(positions) for positions in plan.values())) as advance:
            yield from Predictor(classifier, encoded, batch_size).stretches(plan, advance)
    finally:
        encoded.release()
