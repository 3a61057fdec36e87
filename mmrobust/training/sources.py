"""Features of a split's samples, as training steps and validation ask for them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit, group_by_length
from mmrobust.degradations import Noise
from mmrobust.models.backbone import PartialStream
from mmrobust.models.classifier import Classifier
from mmrobust.models.pooling import Features
from mmrobust.runtime.devices import copied
from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import in_background
from mmrobust.training.augmentation import augment
from mmrobust.training.splits import TrainingSplit

STRETCH = 256
"""Samples that are decoded at a time, for all their cases."""
START_BATCH = 64


Part = tuple[str, Positions]
"""The name of a case and samples that run in it together: a batch, or a part of one."""


class Loaded(NamedTuple):
    """What the features of some samples are computed from, on the device."""

    inputs: Mapping[str, Tensor]
    """The backbone's."""
    begun: Mapping[str, PartialStream]
    """What is cached of each stream, by the stream's name."""


class FeatureRequest(NamedTuple):
    """Samples whose features a training will ask for, in a case and under a noise."""

    case: Case
    noise: Noise | None
    """``None`` where it is not known beforehand."""
    positions: Positions


class LiveSource:
    """Features of a split's samples, computed whenever they are asked for; if ``augmented``, of augmented samples."""

    def __init__(self, classifier: Classifier, encoded: EncodedSplit, augmented: bool = False) -> None:
        self.classifier, self.encoded, self._augmented = classifier, encoded, augmented
        self._ready: dict[tuple[str, bytes], Loaded] = {}
        self._draws = torch.default_generator

    @property
    def cached_bytes(self) -> int:
        """Size of what is cached."""
        return 0

    def prepare(self, requests: Iterable[FeatureRequest], advance: Advance) -> None:
        """Compute and cache what can be cached of ``requests``; ``advance`` is called with the samples done."""

    def prefetch(self, batches: Iterable[Sequence[Part]], noise: Noise) -> Generator[Sequence[Part], None, None]:
        """Yield each batch once the samples that :meth:`features` needs for it have been read.

        On a GPU they are there by then: a thread reads and copies the next batches while one is computed. It draws
        augmentations from a generator of its own: checkpointed layers save and restore the global one meanwhile.
        """
        if self.ahead:
            self._draws = torch.Generator().manual_seed(torch.initial_seed())
        with (
            closing(self._read(batches, noise)) as read,
            in_background(self._load_all(read, noise), self.ahead) as ready,
        ):
            for batch, self._ready in ready:
                yield batch

    @property
    def ahead(self) -> bool:
        """Whether inputs are loaded while others are computed with."""
        return self.device.type != "cpu"

    def _read(self, batches: Iterable[Sequence[Part]], noise: Noise) -> Generator[Sequence[Part], None, None]:
        del noise
        return self.encoded.prefetch(batches, iter, ahead=self.ahead)

    def _load_all(
        self, batches: Iterable[Sequence[Part]], noise: Noise
    ) -> Iterator[tuple[Sequence[Part], dict[tuple[str, bytes], Loaded]]]:
        """Each batch, and where it is to be loaded ahead, all of its parts by what :meth:`features` is asked for."""
        for batch in batches:
            ahead = batch if self.ahead else ()
            yield batch, {(name, p.tobytes()): self._load(p, self._case(name), noise) for name, p in ahead}

    def batches(self, case: Case, positions: Positions, size: int) -> Iterator[Positions]:
        """``positions`` in batches for evaluation, of samples of similar length, each once it has been read."""
        stretches = [positions[start : start + STRETCH] for start in range(0, len(positions), STRETCH)]
        for stretch in self.encoded.prefetch(stretches, lambda some: [(case.name, some)], ahead=self.ahead):
            yield from self._by_length(case, stretch, size)

    def _by_length(self, case: Case, positions: Positions, size: int) -> Iterator[Positions]:
        lengths = self.encoded.lengths(self.encoded.request([(case.name, positions)]))
        yield from (positions[rows] for rows in group_by_length(lengths, size))

    def features(self, positions: Positions, case: Case, noise: Noise) -> Features:
        """Features of the samples at ``positions`` in ``case``, as the head takes them."""
        loaded = self._ready.pop((case.name, positions.tobytes()), None) or self._load(positions, case, noise)
        return self._features(loaded, case)

    def _features(self, loaded: Loaded, case: Case) -> Features:
        with self.classifier.autocast():
            return self.classifier.features(loaded.inputs, self.classifier.told(case.name, SITUATION), loaded.begun)

    def _load(self, positions: Positions, case: Case, noise: Noise) -> Loaded:
        return Loaded(self._inputs(positions, case, noise), {})

    def _inputs(self, positions: Positions, case: Case, noise: Noise | None) -> dict[str, Tensor]:
        """The backbone's inputs, on the classifier's device."""
        if not self._augmented:
            return self.encoded.batch(positions, case, self.device, noise)
        kinds = self.encoded.split.info.kinds
        samples = [augment(sample, kinds, self._draws) for sample in self.encoded.samples(positions, case, noise)]
        batch = self.encoded.processor.collate(samples, pinned=self.device.type == "cuda")
        return {name: copied(tensor, self.device) for name, tensor in batch.items()}

    def inputs(self, positions: Positions, case: Case) -> dict[str, Tensor]:
        """The backbone's inputs of samples in ``case``, never augmented."""
        return self.encoded.batch(positions, case, self.device)

    def _case(self, name: str) -> Case:
        return Case.parse(name, self.classifier.modalities)

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return next(self.classifier.parameters()).device


@torch.no_grad()
def starting_features(
    source: LiveSource, split: TrainingSplit, cases: Sequence[Case]
) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Features for a head to start from.

    Returns:
        Case name → (modality → features [N, D], multi-hot targets [N, classes]) of every sample eligible for the case.
    """
    found = {}
    for case in cases:
        order: list[Positions] = []
        by_modality: dict[str, list[Tensor]] = {}
        for batch in source.batches(case, split.eligible(case), START_BATCH):
            order.append(batch)
            for modality, part_BD in source.features(batch, case, split.encoded.noise).by_modality.items():
                by_modality.setdefault(modality, []).append(part_BD.float())
        joined = {modality: torch.cat(parts) for modality, parts in by_modality.items()}
        device = next(iter(joined.values())).device
        found[case.plain.name] = joined, split.targets[np.concatenate(order)].to(device)
    return found
