"""A grid over three modalities of a model of one's own: every combination, rates for each, groups, dependence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.store import read_predictions
from mmrobust.storage.results import read_results

NAMES = ("vision", "words", "age")
Cli = Callable[..., Any]
MODEL = """
import mmrobust

def predict(samples, case):
    # An empty vector never comes: what is missing is None. Each modality says the class a little.
    scores = []
    for sample in samples:
        there = [float(value[0]) for value in sample.values() if value is not None]
        scores.append([0.0, sum(there)])
    return scores

model = mmrobust.Model(
    name="sum", version="1", modalities=("vision", "words", "age"), classes=("no", "yes"), task="single-label",
    predict=predict,
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 samples of 40 groups, of which a few lack a modality by nature."""
    draws = np.random.default_rng(0)
    rows = []
    for i in range(80):
        label = int(draws.random() < 0.4)
        media: dict[str, Any] = {name: (draws.normal(size=3) + (label - 0.5)).astype(np.float32) for name in NAMES}
        if i % 11 == 0:
            media["age"] = None
        rows.append(SampleRow("test", f"s{i}", (label,), others=media, group=f"g{i // 2}"))
    out = tmp_path_factory.mktemp("data") / "made"
    write_dataset(
        out,
        rows,
        name="made",
        modalities=NAMES,
        classes=("no", "yes"),
        task="single-label",
        headline_metric="accuracy",
        licence="none",
        source="made",
        kinds=dict.fromkeys(NAMES, "features"),
        grouped=True,
    )
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("model") / "model.py"
    file.write_text(MODEL)
    return f"{file}:model"


SCENARIOS = "missing-any,missing-vision+missing-words,missing-words^label=yes:0.75,noisy-vision:gap@2"


@pytest.fixture(scope="module")
def results(folder: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mmrobust.cli import app

    out = tmp_path_factory.mktemp("results") / "grid"
    code = app.run(
        [
            *("eval", model, "--data", str(folder), "--scenario", SCENARIOS, "--missing-rate", "0,0.4,1"),
            *("--missing-rate", "vision=0.25,words=0.6", "--seeds", "2", "--out", str(out)),
        ]
    )
    assert code == 0
    return out


def expected(folder: Path, scenario: str, rate: float, seed: int) -> tuple[list[str], list[int]]:
    """The missing table, and which samples are predicted right, straight from the definition."""
    split = Dataset(folder).split("test")
    natural = split.natural_cases(NAMES)
    draw = ScenarioDraw(split.ids, Scenario.parse(scenario, NAMES), seed, natural, split.traits)
    table = draw.table(rate).tolist()
    right = []
    for sample, name in zip(split, table, strict=True):
        there = [m for m in NAMES if not Case.parse(name, NAMES).is_missing(m)]
        score = sum(float(np.asarray(sample.media[m])[0]) for m in there)
        right.append(int((score > 0) == (sample.label[0] == 1)))
    return table, right


@pytest.mark.parametrize(
    ("scenario", "rate"),
    [
        ("missing-any", 0.4),
        ("missing-any", 1.0),
        ("missing-vision+missing-words", 0.4),
        ("missing-words^label=yes:0.75", 0.4),
        ("missing-each:vision=0.25+words=0.6", 0.85 / 3),
    ],
)
def test_a_cell_is_what_the_definition_says(folder: Path, results: Path, scenario: str, rate: float) -> None:
    frame = read_results(results).frame
    for seed in (0, 1):
        rows = frame[(frame.scenario == scenario) & np.isclose(frame.missing_rate, rate) & (frame.seed == seed)]
        rows = rows[rows.metric == "accuracy"]
        (exact,) = rows.missing_rate.unique()
        table, right = expected(folder, scenario, float(exact), seed)
        assert rows.value.unique().tolist() == [pytest.approx(np.mean(right))]
        natural = ["missing-age" if i % 11 == 0 else "complete" for i in range(80)]
        assert rows.n_affected.unique().tolist() == [sum(a != b for a, b in zip(table, natural, strict=True))]
    assert len(frame[frame.scenario.str.startswith("missing-each:")].missing_rate.unique()) == 1


def test_each_pair_is_predicted_once(results: Path) -> None:
    (predictions,) = read_predictions(results, read_results(results))
    assert predictions.truth.groups is not None and predictions.truth.groups[:3] == ("g0", "g0", "g1")
    cases = {case for case, _ in predictions.logits}
    assert "missing-vision+missing-words" in cases and "noisy-vision:gap@2" in cases


def test_score_draws_the_same_tables_from_predictions_alone(results: Path, tmp_path: Path, cli: Cli) -> None:
    before = read_results(results).frame
    assert cli("score", results, "--out", tmp_path / "again").code == 0
    again = read_results(tmp_path / "again").frame
    keys = ["scenario", "missing_rate", "seed", "prompting", "metric"]
    ours, theirs = (f.sort_values(keys)[[*keys, "value", "n_affected"]].reset_index(drop=True) for f in (before, again))
    pd.testing.assert_frame_equal(ours, theirs)
    more = cli("score", results, "--missing-rate", "vision=0.1,words=0.2", "--seeds", 1, "--out", tmp_path / "own")
    assert more.code == 0
    assert read_results(tmp_path / "own").frame.scenario.unique().tolist() == ["missing-each:vision=0.1+words=0.2"]


def test_score_takes_missing_tables(results: Path, tmp_path: Path, cli: Cli) -> None:
    lines = [
        {"id": f"s{i}", "vision_missing": i % 3 == 0, "words_missing": i % 3 == 0, "age_missing": False}
        for i in range(80)
    ]
    (tmp_path / "mask.jsonl").write_text("\n".join(map(json.dumps, lines)))
    outcome = cli("score", results, "--missing-table", tmp_path / "mask.jsonl", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    frame = read_results(tmp_path / "out").frame
    rows = frame[frame.scenario.str.startswith("table:mask@") & (frame.metric == "accuracy")]
    assert rows.n_affected.unique().tolist() == [24]  # three of 27 have nothing else by nature


def test_what_depends_on_labels_is_recorded_and_reported(folder: Path, results: Path, tmp_path: Path, cli: Cli) -> None:
    recorded = read_results(results).provenance["affected_shares"]
    assert set(recorded) == {"missing-words^label=yes:0.75"}
    labels = np.asarray([label for (label,) in Dataset(folder).split("test").labels])
    shares = []
    for seed in (0, 1):
        table, _ = expected(folder, "missing-words^label=yes:0.75", 0.4, seed)
        affected = np.asarray(["missing-words" in name for name in table])
        shares.append([affected[labels == 0].mean(), affected[labels == 1].mean()])
    no, yes = np.mean(shares, axis=0)
    assert recorded["missing-words^label=yes:0.75"]["0.4"] == pytest.approx({"no": no, "yes": yes})
    assert yes > no + 0.2
    assert cli("report", results, "--markdown", tmp_path / "r.md", "--html", tmp_path / "r.html").code == 0
    text = (tmp_path / "r.md").read_text()
    assert "Missing by class" in text and f"{100 * yes:.1f}" in text
    assert "Missing by class" in (tmp_path / "r.html").read_text()


def test_a_rule_of_the_gate_names_them(results: Path, cli: Cli) -> None:
    for rule in (
        "accuracy@missing-words^label=yes:0.75/0.4>=0.01",
        "accuracy@missing-each:vision=0.25+words=0.6>=0.01",
        "accuracy@missing-vision+missing-words/1:-0.01",
        "accuracy@missing-any/0.4:-1%",
    ):
        outcome = cli("check", results, "--baseline", results, "--fail", rule)
        assert outcome.code == 0, (rule, outcome.out, outcome.err)


def test_groups_are_ranked_whatever_the_samples_are_called(folder: Path) -> None:
    split = Dataset(folder).split("test")
    draw = ScenarioDraw(split.ids, Scenario.parse("missing-vision", NAMES), 0, None, split.traits)
    cases = draw.table(0.5).tolist()
    assert all(cases[i] == cases[i + 1] for i in range(0, 80, 2))
    assert sum(case != "complete" for case in cases) == 40


def test_three_modalities_are_trained_on_towers_and_under_any_that_may_miss(
    digits: Dataset, tmp_path: Path, cli: Cli
) -> None:
    modalities = ("--modalities", "image,text,audio", "--epochs", 1)
    command = ("train", "--data", digits.folder, "--backbone", "tiny", "--method", "none", "--out", tmp_path / "run")
    outcome = cli(*command, *modalities)
    assert outcome.code == 0 and "none + linear on towers" in outcome.out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["scenario"] == "missing-any"


def test_a_training_with_rates_for_each_modality(digits: Dataset, tmp_path: Path, cli: Cli) -> None:
    command = ("train", "--data", digits.folder, "--backbone", "tiny", "--method", "none", "--epochs", 1)
    outcome = cli(*command, "--missing-rate", "image=0.2,text=0.5", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    training = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert (training["scenario"], training["missing_rate"]) == ("missing-each:image=0.2+text=0.5", 0.35)
    outcome = cli(*command, "--scenario", "65/65", "--out", tmp_path / "dpl")
    assert outcome.code == 0 and "65/65 is taken as missing-both at 0.7: 65 % image available" in outcome.err
    training = json.loads((tmp_path / "dpl" / "config.json").read_text())["training"]
    assert (training["scenario"], training["missing_rate"]) == ("missing-both", 0.7)


def test_an_availability_is_evaluated_and_said(
    digits: Dataset, trained: Callable[..., Path], tmp_path: Path, cli: Cli
) -> None:
    outcome = cli(
        "eval", trained("full", "linear"), "--data", digits.folder, "--scenario", "65/65", "--out", tmp_path / "o"
    )
    assert outcome.code == 0
    assert "65/65 is taken as missing-both at 0.7: 65 % image available and 65 % text available" in outcome.err
    frame = read_results(tmp_path / "o").frame
    assert set(zip(frame.scenario, frame.missing_rate, strict=True)) == {("missing-both", 0.7)}
    of_data = ("--modalities", "image,text", "--scenario", "65/65")
    for command in (
        ("score", tmp_path / "o", "--scenario", "65/65"),
        ("data", "missing-table", digits.folder, *of_data, "--out", tmp_path / "t.csv"),
        ("data", "preview", digits.folder, *of_data, "--out", tmp_path / "p.html"),
        ("plan", "--data", digits.folder, *of_data, "--out", tmp_path / "plan"),
    ):
        outcome = cli(*command)
        assert outcome.code == 0 and "65/65 is taken as missing-both at 0.7: 65 % image available" in outcome.err


def test_a_missing_table_says_the_rate_of_all_pairs(folder: Path, cli: Cli) -> None:
    outcome = cli("data", "missing-table", folder, "--missing-rate", "vision=0.5,words=0.5")
    assert outcome.code == 0
    lines = outcome.out.splitlines()[1:]
    lost = sum(line.split(",")[1].count("missing-") for line in lines)
    assert f"{lost / 240:.1%} of all pairs of sample and modality are missing" in outcome.err
