"""Features of a split's samples, with frozen computations done once.

Up to the first layer that a method changes (:meth:`Method.first_changed`), a frozen backbone gives the same output for
a sample in every step. A cache computes that output once and keeps it, in a table for each set of inputs that decides
it:

- where only the head trains: the features, by (sample, case);
- else: each stream that begins with inputs, up to that layer, by (sample, state of the modalities that it reads). Cases
  share the streams of modalities in the same state, and a stream of missing modalities runs once for all samples.

Noise is cached where it is a pure function of the sample and a seed known beforehand. Augmented samples, a frozen
backbone's dropout and methods that change the first layer leave nothing to cache.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmrobust.cases import SITUATION, Case
from mmrobust.configuration import plain
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit, input_key
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import PartialStream
from mmrobust.models.classifier import Classifier
from mmrobust.models.pooling import Features
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.devices import copied
from mmrobust.runtime.machine import MemoryBudget, free_memory
from mmrobust.runtime.progress import Advance
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.training.feature_table import FeatureTable
from mmrobust.training.sources import STRETCH, FeatureRequest, LiveSource, Loaded, Part

FILL_BATCH = 64
SHARE_OF_DEVICE = 1 / 4
"""Share of a GPU's free memory that each of the sources of a training may fill with frozen outputs."""
MEMORY_IF_UNKNOWN = 2**32
"""Free memory in bytes, assumed where the system does not report it."""
FEATURES, POOLED = "features", "pooled"

_Key = tuple[str, tuple[Hashable, ...], "Noise | None"]
"""An output, what decides the inputs that it reads (:func:`input_key`), and their noise if they have any."""


