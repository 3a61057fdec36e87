"""Shared memory in slabs: what is read is what was written, and stays so for as long as it is used."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrobust.runtime import slabs as module
from mmrobust.runtime.slabs import Slab, Slabs

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has memory without a name")

RESULT = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.arange(7.0),
    ValueError("its image cannot be processed"),
    np.empty((0, 5), np.float32),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    np.arange(20, dtype=np.float32)[::3],
    np.array(True),
    None,
    (np.linspace(0, 1, 400, dtype=np.float32), 16_000),
]


@pytest.fixture
def slabs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slabs]:
    """Two slabs of a page each."""
    monkeypatch.setattr(module, "SLABS", 2)
    monkeypatch.setattr(module, "SLAB_BYTES", 4096)
    made = Slabs.new()
    yield made
    made.close()


def through(slabs: Slabs, slab: Slab, result: Any) -> Any:
    return slab.read(*slabs.write(slab.span, result))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
    return repr(left) == repr(right)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_read_is_what_was_written_wherever_it_lies(slabs: Slabs, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.arange(4096, dtype=np.uint8)  # a slab holds it alone
    for result in (RESULT, [large], [large, np.ones(3)], [np.ones(4097, np.uint8), *RESULT], [], "text"):
        found = through(slabs, slabs.take(), result)
        assert same(found, result)
        assert all(array.flags.writeable for array in found if isinstance(array, np.ndarray))
    taken = [slabs.take() for _ in range(3)]
    assert [len(slab.bytes_) for slab in taken] == [4096, 4096, 0] and same(through(slabs, taken[2], RESULT), RESULT)
    monkeypatch.delattr(os, "memfd_create")
    none = Slabs.new()
    assert same(through(none, none.take(), RESULT), RESULT)
    none.close()


def test_where_a_limit_forbids_the_memory_there_is_none_and_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", forbidden)
    before = len(list(Path("/proc/self/fd").iterdir()))
    slabs = Slabs.new()
    assert same(through(slabs, slabs.take(), RESULT), RESULT)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_slab_is_taken_again_only_when_nothing_of_it_is_used(slabs: Slabs) -> None:
    part = through(slabs, slabs.take(), [np.arange(4.0), np.ones(9)])[0][1:].view(np.int64).reshape(3, 1)
    for value in range(50):
        assert len(slabs._free) == 1
        (other,) = through(slabs, slabs.take(), [np.full(400, value, np.int64)])
        assert (other == value).all() and not slabs._free
        del other
        assert (part.view(np.float64).ravel() == [1, 2, 3]).all()
    del part
    assert len(slabs._free) == 2


def test_what_was_read_outlives_the_slabs(slabs: Slabs) -> None:
    before = open_files()
    closed = Slabs.new()
    (array,) = through(closed, closed.take(), [np.arange(100)])
    closed.close()
    assert (array == np.arange(100)).all()
    del array
    assert open_files() == before
