"""Pseudo-values: each equals the metric's own, with the sample left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrobust.scoring.calibration import calibration_pseudo_values, confidences, expected_calibration_error
from mmrobust.scoring.metrics import METRICS, MetricSettings, Outcomes, WeightedTruth
from mmrobust.scoring.pseudo_values import OF_COUNTS, Decisions, PseudoValues, Ranking, share_of_some, worst_class
from mmrobust.scoring.regression import OF_NUMBERS
from mmrobust.scoring.significance import delong, placements


def found_for(name, logits, targets, several, settings):
    """The pseudo-values of a metric, as a cell computes them."""
    classes = targets.shape[1]
    one_table = np.zeros(len(logits), dtype=np.uint8)
    if name == "auroc":
        return Ranking.of([logits[:, 1].astype(np.float64) - logits[:, 0]], targets[:, 1]).of_cell(one_table).auroc()
    if name == "map":
        of_sample, value = np.zeros(len(logits)), 0.0
        for column in range(classes):
            ranked = Ranking.of([logits[:, column]], targets[:, column]).of_cell(one_table)
            value += ranked.add_average_precision(of_sample)
        return PseudoValues(value / classes, of_sample / classes)
    if name in OF_NUMBERS:
        return OF_NUMBERS[name](logits[:, 0].astype(np.float64), targets[:, 0])
    predicted = logits >= 0 if several else logits.argmax(axis=1)
    actual = targets if several else targets.argmax(axis=1)
    return OF_COUNTS[name](Decisions(predicted, actual, classes, settings.f1_absent == "skip"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(METRICS)), st.booleans(), st.sampled_from(["zero", "skip"]))
def test_each_is_the_metric_without_the_sample(seed, task, ties, absent):
    random = np.random.default_rng(seed)
    samples, classes = int(random.integers(2, 25)), 2 if task == "binary" else int(random.integers(2, 6))
    several = task == "multi-label"
    targets = random.random((samples, classes)) < 0.4
    if not several:
        targets = np.eye(classes, dtype=bool)[random.integers(0, classes, samples)]
    logits = random.normal(size=(samples, classes)).astype(np.float32)
    if task == "regression":
        targets, logits = random.normal(size=(samples, 1)).round(1), logits[:, :1]
    logits = np.round(logits) if ties else logits
    given = MetricSettings(f1_absent=absent)
    whole = Outcomes(logits, WeightedTruth(targets, np.ones((1, samples))), several, given)
    rest = Outcomes(logits, WeightedTruth(targets, 1 - np.eye(samples)), several, given)
    for name, metric in METRICS[task].items():
        value = metric(whole)[0]
        naive = samples * value - (samples - 1) * metric(rest)
        found = found_for(name, logits, targets, several, given)
        assert found.value == pytest.approx(value, abs=1e-14, nan_ok=True)
        defined = ~np.isnan(naive)  # without a class's last sample, AUROC is not
        assert found.of_sample[defined] == pytest.approx(naive[defined], abs=1e-9)


def test_there_are_pseudo_values_of_every_metric():
    named = {name for metrics in METRICS.values() for name in metrics}
    assert named == {*OF_COUNTS, *OF_NUMBERS, "map", "auroc"}


def test_the_error_of_auroc_is_delongs():
    random = np.random.default_rng(0)
    positive = random.random(400) < 0.2
    first, second = (random.normal(size=400) + positive for _ in range(2))
    none = np.zeros(400, dtype=np.uint8)
    of = [Ranking.of([scores], positive).of_cell(none).auroc().of_sample for scores in (first, second)]
    error, _ = delong(placements(first, positive), placements(second, positive))
    assert (of[1] - of[0]).std(ddof=1) / np.sqrt(400) == pytest.approx(error, rel=0.02)


def test_all_cells_share_one_ranking():
    random = np.random.default_rng(1)
    positive = random.random(50) < 0.3
    scores = [np.round(random.normal(size=50), 1) for _ in range(3)]
    table = random.integers(0, 3, 50).astype(np.uint8)
    chosen = np.stack(scores)[table, np.arange(50)]
    alone, shared = np.zeros(50), np.zeros(50)
    of_alone = Ranking.of([chosen], positive).of_cell(np.zeros(50, np.uint8)).add_average_precision(alone)
    assert Ranking.of(scores, positive).of_cell(table).add_average_precision(shared) == pytest.approx(of_alone)
    assert shared == pytest.approx(alone)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_calibration_error_without_each_sample(task):
    random = np.random.default_rng(2)
    logits = random.normal(size=(30, 4)).astype(np.float32)
    labels = tuple((int(c),) for c in random.integers(0, 4, 30))
    found = calibration_pseudo_values(*confidences(logits, labels, task), 30)
    value = expected_calibration_error(*confidences(logits, labels, task))
    assert found.value == pytest.approx(value)
    rest = [np.arange(30) != left_out for left_out in range(30)]
    naive = [
        expected_calibration_error(*confidences(logits[kept], tuple(np.asarray(labels)[kept].tolist()), task))
        for kept in rest
    ]
    assert found.of_sample == pytest.approx(30 * value - 29 * np.asarray(naive))


def test_the_worst_class_is_the_one_with_the_lowest_f1():
    predicted, actual = np.asarray([0, 0, 1, 1, 2, 2]), np.asarray([0, 0, 1, 2, 2, 1])
    found = worst_class(Decisions(predicted, actual, 3))
    assert found.value == pytest.approx(0.5)  # 1 and 2: one hit of two predicted and two true
    without = worst_class(Decisions(predicted[:-1], actual[:-1], 3)).value
    assert found.of_sample[-1] == pytest.approx(6 * 0.5 - 5 * without)


def test_a_share_of_some_samples_is_over_these_alone():
    shares, chosen = np.asarray([1.0, 0.0, 1.0, 1.0]), np.asarray([True, True, False, False])
    found = share_of_some(shares, chosen)
    assert found.value == 0.5
    assert found.of_sample.tolist() == [1.5, -0.5, 0.5, 0.5]
    assert np.isnan(share_of_some(shares, np.zeros(4, dtype=bool)).value)
