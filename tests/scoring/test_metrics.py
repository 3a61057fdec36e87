"""Every metric equals scikit-learn's, for whole splits and for weighted resamples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as reference

from mmrobust.errors import DataError, UsageError
from mmrobust.scoring import ranking
from mmrobust.scoring.metrics import METRICS, RANKED, MetricSettings, Outcomes, WeightedTruth, metrics_of, target_matrix
from mmrobust.scoring.ranking import RankedCells

# Quarters: many ties, and none so close that a sigmoid in float64 would merge two different logits.
FIXED = {"binary": 2, "regression": 1}
"""Task → its number of outputs."""
LOGITS = st.integers(-20, 20).map(lambda quarter: quarter / 4)


@st.composite
def problems(draw, task):
    """(logits [N, C], targets [N, C], weights [R, N]) of a task."""
    samples, classes = draw(st.integers(1, 25)), FIXED.get(task) or draw(st.integers(2, 6))
    logits = draw(arrays.arrays(np.float32, (samples, classes), elements=LOGITS))
    if task == "multi-label":
        targets = draw(arrays.arrays(np.bool_, (samples, classes)))
    elif task == "regression":
        targets = draw(arrays.arrays(np.float64, (samples, 1), elements=LOGITS))
    else:
        labels = draw(arrays.arrays(np.int64, samples, elements=st.integers(0, classes - 1)))
        targets = labels[:, None] == np.arange(classes)
    # A resample holds something: weights that are all zero are no resample.
    weights = draw(arrays.arrays(np.float64, (3, samples), elements=st.integers(0, 3)))
    weights[:, draw(st.integers(0, samples - 1))] += 1
    return logits, targets, weights


def values(task, logits, targets, weights):
    outcomes = Outcomes(logits, WeightedTruth(targets, weights), several=task == "multi-label")
    return {name: metric(outcomes) for name, metric in METRICS[task].items()}


def expected(task, logits, targets, weight):
    """The same from scikit-learn, on the resample that ``weight`` describes, written out sample by sample."""
    rows = np.repeat(np.arange(len(logits)), weight.astype(int))
    logits, targets = logits[rows].astype(np.float64), targets[rows]
    if task == "regression":
        number, predicted = targets[:, 0], logits[:, 0]
        varies = [len(set(of)) > 1 for of in (number, predicted)]
        return {
            "mae": reference.mean_absolute_error(number, predicted),
            "rmse": reference.root_mean_squared_error(number, predicted),
            "pearson": np.corrcoef(number, predicted)[0, 1] if all(varies) else 0.0 if varies[0] else np.nan,
        }
    classes = range(logits.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes without a positive
        if task == "multi-label":
            scores = 1 / (1 + np.exp(-logits))
            f1 = {
                f"{average}_f1": reference.f1_score(targets, scores >= 0.5, average=average, zero_division=0)
                for average in ("macro", "micro", "weighted", "samples")
            }
            return {**f1, "map": reference.average_precision_score(targets, scores, average="macro")}
        truth, predicted = targets.argmax(axis=1), logits.argmax(axis=1)
        accuracy = {"accuracy": reference.accuracy_score(truth, predicted)}
        if task == "single-label":
            f1 = reference.f1_score(truth, predicted, labels=classes, average="macro", zero_division=0)
            return {**accuracy, "macro_f1": f1}
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        defined = len(set(truth)) == 2
        # Rounded: the softmax of equal differences differs in its last bit.
        return {**accuracy, "auroc": reference.roc_auc_score(truth, softmax[:, 1].round(12)) if defined else np.nan}


@pytest.mark.parametrize("task", METRICS)
def test_every_metric_equals_scikit_learns_on_every_resample(task):
    @settings(max_examples=120, deadline=None)
    @given(problems(task))
    def check(problem):
        logits, targets, weights = problem
        ours = values(task, logits, targets, weights)
        for row, weight in enumerate(weights):
            theirs = expected(task, logits, targets, weight)
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                np.testing.assert_allclose(ours[name][row], value, rtol=0, atol=1e-12, err_msg=name)

    check()


@pytest.mark.parametrize("task", METRICS)
def test_float32_weights_lose_nothing_that_matters(task):
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, FIXED.get(task, 2))).astype(np.float32)
    targets = random.random((500, 2)) < 0.3
    targets = targets if task == "multi-label" else np.stack([targets[:, 0], ~targets[:, 0]], axis=1)
    targets = random.normal(size=(500, 1)) if task == "regression" else targets
    weights = random.integers(0, 4, size=(7, 500))
    exact = values(task, logits, targets, weights.astype(np.float64))
    quick = values(task, logits, targets, np.asarray(weights, dtype=np.float32, order="F"))
    for name in exact:
        np.testing.assert_allclose(quick[name], exact[name], rtol=0, atol=1e-6)


def test_a_threshold_is_a_probability_and_decides_what_is_predicted():
    logits, truth = np.asarray([[-2.0, 0.0, 2.0]]), WeightedTruth(np.eye(3, dtype=bool)[:1], np.ones((1, 1)))
    predicted = [Outcomes(logits, truth, True, MetricSettings(threshold=t)).predicted.sum() for t in (0.1, 0.5, 0.6)]
    assert predicted == [3, 2, 1]
    with pytest.raises(UsageError, match=r"--threshold 1\.5: give a probability between 0 and 1"):
        MetricSettings(threshold=1.5)


def test_absent_classes_are_skipped_where_the_papers_skip_them():
    logits, targets = np.asarray([[1.0, -1, -1], [1, -1, -1]]), np.asarray([[True, False, False], [False, True, False]])
    truth = WeightedTruth(targets, np.ones((1, 2)))
    scikit_learns, papers = (
        METRICS["multi-label"]["macro_f1"](Outcomes(logits, truth, True, MetricSettings(f1_absent=absent)))[0]
        for absent in ("zero", "skip")
    )
    assert scikit_learns == pytest.approx((2 / 3) / 3)
    assert papers == pytest.approx((2 / 3) / 2)
    with pytest.raises(UsageError, match="unknown --f1-absent 'skipped': did you mean 'skip'"):
        MetricSettings(f1_absent="skipped")


@pytest.mark.parametrize("metric", RANKED)
def test_many_cells_at_once_equal_each_cell_alone(metric, monkeypatch):
    """Several blocks, several parts, ties across cases, samples that no cell takes in a case."""
    monkeypatch.setattr(ranking, "BLOCK", 7)
    monkeypatch.setattr(ranking, "CELLS_AT_ONCE", 3)
    random = np.random.default_rng(0)
    classes = 2 if metric == "auroc" else 4
    logits = [random.integers(-3, 4, (50, classes)).astype(np.float32) for _ in range(3)]
    tables = random.integers(0, 3, (8, 50)).astype(np.uint8)
    logits[1][~(tables == 1).any(axis=0)] = np.nan
    targets = random.random((50, classes)) < 0.4
    weights = random.integers(0, 3, (6, 50)).astype(np.float64)
    told = []
    together = RANKED[metric](RankedCells(logits, tables, targets, weights), told.append)
    assert sum(told) == 8 * (classes if metric == "map" else 1)
    for table, values in zip(tables, together, strict=True):
        chosen = np.stack(logits)[table, np.arange(50)]
        for weight, value in zip(weights, values, strict=True):
            if metric == "auroc":
                expected = reference.roc_auc_score(targets[:, 1], chosen[:, 1] - chosen[:, 0], sample_weight=weight)
            else:
                expected = reference.average_precision_score(targets, chosen, sample_weight=weight)
            assert value == pytest.approx(expected, abs=1e-12)


def test_equal_logits_choose_the_lowest_class():
    outcomes = Outcomes(np.zeros((1, 3)), WeightedTruth(np.eye(3, dtype=bool)[:1], np.ones((1, 1))), several=False)
    assert outcomes.predicted.tolist() == [[True, False, False]]


def test_a_sigmoid_of_exactly_one_half_is_positive():
    outcomes = Outcomes(np.zeros((1, 2)), WeightedTruth(np.ones((1, 2), dtype=bool), np.ones((1, 1))), several=True)
    assert outcomes.predicted.all()


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="unknown metric of a single-label task 'acuracy': did you mean 'accuracy'"):
        metrics_of("single-label", ["acuracy"])
    with pytest.raises(UsageError, match="unknown task 'regresion': did you mean 'regression'"):
        metrics_of("regresion")


def test_named_metrics_come_in_the_order_they_were_named():
    assert list(metrics_of("multi-label", ["map", "macro_f1"])) == ["map", "macro_f1"]


def test_target_matrix():
    assert target_matrix([(0, 2), (), (1,)], 3).astype(int).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(DataError, match="label 3 is out of range: there are 3 classes, 0 to 2"):
        target_matrix([(0,), (3,)], 3)
