"""Paired differences: of the same samples, in the same resamples, over the same missing tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmrobust.errors import DataError
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.paired import differences, jackknife, make_pair, read_pair
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results


def stored(folder, evaluate_into, **settings):
    evaluate_into(folder, **settings)
    return predictions_behind(folder, read_results(folder), "mmp")


@pytest.fixture(scope="module")
def pair(tmp_path_factory, evaluate_into):
    folder = tmp_path_factory.mktemp("pair")
    return make_pair(
        stored(folder / "a", evaluate_into), stored(folder / "b", evaluate_into, seed=1, lost={"missing-text": 1.6})
    )


def test_differences_are_those_of_the_results(pair, tmp_path, evaluate_into):
    before, after = (
        evaluate_into(tmp_path / n, **s)[0].frame
        for n, s in (("a", {}), ("b", {"seed": 1, "lost": {"missing-text": 1.6}}))
    )
    keys = ["scenario", "missing_rate", "prompting"]
    means = [frame[frame.metric == "macro_f1"].groupby(keys)["value"].mean() for frame in (before, after)]
    found = differences(pair, "macro_f1", resamples=20).frame.set_index(keys)
    assert found["baseline"].to_dict() == pytest.approx(means[0].to_dict(), abs=1e-6)
    assert found["difference"].to_dict() == pytest.approx((means[1] - means[0]).to_dict(), abs=1e-6)
    assert set(found["seeds"]) == {2}


def test_the_error_of_one_accuracy_difference_is_the_formulas(pair):
    found = differences(pair, "accuracy", resamples=4000).frame.set_index(["scenario", "missing_rate", "prompting"])
    at = ("missing-text", 1.0, "situation")
    right = [
        side.logits["missing-text", "situation"].argmax(axis=1) == np.asarray(side.truth.labels)[:, 0]
        for side in (pair.baseline, pair.candidate)
    ]
    of_samples = right[1].astype(float) - right[0]
    assert found.loc[at, "difference"] == pytest.approx(of_samples.mean())
    assert found.loc[at, "error"] == pytest.approx(of_samples.std() / np.sqrt(300), rel=0.05)


def test_the_spread_over_mask_seeds_stands_apart(pair):
    found = differences(pair, "accuracy", resamples=20).frame.set_index(["scenario", "missing_rate", "prompting"])
    assert found.loc[("missing-text", 1.0, "situation"), "spread"] == 0  # everyone is missing, whatever the seed
    assert found.loc[("missing-text", 0.5, "situation"), "spread"] > 0


def test_a_checkpoint_does_not_differ_from_itself(pair):
    found = differences(make_pair(pair.baseline, pair.baseline), "accuracy", resamples=50)
    assert (found.frame["difference"] == 0).all()
    assert (found.frame["error"] == 0).all()


def test_the_order_of_the_samples_does_not_matter(pair):
    shuffled = pair.candidate.ordered_as(pair.candidate.truth.ids[::-1])
    again = differences(make_pair(pair.baseline, shuffled), "accuracy", resamples=50)
    np.testing.assert_array_equal(again.bootstrap, differences(pair, "accuracy", resamples=50).bootstrap)


def test_the_jackknife_leaves_every_sample_out(pair):
    values = jackknife(pair, "accuracy")
    assert values.shape == (18, 300)
    whole = differences(pair, "accuracy", resamples=2).frame["difference"]
    assert values.mean(axis=1).tolist() == pytest.approx(whole.tolist(), abs=1e-6)


def test_other_samples_are_refused(pair, tmp_path, evaluate_into):
    with pytest.raises(DataError, match="of other samples: sample 's00280' is not among them"):
        make_pair(pair.baseline, stored(tmp_path / "fewer", evaluate_into, n=280))
    truth = dataclasses.replace(pair.candidate.truth, labels=pair.candidate.truth.labels[::-1])
    with pytest.raises(DataError, match="not of the same samples: their labels differ"):
        make_pair(pair.baseline, dataclasses.replace(pair.candidate, truth=truth))
    elsewhere = stored(tmp_path / "cells", evaluate_into, grid=Grid(("missing-text",), (0.3,), (5,), ("situation",)))
    with pytest.raises(DataError, match="no cell in common"):
        make_pair(pair.baseline, elsewhere)


def test_a_side_without_predictions_says_so(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "a")
    evaluate_into(tmp_path / "b")
    for shard in (tmp_path / "b" / "predictions").iterdir():
        shard.unlink()
    a, b = (read_results(tmp_path / name) for name in "ab")
    with pytest.raises(DataError, match="b/predictions: holds no predictions of 'mmp'"):
        read_pair(tmp_path / "a", a, tmp_path / "b", b, "mmp", "mmp")
