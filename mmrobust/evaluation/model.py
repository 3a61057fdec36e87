"""The protocols that a model must implement to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.progress import Progress
from mmrobust.scoring.truth import Key, Plan, PredictedRows


class PredictingModel(Protocol):
    """A model whose predictions can be scored in memory."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it takes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes."""

    @property
    def classes_named(self) -> bool:
        """Whether :attr:`classes` are real names; otherwise it fits any data set with as many classes."""

    @property
    def reorders_classes(self) -> bool:
        """Whether it gives its logits in the data set's order, so that its :attr:`classes` may be in another."""

    @property
    def task(self) -> str:
        """One of :data:`mmrobust.storage.tasks.TASKS`."""

    @property
    def device(self) -> str:
        """The name of the device that it runs on."""

    @property
    def promptings(self) -> tuple[str, ...]:
        """The promptings that it tells apart: one if its predictions do not depend on prompting."""

    def check(self, keys: Iterable[Key]) -> None:
        """Raise a ``UsageError`` if it cannot predict one of these (case, prompting)."""

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
        """Yield the predictions of ``plan``, in any order and in pieces of any size."""


class IdentifiedModel(PredictingModel, Protocol):
    """A model whose predictions can be stored, resumed and made by several processes."""

    @property
    def fingerprint(self) -> str:
        """Identifies its predictions: models with the same fingerprint share them."""

    @property
    def dtype(self) -> str:
        """The number format that it computes in; predictions in different formats are stored separately."""

    def described(self) -> dict[str, Any]:
        """Its entry in the provenance of results.

        ``fingerprint``, ``method``, ``head``, ``backbone``, ``modalities``, ``depends_on_prompting``, ``device`` and
        ``dtype``, and optionally more (fill, training …; ``folder`` if it lies in one, as an absolute path).
        """

    def loader(self) -> Callable[[str], IdentifiedModel]:
        """A picklable function that loads the same model in another process, on the device of the given name."""