@dataclass(frozen=True)
class Cache:
    """Whether and where frozen outputs are cached."""

    on: bool = True
    folder: Path | None = None
    """Where they are kept for later trainings; ``None``: for this training only, in memory as far as it goes."""
    memory: int | None = None
    """Most bytes of memory, for training and validation together (and for each of several processes); the rest goes to
    files. ``None``: a quarter of what is free."""

    def budget(self) -> MemoryBudget:
        """The memory for all sources of one training: none where a folder keeps the outputs."""
        if self.folder is not None:
            return MemoryBudget(0)
        if self.memory is not None:
            return MemoryBudget(self.memory)
        free = free_memory()
        return MemoryBudget((MEMORY_IF_UNKNOWN if free is None else free) // 4)


def parse_cache(text: str, gigabytes: float | None = None) -> Cache:
    """The cache of ``--cache`` (``auto``, ``off``, or a folder that keeps it) and ``--cache-memory``.

    Raises:
        UsageError: neither of the words, nor a folder (a new one is written with a ``/``); or a negative size.
    """
    if gigabytes is not None and gigabytes < 0:
        raise UsageError(f"--cache-memory {gigabytes:g}: give gigabytes, 0 or more")
    memory = None if gigabytes is None else int(gigabytes * 2**30)
    if text in ("auto", "off"):
        return Cache(text == "auto", memory=memory)
    if "/" not in text and not Path(text).is_dir():
        raise unknown_name("cache", text, ("auto", "off", "FOLDER/"))
    return Cache(folder=Path(text), memory=memory)


class StreamCache(LiveSource):
    """A source that caches frozen streams, up to the first layer that changes.

    Args:
        cache: where to keep the streams.
        scratch: a folder for what exceeds memory, where ``cache`` names none.
        identity: what decides a value beside the classifier's settings: fingerprints of the backbone and the data.
        memory: shared by the sources of a training: :meth:`Cache.budget`.
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
        self._tables: dict[_Key, FeatureTable] = {}

    @property
    def cached_bytes(self) -> int:
        """Size of all tables, including what earlier trainings wrote."""
        return sum(table.nbytes for table in self._tables.values())

    def prepare(self, requests: Iterable[FeatureRequest], advance: Advance) -> None:
        """See :meth:`LiveSource.prepare`. Batches are always the same, so that a resumed training has the same bits."""
        requests = [request._replace(positions=np.sort(request.positions)) for request in requests]
        training = self.classifier.training
        self.classifier.train(False)

        def unread(start: int) -> Iterator[tuple[str, Positions]]:
            for case, noise, positions in requests:
                for _, table in self._cacheable(case, noise):
                    yield case.name, table.absent(_within(positions, start))

        # Each sample is read for one stretch only, and the training will not read it again: it need not stay in memory.
        starts = range(0, len(self.encoded.split), STRETCH)
        for start in self.encoded.prefetch(starts, unread, cache=False, ahead=self.ahead):
            for case, noise, positions in requests:
                stretch = _within(positions, start)
                for output, table in self._cacheable(case, noise):
                    self._fill(output, table, case, noise, stretch)
                advance(len(stretch))
        self.encoded.release()
        room = device_room(self.device)
        for table in self._tables.values():
            table.finish(self._lasting)
            table.move(self.device, self._held_as, room)
        self.classifier.train(training)

    def _read(self, batches: Iterable[Sequence[Part]], noise: Noise) -> Generator[Sequence[Part], None, None]:
        """Samples whose outputs are cached are not read."""

        def unread(batch: Sequence[Part]) -> Iterator[Part]:
            return (part for part in batch if self._needs_inputs(self._case(part[0]), part[1], noise))

        return self.encoded.prefetch(batches, unread, ahead=self.ahead)

    def batches(self, case: Case, positions: Positions, size: int) -> Iterator[Positions]:
        """See :meth:`LiveSource.batches`; samples whose outputs are cached are not read to learn their length."""
        if self._needs_inputs(case, positions, self.encoded.noise):
            yield from super().batches(case, positions, size)
            return
        yield from (positions[start : start + size] for start in range(0, len(positions), size))

    def _load(self, positions: Positions, case: Case, noise: Noise) -> Loaded:
        begun = {}
        for stream in self._outputs(case):
            if (sequence := self._cached(stream, positions, case, noise)) is not None:
                begun[stream] = PartialStream(sequence, self.depths.get(stream, 0))
        return Loaded({} if self._cover(begun, case) else self._inputs(positions, case, noise), begun)

    # What is cached: here, streams. FeatureCache replaces these two.

    def _outputs(self, case: Case) -> dict[str, tuple[str, ...]]:
        """The cached outputs of samples in ``case`` (of the streams that run) → the modalities that each reads."""
        needed = self._needed(case)
        reads = {stream: self.classifier.backbone.input_modalities(stream) for stream in self.depths}
        return {stream: inputs for stream, inputs in reads.items() if needed.issuperset(inputs)}

    def _compute(self, output: str, inputs: Mapping[str, Tensor], case: Case) -> TokenSequence:
        """An output of a batch."""
        del case
        return self.classifier.backbone.run_first_layers(output, inputs, self.depths[output]).sequence

    def _needs_inputs(self, case: Case, positions: Positions, noise: Noise) -> bool:
        """Whether :meth:`features` reads the inputs of any of these samples."""
        return not self._cover([each for each in self._outputs(case) if self._has(each, positions, case, noise)], case)

    def _cover(self, outputs: Iterable[str], case: Case) -> bool:
        """Whether ``outputs`` read all inputs that are needed in ``case``."""
        reads = self._outputs(case)
        return self._needed(case) <= {modality for output in outputs for modality in reads[output]}

    def _needed(self, case: Case) -> set[str]:
        """The modalities whose inputs the backbone needs in ``case``."""
        return set(self.classifier.backbone.modalities_to_run(self.classifier.known_missing((case.name,))))

    def _has(self, output: str, positions: Positions, case: Case, noise: Noise) -> bool:
        table = self._tables.get(self._key(output, case, noise))
        return table is not None and not len(table.absent(positions))

    def _cacheable(self, case: Case, noise: Noise | None) -> Iterator[tuple[str, FeatureTable]]:
        """The outputs of samples in ``case`` that do not depend on an unknown noise, and their tables."""
        for output, reads in self._outputs(case).items():
            if noise is not None or not set(reads) & set(case.degraded):
                yield output, self._table(output, case, noise)

    @torch.no_grad()
    def _fill(self, output: str, table: FeatureTable, case: Case, noise: Noise | None, positions: Positions) -> None:
        for batch in self._by_length(case, table.absent(positions), FILL_BATCH):
            with self.classifier.autocast():
                table.add(batch.tolist(), self._compute(output, self._inputs(batch, case, noise), case))

    def _cached(self, output: str, positions: Positions, case: Case, noise: Noise) -> TokenSequence | None:
        """An output of the samples at ``positions``, where it is cached for all of them."""
        if not self._has(output, positions, case, noise):
            return None
        found, device, batch = self._table(output, case, noise).read(positions), self.device, len(positions)
        tokens_BLD = found.tokens_BLD
        if self.ahead:  # rounded as in the device's memory, so that its room decides no result
            tokens_BLD = copied(tokens_BLD.to(self._held_as), device).float()
        return replace(
            found,
            tokens_BLD=tokens_BLD.expand(batch, -1, -1),
            mask_BL=None if found.mask_BL is None else copied(found.mask_BL, device).expand(batch, -1),
            marked_B=None if found.marked_B is None else copied(found.marked_B, device).expand(batch),
            glance={modality: copied(glance, device).expand(batch, -1) for modality, glance in found.glance.items()},
        )

    @property
    def _held_as(self) -> torch.dtype:
        """The number format of what a GPU holds or is sent."""
        dtype = getattr(torch, self.classifier.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def _key(self, output: str, case: Case, noise: Noise | None) -> _Key:
        """What decides an output, beside the sample. Cases that differ only in what it does not read share a table."""
        reads = self._outputs(case)[output]
        degraded = set(reads) & set(case.degraded)
        return output, tuple(input_key(modality, case) for modality in reads), noise if degraded else None

    def _table(self, output: str, case: Case, noise: Noise | None) -> FeatureTable:
        """The table of an output, created on first use."""
        key = self._key(output, case, noise)
        if key not in self._tables:
            (_, states, drawn), reads = key, self._outputs(case)[output]
            facts = {"part": output, "depth": self.depths.get(output), "reads": reads, "seen": states}
            under = {"noise": plain(drawn)} if drawn else {}
            name = fingerprint_settings({**self._identity, **plain(facts), **under})
            only_fills = all(case.is_missing(modality) for modality in reads)
            self._tables[key] = FeatureTable(name, self._folder, self._memory, shared=only_fills)
        return self._tables[key]


class FeatureCache(StreamCache):
    """A source that caches the features themselves, for any head: only the head trains."""

    def _features(self, loaded: Loaded, case: Case) -> Features:
        if FEATURES not in loaded.begun:
            return super()._features(loaded, case)
        found_BD, pooling = loaded.begun[FEATURES].sequence.tokens_BLD[:, 0], self.classifier.pooling
        sizes = {POOLED: pooling.pooled_size} | {m: pooling.modality_sizes[m] for m in case.present}
        parts = dict(zip(sizes, torch.split(found_BD, list(sizes.values()), dim=-1), strict=True))
        return Features(parts.pop(POOLED), parts)

    def _outputs(self, case: Case) -> dict[str, tuple[str, ...]]:
        del case
        return {FEATURES: self.classifier.modalities}

    def _compute(self, output: str, inputs: Mapping[str, Tensor], case: Case) -> TokenSequence:
        classifier, told = self.classifier, self.classifier.told(case.name, SITUATION)
        streams = classifier.backbone(inputs, classifier.method.source(told), classifier.known_missing(told))
        parts = classifier.pooling.by_modality_with_glance(streams)
        pooled_BD = classifier.pooling.pooled_with_glance(streams)
        features_BD = torch.cat([pooled_BD.float(), *(parts[m].float() for m in case.present)], dim=-1)
        return TokenSequence(features_BD[:, None], None, ((FEATURES, 1),))


def make_source(
    classifier: Classifier,
    encoded: EncodedSplit,
    cache: Cache,
    scratch: Path,
    identity: Mapping[str, str],
    memory: MemoryBudget | None = None,
    *,
    augmented: bool = False,
) -> LiveSource:
    """The source that caches the most. Arguments: :class:`LiveSource` and :class:`StreamCache`.

    Without ``memory``, the source takes all that ``cache`` allows.
    """
    if not cache.on or augmented or not frozen_depths(classifier):
        return LiveSource(classifier, encoded, augmented)
    kind = FeatureCache if only_head_trains(classifier) else StreamCache
    return kind(classifier, encoded, cache, scratch, identity, cache.budget() if memory is None else memory)


def device_room(device: torch.device) -> MemoryBudget:
    """The memory of a GPU for what is read in every step; none on a CPU, where it is in memory already."""
    if device.type != "cuda":
        return MemoryBudget(0)
    free, _ = torch.cuda.mem_get_info(device)
    return MemoryBudget(int(SHARE_OF_DEVICE * free))


def frozen_depths(classifier: Classifier) -> dict[str, int]:
    """Stream that begins with inputs → how many of its first layers are frozen in every step, where any are.

    0 where only what a frozen encoder gives, before the first layer, is the same in every step.
    """
    backbone, method = classifier.backbone, classifier.method
    once, changes = backbone.encoded_once, method.trains_backbone or backbone.settings.dropout
    depths = {}
    for stream in backbone.streams:
        layers, changed = len(backbone.layers(stream)), method.first_changed(stream)
        if backbone.input_modalities(stream):
            depths[stream] = 0 if changes else layers if changed is None else min(changed, layers)
    return {stream: depth for stream, depth in depths.items() if depth or stream in once}


def only_head_trains(classifier: Classifier) -> bool:
    """Whether the features are the same in every step."""
    backbone, method = classifier.backbone, classifier.method
    changed = [method.first_changed(stream) for stream in (*backbone.streams, *backbone.fusion_points)]
    frozen = not any(parameter.requires_grad for parameter in classifier.pooling.parameters())
    return frozen and not method.trains_backbone and all(layer is None for layer in changed)


def _within(positions: Positions, start: int) -> Positions:
    """Those of ``positions`` that lie in the stretch of samples from ``start``."""
    return positions[(positions >= start) & (positions < start + STRETCH)]
