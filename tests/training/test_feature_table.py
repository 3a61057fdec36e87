"""Tables of kept rows on disks that are full, and in files that somebody cuts off."""

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
