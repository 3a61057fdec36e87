"""Memory that a process shares with its workers, in slabs: a large result is written once, and read where it lies.

What is read keeps its slab. Only once nothing refers to any part of it is the slab given to another task: nothing is
overwritten that is still used, and the pages of a slab are new to a process once, not with every result.
"""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from collections.abc import Iterable, Sequence
from multiprocessing import reduction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SLABS, SLAB_BYTES = 128, 32 * 2**20
"""More than there are results at a time, and larger than nearly all. What of it is never written to takes no memory."""
ALIGNMENT = 64

Span = tuple[int, int]
"""Where something begins and ends in the shared memory."""


class Slab(NamedTuple):
    """Room for one result."""

    span: Span
    bytes_: npt.NDArray[np.uint8]

    def read(self, pickled: bytes, written: Sequence[Span]) -> Any:
        """The result that :meth:`Slabs.write` was given; its arrays lie in the slab."""
        start, _ = self.span
        arrays = [self.bytes_[begin - start : end - start] for begin, end in written]
        return pickle.loads(pickled, buffers=arrays)  # noqa: S301  # a worker of this process's own sent it


class Slabs:
    """The slabs of a process and its workers, each of which is sent them when it is started.

    Their memory has no name: nothing is left of it, however the processes end, and the size of ``/dev/shm`` does not
    matter. Without a ``descriptor`` of such memory, slabs have no room, and results are pickled as a whole.
    """

    def __init__(self, descriptor: int | None, free: Iterable[int] = ()) -> None:
        self._descriptor, self._free = descriptor, list(free)
        self._memory = None if descriptor is None else mmap.mmap(descriptor, 0)

    @classmethod
    def new(cls) -> Slabs:
        """Slabs that are all free."""
        size = SLABS * SLAB_BYTES
        try:
            descriptor = os.memfd_create("mmrobust")
        except (AttributeError, OSError):  # only Linux has it
            return cls(None)
        try:
            os.ftruncate(descriptor, size)
            return cls(descriptor, range(0, size, SLAB_BYTES))
        except OSError:  # a limit is too low even for what is never used
            os.close(descriptor)
            return cls(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Slabs, (None,)) if self._descriptor is None else (_received, (reduction.DupFd(self._descriptor),))

    def take(self) -> Slab:
        """A slab for one result; one without room if all are in use."""
        if self._memory is None or not self._free:
            return Slab((0, 0), np.empty(0, np.uint8))
        start = self._free.pop()  # of the one that was used last, so that few are ever written to
        slab = Slab((start, start + SLAB_BYTES), np.frombuffer(self._memory, np.uint8, SLAB_BYTES, start))
        weakref.finalize(slab.bytes_, self._free.append, start)  # whatever is read refers to these bytes
        return slab

    def write(self, slab: Span, result: object) -> tuple[bytes, list[Span]]:
        """Pickle ``result``, but write its arrays into the slab while there is room; returns where they lie as well."""
        memory, (free, end) = self._memory, slab
        written: list[Span] = []

        def stays(array: pickle.PickleBuffer) -> bool:
            """Whether there is no room for the array."""
            nonlocal free
            with array.raw() as raw:
                span = free, free + raw.nbytes
                if memory is None or span[1] > end:
                    return True
                memory[slice(*span)] = raw
            written.append(span)
            free = -(-span[1] // ALIGNMENT) * ALIGNMENT
            return False

        return pickle.dumps(result, 5, buffer_callback=stays), written

    def close(self) -> None:
        """Give the memory back, as soon as nothing refers to what was read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._memory = None


def _received(descriptor: Any) -> Slabs:
    return Slabs(descriptor.detach())
