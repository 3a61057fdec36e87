"""What steps and validation take of a split: features of samples in a case, with what is frozen computed once.

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

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmrobust.backbones.base import Begun, Features
from mmrobust.backbones.sequence import TokenSequence
from mmrobust.cases import Case
from mmrobust.classifier import Classifier
from mmrobust.configuration import plain
from mmrobust.data.batches import EncodedSplit, input_key
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError, unknown_name
from mmrobust.fingerprints import fingerprint_settings
from mmrobust.prediction.buckets import buckets
from mmrobust.progress import Advance
from mmrobust.scenarios import SITUATION
from mmrobust.training.augmentation import augment
from mmrobust.training.rows import SHARED, MemoryBudget, Positions, RowTable

FILL_BATCH = 64
FILL_STRETCH = 256
"""Samples that are decoded at a time, for all their cases."""
FEATURES, POOLED = "features", "pooled"
MEMORY_IF_UNKNOWN = 2**30

Wanted = tuple[Case, "Noise | None", Positions]
"""Samples that will be asked for, in a case under a noise; ``None``: the noise is not known beforehand."""
_Key = tuple[str, tuple[Hashable, ...], "Noise | None"]
"""Part, what decides the inputs that it reads (:func:`input_key`), and their noise."""


@dataclass(frozen=True)
class Cache:
    """Whether and where what is frozen is kept."""

    on: bool = True
    folder: Path | None = None
    """Where it is kept for later trainings; ``None``: for this training only, in memory as far as it goes."""
    memory: int | None = None
    """Bytes of memory at most; the rest lies in files. ``None``: a quarter of what is free."""


def parse_cache(text: str, gigabytes: float | None = None) -> Cache:
    """The cache of ``--cache``: ``auto``, ``off``, or a folder that keeps it.

    Raises:
        UsageError: a word that is neither, nor a folder: one that is not there yet is written with a ``/``.
    """
    if gigabytes is not None and gigabytes < 0:
        raise UsageError(f"--cache-memory {gigabytes:g}: give gigabytes, 0 or more")
    memory = None if gigabytes is None else int(gigabytes * 2**30)
    if text in ("auto", "off"):
        return Cache(text == "auto", memory=memory)
    if "/" not in text and not Path(text).is_dir():
        raise unknown_name("cache", text, ("auto", "off", "FOLDER/"))
    return Cache(folder=Path(text), memory=memory)


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

    def batches(self, positions: Positions, size: int) -> Iterator[Positions]:
        """``positions`` in batches for evaluation, samples of like length together."""
        for start in range(0, len(positions), FILL_STRETCH):
            stretch = positions[start : start + FILL_STRETCH]
            yield from (stretch[rows] for rows in buckets(self.encoded.lengths(stretch), size))

    def features(self, positions: Positions, case: Case, noise: Noise) -> Features:
        """Features of the samples at ``positions`` in ``case``, as the head takes them."""
        return self._features(self._inputs(positions, case, noise), case)

    def _features(self, inputs: Mapping[str, Tensor], case: Case, begun: Mapping[str, Begun] | None = None) -> Features:
        with self.classifier.autocast():
            return self.classifier.features(inputs, self.classifier.told(case.name, SITUATION), begun)

    def _inputs(self, positions: Positions, case: Case, noise: Noise | None) -> dict[str, Tensor]:
        """The backbone's inputs, where the classifier is."""
        samples = self.encoded.samples(positions, case, noise)
        if self._augmented:
            samples = [augment(sample) for sample in samples]
        return {name: tensor.to(self._device) for name, tensor in self.encoded.processor.collate(samples).items()}

    @property
    def _device(self) -> torch.device:
        return next(self.classifier.parameters()).device


