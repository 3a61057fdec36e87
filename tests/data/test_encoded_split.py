"""Samples of like size share a batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrobust.data.encoded_split import group_by_length

LENGTHS = st.integers(0, 3).flatmap(
    lambda sizes: st.lists(st.lists(st.integers(1, 600), min_size=sizes, max_size=sizes), max_size=90)
)


@given(LENGTHS, st.integers(1, 40))
def test_every_sample_is_in_one_batch_and_all_batches_but_one_are_full(lengths: list[list[int]], size: int) -> None:
    batches = group_by_length(lengths, size)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    assert sorted(len(batch) for batch in batches)[1:] == [size] * (len(batches) - 1)
    assert all(0 < len(batch) <= size for batch in batches)


def padded(lengths: np.ndarray, batches: list[np.ndarray]) -> int:
    """Tokens that are run, with what is padded."""
    return sum(len(batch) * int(lengths[batch].max(0).sum()) for batch in batches)


def test_little_is_padded_whichever_of_two_sizes_varies_more() -> None:
    draws = np.random.default_rng(0)
    for text, image in (((60, 500), (140, 150)), ((60, 70), (140, 240)), ((20, 300), (140, 240))):
        lengths = np.stack([draws.integers(*text, 512), draws.integers(*image, 512)], axis=1)
        unsorted = np.split(np.arange(512), 16)
        needed = int(lengths.sum())
        assert padded(lengths, group_by_length(lengths.tolist(), 32)) < min(1.12 * needed, padded(lengths, unsorted))


def test_what_is_of_one_size_stays_in_order() -> None:
    assert [batch.tolist() for batch in group_by_length([[7]] * 5, 2)] == [[0, 1], [2, 3], [4]]
    assert [batch.tolist() for batch in group_by_length([()] * 3, 8)] == [[0, 1, 2]]
