"""Reliability under missingness, on predictions whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest

from mmrobust.scoring.calibration import confidences, expected_calibration_error, reliability
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results


def test_a_calibrated_model_has_no_error_and_an_overconfident_one_its_excess():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 200_000)
    assert expected_calibration_error(confidence, random.random(200_000) < confidence) < 0.01
    assert expected_calibration_error(confidence, random.random(200_000) < confidence - 0.2) == pytest.approx(
        0.2, abs=0.01
    )


def test_by_hand():
    confidence, right = np.asarray([0.95, 0.95, 0.65, 0.0, 1.0]), np.asarray([True, False, True, False, True])
    # bins of a fifteenth: (14/15, 1] holds 0.95, 0.95 and 1.0, of which two are right
    expected = (abs(2 - 2.9) + abs(1 - 0.65) + 0.0) / 5
    assert expected_calibration_error(confidence, right) == pytest.approx(expected)


def test_confidence_is_the_largest_softmax_probability():
    logits = np.log(np.asarray([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
    confidence, right = confidences(logits, ((0,), (1,)), "single-label")
    assert confidence.tolist() == pytest.approx([0.7, 0.6])
    assert right.tolist() == [True, False]


def test_every_decision_of_a_multi_label_model_counts():
    confidence, right = confidences(np.asarray([[0.0, 1000.0], [-1000.0, 0.0]]), ((1,), ()), "multi-label")
    assert confidence.tolist() == [0.5, 1.0, 0.0, 0.5]
    assert right.tolist() == [False, True, False, False]


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_a_curve_for_every_scenario_and_prompting(tmp_path, evaluate_into, task):
    results, _, _ = evaluate_into(tmp_path, task=task)
    table = reliability(predictions_behind(tmp_path, read_results(tmp_path), "mmp"))
    assert len(table) == 3 * 2 * 3
    assert table["ece"].between(0, 1).all()
    if task == "single-label":
        accuracy = (
            results.frame.query("metric == 'accuracy'")
            .groupby(["scenario", "prompting", "missing_rate"])["value"]
            .mean()
        )
        assert table.set_index(["scenario", "prompting", "missing_rate"])["right"].to_dict() == pytest.approx(
            accuracy.to_dict()
        )
