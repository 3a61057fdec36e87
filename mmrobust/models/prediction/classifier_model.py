"""The interface of a classifier to an evaluation: its inputs, its promptings and its predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmrobust.cases import PROMPTINGS, SITUATION, Case
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise, check_recordings
from mmrobust.errors import UsageError
from mmrobust.models.classifier import Classifier
from mmrobust.models.own.model import Model
from mmrobust.models.own.own_model import OwnModel
from mmrobust.models.prediction.held_weights import held_in_bfloat16
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.runtime.progress import Progress
from mmrobust.scoring.truth import Key, Plan, PredictedRows


@dataclass(frozen=True)
class ClassifierModel:
    """The part of :class:`mmrobust.evaluation.model.Model` that needs no checkpoint."""

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
        """Whether the names of the classes are known; otherwise they are numbered."""
        return self.classifier.classes_named

    @property
    def reorders_classes(self) -> bool:
        """False: logits are in the order of its own classes."""
        return False

    @property
    def task(self) -> str:
        """One of :data:`mmrobust.storage.tasks.TASKS`."""
        return self.classifier.task

    @property
    def dtype(self) -> str:
        """The type in which matrix products run."""
        return self.classifier.dtype

    @property
    def device(self) -> str:
        """The device that it runs on."""
        return str(next(self.classifier.parameters()).device)

    @property
    def promptings(self) -> tuple[str, ...]:
        """The promptings under which its logits can differ."""
        return PROMPTINGS if self.classifier.depends_on_prompting else (SITUATION,)

    def check(self, keys: Iterable[Key]) -> None:
        """Raise a ``UsageError`` if it was not trained for one of these (case, prompting), or cannot have its noise."""
        recordings = self.classifier.backbone.processor.recordings
        for case, prompting in keys:
            self.classifier.told(case, prompting)
            check_recordings(Case.parse(case, self.modalities), recordings, "the encoder")

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

        Neither ``batch_size`` nor ``workers``, the processes that decode, affect the results.

        Raises:
            DataError: a sample cannot be read; the message names it.
        """
        classifier = self.classifier
        encoded = EncodedSplit(
            samples.split,
            classifier.backbone.processor,
            classifier.modalities,
            classifier.fill,
            noise,
            workers=workers,
            memory=MemoryBudget(0),  # every sample is read once, so none is kept in memory
        )
        try:
            total = sum(len(positions) for positions in plan.values())
            with progress("predict", total) as advance, held_in_bfloat16(classifier):
                yield from Predictor(classifier, encoded, batch_size).stretches(plan, advance)
        finally:
            encoded.release()


def as_model(model: Any) -> Any:
    """``model`` with the interface to an evaluation; a checkpoint has it already.

    Raises:
        UsageError: it is not a model.
    """
    if isinstance(model, Model):
        return OwnModel(model)
    if isinstance(model, Classifier):
        return ClassifierModel(model)
    if not (hasattr(model, "predict") and hasattr(model, "promptings")):
        raise UsageError(
            f"a {type(model).__name__} cannot be evaluated; give a classifier (mmrobust.load), a checkpoint or a "
            "mmrobust.Model"
        )
    return model
