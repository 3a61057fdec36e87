"""What steps and validation take of a split: features of samples in a case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit, group_by_length
from mmrobust.degradations import Noise
from mmrobust.models.backbone import Features, PartialStream
from mmrobust.models.classifier import Classifier
from mmrobust.runtime.progress import Advance
from mmrobust.training.augmentation import augment
from mmrobust.training.batching import Batch

STRETCH = 256
"""Samples that are decoded at a time, for all their cases."""

Wanted = tuple[Case, "Noise | None", Positions]
"""Samples that will be asked for, in a case under a noise; ``None``: the noise is not known beforehand."""


class LiveSource:
    """Features of a split's samples, computed anew each time.

    Args:
        classifier: whose features.
        encoded: the split.
        augmented: whether samples are moved about a little.
    """

    def __init__(self, classifier: Classifier, encoded: EncodedSplit, augmented: bool = False) -> None:
        self.classifier, self.encoded, self._augmented = classifier, encoded, augmented

    @property
    def kept_bytes(self) -> int:
        """How much is kept."""
        return 0

    def prepare(self, wanted: Iterable[Wanted], advance: Advance) -> None:
        """Compute what can be kept of ``wanted``, and keep it; ``advance`` hears of samples that are done."""

    def ahead(self, steps: Iterable[Batch], noise: Noise) -> Iterator[Batch]:
        """The ``steps``, each when what it asks :meth:`features` for has been read."""
        del noise
        yield from self.encoded.prefetch(steps, dict.items)

    def batches(self, case: Case, positions: Positions, size: int) -> Iterator[Positions]:
        """``positions`` in batches for evaluation, samples of like length together, each when it has been read."""
        stretches = [positions[start : start + STRETCH] for start in range(0, len(positions), STRETCH)]
        for stretch in self.encoded.prefetch(stretches, lambda some: [(case.name, some)]):
            yield from self._by_length(case, stretch, size)

    def _by_length(self, case: Case, positions: Positions, size: int) -> Iterator[Positions]:
        lengths = self.encoded.lengths(self.encoded.request([(case.name, positions)]))
        yield from (positions[rows] for rows in group_by_length(lengths, size))

    def features(self, positions: Positions, case: Case, noise: Noise) -> Features:
        """Features of the samples at ``positions`` in ``case``, as the head takes them."""
        return self._features(self._inputs(positions, case, noise), case)

    def _features(
        self, inputs: Mapping[str, Tensor], case: Case, partial: Mapping[str, PartialStream] | None = None
    ) -> Features:
        with self.classifier.autocast():
            return self.classifier.features(inputs, self.classifier.told(case.name, SITUATION), partial)

    def _inputs(self, positions: Positions, case: Case, noise: Noise | None) -> dict[str, Tensor]:
        """The backbone's inputs, where the classifier is."""
        samples = self.encoded.samples(positions, case, noise)
        if self._augmented:
            samples = [augment(sample) for sample in samples]
        return {name: tensor.to(self._device) for name, tensor in self.encoded.processor.collate(samples).items()}

    @property
    def _device(self) -> torch.device:
        return next(self.classifier.parameters()).device