class FrozenSource(LiveSource):
    """The same, with what is frozen kept: streams up to the first layer that changes.

    Args:
        classifier: whose features.
        encoded: the split.
        cache: where to keep them.
        scratch: a folder for what goes beyond memory, where ``cache`` names none.
        identity: what else decides a value: fingerprints of the backbone and the data.
    """

    def __init__(
        self,
        classifier: Classifier,
        encoded: EncodedSplit,
        cache: Cache,
        scratch: Path,
        identity: Mapping[str, str],
    ) -> None:
        super().__init__(classifier, encoded)
        self.depths = frozen_depths(classifier)
        self._identity = {
            **identity,
            "split": encoded.split.name,
            "fill": classifier.fill,
            "dtype": classifier.dtype,
            "settings": repr(classifier.backbone.settings),
        }
        self._folder, self._lasting = cache.folder or scratch, cache.folder is not None
        free = free_memory() // 4 if cache.memory is None else cache.memory
        self._memory = MemoryBudget(0 if self._lasting else free)
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
        for start in range(0, len(self.encoded.split), FILL_STRETCH):
            for case, noise, positions in asked:
                within = positions[(positions >= start) & (positions < start + FILL_STRETCH)]
                for part in self._parts(case):
                    if noise is None and any(modality in case.degraded for modality in self._reads(part)):
                        continue
                    table, rows = self._table(part, case, noise), self._rows(part, case, within)
                    if absent := [int(row) for row in table.absent(rows)]:
                        self._fill(table, part, case, noise, within[:1] if absent == [SHARED] else np.asarray(absent))
                advance(len(within))
            # Each sample is asked for in one stretch only, and the training will not ask for it again.
            self.encoded.forget()
        for table in self._tables.values():
            table.finish(self._lasting)
        self.classifier.train(training)

    @torch.no_grad()
    def _fill(self, table: RowTable, part: str, case: Case, noise: Noise | None, positions: Positions) -> None:
        for batch in LiveSource.batches(self, positions, FILL_BATCH):
            with self.classifier.autocast():
                sequence = self._compute(part, self._inputs(batch, case, noise), case)
            table.add([SHARED] if self._shared(part, case) else batch.tolist(), sequence)

    def _compute(self, part: str, inputs: Mapping[str, Tensor], case: Case) -> TokenSequence:
        """What is kept of a batch."""
        del case
        return self.classifier.backbone.begin(part, inputs, self.depths[part]).sequence

    def batches(self, positions: Positions, size: int) -> Iterator[Positions]:
        """See :meth:`LiveSource.batches`; nothing is decoded to learn its length."""
        yield from (positions[start : start + size] for start in range(0, len(positions), size))

    def features(self, positions: Positions, case: Case, noise: Noise) -> Features:
        """See :meth:`LiveSource.features`."""
        begun = {}
        for stream in self._parts(case):
            sequence = self._kept(stream, positions, case, noise)
            if sequence is not None:
                begun[stream] = Begun(sequence, self.depths[stream])
        backbone, missing = self.classifier.backbone, self.classifier.known_missing((case.name,))
        read = {modality for stream in begun for modality in backbone.reads(stream)}
        return self._features(
            {} if read >= set(backbone.needed(missing)) else self._inputs(positions, case, noise), case, begun
        )

    def _kept(self, part: str, positions: Positions, case: Case, noise: Noise) -> TokenSequence | None:
        """What is kept of the samples at ``positions``, where that is all of them."""
        table = self._tables.get(self._key(part, case, noise))
        rows = self._rows(part, case, positions)
        if table is None or len(table.absent(rows)):
            return None
        kept = table.take(rows)
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
        needed = backbone.needed(self.classifier.known_missing((case.name,)))
        return [stream for stream in self.depths if set(backbone.reads(stream)) <= set(needed)]

    def _reads(self, part: str) -> tuple[str, ...]:
        return self.classifier.backbone.reads(part)

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
        sizes = [pooling.pooled_size, *(pooling.part_sizes[m] for m in case.present)]
        found = dict(zip(names, torch.split(kept.tokens_BLD[:, 0], sizes, dim=-1), strict=True))
        return Features(found.pop(POOLED), found)

    def _compute(self, part: str, inputs: Mapping[str, Tensor], case: Case) -> TokenSequence:
        told = self.classifier.told(case.name, SITUATION)
        classifier = self.classifier
        streams = classifier.backbone(inputs, classifier.method.source(told), classifier.known_missing(told))
        parts = classifier.pooling.parts(streams)
        pooled_BD = classifier.pooling.pooled(streams)
        features_BD = torch.cat([pooled_BD.float(), *(parts[m].float() for m in case.present)], dim=-1)
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
    augmented: bool = False,
) -> LiveSource:
    """The source of features that keeps the most. Arguments: :class:`LiveSource` and :class:`FrozenSource`."""
    if not cache.on or augmented or not frozen_depths(classifier):
        return LiveSource(classifier, encoded, augmented)
    kind = FeatureSource if only_head_trains(classifier) else FrozenSource
    return kind(classifier, encoded, cache, scratch, identity)


def frozen_depths(classifier: Classifier) -> dict[str, int]:
    """Stream that begins with inputs → how many of its layers give the same in every step, where there are any."""
    backbone, method = classifier.backbone, classifier.method
    if method.trains_backbone or backbone.settings.dropout:
        return {}
    depths = {}
    for stream in backbone.streams:
        layers, changed = len(backbone.layers(stream)), method.first_changed(stream)
        if backbone.reads(stream):
            depths[stream] = layers if changed is None else min(changed, layers)
    return {stream: depth for stream, depth in depths.items() if depth}


def only_head_trains(classifier: Classifier) -> bool:
    """Whether the features themselves are the same in every step."""
    backbone, method = classifier.backbone, classifier.method
    changed = [method.first_changed(stream) for stream in (*backbone.streams, *backbone.meetings)]
    frozen = not any(parameter.requires_grad for parameter in classifier.pooling.parameters())
    return frozen and not method.trains_backbone and all(layer is None for layer in changed)


def free_memory() -> int:
    """Bytes of memory that are free, as far as the system tells."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 4 * MEMORY_IF_UNKNOWN
