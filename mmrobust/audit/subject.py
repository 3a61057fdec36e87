"""The subject of an audit (a checkpoint, and the samples that it is run on), its checks, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust.cases import CONCAT, SITUATION, Case
from mmrobust.data.dataset import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.errors import DataError, UsageError
from mmrobust.evaluation.evaluate import check_fits
from mmrobust.models.checkpoint import Checkpoint
from mmrobust.scenarios.grid import check_seed
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of, target_matrix

PASSED, FAILED, INFORMATIONAL, NOT_APPLICABLE = "passed", "failed", "informational", "not applicable"
FEW = 16
"""Number of samples for checks that run the same input twice."""
BATCH = 32

Inputs = dict[str, Tensor]
"""A batch of the backbone's inputs, as its processor collates them."""


class Subject:
    """A checkpoint and at most ``limit`` samples of a split that have all modalities, chosen by ``seed``.

    The checkpoint's classifier runs in float32 unless a check changes that.

    Raises:
        UsageError: an unknown split, data that do not fit the checkpoint, a limit below two, or a negative seed.
        DataError: fewer than two samples have all modalities.
    """

    def __init__(self, checkpoint: Checkpoint, dataset: Dataset, *, split: str, limit: int, seed: int) -> None:
        if limit < 2:
            raise UsageError(f"--limit {limit}: at least two samples are needed, to compare with each other")
        check_seed(seed)
        self.checkpoint, self.classifier = checkpoint, checkpoint.classifier
        self.split, self.seed = dataset.split(split), seed
        check_fits(checkpoint, dataset, str(checkpoint.folder))
        modalities = self.classifier.modalities
        natural = self.split.natural_cases(modalities)
        complete = [i for i in range(len(self.split)) if natural is None or natural[i].present == modalities]
        if len(complete) < 2:
            raise DataError(f"{dataset.folder}: split '{split}' has fewer than two samples with every modality")
        self.positions: list[int] = sorted(np.random.default_rng(seed).permutation(complete)[:limit].tolist())
        self.few = self.positions[:: max(1, len(self.positions) // FEW)][:FEW]
        self.encoded = EncodedSplit(self.split, self.classifier.backbone.processor, modalities, self.classifier.fill)
        self.labels = tuple(self.split.labels[position] for position in self.positions)
        self.cases, self.headline = self.classifier.cases, self.split.info.headline_metric
        self.multi_label = self.classifier.task == "multi-label"
        self._logits: dict[tuple[str, str, str], Tensor] = {}

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Every (case, prompting) pair for which the classifier's logits can differ."""
        promptings = (SITUATION, CONCAT) if self.classifier.depends_on_prompting else (SITUATION,)
        return [(case, prompting) for case in self.cases for prompting in promptings]

    def samples(self, positions: Sequence[int], case: str) -> list[dict[str, Tensor]]:
        """Return encoded samples in ``case``: modality → tensor."""
        return self.encoded.samples(positions, Case.parse(case, self.classifier.modalities))

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> Inputs:
        """Collate encoded samples into one batch."""
        return self.encoded.processor.collate(samples)

    def run(self, inputs: Inputs, case: str, prompting: str = SITUATION) -> Tensor:
        """Return the logits [B, classes] of a batch, on the CPU."""
        device = next(self.classifier.parameters()).device
        with torch.inference_mode():
            logits: Tensor = self.classifier({k: v.to(device) for k, v in inputs.items()}, case, prompting)
            return logits.cpu()

    def logits(self, case: str, told: str | None = None) -> Tensor:
        """Return the logits [n, classes] of all samples in ``case`` under situation prompting, computed once.

        The model is told the case ``told``, by default the true one.
        """
        key = (case, told or case, self.classifier.dtype)
        if key not in self._logits:
            batches = (self.positions[start : start + BATCH] for start in range(0, len(self.positions), BATCH))
            self._logits[key] = torch.cat(
                [self.run(self.collate(self.samples(batch, case)), told or case) for batch in batches]
            )
        return self._logits[key]

    def change(self, before: Tensor, after: Tensor) -> tuple[float, float]:
        """Return how much predictions changed between two sets of logits [n, classes].

        Returns:
            The mean over samples of the largest change of a probability, and the share of decisions that changed.
        """
        if self.multi_label:  # whether each class is predicted is a decision of its own
            moves, decided = before.sigmoid() - after.sigmoid(), (before >= 0) != (after >= 0)
        else:
            moves, decided = before.softmax(-1) - after.softmax(-1), before.argmax(-1) != after.argmax(-1)
        return float(moves.abs().amax(-1).mean()), float(decided.float().mean())

    def score(self, logits: Tensor) -> float:
        """Return the headline metric of logits [n, classes] of all samples."""
        metric = metrics_of(self.classifier.task, [self.headline])[self.headline]
        targets = target_matrix(self.labels, len(self.classifier.classes))
        truth = WeightedTruth(targets, np.ones((1, len(self.positions)), dtype=np.float32))
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
    """One question about a checkpoint."""

    name: str
    asks: str
    """The question."""
    why: str
    """Why it matters, and why the limit is where it is."""
    run: Callable[[Subject], Finding]


def judged(figure: float, limit: float, said: str, details: Mapping[str, Any], *, at_least: bool = False) -> Finding:
    """Compare ``figure`` with its ``limit``; NaN fails."""
    passes = figure >= limit if at_least else figure <= limit
    return Finding(PASSED if passes else FAILED, said, figure, limit, at_least, details)
