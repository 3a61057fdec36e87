"""A cell is a join: each value equals a naive evaluation of that cell alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as reference
from statsmodels.stats.proportion import proportion_confint

from mmrobust.cases import Case, missing_cases
from mmrobust.errors import DataError, UsageError
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.metrics import METRICS
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.pseudo_values import OF_COUNTS, PseudoValues
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import INTERVALS, ROBUSTNESS_FIGURES

MODALITIES = ("image", "text")
GRID = Grid(("missing-image", "missing-text", "missing-both"), (0.0, 0.3, 0.7, 1.0), (0, 1, 2))


def evaluation(task="single-label", samples=60, classes=4, natural=None, seed=0):
    """Synthetic predictions of a model that is worse in each missing case: (truth, logits)."""
    random = np.random.default_rng(seed)
    if task == "multi-label":
        labels = tuple(tuple(np.flatnonzero(random.random(classes) < 0.4).tolist()) for _ in range(samples))
    else:
        labels = tuple((int(c),) for c in random.integers(0, classes, samples))
    strengths = {"complete": 2.0, "missing-image": 1.0, "missing-text": 0.5}
    logits = {}
    for case in missing_cases(MODALITIES):
        for prompting in ("situation", "concat"):
            z = random.normal(size=(samples, classes)).astype(np.float32)
            for row, label in enumerate(labels):
                z[row, list(label)] += strengths[case.name]
            logits[case.name, prompting] = z
    ids = tuple(f"sample-{i}" for i in range(samples))
    return SplitTruth(ids, labels, MODALITIES, classes, task, natural), logits


def naive_cell(truth, logits, cell):
    """The cell's headline metrics from scikit-learn, sample by sample, from the published missing table."""
    scenario = Scenario.parse(cell.scenario, truth.modalities)
    table = missing_table(truth.ids, scenario, cell.missing_rate, cell.seed, truth.natural)
    rows = np.stack([logits[table[name], cell.prompting][i] for i, name in enumerate(truth.ids)])
    if truth.task == "multi-label":
        targets = np.asarray([[c in label for c in range(truth.classes)] for label in truth.labels])
        return {
            "micro_f1": reference.f1_score(targets, rows >= 0, average="micro", zero_division=0),
            "map": reference.average_precision_score(targets, rows, average="macro"),
        }
    labels = [label for (label,) in truth.labels]
    values = {"accuracy": reference.accuracy_score(labels, rows.argmax(axis=1))}
    if truth.task == "binary":
        values["auroc"] = reference.roc_auc_score(labels, rows[:, 1].astype(np.float64) - rows[:, 0])
    return values


@pytest.mark.parametrize(("task", "classes"), [("single-label", 4), ("multi-label", 5), ("binary", 2)])
def test_every_cell_equals_a_naive_evaluation_of_it_alone(task, classes):
    truth, logits = evaluation(task, classes=classes)
    frame = score(Predictions(truth, logits), truth.draw_grid(GRID), ScoringSettings(resamples=0))
    assert len(frame) == len(list(GRID.cells())) * len(METRICS[task])
    by_key = frame.set_index(["scenario", "missing_rate", "seed", "prompting", "metric"])["value"]
    for cell in GRID.cells():
        for metric, value in naive_cell(truth, logits, cell).items():
            key = (cell.scenario, cell.missing_rate, cell.seed, cell.prompting, metric)
            assert by_key[key] == pytest.approx(value, abs=1e-12)


def test_promptings_that_say_the_same_have_the_same_intervals():
    truth, logits = evaluation()
    twin = {key: logits[key[0], "situation"] for key in logits}  # concat says what situation says
    frame = score(Predictions(truth, twin), truth.draw_grid(GRID))
    wide = frame.pivot(
        columns="prompting", index=["scenario", "missing_rate", "seed", "metric"], values=list(INTERVALS)
    )
    for end in INTERVALS:
        pd.testing.assert_series_equal(wide[end]["situation"], wide[end]["concat"], check_names=False)


