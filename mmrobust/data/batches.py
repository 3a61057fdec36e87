"""The samples of a split as a backbone takes them: encoded, with fills in place of what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from mmrobust.cases import Case
from mmrobust.data.dataset import Split
from mmrobust.data.loading import Encoded, Loader, Wanted, decode
from mmrobust.data.recordings import SplitRecordings
from mmrobust.degradations import Noise, degradation_of

if TYPE_CHECKING:
    from torch import Tensor

    from mmrobust.data.processor import Processor


T = TypeVar("T")

KEPT_BYTES = 96 * 2**20
"""How much of what a training reads stays in memory, encoded. Small data sets fit whole and are decoded once."""
HELD_BYTES = 16 * 2**20
"""How much is encoded at a time, where no single step needs more."""


class Room:
    """Memory that several splits share."""

    def __init__(self, size: int = KEPT_BYTES) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes, which is taken then."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


class EncodedSplit:
    """The samples of a split as a backbone's tensors, each encoded when it is asked for, or ahead of that.

    Args:
        split: the samples.
        processor: the backbone's.
        modalities: those that the backbone takes.
        fill: what stands in for a missing image.
        noise: what becomes of a modality that a case calls degraded.
        workers: processes that decode; 0: this one does.
        room: for what stays in memory for the next time. It stays once it is in: where a split does not fit, keeping
            the latest instead would serve nothing in an order that is drawn anew for every epoch.
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
        room: Room | None = None,
    ) -> None:
        self.split, self.processor, self.modalities = split, processor, tuple(modalities)
        self.fills = {modality: processor.fill(modality, fill) for modality in self.modalities}
        self.noise = Noise() if noise is None else noise
        self.recordings = SplitRecordings(split)
        self._loader = Loader(split, processor, workers)
        self._room = Room() if room is None else room
        self._kept: Encoded = {}
        self._held: Encoded = {}

    def samples(self, positions: Iterable[int], case: Case, noise: Noise | None = None) -> list[dict[str, Tensor]]:
        """The samples at ``positions`` in ``case``: modality → tensor, filled where missing, noisy where degraded.

        Nothing is read or decoded of a modality that the case calls missing.

        Args:
            positions: of the samples in the split.
            case: the case they are in.
            noise: in place of the split's own.

        Raises:
            DataError: a sample that cannot be decoded, named.
            UsageError: the case calls a modality degraded for which there is no such noise.
        """
        columns = {m: self.inputs(positions, m, case, noise) for m in self.modalities}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def inputs(self, positions: Iterable[int], modality: str, case: Case, noise: Noise | None = None) -> list[Tensor]:
        """One modality of the samples, as :meth:`samples` gives it."""
        return [self._in_case(int(position), modality, case, noise or self.noise) for position in positions]

    def lengths(self, wanted: Wanted) -> list[tuple[int, ...]]:
        """How long the samples are in which these modalities are looked at: :meth:`Processor.length`."""
        return [
            self.processor.length({m: self._encoded(p, m) if m in some else self.fills[m] for m in self.modalities})
            for p, some in wanted.items()
        ]

    def wanted(self, chosen: Iterable[tuple[str, Iterable[int]]]) -> Wanted:
        """What is looked at of samples in cases: (case, positions) → by position, the modalities that any case has."""
        wanted: dict[int, tuple[str, ...]] = {}
        for name, positions in chosen:
            present = Case.parse(name, self.modalities).present
            for position in positions:
                known = wanted.get(int(position), ())
                wanted[int(position)] = known + tuple(m for m in present if m not in known)
        return wanted

    def ahead(
        self, steps: Iterable[T], chosen: Callable[[T], Iterable[tuple[str, Iterable[int]]]], *, keep: bool = True
    ) -> Iterator[T]:
        """The ``steps``, each when the samples of it are encoded that it has ``chosen``: (case, positions).

        They are held until the step is over. Several small steps are served at once: what they have in common is
        decoded once, and every part of the file is read once for many of them. With ``keep``, what there is room for
        stays for the next time.
        """
        waiting: deque[list[T]] = deque()

        def requests() -> Iterator[Wanted]:
            for together, wanted in self._windows(steps, chosen):
                waiting.append(together)
                yield self._not_kept(wanted)

        try:
            for encoded in self._loader.load(requests()):
                self._held = encoded
                for key, tensor in encoded.items() if keep else ():
                    self._keep(key, tensor)
                yield from waiting.popleft()
                self._held = {}
        finally:
            self._held = {}

    def forget(self) -> None:
        """Drop what is kept in memory, and end the workers: it will not be asked for again soon."""
        self._room.left += sum(tensor.nbytes for tensor in self._kept.values())
        self._kept.clear()
        self._loader.close()
        self.split.forget()

    def _windows(
        self, steps: Iterable[T], chosen: Callable[[T], Iterable[tuple[str, Iterable[int]]]]
    ) -> Iterator[tuple[list[T], Wanted]]:
        """Consecutive steps with all that is wanted for them, as many as are held at a time."""
        together: list[T] = []
        union: dict[int, tuple[str, ...]] = {}
        size = 0
        for step in steps:
            wanted = self.wanted(chosen(step))
            if together and size + self._size(wanted) > HELD_BYTES:
                yield together, union
                together, union, size = [], {}, 0
            together.append(step)
            for position, modalities in wanted.items():
                known = union.get(position, ())
                new = tuple(m for m in modalities if m not in known)
                union[position] = known + new
                size += self._size({position: new})
        if together:
            yield together, union

    def _size(self, wanted: Wanted) -> int:
        """Bytes of what is wanted, encoded; about that: other samples are no larger than fills, but for a few."""
        return sum(self.fills[modality].nbytes for modalities in wanted.values() for modality in modalities)

    def _not_kept(self, wanted: Wanted) -> Wanted:
        rest = {p: [m for m in self.modalities if m in some and (p, m) not in self._kept] for p, some in wanted.items()}
        return {position: modalities for position, modalities in rest.items() if modalities}

    def _keep(self, key: tuple[int, str], tensor: Tensor) -> None:
        if key not in self._kept and self._room.take(tensor.nbytes):
            self._kept[key] = tensor

    def _in_case(self, position: int, modality: str, case: Case, noise: Noise) -> Tensor:
        if case.is_missing(modality):
            return self.fills[modality]
        if modality not in case.degraded:
            return self._encoded(position, modality)
        # Only the clean input is kept: the noisy one would be kept once for each case and seed.
        degradation = degradation_of(case, modality, self.split.ids[position], noise, self.recordings)
        if degradation.encoded:
            return degradation.on_tensor(self._encoded(position, modality))
        medium = decode(self.split.read([position])[0], modality)
        return self.processor.encode(modality, degradation.on_medium(medium))

    def _encoded(self, position: int, modality: str) -> Tensor:
        key = (position, modality)
        for place in (self._held, self._kept):
            if key in place:
                return place[key]
        (encoded,) = Loader(self.split, self.processor).load([{position: (modality,)}])
        self._keep(key, encoded[key])
        return encoded[key]


def input_key(modality: str, case: Case) -> Hashable:
    """What, beside the sample, decides the input of a modality in ``case``: the same key, the same tensor."""
    if case.is_missing(modality):
        return "missing"
    if modality not in case.degraded:
        return "present"
    # A profile's noise is milder where several modalities have some: then only the same case means the same noise.
    corruption = case.corruption(modality)
    return case.name if corruption[0] is None else corruption
