"""The robustness figures, on curves whose figures are known."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd
import pytest

from mmrobust.errors import UsageError
from mmrobust.scoring.robustness import (
    CURVE_KEYS,
    curves,
    effective_robustness,
    prompting_gap,
    summarise,
    train_test_rates,
)
from mmrobust.storage.results import ROBUSTNESS_FIGURES


def results(values, checkpoint="mmp", prompting="situation"):
    """A results table from (rate, seed) → value."""
    rows = [(rate, seed, value) for (rate, seed), value in values.items()]
    frame = pd.DataFrame(rows, columns=["missing_rate", "seed", "value"])
    return frame.assign(
        checkpoint=checkpoint,
        dataset="digits",
        split="test",
        scenario="missing-text",
        prompting=prompting,
        metric="accuracy",
        n=100,
        ci_low=frame["value"] - 0.1,
        ci_high=frame["value"] + 0.05,
    )


def figures(values):
    (row,) = summarise(results(values)).to_dict("records")
    return row


def test_a_straight_line():
    row = figures({(rate, 0): 0.9 - 0.3 * rate for rate in np.linspace(0, 1, 11)})
    assert row["auc_eta"] == pytest.approx(0.75)
    assert row["complete"] == pytest.approx(0.9)
    assert row["relative_robustness"] == pytest.approx(0.75 / 0.9)
    assert row["drop_per_10_points"] == pytest.approx(0.03)
    assert (row["worst_value"], row["worst_rate"], row["worst_seed"]) == (pytest.approx(0.6), 1.0, 0)


def test_uneven_rates_are_weighed_by_their_distance():
    row = figures({(0.2, 0): 1.0, (0.4, 0): 0.5, (1.0, 0): 0.5})
    assert row["auc_eta"] == pytest.approx((0.2 * 0.75 + 0.6 * 0.5) / 0.8)
    assert np.isnan(row["complete"])
    assert np.isnan(row["relative_robustness"])


def test_one_rate_is_its_own_area():
    row = figures({(0.7, 0): 0.8, (0.7, 1): 0.6})
    assert row["auc_eta"] == pytest.approx(0.7)
    assert np.isnan(row["drop_per_10_points"])
    assert (row["worst_value"], row["worst_seed"]) == (0.6, 1)


def test_seeds_are_averaged_and_their_spread_kept_apart_from_the_interval():
    curve = curves(results({(0.0, 0): 0.9, (0.0, 1): 0.9, (0.5, 0): 0.8, (0.5, 1): 0.6}))
    assert curve["value"].tolist() == pytest.approx([0.9, 0.7])
    assert curve["spread"].tolist() == pytest.approx([0.0, np.std([0.8, 0.6], ddof=1)])
    assert curve["ci_low"].tolist() == pytest.approx([0.8, 0.6])
    assert curve["ci_high"].tolist() == pytest.approx([0.95, 0.75])
    assert curve["seeds"].tolist() == [2, 2]


def test_the_interval_of_the_mean_is_the_one_that_its_cells_were_scored_with():
    frame = results({(0.0, 0): 0.9, (0.0, 1): 0.9, (0.5, 0): 0.8, (0.5, 1): 0.6})
    scored = frame.assign(mean_low=frame["ci_low"] + 0.05, mean_high=frame["ci_high"] - 0.01, few=7.0)
    scored.loc[2:, ["mean_low", "mean_high"]] = [0.66, 0.74]
    curve = curves(scored)
    assert curve["ci_low"].tolist() == pytest.approx([0.85, 0.66])
    assert curve["ci_high"].tolist() == pytest.approx([0.94, 0.74])
    assert curve["few"].tolist() == [7, 7]
    scored.loc[3, "mean_low"] = 0.67  # a seed was scored with others, later
    assert curves(scored)["ci_low"].tolist() == pytest.approx([0.85, 0.6])


def test_figures_have_the_interval_that_all_rows_of_the_curve_agree_on():
    ends = {
        f"{figure}_{end}": {"low": 0.1, "high": 0.9}[end] for figure in ROBUSTNESS_FIGURES for end in ("low", "high")
    }
    frame = results({(0.0, 0): 0.9, (0.0, 1): 0.9, (0.5, 0): 0.8, (0.5, 1): 0.6}).assign(**ends)
    (row,) = summarise(frame).to_dict("records")
    assert {name: row[name] for name in ends} == ends
    assert row["auc_eta_spread"] == pytest.approx(np.std([0.85, 0.75], ddof=1))
    frame.loc[3, "auc_eta_low"] = 0.2
    (row,) = summarise(frame).to_dict("records")
    assert np.isnan(row["auc_eta_low"])
    assert row["worst_value_low"] == 0.1
    (bare,) = summarise(results({(0.0, 0): 0.9, (0.5, 0): 0.8})).to_dict("records")
    assert np.isnan([bare[name] for name in (*ends, "auc_eta_spread")]).all()


def test_one_seed_has_no_spread():
    assert curves(results({(0.0, 0): 0.9}))["spread"].isna().all()


def test_an_undefined_value_leaves_the_figures_undefined():
    row = figures({(0.0, 0): 0.9, (0.5, 0): np.nan, (0.5, 1): 0.5, (1.0, 0): 0.4})
    assert np.isnan(row["auc_eta"])
    assert np.isnan(row["drop_per_10_points"])
    assert row["worst_value"] == 0.4


def test_curves_do_not_mix():
    frame = pd.concat(
        [
            results({(0.0, 0): 0.9, (1.0, 0): 0.7}),
            results({(0.0, 0): 0.5, (1.0, 0): 0.1}, checkpoint="none"),
            results({(0.0, 0): 0.8, (1.0, 0): 0.8}, prompting="concat"),
        ]
    )
    by_key = summarise(frame).set_index(["checkpoint", "prompting"])
    assert by_key["auc_eta"].to_dict() == pytest.approx(
        {("mmp", "concat"): 0.8, ("mmp", "situation"): 0.8, ("none", "situation"): 0.3}
    )
    assert by_key.loc[("mmp", "concat"), "drop_per_10_points"] == pytest.approx(0)


def test_100_000_rows_take_less_than_a_second():
    axes = [[f"model-{i}" for i in range(50)], [f"s{i}" for i in range(6)], [i / 10 for i in range(11)], range(5)]
    keys = list(itertools.product(*axes, ["situation", "concat"], ["accuracy", "macro_f1", "map"]))
    frame = pd.DataFrame(keys, columns=["checkpoint", "scenario", "missing_rate", "seed", "prompting", "metric"])
    frame = frame.assign(dataset="d", split="test", n=10, value=0.5, ci_low=0.4, ci_high=0.6)
    started = time.perf_counter()
    summary = summarise(frame)
    assert time.perf_counter() - started < 2  # 0.2 s on two idle cores
    assert len(summary) == len(frame.drop_duplicates(list(CURVE_KEYS)))


def test_what_knowing_the_case_is_worth(curve):
    frame = pd.concat([curve("a", {0.0: 0.9, 1.0: 0.7}), curve("a", {0.0: 0.9, 1.0: 0.45}, prompting="concat")])
    assert prompting_gap(frame)["gap"].tolist() == pytest.approx([0.0, 0.25])
    assert prompting_gap(curve("a", {0.0: 0.9})).empty


def test_better_in_all_cases_alike_is_not_more_robust(curve):
    def logit(p):
        return np.log(p / (1 - p))

    def shifted(p, by):
        return 1 / (1 + np.exp(-(logit(p) + by)))

    baseline = curve("base", {0.0: 0.8, 0.5: 0.6, 1.0: 0.4})
    alike = curve("alike", {0.0: shifted(0.8, 1), 0.5: shifted(0.6, 1), 1.0: shifted(0.4, 1)})
    robust = curve("robust", {0.0: 0.8, 0.5: 0.65, 1.0: 0.5})
    table = effective_robustness(pd.concat([baseline, alike, robust]), "base").set_index("checkpoint")
    assert table.loc["alike", "effective"].tolist() == pytest.approx([0, 0])
    assert (table.loc["alike", "gain"] > 0.1).all()
    assert table.loc["robust", "effective"].tolist() == pytest.approx([0.05, 0.1])
    assert table.loc["robust", "missing_rate"].tolist() == [0.5, 1.0]


def test_a_perfect_value_has_an_effective_robustness(curve):
    frame = pd.concat([curve("base", {0.0: 1.0, 1.0: 0.5}), curve("a", {0.0: 1.0, 1.0: 0.7})])
    assert effective_robustness(frame, "base")["effective"].tolist() == pytest.approx([0.2])


def test_an_unknown_baseline_is_refused(curve):
    with pytest.raises(UsageError, match="unknown checkpoint of these results 'bas': did you mean 'base'"):
        effective_robustness(curve("base", {0.0: 0.9}), "bas")


def test_train_rate_by_test_rate(curve):
    frame = pd.concat(
        [
            curve("m0", {0.0: 0.9, 1.0: 0.3}),
            curve("m7", {0.0: 0.8, 1.0: 0.6}),
            curve("n", {0.0: 0.7, 1.0: 0.5}, method="none"),
        ]
    )
    trained = {
        name: {"training": {"scenario": "missing-text", "missing_rate": r}}
        for name, r in (("m0", 0), ("m7", 0.7), ("n", 0))
    }
    table = train_test_rates(frame, trained)
    assert table.pivot(index="train_rate", columns="missing_rate", values="value").to_numpy().tolist() == [
        [0.9, 0.3],
        [0.8, 0.6],
    ]
    assert set(table["method"]) == {"mmp"}  # one rate alone is no map
    assert train_test_rates(frame, {}).empty
