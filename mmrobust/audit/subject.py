"""The subject of an audit (a model, and the samples that it is run on), its checks, and what they find."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from mmrobust.scoring import Targets
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of, target_matrix
from mmrobust.storage.tasks import REGRESSION

PASSED, FAILED, INFORMATIONAL, NOT_APPLICABLE = "passed", "failed", "informational", "not applicable"
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
        self.positions: list[int] = sorted(np.random.default_rng(seed).permutation(complete)[:limit].tolist())
        self.few = self.positions[:: max(1, len(self.positions) // FEW)][:FEW]
        self.labels = tuple(self.split.labels[position] for position in self.positions)
        self.headline, self.multi_label = self.split.info.headline_metric, self.task == "multi-label"
        self.numbers = self.task == REGRESSION
        self.targets: Targets = (
            np.asarray(self.labels, dtype=np.float64)
            if self.numbers
            else target_matrix(self.labels, len(self.split.info.classes))
        )
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

    def change(self, before: Tensor, after: Tensor) -> tuple[float, float]:
        """How much predictions changed between two sets of logits [n, classes].

        Returns:
            The mean over samples of the largest change of a probability, and the share of decisions that changed. In a
            regression task, the mean change of the number in standard deviations of the labels, and the share of
            samples whose number changes by more than a tenth of one.
        """
        if self.numbers:
            moves = (before - after) / max(float(self.targets.std()), 1e-12)
            return float(moves.abs().mean()), float((moves.abs() > 0.1).float().mean())
        if self.multi_label:  # whether each class is predicted is a decision of its own
            moves, decided = before.sigmoid() - after.sigmoid(), (before >= 0) != (after >= 0)
        else:
            moves, decided = before.softmax(-1) - after.softmax(-1), before.argmax(-1) != after.argmax(-1)
        return float(moves.abs().amax(-1).mean()), float(decided.float().mean())

    @property
    def moved(self) -> tuple[str, str]:
        """What :meth:`change` measures, in words: what moves, and what is counted."""
        if self.numbers:
            return "predictions move, in deviations of the labels,", "of them by more than a tenth"
        return "probabilities move", "of the decisions change"

    def score(self, logits: Tensor) -> float:
        """The headline metric of logits [n, classes] of all samples."""
        metric = metrics_of(self.task, [self.headline])[self.headline]
        truth = WeightedTruth(self.targets, np.ones((1, len(self.positions)), dtype=np.float32))
        return float(metric(Outcomes(logits.numpy(), truth, self.multi_label))[0])


@dataclass(frozen=True)
class Finding:
    """The outcome of a check."""

    status: str
    """``passed``, ``failed``, ``informational`` (no answer is wrong) or ``not applicable``."""
    said: str
    """One line with the figures, for people."""
    figure: float | None = None
    """What was measured."""
    limit: float | None = None
    """The largest figure that passes; the smallest if :attr:`at_least`."""
    at_least: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    """All figures, in values that JSON can hold."""


@dataclass(frozen=True)
class Check:
    """One question about a model."""

    name: str
    asks: str
    """The question."""
    why: str
    """Why it matters, and why the limit is where it is."""
    run: Callable[[Subject], Finding]
    own: str = ""
    """Why it cannot be made on a model of the user's own; empty where it can."""


def judged(figure: float, limit: float, said: str, details: Mapping[str, Any], *, at_least: bool = False) -> Finding:
    """Compare ``figure`` with its ``limit``; NaN fails."""
    passes = figure >= limit if at_least else figure <= limit
    return Finding(PASSED if passes else FAILED, said, figure, limit, at_least, details)
