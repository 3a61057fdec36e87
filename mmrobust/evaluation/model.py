"""What an evaluation asks of a model."""

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
        """Whether :attr:`classes` are names; otherwise any names of the same number fit."""

    @property
    def task(self) -> str:
        """``single-label``, ``multi-label`` or ``binary``."""

    @property
    def device(self) -> str:
        """Where it runs, for messages."""

    @property
    def promptings(self) -> tuple[str, ...]:
        """The promptings that it tells apart: one where knowing the case makes no difference to it."""

    def check(self, keys: Iterable[Key]) -> None:
        """Raise a ``UsageError`` where it cannot predict under one of these (case, prompting)."""

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
        """The predictions of ``plan``, in any order and in pieces of any size."""


class Model(PredictingModel, Protocol):
    """A model whose predictions can be stored, resumed and made by several processes."""

    @property
    def fingerprint(self) -> str:
        """The identity of its predictions: another fingerprint, other predictions."""

    @property
    def dtype(self) -> str:
        """The number format of its work; predictions in different ones are kept apart."""

    def described(self) -> dict[str, Any]:
        """What results say of it.

        ``fingerprint``, ``method``, ``head``, ``backbone``, ``modalities``, ``depends_on_prompting``, ``device`` and
        ``dtype``, and whatever else it can say (fill, training …).
        """

    def loader(self) -> Callable[[str], Model]:
        """What makes the same model in another process, on the device of that name; it can be pickled."""
