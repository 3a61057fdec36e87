"""Features of a split's samples, with what is frozen computed once.

Up to the first layer that a method changes (:meth:`Method.first_changed`) a frozen backbone gives a sample the same in
every step. :class:`FrozenSource` computes that once and keeps it, by what decides it:

- where nothing but the head trains, the features, by (sample, case);
- else each stream that begins with inputs, up to that layer, by (sample, state of the modalities that it reads). So
  cases share the streams of modalities that are in the same state, and a modality that is missing is run once for all
  samples.

Noise is kept where it is a pure function of the sample and a seed that is known beforehand. Augmented samples, a frozen
backbone's dropout and methods that train from the first layer on leave nothing to keep: :class:`LiveSource`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmrobust.cases import SITUATION, Case
from mmrobust.configuration import plain
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit, input_key
from mmrobust.degradations import Noise
from mmrobust.models.backbone import Features, PartialStream
from mmrobust.models.classifier import Classifier
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.machine import free_memory
from mmrobust.runtime.memory import MemoryBudget
from mmrobust.runtime.progress import Advance
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.training.batching import Batch
from mmrobust.training.caching import Cache
from mmrobust.training.rows import SHARED, RowTable
from mmrobust.training.sources import STRETCH, LiveSource, Wanted

FILL_BATCH = 64
MEMORY_IF_UNKNOWN = 2**32
"""Bytes that are taken to be free where the system does not say."""
FEATURES, POOLED = "features", "pooled"

_Key = tuple[str, tuple[Hashable, ...], "Noise | None"]
"""Part, what decides the inputs that it reads (:func:`input_key`), and their noise."""


class FrozenSource(LiveSource):
    """The same, with what is frozen kept: streams up to the first layer that changes.

    Args:
        classifier: whose features.
        encoded: the split.
        cache: where to keep them.
        scratch: a folder for what goes beyond memory, where ``cache`` names none.
        identity: what else decides a value: fingerprints of the backbone and the data.
        memory: what the training's sources may keep in memory together: :func:`memory_for`.
    """

    def __init__(
        self,
        classifier: Classifier,
        encoded: EncodedSplit,
        cache: Cache,
        scratch: Path,
        identity: Mapping[str, str],
        memory: MemoryBudget,
    ) -> None:
        super().__init__(classifier, encoded)
        self.depths = frozen_depths(classifier)
        self._identity = {
            **identity,
            "split": encoded.split.name,
            "samples": fingerprint_settings({"ids": encoded.split.ids}),  # some may be left out
            "fill": classifier.fill,
            "dtype": classifier.dtype,
            "settings": repr(classifier.backbone.settings),
            "inputs": classifier.backbone.inputs_fingerprint(),
        }
        self._folder, self._lasting = cache.folder or scratch, cache.folder is not None
        self._memory = memory
        self._tables: dict[_Key, RowTable] = {}

    @property
    def kept_bytes(self) -> int:
        """See :attr:`LiveSource.kept_bytes`; a table that lay there already counts as well."""
        return sum(table.nbytes for table in self._tables.values())

    def prepare(self, wanted: Iterable[Wanted], advance: Advance) -> None:
        """See :meth:`LiveSource.prepare`. Always in the same batches: a resumed training finds the same bits."""
        asked = [(case, noise, np.sort(positions)) for case, noise, positions in wanted]
        training = self.classifier.training
        self.classifier.train(False)
        starts = range(0, len(self.encoded.split), STRETCH)
        # Each sample is asked for in one stretch only, and the training will not ask for it again: none is kept.
        for start in self.encoded.prefetch(starts, lambda start: self._unread(asked, start), cache=False):
            for case, noise, positions in asked:
                within = _within(positions, start)
                for part in self._keepable(case, noise):
                    self._fill(part, case, noise, within)
                advance(len(within))
        self.encoded.release()
        for table in self._tables.values():
            table.finish(self._lasting)
        self.classifier.train(training)

    def _unread(self, asked: Iterable[Wanted], start: int) -> Iterator[tuple[str, Positions]]:
        """What must be read to fill a stretch: (case, positions)."""
        for case, noise, positions in asked:
            for part in self._keepable(case, noise):
                yield case.name, self._absent(part, case, noise, _within(positions, start))

    def _keepable(self, case: Case, noise: Noise | None) -> list[str]:
        """The parts of samples in ``case`` that no unknown noise decides."""
        parts = self._parts(case)
        return [p for p in parts if noise is not None or not any(m in case.degraded for m in self._reads(p))]

    def _absent(self, part: str, case: Case, noise: Noise | None, positions: Positions) -> Positions:
        """The samples of which a part must be computed; one of all of them, where it is the same for all."""
        absent = self._table(part, case, noise).absent(self._rows(part, case, positions))
        return positions[:1] if self._shared(part, case) and len(absent) else absent

    @torch.no_grad()
    def _fill(self, part: str, case: Case, noise: Noise | None, positions: Positions) -> None:
        absent = self._absent(part, case, noise, positions)
        for batch in self._by_length(case, absent, FILL_BATCH):
            with self.classifier.autocast():
                sequence = self._compute(part, self._inputs(batch, case, noise), case)
            rows = [SHARED] if self._shared(part, case) else batch.tolist()
            self._table(part, case, noise).add(rows, sequence)

    def _compute(self, part: str, inputs: Mapping[str, Tensor], case: Case) -> TokenSequence:
        """What is kept of a batch."""
        del case
        return self.classifier.backbone.run_first_layers(part, inputs, self.depths[part]).sequence

    def ahead(self, steps: Iterable[Batch], noise: Noise) -> Iterator[Batch]:
        """See :meth:`LiveSource.ahead`; what is kept need not be read."""

        def unread(step: Batch) -> Iterator[tuple[str, Positions]]:
            for name, positions in step.items():
                if self._must_read(self._parse(name), positions, noise):
                    yield name, positions

        yield from self.encoded.prefetch(steps, unread)

    def batches(self, case: Case, positions: Positions, size: int) -> Iterator[Positions]:
        """See :meth:`LiveSource.batches`; what is kept need not be read to learn its length."""
        if self._must_read(case, positions, self.encoded.noise):
            yield from super().batches(case, positions, size)
            return
        yield from (positions[start : start + size] for start in range(0, len(positions), size))

    def features(self, positions: Positions, case: Case, noise: Noise) -> Features:
        """See :meth:`LiveSource.features`."""
        partial = {}
        for stream in self._parts(case):
            sequence = self._kept(stream, positions, case, noise)
            if sequence is not None:
                partial[stream] = PartialStream(sequence, self.depths[stream])
        inputs = {} if self._covers(partial, case) else self._inputs(positions, case, noise)
        return self._features(inputs, case, partial)

    def _must_read(self, case: Case, positions: Positions, noise: Noise) -> bool:
        """Whether :meth:`features` will want the inputs of any of these samples."""
        return not self._covers([part for part in self._parts(case) if self._has(part, positions, case, noise)], case)

    def _covers(self, parts: Iterable[str], case: Case) -> bool:
        """Whether ``parts`` are all that begins with inputs in ``case``."""
        read = {modality for part in parts for modality in self._reads(part)}
        return read >= set(self.classifier.backbone.modalities_to_run(self.classifier.known_missing((case.name,))))

    def _has(self, part: str, positions: Positions, case: Case, noise: Noise) -> bool:
        table = self._tables.get(self._key(part, case, noise))
        return table is not None and not len(table.absent(self._rows(part, case, positions)))

    def _parse(self, name: str) -> Case:
        return Case.parse(name, self.classifier.modalities)

    def _kept(self, part: str, positions: Positions, case: Case, noise: Noise) -> TokenSequence | None:
        """What is kept of the samples at ``positions``, where that is all of them."""
        if not self._has(part, positions, case, noise):
            return None
        kept = self._table(part, case, noise).take(self._rows(part, case, positions))
        tokens = kept.tokens_BLD.to(self._device)
        return replace(
            kept,
            tokens_BLD=tokens.expand(len(positions), -1, -1),
            mask_BL=None if kept.mask_BL is None else kept.mask_BL.to(self._device).expand(len(positions), -1),
            marked_B=None if kept.marked_B is None else kept.marked_B.to(self._device).expand(len(positions)),
        )

    def _parts(self, case: Case) -> list[str]:
        """What is kept of samples in ``case``: here, of the streams that run."""
        backbone = self.classifier.backbone
        needed = backbone.modalities_to_run(self.classifier.known_missing((case.name,)))
        return [stream for stream in self.depths if set(backbone.input_modalities(stream)) <= set(needed)]

    def _reads(self, part: str) -> tuple[str, ...]:
        return self.classifier.backbone.input_modalities(part)

    def _shared(self, part: str, case: Case) -> bool:
        """Whether a part is the same for every sample: it reads nothing but fills."""
        return all(case.is_missing(modality) for modality in self._reads(part))

    def _rows(self, part: str, case: Case, positions: Positions) -> Positions:
        """Under which positions the rows of samples lie."""
        return np.asarray([SHARED]) if len(positions) and self._shared(part, case) else positions

    def _key(self, part: str, case: Case, noise: Noise | None) -> _Key:
        """What decides a row, beside the sample: cases that differ in what a part does not read are one."""
        reads = self._reads(part)
        degraded = any(modality in case.degraded for modality in reads)
        return part, tuple(input_key(modality, case) for modality in reads), noise if degraded else None

    def _table(self, part: str, case: Case, noise: Noise | None) -> RowTable:
        """The table of a part, made where there is none yet."""
        key = self._key(part, case, noise)
        if key not in self._tables:
            _, seen, drawn = key
            what = {"part": part, "depth": self.depths.get(part), "reads": self._reads(part), "seen": seen}
            under = {"noise": plain(drawn)} if drawn else {}
            name = fingerprint_settings({**self._identity, **plain(what), **under})
            self._tables[key] = RowTable(name, self._folder, self._memory)
        return self._tables[key]


class FeatureSource(FrozenSource):
    """The same where nothing but the head trains: the features themselves are kept, for every head at once."""

    def features(self, positions: Positions, case: Case, noise: Noise) -> Features:
        """See :meth:`LiveSource.features`."""
        kept = self._kept(FEATURES, positions, case, noise)
        if kept is None:
            return LiveSource.features(self, positions, case, noise)
        pooling = self.classifier.pooling
        names = [POOLED, *case.present]
        sizes = [pooling.pooled_size, *(pooling.modality_sizes[m] for m in case.present)]
        found = dict(zip(names, torch.split(kept.tokens_BLD[:, 0], sizes, dim=-1), strict=True))
        return Features(found.pop(POOLED), found)

    def _compute(self, part: str, inputs: Mapping[str, Tensor], case: Case) -> TokenSequence:
        told = self.classifier.told(case.name, SITUATION)
        classifier = self.classifier
        streams = classifier.backbone(inputs, classifier.method.source(told), classifier.known_missing(told))
        by_modality = classifier.pooling.by_modality(streams)
        pooled_BD = classifier.pooling.pooled(streams)
        features_BD = torch.cat([pooled_BD.float(), *(by_modality[m].float() for m in case.present)], dim=-1)
        return TokenSequence(features_BD[:, None], None, ((FEATURES, 1),))

    def _parts(self, case: Case) -> list[str]:
        del case
        return [FEATURES]

    def _reads(self, part: str) -> tuple[str, ...]:
        del part
        return self.classifier.modalities


def source_of(
    classifier: Classifier,
    encoded: EncodedSplit,
    cache: Cache,
    scratch: Path,
    identity: Mapping[str, str],
    memory: MemoryBudget | None = None,
    *,
    augmented: bool = False,
) -> LiveSource:
    """The source of features that keeps the most. Arguments: :class:`LiveSource` and :class:`FrozenSource`.

    Without ``memory`` it is the only source and has all that ``cache`` allows.
    """
    if not cache.on or augmented or not frozen_depths(classifier):
        return LiveSource(classifier, encoded, augmented)
    kind = FeatureSource if only_head_trains(classifier) else FrozenSource
    return kind(classifier, encoded, cache, scratch, identity, memory_for(cache) if memory is None else memory)


def memory_for(cache: Cache) -> MemoryBudget:
    """What all sources of one training may keep in memory, together; nothing where a folder keeps it."""
    if cache.folder is not None:
        return MemoryBudget(0)
    if cache.memory is not None:
        return MemoryBudget(cache.memory)
    free = free_memory()
    return MemoryBudget((MEMORY_IF_UNKNOWN if free is None else free) // 4)


def frozen_depths(classifier: Classifier) -> dict[str, int]:
    """Stream that begins with inputs → how many of its layers give the same in every step, where there are any."""
    backbone, method = classifier.backbone, classifier.method
    if method.trains_backbone or backbone.settings.dropout:
        return {}
    depths = {}
    for stream in backbone.streams:
        layers, changed = len(backbone.layers(stream)), method.first_changed(stream)
        if backbone.input_modalities(stream):
            depths[stream] = layers if changed is None else min(changed, layers)
    return {stream: depth for stream, depth in depths.items() if depth}


def only_head_trains(classifier: Classifier) -> bool:
    """Whether the features themselves are the same in every step."""
    backbone, method = classifier.backbone, classifier.method
    changed = [method.first_changed(stream) for stream in (*backbone.streams, *backbone.fusion_points)]
    frozen = not any(parameter.requires_grad for parameter in classifier.pooling.parameters())
    return frozen and not method.trains_backbone and all(layer is None for layer in changed)


def _within(positions: Positions, start: int) -> Positions:
    return positions[(positions >= start) & (positions < start + STRETCH)]
