"""What the checks look at: a checkpoint, and a few samples of a data set that it is run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.cases import CONCAT, SITUATION, Case
from mmrobust.data.batches import EncodedSplit
from mmrobust.data.dataset import Dataset
from mmrobust.errors import DataError, UsageError
from mmrobust.evaluation.evaluate import check_fits
from mmrobust.models.checkpoint import Checkpoint
from mmrobust.scenarios.grid import check_seed
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of, target_matrix

FEW = 16
"""How many samples the checks take that compare two runs of one input: one would do, if it were known which."""

BATCH = 32

Inputs = dict[str, Tensor]
"""A batch of the backbone's inputs, as its processor collates them."""


class Subject:
    """A checkpoint and a seeded subset of a split, in which every sample has all modalities.

    Args:
        checkpoint: to look at; its classifier is run in float32, unless a check says otherwise.
        dataset: to take samples from.
        split: of the data set.
        limit: how many samples at most.
        seed: of their choice.

    Raises:
        UsageError: no such split, data that do not fit the checkpoint, a limit below two, or a negative seed.
        DataError: no two samples have all modalities.
    """

    def __init__(self, checkpoint: Checkpoint, dataset: Dataset, *, split: str, limit: int, seed: int) -> None:
        if limit < 2:
            raise UsageError(f"--limit {limit}: at least two samples are needed, to set beside each other")
        check_seed(seed)
        self.checkpoint, self.classifier = checkpoint, checkpoint.classifier
        self.split, self.seed = dataset.split(split), seed
        check_fits(checkpoint, dataset, str(checkpoint.folder))
        natural = self.split.natural_cases(self.classifier.modalities)
        complete = [i for i in range(len(self.split)) if natural is None or not set(natural[i].states) - _present(self)]
        if len(complete) < 2:
            raise DataError(f"{dataset.folder}: split '{split}' has no two samples with every modality to look at")
        chosen = np.random.default_rng(seed).permutation(complete)[:limit]
        self.positions: list[int] = sorted(int(position) for position in chosen)
        self.few = self.positions[:: max(1, len(self.positions) // FEW)][:FEW]
        """The samples of :data:`FEW`."""
        backbone = self.classifier.backbone
        self.encoded = EncodedSplit(self.split, backbone.processor, self.classifier.modalities, self.classifier.fill)
        self._logits: dict[tuple[str, str, str], Tensor] = {}

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that the classifier was trained for."""
        return self.classifier.cases

    @property
    def promptings(self) -> tuple[str, ...]:
        """Those under which the classifier can differ."""
        return (SITUATION, CONCAT) if self.classifier.depends_on_prompting else (SITUATION,)

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Every (case, prompting)."""
        return [(case, prompting) for case in self.cases for prompting in self.promptings]

    def samples(self, positions: Sequence[int], case: str) -> list[dict[str, Tensor]]:
        """Encoded samples in ``case``: modality → tensor."""
        return self.encoded.samples(positions, Case.parse(case, self.classifier.modalities))

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> Inputs:
        """Encoded samples as one batch."""
        return self.encoded.processor.collate(samples)

    def run(self, inputs: Inputs, case: str, prompting: str = SITUATION) -> Tensor:
        """Logits [B, classes] of a batch, on the CPU."""
        device = next(self.classifier.parameters()).device
        with torch.inference_mode():
            logits: Tensor = self.classifier({k: v.to(device) for k, v in inputs.items()}, case, prompting)
            return logits.cpu()

    def logits(self, case: str, told: str | None = None) -> Tensor:
        """Logits [n, classes] of all samples in ``case`` under situation prompting, computed once.

        Args:
            case: the case that the samples are in.
            told: the case that the model is told; the true one where not given.
        """
        key = (case, told or case, self.classifier.dtype)
        if key not in self._logits:
            starts = range(0, len(self.positions), BATCH)
            parts = [
                self.run(self.collate(self.samples(self.positions[start : start + BATCH], case)), told or case)
                for start in starts
            ]
            self._logits[key] = torch.cat(parts)
        return self._logits[key]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities [n, classes]: softmax, or the sigmoid of each class of a multi-label task."""
        return logits.sigmoid() if self.several else logits.softmax(-1)

    @property
    def several(self) -> bool:
        """Whether a sample may belong to several classes."""
        return self.classifier.task == "multi-label"

    def decisions(self, logits: Tensor) -> Tensor:
        """What is predicted: the class [n], or whether each class is [n, classes]."""
        return logits >= 0 if self.several else logits.argmax(-1)

    @property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """The class, or the classes, of each sample."""
        return tuple(self.split.labels[position] for position in self.positions)

    @property
    def targets(self) -> npt.NDArray[np.bool_]:
        """[n, classes]: whether each sample belongs to the class."""
        return target_matrix(self.labels, len(self.classifier.classes))

    @property
    def headline(self) -> str:
        """Name of the data set's headline metric."""
        return self.split.info.headline_metric

    def score(self, logits: Tensor) -> float:
        """The headline metric over all samples."""
        metric = metrics_of(self.classifier.task, [self.headline])[self.headline]
        weights = np.ones((1, len(self.positions)), dtype=np.float32)
        return float(metric(Outcomes(logits.numpy(), WeightedTruth(self.targets, weights), self.several))[0])


def rows(inputs: Inputs, chosen: Sequence[int]) -> Inputs:
    """The samples ``chosen`` of a batch, as padded as they were in it."""
    return {name: tensor[list(chosen)] for name, tensor in inputs.items()}


def _present(subject: Subject) -> set[tuple[str, object]]:
    return set(Case.complete(subject.classifier.modalities).states)
