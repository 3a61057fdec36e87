"""Rules that name a robustness figure: values as the report has them, errors as simulations have them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mmrobust.errors import UsageError
from mmrobust.gate.check import check_files
from mmrobust.gate.figures import FIGURES
from mmrobust.gate.rules import Rule, parse_rule, read_rules
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.calibration import reliability
from mmrobust.scoring.paired import make_pair, relative_differences, worst_differences
from mmrobust.scoring.robustness import effective_robustness, summarise
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results

GRID = Grid(("missing-image", "missing-text"), (0.0, 0.5, 1.0), (0, 1), ("situation", "concat"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, evaluate_into):
    """A baseline ``main``, ``same`` that is as good, and ``worse`` without its text."""
    folder = tmp_path_factory.mktemp("runs")
    evaluate_into(folder / "main", grid=GRID)
    evaluate_into(folder / "same", grid=GRID, seed=1)
    evaluate_into(folder / "worse", grid=GRID, lost={"missing-text": 2.5, "missing-image": 0.3})
    return folder


def judged(runs, rule, name="worse"):
    verdict = check_files(runs / name, runs / "main", [parse_rule(rule)])
    return verdict, {(o.scenario, o.missing_rate, o.prompting): o for o in verdict.outcomes}


def figures_of(folder):
    frame = summarise(read_results(folder).frame)
    return frame[frame.metric == "accuracy"].set_index(["scenario", "prompting"])


@pytest.mark.parametrize(
    ("rule", "column"), [("auc:-0.02", "auc_eta"), ("relative_robustness:-0.02", "relative_robustness")]
)
def test_figures_of_a_curve_are_the_report_s(runs, rule, column):
    verdict, outcomes = judged(runs, rule)
    assert len(outcomes) == 4
    for side, name in (("baseline", "main"), ("candidate", "worse")):
        said = figures_of(runs / name)[column]
        for (scenario, rate, prompting), outcome in outcomes.items():
            assert rate is None
            assert getattr(outcome, side) == pytest.approx(said[scenario, prompting])
    assert {o.scenario for o in verdict.failures} == {"missing-text"}


def test_auc_at_a_scenario_and_of_another_metric(runs):
    _, outcomes = judged(runs, "auc.macro_f1@missing-text:-1%")
    assert {key[0] for key in outcomes} == {"missing-text"}
    frame = summarise(read_results(runs / "main").frame)
    said = frame[(frame.metric == "macro_f1") & (frame.scenario == "missing-text")].set_index("prompting")["auc_eta"]
    for (_, _, prompting), outcome in outcomes.items():
        assert outcome.metric == "auc.macro_f1"
        assert outcome.baseline == pytest.approx(said[prompting])


def test_the_worst_cell_is_the_lowest_seed_mean(runs):
    frame = read_results(runs / "worse").frame
    means = frame[frame.metric == "accuracy"].groupby(["scenario", "prompting", "missing_rate"])["value"].mean()
    verdict, outcomes = judged(runs, "worst_cell:-0.05")
    for (scenario, _, prompting), outcome in outcomes.items():
        assert outcome.candidate == pytest.approx(means[scenario, prompting].min())
    assert {o.scenario for o in verdict.failures} == {"missing-text"}


def test_calibration_error_may_rise_and_has_a_ceiling(runs):
    folder = runs / "worse"
    said = reliability(predictions_behind(folder, read_results(folder), "mmp"))
    said = said.set_index(["scenario", "missing_rate", "prompting"])["ece"]
    verdict, outcomes = judged(runs, "ece:+0.02")
    for key, outcome in outcomes.items():
        assert outcome.candidate == pytest.approx(said[key])
        assert outcome.limit == pytest.approx(outcome.baseline + 0.02)
    failed = {(o.scenario, o.missing_rate) for o in verdict.failures}
    assert ("missing-text", 1.0) in failed and all(scenario == "missing-text" for scenario, _ in failed)
    assert all(o.difference > 0 and o.at_most > 0 for o in verdict.failures)
    _, outcomes = judged(runs, "ece<=0.5")
    assert {o.verdict for o in outcomes.values()} <= {"pass", "fail"}
    assert all((o.candidate <= 0.5) == o.passed for o in outcomes.values())


def test_worst_class_and_flip_rate(runs):
    verdict, _ = judged(runs, "worst_class@missing-text/1:-0.05")
    assert {o.missing_rate for o in verdict.failures} == {1.0}
    verdict, outcomes = judged(runs, "flip_rate@missing-text:+0.1")
    assert {key[1] for key in outcomes} == {0.5, 1.0}  # at 0 nothing is missing
    assert {o.scenario for o in verdict.failures} == {"missing-text"}


def test_effective_robustness_is_the_report_s(runs):
    import pandas as pd

    frames = [read_results(runs / name).frame.assign(checkpoint=name) for name in ("main", "worse")]
    said = effective_robustness(pd.concat(frames), "main")
    said = said[said.metric == "accuracy"].set_index(["scenario", "missing_rate", "prompting"])["effective"]
    verdict, outcomes = judged(runs, "effective_robustness:-0.1")
    assert len(outcomes) == len(said) == 8
    for key, outcome in outcomes.items():
        assert (outcome.baseline, outcome.candidate) == (0, pytest.approx(said[key]))
    assert {o.scenario for o in verdict.failures} == {"missing-text"}


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_model_again_fails_no_figure(runs, name):
    rule = f"{name}:+0.02" if FIGURES[name].less_is_better else f"{name}:-0.02"
    verdict, outcomes = judged(runs, rule, "same")
    assert not verdict.failures
    assert all(0 < o.detectable <= 1 and o.p_value > 0.05 for o in outcomes.values())


def test_copies_of_a_curve_count_once(tmp_path, evaluate_into):
    for seed, name in enumerate(("main", "worse")):
        evaluate_into(tmp_path / name, grid=GRID, depends=False, seed=seed)
    for rule in ("auc:-0.02", "ece:+0.02", "effective_robustness:-0.02"):
        verdict = check_files(tmp_path / "worse", tmp_path / "main", [parse_rule(rule)])
        cells = len(verdict.outcomes)
        (note,) = (note for note in verdict.notes if "Holm over" in note)
        distinct = int(note.partition("Holm over ")[2].split()[0])
        assert distinct <= cells / 2, rule


@pytest.mark.parametrize("compare", [relative_differences, worst_differences])
def test_errors_of_curve_figures_are_those_of_the_bootstrap(runs, compare):
    sides = [predictions_behind(runs / name, read_results(runs / name), "mmp") for name in ("main", "worse")]
    pair = make_pair(*sides)
    found = compare(pair, "accuracy").set_index(["scenario", "prompting"])
    random, samples = np.random.default_rng(0), len(sides[0].truth.ids)
    shares = {}
    for at, side in enumerate(pair.sides):
        for key in range(len(pair.tables.keys)):
            shares[at, key] = side.predicted(side.chosen(pair.tables, key))[
                np.arange(samples), np.asarray(side.truth.labels)[:, 0]
            ].astype(float)
    cells = {}
    for cell, key in zip(pair.tables.cells, pair.tables.of_cell, strict=True):
        cells.setdefault((cell.scenario, cell.prompting), {}).setdefault(cell.missing_rate, []).append(key)
    drawn = random.integers(0, samples, (800, samples))
    for curve, rates in cells.items():
        values = np.asarray(
            [
                [
                    np.mean([shares[at, key][drawn].mean(axis=1) for key in rates[rate]], axis=0)
                    for rate in sorted(rates)
                ]
                for at in (0, 1)
            ]
        )
        if compare is relative_differences:
            figure = np.asarray([0.25, 0.5, 0.25]) @ values / values[:, 0]
        else:
            figure = values.min(axis=1)
        assert found.loc[curve, "error"] == pytest.approx((figure[1] - figure[0]).std(), rel=0.25)


def test_a_figure_needs_the_predictions(cli, runs, tmp_path):
    for name in ("main", "worse"):
        shutil.copytree(runs / name, tmp_path / name)
    shutil.rmtree(tmp_path / "main" / "predictions")
    code, out, err = cli("check", tmp_path / "worse", "--baseline", tmp_path / "main", "--fail", "auc:-0.01")
    assert (code, out) == (2, "")
    assert "rule 'auc:-0.01' needs the predictions of both sides" in err


def test_a_curve_in_every_format(cli, runs):
    arguments = "check", runs / "worse", "--baseline", runs / "main", "--fail", "auc@missing-text:-0.02"
    for name in ("table", "md", "junit", "github"):
        assert "auc@missing-text situation" in cli(*arguments, "--format", name).out
    outcome = json.loads(cli(*arguments, "--json").out)["outcomes"][0]
    assert (outcome["metric"], outcome["missing_rate"]) == ("auc", None)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("auc@missing-any:-0.01", Rule("auc", "missing-any", None, "drop", 0.01)),
        ("ece:+5%", Rule("ece", None, None, "drop_percent", 5.0)),
        ("ece@missing-text/0.5<=0.1", Rule("ece", "missing-text", 0.5, "floor", 0.1)),
        ("auc.macro_f1>=0.5", Rule("auc.macro_f1", None, None, "floor", 0.5)),
    ],
)
def test_rules_of_figures(text, rule):
    assert parse_rule(text) == rule
    assert str(rule) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ece:-0.01", r"of ece, less is better; write ece:\+RISE or ece<=CEILING"),
        ("accuracy:+0.01", "of accuracy, more is better; write accuracy:-DROP or accuracy>=FLOOR"),
        ("flip_rate>=0.1", "less is better"),
        ("auc@missing-text/0.5:-0.01", "auc is over all missing rates; leave out the rate"),
    ],
)
def test_a_limit_on_the_wrong_side_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_rule(text)


@pytest.mark.parametrize("rule", ["auc.acc:-0.01", "auk:-0.01", "ece.accuracy:+0.1", "flip_rate@missing-text/0:+0.1"])
def test_a_figure_that_is_nowhere_is_refused(runs, rule):
    with pytest.raises(UsageError):
        judged(runs, rule)


def test_a_file_may_name_rises_and_ceilings(tmp_path):
    file = tmp_path / "gates.toml"
    file.write_text('[[rule]]\nmetric = "ece"\nceiling = 0.1\n[[rule]]\nmetric = "flip_rate"\nrise_percent = 5')
    assert [str(rule) for rule in read_rules(file)] == ["ece<=0.1", "flip_rate:+5%"]
    file.write_text('[[rule]]\nmetric = "ece"\nfloor = 0.1')
    with pytest.raises(UsageError, match="of ece, less is better"):
        read_rules(file)
