"""A paper's figures beside ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from markdown_it import MarkdownIt

from mmrobust.cases import noisy_cases
from mmrobust.errors import UsageError
from mmrobust.report import FORMATS, tables
from mmrobust.report.published import beside
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import Results


@pytest.fixture(scope="module")
def noisy(make_results):
    """Results on the paper's own data set, in its cases."""
    labels = np.arange(80) % 4
    modalities = ("audio", "image")
    truth = SplitTruth(
        tuple(f"s{i}" for i in range(80)), tuple((int(c),) for c in labels), modalities, 4, "single-label"
    )
    logits = {}
    for number, case in enumerate(noisy_cases(modalities)):
        z = np.eye(4, dtype=np.float32)[labels]
        z[: 8 * number] *= -1
        logits[case.name, "situation"] = z
    scenarios = ("noisy-audio", "noisy-image", "noisy-both")
    frame = score(
        Predictions(truth, logits),
        truth.draw_grid(Grid(scenarios, (0.0, 1.0), (0,), ("situation",))),
        ScoringSettings(resamples=0),
    )
    about = {"method": "ptm", "head": "linear", "backbone": "tiny-cavmae"}
    _, provenance = make_results()
    provenance = {**provenance, "dataset": {**provenance["dataset"], "name": "urbansound8k-av"}}
    return Results(frame.assign(checkpoint="ours", dataset="urbansound8k-av", split="test", **about), provenance)


def test_the_papers_averages_are_those_of_its_cases():
    for comparison in beside("ptm", ()).comparisons:
        for line in comparison.lines:
            # Rounded to two digits in the paper, as the cases are.
            assert np.mean(line.values) == pytest.approx(line.average, abs=0.0101), (comparison.dataset, line.source)


def test_ours_stand_beside_the_table_of_the_same_data_in_the_same_cases(noisy):
    report = tables.build([noisy]).with_published("ptm")
    same, other = report.published.comparisons
    assert [line.source for line in same.lines] == [
        "paper: CAV-MAE", "paper: LoRA", "paper: Adapter", "paper: PTM", "ours: ours on urbansound8k-av",
    ]  # fmt: skip
    ours = same.lines[-1]
    assert ours.ours
    assert ours.values == (1.0, 0.9, 0.8, pytest.approx(0.7))
    assert ours.average == pytest.approx(0.85)
    assert same.remark == "the same data set, prepared by us"
    assert other.remark == "on urbansound8k-av, not on CIFAR10-AV"


def test_cases_that_were_not_evaluated_are_dashes_and_said(two):
    comparison = tables.build(two).with_published("ptm").published.comparisons[0]
    ours = [line for line in comparison.lines if line.ours]
    assert len(ours) == 2
    assert all(math.isnan(value) for line in ours for value in line.values[1:])
    assert "a dash is a case that was not evaluated at η = 1" in comparison.remark


def test_an_unknown_paper_is_refused(two):
    with pytest.raises(UsageError, match="unknown published figures 'ptn': did you mean 'ptm'"):
        tables.build(two).with_published("ptn")


def test_in_markdown_they_are_a_table_named_as_published(noisy):
    text = FORMATS["markdown"](tables.build([noisy]).with_published("ptm"))
    assert "As published (README of the released code" in text
    assert "| ours: ours on urbansound8k-av | 100.0 | 90.0 | 80.0 | 70.0 | 85.0 |" in text
    assert "| paper: PTM | 3.2 | 17.8 | 2.4 | 0.88 |" in text
    assert "noisy-audio" in MarkdownIt("commonmark").enable("table").render(text)
