"""Memory that a process shares with its workers, in slabs: a large result is written once and read where it lies.

What is read keeps its slab: only once nothing refers to any part of it is the slab given to another task. So nothing
is overwritten that is still used, and memory is new to a process once, not with every result.
"""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from collections.abc import Sequence
from multiprocessing import reduction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SLABS, SLAB_BYTES = 64, 16 * 2**20
"""Together, the most that results of a pool of workers lie in; of each slab, only what was written to takes memory."""
ALIGNMENT = 64

Span = tuple[int, int]
"""Where bytes begin and end in the shared memory."""


class Slab(NamedTuple):
    """Room for one result."""

    span: Span
    bytes_: npt.NDArray[np.uint8]

    def read(self, pickled: bytes, written: Sequence[Span]) -> Any:
        """The result that :meth:`Slabs.write` wrote; its arrays lie in the slab."""
        start, _ = self.span
        return pickle.loads(pickled, buffers=[self.bytes_[begin - start : end - start] for begin, end in written])


class Slabs:
    """Memory in slabs, of a process and of the workers that get it when they start.

    It has no name: nothing is left of it however the processes end, and the size of ``/dev/shm`` does not matter. Where
    the system has no such memory, slabs have no room, and results lie in the messages as a whole.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor, self._free = descriptor, list[int]()
        if hasattr(os, "memfd_create") and descriptor is None:
            self._descriptor = os.memfd_create("mmrobust")
            os.ftruncate(self._descriptor, SLABS * SLAB_BYTES)
            self._free += reversed(range(SLABS))  # the last that is given back is the next to be taken: few are used
        self._memory = None if self._descriptor is None else mmap.mmap(self._descriptor, SLABS * SLAB_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self._descriptor if self._descriptor is None else reduction.DupFd(self._descriptor),)

    def take(self) -> Slab:
        """A slab for one result, without room if none is left."""
        if not self._free or self._memory is None:
            return Slab((0, 0), np.empty(0, np.uint8))
        start = SLAB_BYTES * (number := self._free.pop())
        slab = Slab((start, start + SLAB_BYTES), np.frombuffer(self._memory, np.uint8, SLAB_BYTES, start))
        weakref.finalize(slab.bytes_, self._free.append, number)  # to which every array that is read refers
        return slab

    def write(self, slab: Span, result: object) -> tuple[bytes, list[Span]]:
        """Pickle ``result``, with as many of its arrays in the slab as there is room for; says where those lie."""
        end, last = slab
        written: list[Span] = []

        def stays(array: pickle.PickleBuffer) -> bool:
            """Whether the array does not fit: it is pickled like the rest."""
            nonlocal end
            raw = array.raw()
            begin = end
            if begin + raw.nbytes >= last:
                return True
            self._memory[begin : begin + raw.nbytes] = raw
            written.append((begin, begin + raw.nbytes))
            end = -(-(begin + raw.nbytes) // ALIGNMENT) * ALIGNMENT
            return False

        return pickle.dumps(result, 5, buffer_callback=stays), written

    def close(self) -> None:
        """Give the memory back, but for what is still read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._memory = self._descriptor = None


def _received(descriptor: Any) -> Slabs:
    return Slabs(descriptor.detach())