@pytest.mark.parametrize(("task", "classes"), [("single-label", 4), ("multi-label", 5), ("binary", 2)])
def test_every_interval_holds_its_value_and_has_a_width(task, classes):
    truth, logits = evaluation(task, classes=classes)
    frame = score(Predictions(truth, logits), truth.draw_grid(GRID))
    means = frame.groupby(["scenario", "missing_rate", "prompting", "metric"])["value"].transform("mean")
    for value, of in ((frame.value, "ci"), (means, "mean")):
        low, high = frame[f"{of}_low"], frame[f"{of}_high"]
        assert (low <= value).all()
        assert (value <= high).all()
        assert (low < high).all()
        assert low.min() >= 0
        assert high.max() <= 1
    for figure in ROBUSTNESS_FIGURES:
        assert (frame[f"{figure}_low"] < frame[f"{figure}_high"]).all()


def test_a_model_that_is_always_right_has_wilsons_interval():
    truth, logits = evaluation()
    right = {key: 9 * np.asarray(truth.targets, dtype=np.float32) for key in logits}
    frame = score(Predictions(truth, right), truth.draw_grid(GRID), metrics=["accuracy"])
    low, high = proportion_confint(60, 60, method="wilson")
    assert frame.value.eq(1).all()
    # Wilson's with Student's quantile of 60 degrees of freedom in place of the normal one.
    assert frame.ci_low.unique().tolist() == pytest.approx([60 / (60 + stats.t.ppf(0.975, 60) ** 2)])
    assert frame.ci_low.unique().tolist() == pytest.approx([low], abs=0.005)
    assert frame.ci_high.unique().tolist() == pytest.approx([high])


def test_small_classes_are_marked_with_their_size():
    truth, logits = evaluation(samples=200)
    rare = dataclasses.replace(truth, labels=tuple((0,) if i % 40 else (3,) for i in range(200)))
    frame = score(Predictions(rare, logits), rare.draw_grid(GRID)).set_index("metric")
    assert frame.loc["macro_f1", "few"].eq(0).all()  # classes 1 and 2 do not occur
    assert frame.loc["accuracy", "few"].isna().all()
    skipped = score(Predictions(rare, logits), rare.draw_grid(GRID), ScoringSettings(f1_absent="skip"))
    assert skipped[skipped.metric == "macro_f1"].few.eq(5).all()
    whole = score(Predictions(truth, logits), truth.draw_grid(GRID))
    assert whole.few.isna().all()


def test_without_resamples_there_are_no_intervals():
    truth, logits = evaluation()
    frame = score(Predictions(truth, logits), truth.draw_grid(GRID), ScoringSettings(resamples=0))
    assert frame[["ci_low", "ci_high"]].isna().all(axis=None)


def test_cells_with_the_same_missing_table_are_scored_once(monkeypatch):
    truth, logits = evaluation()
    scored = []
    monkeypatch.setitem(OF_COUNTS, "accuracy", lambda d: scored.append(1) or PseudoValues(0.0, np.zeros(60)))
    score(
        Predictions(truth, logits),
        truth.draw_grid(dataclasses.replace(GRID, rates=(0.0, 1.0), promptings=("situation",))),
        metrics=["accuracy"],
    )
    # In each scenario rate 0 is one table; rate 1 is one for a single modality, and one per seed for missing-both.
    assert len(scored) == 3 + 1 + 1 + 3


def test_who_is_affected_is_counted():
    truth, logits = evaluation(samples=10)
    frame = score(
        Predictions(truth, logits),
        truth.draw_grid(dataclasses.replace(GRID, rates=(0.0, 0.29, 1.0))),
        ScoringSettings(resamples=0),
    )
    assert set(frame.n) == {10}
    assert dict(zip(frame.missing_rate, frame.n_affected, strict=True)) == {0.0: 0, 0.29: 2, 1.0: 10}
    assert set(frame.n_naturally_missing) == {0}


