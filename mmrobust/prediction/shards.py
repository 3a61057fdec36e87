"""Running a plan, a stretch of the split at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmrobust.classifier import Classifier
from mmrobust.data.batches import EncodedSplit, Room
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.screening import BadSamples, screen
from mmrobust.degradations import Noise
from mmrobust.devices import BatchSize
from mmrobust.errors import UsageError
from mmrobust.prediction.plan import Plan, plan_predictions
from mmrobust.prediction.run import Predictor
from mmrobust.prediction.store import Predictions
from mmrobust.progress import Progress, no_progress
from mmrobust.scenarios import SITUATION, Grid
from mmrobust.scoring.join import SplitTruth


@dataclass(frozen=True)
class EvaluationSplit:
    """A split, or the first samples of it, as the evaluation sees it."""

    split: Split
    size: int
    """How many samples, from the first."""
    bad: BadSamples = field(default_factory=BadSamples)
    """What of it could not be read, and what became of that."""

    def screened(
        self, modalities: Sequence[str], on_bad_sample: str, workers: int = 0, progress: Progress = no_progress
    ) -> EvaluationSplit:
        """The same without what cannot be read: see :mod:`mmrobust.data.screening`.

        Raises:
            MmrobustError: as for :func:`mmrobust.data.screening.screen`.
        """
        split, bad = screen(self.split, modalities, on_bad_sample, limit=self.size, workers=workers, progress=progress)
        return EvaluationSplit(split, self.size - (len(self.split) - len(split)), bad)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples."""
        return self.split.ids[: self.size]

    def truth(self, modalities: Sequence[str]) -> SplitTruth:
        """What scoring must know, for a model of these modalities."""
        natural = self.split.natural_cases(modalities)
        return SplitTruth(
            ids=self.ids,
            labels=self.split.labels[: self.size],
            modalities=tuple(modalities),
            classes=len(self.split.info.classes),
            task=self.split.info.task,
            natural=None if natural is None else natural[: self.size],
        )


def select_samples(dataset: Dataset, split: str, limit: int | None) -> EvaluationSplit:
    """The samples to evaluate.

    Raises:
        UsageError: no such split, or a limit below one.
        DataError: an empty split.
    """
    chosen = dataset.split(split)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least one sample is needed")
    return EvaluationSplit(chosen, min(len(chosen), limit or len(chosen)))


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
    samples: EvaluationSplit,
    plan: Plan,
    batch_size: int | BatchSize,
    progress: Progress,
    noise: Noise,
    *,
    workers: int = 0,
) -> Iterator[Predictions]:
    """Run ``plan``, a stretch of the split at a time, so that a sample is decoded once for all its cases.

    Yields:
        (case, prompting) → positions and logits, for one stretch.
    """
    processor, modalities = classifier.backbone.processor, classifier.modalities
    # Every sample is read once: nothing need stay in memory.
    encoded = EncodedSplit(samples.split, processor, modalities, classifier.fill, noise, workers=workers, room=Room(0))
    try:
        with progress("predict", sum(len(positions) for positions in plan.values())) as advance:
            yield from Predictor(classifier, encoded, batch_size).stretches(plan, advance)
    finally:
        encoded.forget()
