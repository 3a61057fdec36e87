"""Paired differences: of the same samples, in the same resamples, over the same missing tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmrobust.errors import DataError, UsageError
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.contributions import FIGURES
from mmrobust.scoring.paired import (
    area_differences,
    bootstrap_differences,
    differences,
    effective_differences,
    grouped_jackknife,
    make_pair,
)
from mmrobust.scoring.robustness import effective_robustness
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
    found = differences(pair, "macro_f1").set_index(keys)
    assert found["baseline"].to_dict() == pytest.approx(means[0].to_dict(), abs=1e-6)
    assert found["difference"].to_dict() == pytest.approx((means[1] - means[0]).to_dict(), abs=1e-6)
    assert set(found["seeds"]) == {2}


def test_the_error_of_one_accuracy_difference_is_the_formulas(pair):
    found = differences(pair, "accuracy").set_index(["scenario", "missing_rate", "prompting"])
    at = ("missing-text", 1.0, "situation")
    right = [
        side.logits["missing-text", "situation"].argmax(axis=1) == np.asarray(side.truth.labels)[:, 0]
        for side in (pair.baseline, pair.candidate)
    ]
    of_samples = right[1].astype(float) - right[0]
    assert found.loc[at, "difference"] == pytest.approx(of_samples.mean())
    assert found.loc[at, "error"] == pytest.approx(of_samples.std(ddof=1) / np.sqrt(300))
    assert found.loc[at, "degrees"] == pytest.approx(2 * 300 / (stats.kurtosis(of_samples, fisher=False) - 1))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_at_one_rate_the_error_is_that_of_the_bootstrap(pair, metric):
    found = differences(pair, metric)
    same = (found["missing_rate"] != 0.5).to_numpy()  # all samples are in one case: nothing is fixed but their number
    resampled = bootstrap_differences(pair, metric, resamples=2000)
    assert found["error"][same].tolist() == pytest.approx(resampled[same].std(axis=1).tolist(), rel=0.06)
    assert found["error"][~same].mean() < resampled[~same].std(axis=1).mean()


def test_the_spread_over_mask_seeds_stands_apart(pair):
    found = differences(pair, "accuracy").set_index(["scenario", "missing_rate", "prompting"])
    assert found.loc[("missing-text", 1.0, "situation"), "spread"] == 0  # everyone is missing, whatever the seed
    assert found.loc[("missing-text", 0.5, "situation"), "spread"] > 0


def test_a_checkpoint_does_not_differ_from_itself(pair):
    found = differences(make_pair(pair.baseline, pair.baseline), "accuracy")
    assert (found["difference"] == 0).all()
    assert (found["error"] == 0).all()


def test_the_order_of_the_samples_does_not_matter(pair):
    shuffled = make_pair(pair.baseline, pair.candidate.ordered_as(pair.candidate.truth.ids[::-1]))
    pd.testing.assert_frame_equal(differences(shuffled, "accuracy"), differences(pair, "accuracy"))
    again = bootstrap_differences(shuffled, "accuracy", resamples=50)
    np.testing.assert_array_equal(again, bootstrap_differences(pair, "accuracy", resamples=50))


def test_the_jackknife_leaves_every_sample_out(pair):
    values = grouped_jackknife(pair, "accuracy")
    assert values.shape == (18, 300)
    whole = differences(pair, "accuracy")["difference"]
    assert values.mean(axis=1).tolist() == pytest.approx(whole.tolist(), abs=1e-6)


def test_the_area_is_the_trapezoid_of_the_differences(pair):
    found, cells = area_differences(pair, "accuracy"), differences(pair, "accuracy")
    for row in found.to_dict("records"):
        own = cells[(cells["scenario"] == row["scenario"]) & (cells["prompting"] == row["prompting"])]
        for name in ("baseline", "candidate", "difference"):
            assert row[name] == pytest.approx(np.trapezoid(own[name], own["missing_rate"]))
        assert row["error"] < own["error"].max()  # an average of rates is more certain than the least certain


def test_effective_robustness_is_that_of_the_results(pair, tmp_path, evaluate_into):
    frames = [
        evaluate_into(tmp_path / n, **s)[0].frame.assign(checkpoint=n)
        for n, s in (("a", {}), ("b", {"seed": 1, "lost": {"missing-text": 1.6}}))
    ]
    of_results = effective_robustness(pd.concat(frames), "a")
    keys = ["scenario", "prompting", "missing_rate"]
    of_results = of_results[of_results["metric"] == "accuracy"].set_index(keys)["effective"]
    found = effective_differences(pair, "accuracy").set_index(keys)
    assert found["difference"].to_dict() == pytest.approx(of_results.to_dict(), abs=1e-6)
    # Of a paired test of the same change of both sides, only what is specific to the missing input is left.
    assert (found["error"] > 0).all()


def test_the_error_of_effective_robustness_is_that_of_the_bootstrap(pair):
    found = effective_differences(pair, "accuracy")
    at = found.index[(found["scenario"] == "missing-text") & (found["missing_rate"] == 1)][0]
    right = {
        (side, case): (of.logits[case, "situation"].argmax(axis=1) == np.asarray(of.truth.labels)[:, 0]).astype(float)
        for side, of in enumerate(pair.sides)
        for case in ("complete", "missing-text")
    }
    rows = np.random.default_rng(0).integers(0, 300, (4000, 300))
    value = {key: hits[rows].mean(axis=1) for key, hits in right.items()}
    logit = {key: np.log(of / (1 - of)) for key, of in value.items()}
    expected = logit[1, "complete"] + logit[0, "missing-text"] - logit[0, "complete"]
    resampled = value[1, "missing-text"] - 1 / (1 + np.exp(-expected))
    assert found.loc[at, "error"] == pytest.approx(resampled.std(), rel=0.06)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_of_a_cell_is_compared(pair, figure):
    found = differences(pair, figure)
    defined = found["missing_rate"] > 0 if figure == "flip_rate" else found["missing_rate"] >= 0
    assert found["difference"].notna().tolist() == defined.tolist()
    assert (found["error"][defined] > 0).all()
    assert area_differences(pair, figure)["difference"].notna().all()
    with pytest.raises(UsageError, match="metric of a single-label task 'flips'"):
        differences(pair, "flips")


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
        make_pair(predictions_behind(tmp_path / "a", a, "mmp"), predictions_behind(tmp_path / "b", b, "mmp"))
