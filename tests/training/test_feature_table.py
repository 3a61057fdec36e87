"""Tables of kept rows on disks that are full, in files that somebody cuts off, and on a GPU."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrobust.errors import DataError
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.training.feature_table import FeatureTable

ROWS = TokenSequence(torch.randn(8, 4, 32), None, (("image", 4),))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than a few rows: the system takes the beginning of what is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_rows_that_a_disk_takes_in_part_are_no_rows(tmp_path: Path) -> None:
    table = FeatureTable("a", tmp_path, MemoryBudget(0))
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        table.add(range(8), ROWS)
    assert len(table.absent(np.arange(8))) == 8


def test_a_file_that_is_cut_off_under_a_training(tmp_path: Path) -> None:
    table = FeatureTable("a", tmp_path, MemoryBudget(0))
    table.add(range(8), ROWS)
    assert torch.equal(table.read(np.asarray([7, 2])).tokens_BLD, ROWS.tokens_BLD[[7, 2]])
    (file,) = tmp_path.glob("*.partial")
    os.truncate(file, 3000)
    with pytest.raises(DataError, match=rf"{file.name}: cached features were changed or removed"):
        table.read(np.asarray([7]))


@pytest.mark.parametrize("memory", [0, 2**20], ids=["files", "memory"])
def test_rows_are_the_same_on_a_gpu(tmp_path: Path, memory: int) -> None:
    mask = torch.arange(9) < torch.arange(1, 9)[:, None]
    mask[:, 5] = True
    rows = TokenSequence(torch.randn(8, 9, 32), mask, (("text", 5), ("image", 4)), marked_B=torch.arange(8) % 3)
    budget, room = MemoryBudget(memory), MemoryBudget(2**20)
    table = FeatureTable("a", tmp_path, budget)
    table.add(range(4), rows.rows(torch.arange(4)))
    table.add(range(4, 8), rows.rows(torch.arange(4, 8)))
    chosen = np.asarray([7, 2, 4])
    expected = table.read(chosen)
    table.move(torch.device("cpu"), torch.bfloat16, MemoryBudget(100))  # no room
    assert torch.equal(table.read(chosen).tokens_BLD, expected.tokens_BLD)
    table.move(torch.device("cpu"), torch.float32, room)
    found = table.read(chosen)
    for name in ("tokens_BLD", "mask_BL", "marked_B"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.segments == expected.segments
    assert budget.left == memory and table.nbytes == 2**20 - room.left
    table.add([8], rows.rows(torch.arange(1)))
    assert torch.equal(table.read(np.asarray([7, 2, 4, 8])).tokens_BLD[:3], expected.tokens_BLD)
    table.move(torch.device("cpu"), torch.bfloat16, room)
    assert torch.equal(table.read(chosen).tokens_BLD, expected.tokens_BLD.bfloat16().float())
