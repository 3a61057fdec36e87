from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrobust.data.prepare.source_files import SHARES, one_per_split, split_by_class, split_in
from mmrobust.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.json", "train"),
        ("Train_relative.json", "train"),
        ("as_20k_train.json", "train"),
        ("eval.json", "test"),
        ("val", "validation"),
        ("mmimdb_dev", "validation"),
        ("contest.json", None),
        ("testing", "test"),
    ],
)
def test_names_that_tell_a_split(name: str, split: str | None) -> None:
    assert split_in(name) == split


def test_one_file_per_split() -> None:
    assert one_per_split(Path("in"), ["val.json", "train.json", "README.json"]) == {
        "validation": "val.json",
        "train": "train.json",
    }
    with pytest.raises(DataError, match=r"in: dev\.json and val\.json both name the split validation"):
        one_per_split(Path("in"), ["dev.json", "val.json"])


@given(st.integers(1, 200), st.integers(1, 9))
def test_groups_stay_whole_and_shares_are_met_as_nearly_as_they_allow(samples: int, size: int) -> None:
    classes = {f"{number}": "dog" for number in range(samples)}
    splits = split_by_class(classes, "key", lambda sample_id: str(int(sample_id) // size))
    assert splits.keys() == classes.keys()
    for number in range(samples):
        assert splits[f"{number}"] == splits[f"{number // size * size}"]
    counts = Counter(splits.values())
    for split, share in SHARES.items():
        assert abs(counts[split] - share * samples) <= size + 1
    shuffled = dict(reversed(classes.items()))
    assert split_by_class(shuffled, "key", lambda sample_id: str(int(sample_id) // size)) == splits
