"""Regression: errors in the labels' own unit, of which less is better, wherever figures compare models or inputs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmrobust.errors import UsageError
from mmrobust.scoring.contributions import CellContributions, deviations_within
from mmrobust.scoring.intervals import metric_interval, sampling_error
from mmrobust.scoring.paired import make_pair, relative_differences, worst_differences
from mmrobust.scoring.regression import OF_NUMBERS, pearson
from mmrobust.scoring.robustness import effective_robustness, prompting_gap, summarise
from mmrobust.scoring.standings import joint_standings, standings
from mmrobust.scoring.store import predictions_behind
from mmrobust.scoring.worth import modality_worth
from mmrobust.storage.results import read_results
from mmrobust.storage.shards import read_shard


@pytest.fixture(scope="module")
def runs(tmp_path_factory, evaluate_into):
    """Results of a better and of a worse model; both err more where an input is missing, most without text."""
    folder = tmp_path_factory.mktemp("regression")
    evaluate_into(folder / "good", name="good", task="regression", skill=3.0)
    evaluate_into(folder / "bad", name="bad", task="regression", skill=1.5, seed=1)
    return folder


def stored(folder):
    results = read_results(folder)
    return predictions_behind(folder, results, folder.name)


def test_predictions_keep_the_numbers(runs):
    shards = sorted((runs / "good" / "predictions").glob("*.parquet"))
    shard = read_shard(shards[0])
    assert shard.provenance["schema_version"] == 4
    truth = stored(runs / "good").truth
    assert shard.label.to_pylist()[0] == [truth.labels[shard.position[0]][0]]
    assert isinstance(truth.labels[0][0], float) and truth.targets.shape == (300, 1)


def test_figures_of_a_curve_know_that_less_is_better(runs):
    frame = read_results(runs / "good").frame
    found = summarise(frame).set_index(["metric", "scenario", "prompting"])
    for key, row in found.iterrows():
        values = frame[(frame.metric == key[0]) & (frame.scenario == key[1]) & (frame.prompting == key[2])].value
        less = key[0] != "pearson"
        assert row.worst_value == (values.max() if less else values.min())
        ratio = (row.complete, row.auc_eta)[:: 1 if less else -1]
        assert row.relative_robustness == pytest.approx(ratio[0] / ratio[1])
        assert row.relative_robustness < 1 and row.drop_per_10_points > 0
    rescored = stored(runs / "good")
    pair = make_pair(rescored, stored(runs / "bad"))
    for differences, column in ((relative_differences, "relative_robustness"), (worst_differences, None)):
        of = differences(pair, "mae").set_index(["scenario", "prompting"])
        for key, row in of.iterrows():
            if column is not None:
                assert row.baseline == pytest.approx(found.loc[("mae", *key), column])
            else:
                means = frame[(frame.metric == "mae") & (frame.scenario == key[0]) & (frame.prompting == key[1])]
                assert row.baseline == pytest.approx(means.groupby("missing_rate").value.mean().max())


def test_the_smaller_error_wins(runs):
    both = pd.concat([read_results(runs / name).frame for name in ("good", "bad")])
    first = standings(both).groupby("metric").first()
    assert set(first.checkpoint) == {"good"} and (first.wins == 1).all()
    joint = joint_standings({name: stored(runs / name) for name in ("bad", "good")}, "mae", resamples=50)
    assert joint.set_index("checkpoint").wins.to_dict() == {"bad": 0.0, "good": 1.0}
    gap = prompting_gap(both)
    assert (gap.gap == np.where(gap.metric == "pearson", 1, -1) * (gap.situation - gap.concat)).all()


def test_no_input_scores_as_the_median(runs, tmp_path, evaluate_into):
    from mmrobust.scenarios.grid import Grid

    grid = Grid(("missing-image", "missing-text"), (0.0, 1.0), (0,), ("situation",))
    evaluate_into(tmp_path, name="good", task="regression", grid=grid)
    predictions = predictions_behind(tmp_path, read_results(tmp_path), "good")
    labels = predictions.truth.targets[:, 0]
    constant = {
        "mae": np.abs(labels - np.median(labels)).mean(),
        "rmse": labels.std(),
        "pearson": 0.0,
    }
    for metric, nothing in constant.items():
        found = modality_worth(predictions, metric, ["situation"])
        table = read_results(tmp_path).frame
        complete = table[(table.metric == metric) & (table.missing_rate == 0)].value.iloc[0]
        sign = 1 if metric == "pearson" else -1
        assert found.shapley.sum() == pytest.approx(sign * (complete - nothing), abs=1e-6)
        assert (found["drop"] > 0).all() and found.set_index("modality")["drop"].idxmax() == "text"
        assert (found.drop_low < found["drop"]).all() and (found["drop"] < found.drop_high).all()
        if metric == "pearson":  # an interval in the unit of the labels has no end to stop at
            assert found[["drop_high", "shapley_high"]].max().max() <= 2


def test_what_is_of_classes_is_refused(runs):
    predictions = stored(runs / "good")
    contributions = CellContributions(predictions, predictions.truth.draw(predictions.cells))
    for figure in ("ece", "worst_class", "flip_rate"):
        with pytest.raises(UsageError, match=f"{figure} is a figure of classes, and a regression task has none"):
            list(contributions.of_keys([0], [figure]))
    with pytest.raises(UsageError, match="effective robustness is defined for shares of 1; mae is none"):
        effective_robustness(read_results(runs / "good").frame, "good")


def test_a_constant_explains_nothing():
    actual, ones = np.asarray([1.0, 2.0, 4.0]), np.ones((1, 3))
    assert pearson(np.full(3, 0.1), actual, ones).tolist() == [0.0]
    assert np.isnan(pearson(actual, np.full(3, 0.1), ones)).all()


@pytest.mark.parametrize(("metric", "true"), [("mae", np.sqrt(2 / np.pi)), ("rmse", 1.0), ("pearson", np.sqrt(0.5))])
def test_intervals_hold(metric, true):
    """95 % of them, of 60 samples whose noise is as large as the labels' own spread."""
    random, samples, repeats = np.random.default_rng(0), 60, 1000
    inside = 0
    for _ in range(repeats):
        actual, noise = random.normal(size=(2, samples))
        predicted = actual + noise
        found = OF_NUMBERS[metric](predicted, actual)
        deviations = deviations_within(np.zeros(samples, dtype=np.uint8), found.of_sample)
        error, degrees = sampling_error(deviations[None])
        value, centre = np.atleast_1d(found.value), np.atleast_1d(found.of_sample.mean())
        low, high = metric_interval(metric, value, centre, error, degrees, np.inf)
        inside += bool(low[0] <= true <= high[0])
    assert 0.93 <= inside / repeats <= 0.97
