"""The samples of a split as a backbone's input tensors, with fills in place of what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions, Split
from mmrobust.data.decoding import SplitDegrader, decode
from mmrobust.data.input_store import InputStore
from mmrobust.data.loading import Encoded, Loader, Request
from mmrobust.degradations import Noise, check_recordings
from mmrobust.runtime.devices import copied
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.runtime.threads import in_background

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mmrobust.data.processor import Processor

T = TypeVar("T")
Cases = Iterable[tuple[str, Iterable[int]]]
"""Pairs of the name of a case and the positions of its samples."""

CACHE_BYTES = 96 * 2**20
"""Default size of the cache of encoded inputs. A small data set fits as a whole, and is decoded once."""
PREFETCH_BYTES = 16 * 2**20
"""Encoded inputs that are loaded at a time, where no single step needs more."""


class EncodedSplit:
    """The samples of a split as a backbone's tensors, each encoded when it is asked for, or before (:meth:`prefetch`).

    Processor and modalities are the backbone's; ``workers`` is the number of processes that decode (0: this one does).
    The ``memory`` of the cache may be shared with other splits. What is in the cache stays there: replacing it by the
    latest inputs would not help in an order that is drawn anew for every epoch.
    """

    def __init__(
        self,
        split: Split,
        processor: Processor,
        modalities: Sequence[str],
        fill: str,
        noise: Noise | None = None,
        *,
        workers: int = 0,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.split, self.processor, self.modalities = split, processor, tuple(modalities)
        self.fills = {modality: processor.fill(modality, fill) for modality in self.modalities}
        self.noise = Noise() if noise is None else noise
        self._degrader = SplitDegrader(split)
        self._loader = Loader(split, processor, workers)
        place = split.dataset.cache
        self._store = None if place is None else InputStore(place, split, processor, self.modalities)
        self._memory = MemoryBudget(CACHE_BYTES) if memory is None else memory
        self._cache: Encoded = {}
        self._prefetched: Encoded = {}

    def samples(self, positions: Iterable[int], case: Case, noise: Noise | None = None) -> list[dict[str, Tensor]]:
        """The samples at ``positions`` in ``case``: modality → tensor, filled where missing, noisy where degraded.

        A modality that the case calls missing is neither read nor decoded. ``noise`` replaces the split's own.

        Raises:
            DataError: a sample cannot be decoded; names it.
            UsageError: the case calls a modality degraded for which there is no such noise.
        """
        columns = {m: self.inputs(positions, m, case, noise) for m in self.modalities}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def inputs(self, positions: Iterable[int], modality: str, case: Case, noise: Noise | None = None) -> list[Tensor]:
        """One modality of the samples, as in :meth:`samples`."""
        return [self.processor.unpack(modality, t) for t in self.packed(positions, modality, case, noise)]

    def batch(
        self, positions: Iterable[int], case: Case, device: torch.device, noise: Noise | None = None
    ) -> dict[str, Tensor]:
        """The backbone's inputs for the samples, as in :meth:`samples`, unpacked on ``device``."""
        batch = {}
        for modality in self.modalities:
            packed = [{modality: tensor} for tensor in self.packed(positions, modality, case, noise)]
            for name, tensor in self.processor.collate(packed, pinned=device.type == "cuda").items():
                batch[name] = self.processor.unpack(modality, copied(tensor, device))
        return batch

    def packed(self, positions: Iterable[int], modality: str, case: Case, noise: Noise | None = None) -> list[Tensor]:
        """One modality of the samples; what is neither missing nor degraded is packed (:meth:`Processor.pack`)."""
        return [self._in_case(int(position), modality, case, noise or self.noise) for position in positions]

    def lengths(self, request: Request) -> list[tuple[int, ...]]:
        """The length (:meth:`Processor.length`) of each sample of ``request``, with fills for other modalities."""
        return [
            self.processor.length({m: self._encoded(p, m) if m in some else self.fills[m] for m in self.modalities})
            for p, some in request.items()
        ]

    def request(self, cases: Cases) -> Request:
        """The modalities to read for ``cases``."""
        request: dict[int, tuple[str, ...]] = {}
        for name, positions in cases:
            present = Case.parse(name, self.modalities).present
            for position in positions:
                _add(request, int(position), present)
        return request

    def prefetch(
        self, steps: Iterable[T], cases_of: Callable[[T], Cases], *, cache: bool = True, ahead: bool = False
    ) -> Generator[T, None, None]:
        """Yield each of the ``steps`` once its samples are encoded.

        They stay encoded until the step is over. Several small steps are loaded together: a sample that they share is
        decoded once, and each part of the file is read once for many of them. With ``cache``, inputs go into the cache,
        as far as its budget allows. With ``ahead``, a thread loads what follows while a step is worked on.
        """
        waiting: deque[list[T]] = deque()

        def requests() -> Iterator[Request]:
            for together, request in self._windows(steps, cases_of):
                waiting.append(together)
                yield self._uncached(request)

        try:
            with in_background(self._load(requests(), self._loader), ahead) as loaded:
                for encoded in loaded:
                    self._prefetched = encoded
                    for key, tensor in encoded.items() if cache else ():
                        self._add_to_cache(key, tensor)
                    yield from waiting.popleft()
                    self._prefetched = {}
        finally:
            self._prefetched = {}

    def release(self) -> None:
        """Empty the cache and end the workers, when the split will not be needed for a while."""
        self._memory.give_back(sum(tensor.nbytes for tensor in self._cache.values()))
        self._cache.clear()
        self._loader.close()
        self.split.release()

    def _load(self, requests: Iterable[Request], loader: Loader) -> Iterator[Encoded]:
        return loader.load(requests) if self._store is None else self._store.load(requests, loader)

    def _windows(self, steps: Iterable[T], cases_of: Callable[[T], Cases]) -> Iterator[tuple[list[T], Request]]:
        """Group consecutive steps that are loaded together, and say what they need."""
        together: list[T] = []
        union: dict[int, tuple[str, ...]] = {}
        size = 0
        for step in steps:
            request = self.request(cases_of(step))
            if together and size + self._size(request) > PREFETCH_BYTES:
                yield together, union
                together, union, size = [], {}, 0
            together.append(step)
            for position, modalities in request.items():
                size += self._size({position: _add(union, position, modalities)})
        if together:
            yield together, union

    def _size(self, request: Request) -> int:
        """Estimated bytes of the encoded inputs: few samples are larger than the fills."""
        return sum(self.fills[modality].nbytes for modalities in request.values() for modality in modalities)

    def _uncached(self, request: Request) -> Request:
        def missing(position: int, some: Collection[str]) -> list[str]:
            return [m for m in self.modalities if m in some and (position, m) not in self._cache]

        return {position: rest for position, some in request.items() if (rest := missing(position, some))}

    def _add_to_cache(self, key: tuple[int, str], tensor: Tensor) -> None:
        if key not in self._cache and self._memory.take(tensor.nbytes):
            self._cache[key] = tensor.clone()  # what the others of a request lie in does not stay for its sake

    def _in_case(self, position: int, modality: str, case: Case, noise: Noise) -> Tensor:
        if case.is_missing(modality):
            return self.fills[modality]
        if modality not in case.degraded:
            return self._encoded(position, modality)
        # Only the clean input is cached: the cache would hold a noisy one once for each case and seed.
        degradation = self._degrader.degradation(case, modality, self.split.ids[position], noise)
        if degradation.encoded:
            check_recordings(case, self.processor.recordings, "the encoder")
            return degradation.on_tensor(self.processor.unpack(modality, self._encoded(position, modality)))
        medium = decode(self.split.read([position])[0], modality)
        return self.processor.encode(modality, degradation.on_medium(medium))

    def _encoded(self, position: int, modality: str) -> Tensor:
        key = (position, modality)
        for place in (self._prefetched, self._cache):
            if key in place:
                return place[key]
        (encoded,) = self._load([{position: (modality,)}], Loader(self.split, self.processor))
        self._add_to_cache(key, encoded[key])
        return encoded[key]


