"""A paper's figures beside ours."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mmrobust.cases import noisy_cases
from mmrobust.errors import UsageError
from mmrobust.report import FORMATS, terminal
from mmrobust.report.published import PUBLISHED, beside
from mmrobust.report.report import build_report
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
            *values, average = line.values
            assert np.mean(values) == pytest.approx(average, abs=0.0101), (comparison.dataset, line.source)


def test_ours_stand_beside_the_table_of_the_same_data_in_the_same_cases(noisy):
    report = build_report([noisy]).with_published("ptm")
    (same,) = report.published.comparisons  # that of CIFAR10-AV is for other data
    assert [line.source for line in same.lines] == [
        "paper: CAV-MAE", "paper: LoRA", "paper: Adapter", "paper: PTM", "ours: ours on urbansound8k-av",
    ]  # fmt: skip
    ours = same.lines[-1]
    assert ours.ours
    assert ours.values == (1.0, 0.9, 0.8, pytest.approx(0.7), pytest.approx(0.85))
    assert same.columns == ("complete", "noisy-audio 1", "noisy-image 1", "noisy-both 1", "average")
    assert same.remark == "the same data set, prepared by us"


def test_cases_that_were_not_evaluated_are_dashes_and_said(two):
    comparison = build_report(two).with_published("ptm").published.comparisons[0]
    ours = [line for line in comparison.lines if line.ours]
    assert len(ours) == 2
    assert all(math.isnan(value) for line in ours for value in line.values[1:])
    assert "on digits, not on UrbanSound8K-AV; a dash is what was not evaluated" in comparison.remark


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_paper_is_printed_in_every_format(two, name):
    report = build_report(two).with_published(name)
    for format in ("markdown", "latex", "html"):
        text = FORMATS[format](report)
        assert all(comparison.dataset in text for comparison in report.published.comparisons)
    console = Console(record=True, width=100, file=io.StringIO())
    terminal.show(report, console)
    assert "Source: " in console.export_text()
    for comparison in report.published.comparisons:
        assert all(len(line.values) == len(comparison.columns) for line in comparison.lines)


def test_figures_at_second_hand_say_so_and_what_they_are_of():
    published = beside("dpl", ())
    assert published.source.startswith("second-hand")
    mmimdb, memes, ablation = published.comparisons
    assert (mmimdb.metric, memes.metric) == ("macro_f1", "auroc")
    assert mmimdb.columns == ("missing-both 0.7 (65/65)", "missing-text 0.5 (100/50)", "missing-both 0.9 (55/55)")
    found = {line.source: line.values for line in mmimdb.lines}
    assert found["paper: DCP + linear head"][:2] == (0.5146, 0.5362)
    assert found["paper: DCP + DPL"][:2] == (0.5548, 0.5694)
    assert found["paper: no prompts + DPL"][2] == 0.5398
    assert [line.values for line in memes.lines] == [(0.5402,), (0.6453,)]
    assert ablation.lines[-1].values == (0.6746, 0.6931, 0.7076)
    for comparison in published.comparisons:
        assert "split and seeds are not noted" in comparison.remark


def test_what_is_not_at_hand_is_said():
    published = beside("mmp", ())
    assert published.source.startswith("none: of its tables no figure is at hand")
    for comparison in published.comparisons:
        assert comparison.lines == () and "the paper's figures are not at hand" in comparison.remark


def test_ours_stand_in_the_papers_scenarios_at_its_rate(two):
    report = build_report(two).with_published("mmp")
    accuracy = next(comparison for comparison in report.published.comparisons if comparison.metric == "accuracy")
    assert accuracy.columns == ("missing-text 0.7", "missing-image 0.7", "missing-both 0.7")
    (table,) = report.tables
    assert len(accuracy.lines) == 2
    for line, checkpoint in zip(accuracy.lines, ("none", "mmp"), strict=True):
        rows = {row.scenario: row for row in table.rows if (row.checkpoint, row.prompting) == (checkpoint, "situation")}
        expected = tuple(rows[scenario].at(0.7).value for scenario in ("missing-text", "missing-image", "missing-both"))
        assert line.source == f"ours: {checkpoint} on digits" and line.values == expected
        assert not any(map(math.isnan, expected))


def test_where_a_paper_trains_a_model_for_each_column_ours_stand_in_that_of_their_training(two):
    results = [Results(frame, {**about, "checkpoints": dict(about["checkpoints"])}) for frame, about in two]
    for (_, about), name, training in zip(
        results,
        ("none", "mmp"),
        ({"scenario": "missing-both", "missing_rate": 0.7}, {"scenario": "missing-text", "missing_rate": 0.3}),
        strict=True,
    ):
        about["checkpoints"][name] = {**about["checkpoints"][name], "training": training}
    accuracy = build_report(results).with_published("mmp").published.comparisons[1]
    (line,) = accuracy.lines  # the other was trained under none of the columns
    assert line.source == "ours: none on digits"
    assert [math.isnan(value) for value in line.values] == [True, True, False]


@pytest.mark.parametrize(
    ("scored", "end"),
    [("zero", "leaves out absent classes: score ours with --f1-absent skip"), ("skip", "absent classes, as ours does")],
)
def test_what_to_do_about_absent_classes_is_said_where_it_was_not_done(two, scored, end):
    results = [
        Results(frame.assign(metric="macro_f1"), {**about, "scoring": {"f1_absent": scored}}) for frame, about in two
    ]
    remarks = [one.remark for one in build_report(results).with_published("dpl").published.comparisons]
    assert remarks[0].endswith(end) and "absent classes" not in remarks[1]


def test_an_unknown_paper_is_refused(two):
    with pytest.raises(UsageError, match="unknown published figures 'ptn': did you mean 'ptm'"):
        build_report(two).with_published("ptn")


def test_in_markdown_they_are_a_table_named_as_published(noisy):
    text = FORMATS["markdown"](build_report([noisy]).with_published("ptm"))
    assert "As published (README of the released code" in text
    assert "| ours: ours on urbansound8k-av | 100.0 | 90.0 | 80.0 | 70.0 | 85.0 |" in text
    assert "| paper: PTM | 3.2 | 17.8 | 2.4 | 0.88 |" in text
    assert "noisy-audio" in MarkdownIt("commonmark").enable("table").render(text)
