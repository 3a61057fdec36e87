"""Standings from results alone, and with intervals from the same resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmrobust.errors import DataError
from mmrobust.scenarios.grid import Cell, Grid
from mmrobust.scoring.bootstrap import resample_weights
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.standings import joint_standings, standings
from mmrobust.scoring.store import predictions_behind
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import read_results

MODALITIES = ("image", "text")
GRID = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))


def test_standings_rank_in_every_cell_and_share_ranks_where_equal(curve):
    frame = pd.concat(
        [curve("a", {0.0: 0.9, 1.0: 0.5}), curve("b", {0.0: 0.9, 1.0: 0.7}), curve("c", {0.0: 0.8, 1.0: 0.1})]
    )
    table = standings(frame).set_index("checkpoint")
    assert list(table.index) == ["b", "a", "c"]
    assert table["mean_rank"].to_dict() == {"b": 1.25, "a": 1.75, "c": 3.0}
    assert table["wins"].to_dict() == {"b": 3.5 / 4, "a": 2.5 / 4, "c": 0.0}
    assert table["clear_wins"].to_dict() == {"b": 3, "a": 2, "c": 0}
    assert table["clear_losses"].to_dict() == {"b": 0, "a": 1, "c": 4}


def test_overlapping_intervals_are_no_clear_win(curve):
    table = standings(pd.concat([curve("a", {0.0: 0.90}, width=0.02), curve("b", {0.0: 0.87}, width=0.02)]))
    assert table["wins"].tolist() == [1.0, 0.0]
    assert table["clear_wins"].tolist() == [0, 0]


def test_only_cells_that_all_have_count_and_nobody_stands_alone(curve):
    table = standings(pd.concat([curve("a", {0.0: 0.9, 1.0: 0.5}), curve("b", {0.0: 0.8})]))
    assert table["cells"].tolist() == [1, 1]
    assert standings(curve("a", {0.0: 0.9})).empty


def model(complete, missing, grid=GRID):
    """A binary model that is right where these say, with all of a hundred samples of class 1."""
    truth = SplitTruth(tuple(f"s{i}" for i in range(100)), ((1,),) * 100, MODALITIES, 2, "binary")
    logits = {
        (case, "situation"): np.stack([~right, right], axis=1).astype(np.float32)
        for case, right in (("complete", complete), ("missing-text", missing))
    }
    return Predictions(truth, logits, tuple(grid.cells()))


def right(count, start=0):
    return (np.arange(100) >= start) & (np.arange(100) < start + count)


def test_wins_are_those_of_every_resample():
    models = {
        "a": model(right(80), right(60)),
        "b": model(right(75, 10), right(62, 30)),
        "c": model(right(40), right(9)),
    }
    table = joint_standings(models, "accuracy", resamples=200).set_index("checkpoint")
    (weights,) = resample_weights(100, 200, 0)
    values = np.stack(
        [
            [weights @ m.logits[case, "situation"][:, 1] for case in ("complete", "missing-text")]
            for m in models.values()
        ]
    )
    for own, name in enumerate(models):
        rivals = [values[own] - values[other] for other in range(3) if other != own]
        won = np.mean([(d > 0) + 0.5 * (d == 0) for d in rivals], axis=(0, 1))
        assert (table.loc[name, "wins_low"], table.loc[name, "wins_high"]) == pytest.approx(
            np.percentile(won, [2.5, 97.5])
        )
    assert table["wins"].to_dict() == {"a": 0.75, "b": 0.75, "c": 0.0}


def test_resamples_are_shared():
    """Equal models are equal in every resample: drawn apart, their wins would be anywhere between 0 and 1."""
    same = joint_standings({name: model(right(70), right(50)) for name in "ab"}, "accuracy", resamples=100)
    assert (same[["wins", "wins_low", "wins_high"]] == 0.5).all(axis=None)
    # One sample more, whoever is drawn: in no resample worse.
    better = joint_standings({"a": model(right(71), right(51)), "b": model(right(70), right(50))}, "accuracy")
    assert better["wins_low"][0] >= 0.5 >= better["wins_high"][1]


def test_real_predictions_give_the_standings_of_their_results(tmp_path, evaluate_into):
    for seed, name in enumerate("abc"):
        evaluate_into(tmp_path / name, name=name, seed=seed, task="multi-label", n=120, skill=2 - 0.1 * seed)
    results = {name: read_results(tmp_path / name) for name in "abc"}
    stored = {name: predictions_behind(tmp_path / name, of, name) for name, of in results.items()}
    frame = pd.concat([of.frame for of in results.values()])
    plain = standings(frame[frame["metric"] == "macro_f1"]).set_index("checkpoint")
    joint = joint_standings(stored, "macro_f1", resamples=100).set_index("checkpoint").loc[plain.index]
    assert joint["wins"].to_numpy() == pytest.approx(plain["wins"].to_numpy())
    assert joint["cells"].tolist() == plain["cells"].tolist()
    assert plain["mean_rank"].to_numpy() == pytest.approx(1 + 2 * (1 - joint["wins"].to_numpy()))
    assert ((joint["wins_low"] <= joint["wins"]) & (joint["wins"] <= joint["wins_high"])).all()


def test_other_samples_or_no_common_cell_are_refused():
    one = model(right(70), right(50))
    other = Predictions(SplitTruth(one.truth.ids, ((0,),) * 100, MODALITIES, 2, "binary"), one.logits, one.cells)
    with pytest.raises(DataError, match="predictions of 'b' are not of the same samples: their labels differ"):
        joint_standings({"a": one, "b": other}, "accuracy")
    apart = Predictions(one.truth, one.logits, (Cell("missing-text", 0.5, 0, "situation"),))
    with pytest.raises(DataError, match="no cell in common"):
        joint_standings({"a": one, "b": apart}, "accuracy")