def test_a_naturally_missing_modality_stays_missing_and_is_counted():
    complete, no_text = Case.complete(MODALITIES), Case.missing(MODALITIES, "text")
    truth, logits = evaluation(samples=20, natural=(no_text,) * 5 + (complete,) * 15)
    frame = score(
        Predictions(truth, logits),
        truth.draw_grid(dataclasses.replace(GRID, scenarios=("missing-image",))),
        ScoringSettings(resamples=0),
    )
    assert set(frame.n_naturally_missing) == {5}
    assert frame.n_affected.max() == 15  # those with no text cannot lose their image as well
    for cell in dataclasses.replace(GRID, scenarios=("missing-image",)).cells():
        row = frame[
            (frame.missing_rate == cell.missing_rate)
            & (frame.seed == cell.seed)
            & (frame.prompting == cell.prompting)
            & (frame.metric == "accuracy")
        ]
        assert row.value.item() == pytest.approx(naive_cell(truth, logits, cell)["accuracy"], abs=1e-12)


def test_predictions_that_no_cell_needs_may_be_absent():
    truth, logits = evaluation()
    affected = missing_table(truth.ids, Scenario.parse("missing-text", MODALITIES), 0.3, 0)
    grid = Grid(("missing-text",), (0.3,), (0,), ("situation",))
    partial = {("complete", "situation"): logits["complete", "situation"].copy()}
    partial["missing-text", "situation"] = logits["missing-text", "situation"].copy()
    for row, name in enumerate(truth.ids):
        other = "complete" if affected[name] == "missing-text" else "missing-text"
        partial[other, "situation"][row] = np.nan
    pd.testing.assert_frame_equal(
        score(Predictions(truth, partial), truth.draw_grid(grid)),
        score(Predictions(truth, logits), truth.draw_grid(grid)),
    )


def test_an_absent_prediction_is_named():
    truth, logits = evaluation()
    lacking = {key: value for key, value in logits.items() if key != ("missing-text", "concat")}
    with pytest.raises(
        DataError, match=r"no prediction of sample 'sample-.*' in case 'missing-text' under prompting 'c"
    ):
        score(Predictions(truth, lacking), truth.draw_grid(GRID))
    logits["complete", "situation"][7] = np.nan
    with pytest.raises(DataError, match="no prediction of sample 'sample-7' in case 'complete' under prompting 'situ"):
        score(Predictions(truth, logits), truth.draw_grid(GRID))
    logits["complete", "situation"][7] = [0, 0, np.inf, 0]
    with pytest.raises(DataError, match="a prediction that is not finite of sample 'sample-7' in case 'complete'"):
        score(Predictions(truth, logits), truth.draw_grid(GRID))


def test_predictions_of_another_shape_are_refused():
    truth, logits = evaluation()
    logits["complete", "concat"] = logits["complete", "concat"][:, :3]
    with pytest.raises(DataError, match="under prompting 'concat' are 60 × 3 logits, not 60 × 4"):
        score(Predictions(truth, logits), truth.draw_grid(GRID))


def test_truth_that_contradicts_itself_is_refused():
    truth, _ = evaluation(samples=3)
    with pytest.raises(DataError, match="no sample to score"):
        dataclasses.replace(truth, ids=(), labels=())
    with pytest.raises(DataError, match="3 samples, but 2 labels"):
        dataclasses.replace(truth, labels=truth.labels[:2])
    with pytest.raises(DataError, match="sample 'sample-1' has 2 classes; a single-label task needs exactly one"):
        dataclasses.replace(truth, labels=((0,), (0, 1), (1,)))


def test_an_unknown_scenario_or_metric_is_refused():
    truth, logits = evaluation()
    with pytest.raises(UsageError, match="did you mean 'missing-text'"):
        score(Predictions(truth, logits), truth.draw_grid(dataclasses.replace(GRID, scenarios=("missing-txt",))))
    with pytest.raises(UsageError, match="unknown metric"):
        score(Predictions(truth, logits), truth.draw_grid(GRID), metrics=["f1"])


def test_progress_ends_at_its_total():
    from contextlib import contextmanager

    seen = {"done": 0}

    @contextmanager
    def progress(description, total):
        seen["total"] = total
        yield lambda units: seen.update(done=seen["done"] + units)

    truth, logits = evaluation()
    score(Predictions(truth, logits), truth.draw_grid(GRID), ScoringSettings(resamples=30), progress=progress)
    assert seen["done"] == seen["total"] > 0


def test_scoring_imports_neither_torch_nor_scikit_learn():
    code = (
        "import mmrobust.scoring.join, mmrobust.scoring.robustness, sys;"
        "assert not {'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
