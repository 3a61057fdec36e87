"""Intervals: Wilson's where nothing is estimated, wider where few samples carry the error, and they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.contributions import CellContributions, deviations_within
from mmrobust.scoring.curve_intervals import CellsOfCurve, CurveDeviations, area_weights, drop_weights, score_curve
from mmrobust.scoring.intervals import difference_interval, sampling_error, value_interval
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth

MODALITIES = ("image", "text")


@pytest.mark.parametrize(("hits", "samples"), [(0, 20), (3, 20), (150, 200), (199, 200), (200, 200)])
def test_with_many_degrees_of_freedom_a_share_has_wilsons_interval(hits, samples):
    value = np.asarray([hits / samples])
    error = np.sqrt(value * (1 - value) / samples)
    low, high = value_interval(value, value, error, np.full(1, 1e6), samples)
    assert (low[0], high[0]) == pytest.approx(proportion_confint(hits, samples, method="wilson"), abs=1e-5)


@given(
    st.floats(0, 1),
    st.floats(-0.2, 1.2),
    st.just(0.0) | st.floats(1e-6, 0.5),
    st.floats(1, 1e6),
    st.integers(1, 10_000),
)
def test_an_interval_lies_in_range_holds_the_value_and_has_a_width(value, centre, error, degrees, size):
    of = (np.asarray([number]) for number in (value, centre, error, degrees))
    low, high = value_interval(*of, size)
    assert 0 <= low[0] <= value <= high[0] <= 1
    assert low[0] < high[0]


def test_more_confidence_is_wider_and_fewer_degrees_of_freedom_too():
    value, error = np.asarray([0.9]), np.asarray([0.02])
    widths = [
        float(np.diff(np.concatenate(value_interval(value, value, error, np.asarray([degrees]), 100, confidence)))[0])
        for degrees, confidence in ((1e6, 0.9), (1e6, 0.95), (5.0, 0.95), (2.0, 0.95))
    ]
    assert widths == sorted(widths)
    assert len(set(widths)) == 4


def test_what_is_not_defined_has_no_interval():
    nan = np.asarray([np.nan])
    assert np.isnan(value_interval(nan, nan, nan, nan, 10)).all()
    assert np.isnan(difference_interval(nan, nan, nan, 10)).all()


def test_a_difference_that_no_sample_shows_has_a_width():
    low, high = difference_interval(np.zeros(1), np.zeros(1), np.full(1, 1e6), 300)
    assert high[0] == -low[0] == pytest.approx(proportion_confint(0, 300, method="wilson")[1], abs=1e-5)


def test_the_error_and_its_degrees_of_freedom():
    random = np.random.default_rng(0)
    deviations = random.normal(size=(1, 5000))
    error, degrees = sampling_error(deviations)
    assert error[0] == pytest.approx(1 / np.sqrt(5000), rel=0.03)
    assert degrees[0] == pytest.approx(5000, rel=0.1)
    few = np.zeros((1, 5000))
    few[0, :4] = 1  # four samples have it all
    assert sampling_error(few)[1][0] == pytest.approx(8, rel=0.01)
    assert sampling_error(np.zeros((1, 30)))[0][0] == 0


def test_deviations_are_from_the_mean_of_the_case():
    groups, pseudo = np.asarray([0, 0, 1, 1, 2], dtype=np.uint8), np.asarray([1.0, 3.0, 10.0, 10.0, 6.0])
    found = deviations_within(groups, pseudo)
    assert found == pytest.approx([-np.sqrt(2), np.sqrt(2), 0, 0, 0])  # a group of one: from the mean of all, 6
    whole = deviations_within(np.zeros(5, dtype=np.uint8), pseudo)
    assert sampling_error(whole[None])[0][0] == pytest.approx(pseudo.std(ddof=1) / np.sqrt(5))


def test_the_weights_of_area_and_drop():
    rates, values = np.asarray([0.0, 0.2, 1.0]), np.asarray([0.9, 0.7, 0.3])
    assert area_weights(rates) @ values == pytest.approx(np.trapezoid(values, rates))
    assert drop_weights(rates) @ values == pytest.approx(-0.1 * np.polyfit(rates, values, 1)[0])
    assert area_weights(np.asarray([0.5])).tolist() == [1.0]


def test_figures_of_a_curve_need_what_they_are_made_of():
    curve = CurveDeviations(np.asarray([0.5]), np.asarray([0.8]), np.asarray([0.8]), np.ones((1, 20)), 20)
    assert np.isnan(curve.relative_robustness()).all()  # no complete value
    assert np.isnan(curve.drop_per_10_points()).all()  # no slope through one point


GRID = Grid(("missing-image",), (0.0, 0.5, 1.0), (0, 1, 2), ("situation",))


def drawn(random, samples, natural=None):
    """A test set whose samples are right with probability 0.95 with both inputs, and 0.4 without the image."""
    truth = SplitTruth(
        tuple(f"s{i}" for i in range(samples)), ((0,),) * samples, MODALITIES, 2, "single-label", natural
    )
    logits = {}
    for case, share in (("complete", 0.95), ("missing-image", 0.4)):
        right = random.random(samples) < share
        logits[case, "situation"] = np.stack([right, ~right], axis=1).astype(np.float32)
    return Predictions(truth, logits)


def test_the_interval_of_the_mean_over_seeds_holds_and_is_no_wider_than_it_must_be():
    """The variance of the mean over drawn test sets, and the shares of intervals that hold."""
    random, tables = np.random.default_rng(3), None
    held, means, errors = [], [], []
    for _ in range(400):
        model = drawn(random, 200)
        tables = tables or model.truth.draw_grid(GRID)
        cells = CellsOfCurve.of(
            CellContributions(model, tables), [c.missing_rate for c in tables.cells], tables.of_cell, ["accuracy"]
        )
        scored = score_curve(cells)
        at = [c.missing_rate for c in tables.cells].index(0.5)
        truths = {"mean": 0.675, "auc_eta": 0.675, "relative_robustness": 0.675 / 0.95, "drop_per_10_points": 0.055}
        held.append([scored[f"{n}_low"][at, 0] <= t <= scored[f"{n}_high"][at, 0] for n, t in truths.items()])
        means.append(cells.mean(cells.sampled[0][0])[1, 0])
        errors.append(sampling_error(cells.sampled[1][0])[0][1])
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.08)
    for share in np.mean(held, axis=0):
        assert stats.binom.cdf(round(400 * share), 400, 0.95) > 0.005
        assert share < 0.99


def test_samples_that_lack_an_input_by_nature_are_one_group():
    """Who lacks an input by nature may depend on the sample, so the difference between the cases counts."""
    from mmrobust.cases import Case

    random = np.random.default_rng(4)
    lacks = random.random(300) < 0.5
    cases = [Case.parse("missing-image" if lack else "complete", MODALITIES) for lack in lacks]
    model = drawn(random, 300, tuple(cases))
    tables = model.truth.draw_grid(Grid(("missing-image",), (0.0,), (0,), ("situation",)))
    ((found,),) = CellContributions(model, tables).of_keys([0], ["accuracy"])
    error, _ = sampling_error(found.deviations[None])
    assert error[0] == pytest.approx(np.sqrt(found.value * (1 - found.value) / 299))


def test_metrics_may_be_asked_for_one_after_the_other_and_prompting_by_prompting():
    random = np.random.default_rng(0)
    ids, labels = tuple(f"s{i}" for i in range(40)), tuple((i % 2,) for i in range(40))
    truth = SplitTruth(ids, labels, MODALITIES, 2, "binary")
    grid = Grid(("missing-image",), (0.5,), (0,), ("situation", "concat"))
    logits = {
        (case, prompting): random.normal(size=(40, 2)).astype(np.float32)
        for case in ("complete", "missing-image")
        for prompting in grid.promptings
    }
    model, tables = Predictions(truth, logits, tuple(grid.cells()), grid.promptings), truth.draw_grid(grid)
    shared = CellContributions(model, tables)
    for key, metrics in ((0, ("accuracy", "auroc")), (1, ("auroc", "accuracy"))):
        for metric in metrics:
            ((found,),) = shared.of_keys([key], [metric])
            ((expected,),) = CellContributions(model, tables).of_keys([key], [metric])
            assert found.value == expected.value
