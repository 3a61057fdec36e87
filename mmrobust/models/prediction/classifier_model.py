"""A classifier as an evaluation asks for it: what it takes, which promptings it tells apart, and its predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmrobust.cases import PROMPTINGS, SITUATION
from mmrobust.data.batches import EncodedSplit, Room
from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.progress import Progress
from mmrobust.scoring.truth import Key, Plan, PredictedRows


@dataclass(frozen=True)
class ClassifierModel:
    """Implements :class:`mmrobust.evaluation.model.Model`, as far as that needs no checkpoint."""

    classifier: Classifier

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it takes."""
        return self.classifier.modalities

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes."""
        return self.classifier.classes

    @property
    def classes_named(self) -> bool:
        """Whether :attr:`classes` are names, and not numbers for want of names."""
        return self.classifier.classes_named

    @property
    def task(self) -> str:
        """``single-label``, ``multi-label`` or ``binary``."""
        return self.classifier.task

    @property
    def dtype(self) -> str:
        """The type of its matrix work."""
        return self.classifier.dtype

    @property
    def device(self) -> str:
        """The device that it runs on."""
        return str(next(self.classifier.parameters()).device)

    @property
    def promptings(self) -> tuple[str, ...]:
        """The promptings that it tells apart."""
        return PROMPTINGS if self.classifier.depends_on_prompting else (SITUATION,)

    def check(self, keys: Iterable[Key]) -> None:
        """Raise where it cannot predict under one of these (case, prompting).

        Raises:
            UsageError: a case that nothing was trained for, under situation prompting.
        """
        for case, prompting in keys:
            self.classifier.told(case, prompting)

    def predict(
        self,
        samples: SelectedSamples,
        plan: Plan,
        noise: Noise,
        *,
        batch_size: int | BatchSize,
        workers: int,
        progress: Progress,
    ) -> Iterator[PredictedRows]:
        """The predictions of ``plan``, one stretch of the split at a time; a sample is decoded once for all its cases.

        Args:
            samples: the samples.
            plan: which of them to predict, in which cases.
            noise: what becomes of degraded inputs.
            batch_size: samples per forward pass; changes no result.
            workers: processes that decode.
            progress: counts predictions.

        Raises:
            DataError: a sample that cannot be read, named.
        """
        classifier = self.classifier
        encoded = EncodedSplit(
            samples.split,
            classifier.backbone.processor,
            classifier.modalities,
            classifier.fill,
            noise,
            workers=workers,
            room=Room(0),  # every sample is read once: nothing need stay in memory
        )
        try:
            with progress("predict", sum(len(positions) for positions in plan.values())) as advance:
                yield from Predictor(classifier, encoded, batch_size).stretches(plan, advance)
        finally:
            encoded.forget()


def as_model(model: Classifier | ClassifierModel) -> ClassifierModel:
    """What answers for ``model`` in an evaluation: a checkpoint does so itself."""
    return ClassifierModel(model) if isinstance(model, Classifier) else model