def _add(request: dict[int, tuple[str, ...]], position: int, modalities: Iterable[str]) -> tuple[str, ...]:
    """Add ``modalities`` of a sample to ``request``; returns those that were not in it yet."""
    known = request.get(position, ())
    new = tuple(m for m in modalities if m not in known)
    request[position] = known + new
    return new


def input_key(modality: str, case: Case) -> Hashable:
    """What, besides the sample, decides the input of a modality in ``case``: equal keys mean equal tensors."""
    if case.is_missing(modality):
        return "missing"
    if modality not in case.degraded:
        return "present"
    # A profile's noise is milder where several modalities are degraded: then only the same case has the same noise.
    corruption = case.corruption(modality)
    return case.name if corruption[0] is None else corruption


def group_by_length(lengths: Sequence[Sequence[int]], batch_size: int) -> list[Positions]:
    """Group samples into batches of similar length, so that little is padded; returns the indices of each batch.

    The samples are repeatedly split in two along whichever of their lengths (in tokens, the same number for each)
    varies most, until each group is a batch, of ``batch_size`` or, for one, less. So both the texts and the images of a
    batch are of similar size, whichever vary more.
    """
    lengths_NS = np.asarray(lengths, dtype=np.int64).reshape(len(lengths), len(lengths[0]) if len(lengths) else 0)

    def divide(rows: Positions) -> list[Positions]:
        if len(rows) <= batch_size:
            return [rows] if len(rows) else []
        spreads = np.ptp(lengths_NS[rows], axis=0)
        if spreads.any():
            rows = rows[np.argsort(lengths_NS[rows, spreads.argmax()], kind="stable")]
        half = -(-len(rows) // batch_size) // 2 * batch_size
        return divide(rows[:half]) + divide(rows[half:])

    return divide(np.arange(len(lengths), dtype=np.int64))
