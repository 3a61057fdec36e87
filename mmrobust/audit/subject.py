"""The subject of an audit: a model, and the samples of a data set that it is run on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.cases import CONCAT, SITUATION, Case
from mmrobust.data.dataset import Dataset
from mmrobust.errors import DataError, UsageError
from mmrobust.evaluation.evaluate import check_fits
from mmrobust.evaluation.model import IdentifiedModel
from mmrobust.scenarios.grid import check_seed
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of, target_matrix

FEW = 16
"""Number of samples for checks that run the same input twice."""

BATCH = 32


class Subject(ABC):
    """A model and a seeded subset of a split, in which every sample has all modalities.

    Args:
        model: the model.
        name: of the model, for messages.
        dataset: the data set to take samples from.
        split: the split to take samples from.
        limit: the most samples to use.
        seed: seed of their choice.

    Raises:
        UsageError: an unknown split, data that do not fit the model, a limit below two, or a negative seed.
        DataError: fewer than two samples have all modalities.
    """

    open: ClassVar[bool]
    """Whether weights, tensors and number format can be reached; for a model of the user's own they cannot."""

    def __init__(
        self, model: IdentifiedModel, name: str, dataset: Dataset, *, split: str, limit: int, seed: int
    ) -> None:
        if limit < 2:
            raise UsageError(f"--limit {limit}: at least two samples are needed, to compare with each other")
        check_seed(seed)
        self.modalities, self.task, self.name, self.fingerprint = model.modalities, model.task, name, model.fingerprint
        self._promptings = model.promptings
        self.split, self.seed = dataset.split(split), seed
        check_fits(model, dataset, name)
        natural = self.split.natural_cases(self.modalities)
        complete = [i for i in range(len(self.split)) if natural is None or natural[i].present == self.modalities]
        if len(complete) < 2:
            raise DataError(f"{dataset.folder}: split '{split}' has fewer than two samples with every modality")
        chosen = np.random.default_rng(seed).permutation(complete)[:limit]
        self.positions: list[int] = sorted(int(position) for position in chosen)
        self.few = self.positions[:: max(1, len(self.positions) // FEW)][:FEW]
        self._logits: dict[tuple[str, str, str], Tensor] = {}

    # What differs between a checkpoint and a model of the user's own.

    @property
    @abstractmethod
    def made_of(self) -> dict[str, str]:
        """``method``, ``head`` and ``backbone``."""

    @property
    @abstractmethod
    def about(self) -> str:
        """What it is, for a title."""

    @property
    @abstractmethod
    def cases(self) -> tuple[str, ...]:
        """The cases that it is looked at in."""

    @property
    @abstractmethod
    def tells_cases_apart(self) -> bool:
        """Whether anything of it was made for a case."""

    @property
    @abstractmethod
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU."""

    @abstractmethod
    def inputs(self, positions: Sequence[int], case: str) -> Any:
        """A batch of samples in ``case``, as the model takes them."""

    @abstractmethod
    def run(self, inputs: Any, case: str, prompting: str = SITUATION) -> Tensor:
        """Logits [B, classes] of a batch, on the CPU; ``case`` is what the model is told."""

    @abstractmethod
    def rows(self, inputs: Any, chosen: Sequence[int]) -> Any:
        """The samples ``chosen`` of a batch, with the padding of the whole batch."""

    @abstractmethod
    def with_extreme_neighbours(self, inputs: Any, unchanged: Sequence[int]) -> Any:
        """The batch with every sample but those ``unchanged`` made extreme, of the same size."""

    @abstractmethod
    def alone_and_padded(self, position: int, case: str, prompting: str) -> tuple[Tensor, Tensor] | None:
        """Logits [1, classes] of a sample alone and beside a larger one; ``None`` if that pads nothing."""

    @abstractmethod
    def fill_of(self, position: int, modality: str, case: Case) -> npt.NDArray[Any]:
        """What the model gets for a ``modality`` of a sample that is missing in ``case``, as numbers."""

    # What is the same for both.

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Every (case, prompting) pair for which the logits can differ."""
        promptings = (SITUATION, CONCAT) if len(self._promptings) > 1 else (SITUATION,)
        return [(case, prompting) for case in self.cases for prompting in promptings]

    @property
    def number_format(self) -> str:
        """The number format in which it runs now."""
        return "float32"

    def logits(self, case: str, told: str | None = None) -> Tensor:
        """Logits [n, classes] of all samples in ``case`` under situation prompting, computed once.

        Args:
            case: the case that the samples are in.
            told: the case that the model is told; by default the true one.
        """
        key = (case, told or case, self.number_format)
        if key not in self._logits:
            batches = (self.positions[start : start + BATCH] for start in range(0, len(self.positions), BATCH))
            self._logits[key] = torch.cat([self.run(self.inputs(batch, case), told or case) for batch in batches])
        return self._logits[key]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities [n, classes]: softmax, or the sigmoid of each class of a multi-label task."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)

    @property
    def multi_label(self) -> bool:
        """Whether a sample may belong to several classes."""
        return self.task == "multi-label"

    def decisions(self, logits: Tensor) -> Tensor:
        """What is predicted: the class [n], or for a multi-label task whether each class is [n, classes]."""
        return logits >= 0 if self.multi_label else logits.argmax(-1)

    def change(self, before: Tensor, after: Tensor) -> tuple[float, float]:
        """How much predictions changed between two sets of logits [n, classes].

        Returns:
            The mean over samples of the largest change of a probability, and the share of decisions that changed.
        """
        moves = (self.probabilities(before) - self.probabilities(after)).abs().amax(-1)
        return float(moves.mean()), float((self.decisions(before) != self.decisions(after)).float().mean())

    @property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """The class or classes of each sample."""
        return tuple(self.split.labels[position] for position in self.positions)

    @property
    def headline(self) -> str:
        """The name of the data set's headline metric."""
        return self.split.info.headline_metric

    @property
    def class_count(self) -> int:
        """The number of classes."""
        return len(self.split.info.classes)

    def score(self, logits: Tensor) -> float:
        """The headline metric of logits [n, classes] of all samples."""
        metric = metrics_of(self.task, [self.headline])[self.headline]
        targets = target_matrix(self.labels, self.class_count)
        truth = WeightedTruth(targets, np.ones((1, len(self.positions)), dtype=np.float32))
        return float(metric(Outcomes(logits.numpy(), truth, self.multi_label))[0])
