"""The bootstrap: seeded, shared, bounded in memory, and intervals that cover the truth."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mmrobust.scoring.bootstrap import percentile_interval, resample_weights


def whole(*args, **kwargs):
    return np.concatenate(list(resample_weights(*args, **kwargs)))


def test_a_resample_draws_as_many_samples_as_there_are():
    weights = whole(37, 100)
    assert weights.shape == (100, 37)
    assert (weights.sum(axis=1) == 37).all()


def test_resamples_depend_on_the_number_of_samples_and_the_seed_only():
    assert (whole(20, 50) == whole(20, 50)).all()
    assert (whole(20, 50, seed=1) != whole(20, 50)).any()


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 20 * 7, 10**6])
def test_chunks_together_are_the_same_whatever_their_size(chunk_bytes):
    assert (whole(20, 50, chunk_bytes=chunk_bytes) == whole(20, 50)).all()


def test_fewer_resamples_are_the_first_of_more():
    assert (whole(20, 30) == whole(20, 50)[:30]).all()


def test_a_samples_weights_lie_side_by_side():
    assert next(resample_weights(20, 50)).T.flags.c_contiguous


def test_memory_is_bounded_by_the_chunk():
    tracemalloc.start()
    for _ in resample_weights(100_000, 30, chunk_bytes=2**22):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**26  # all 30 at once would take 36 MB as float32, and more than that while they are drawn


def test_mean_and_variance_of_the_counts_are_the_multinomials():
    counts = whole(50, 4000)
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.01)


def test_a_95_percent_interval_covers_a_true_share_19_times_of_20():
    random, weights, truth = np.random.default_rng(3), whole(200, 1000), 0.8
    draws = random.random((1000, 200)) < truth
    values = (draws.astype(np.float32) @ weights.T) / 200  # [draws, resamples]
    low, high = percentile_interval(values)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


def test_undefined_resamples_are_left_out_of_an_interval():
    values = np.asarray([[0.0, np.nan, 1.0], [np.nan] * 3, [0.5, 0.5, 0.5]])
    low, high = percentile_interval(values)
    np.testing.assert_allclose(low, [0.025, np.nan, 0.5])
    np.testing.assert_allclose(high, [0.975, np.nan, 0.5])
