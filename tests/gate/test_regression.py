"""The gate on numbers: an error may rise so far, and a figure follows the direction of the metric that it is of."""

from __future__ import annotations

import pytest

from mmrobust.errors import UsageError
from mmrobust.gate import rules
from mmrobust.gate.check import check_files
from mmrobust.gate.compare import compare_files
from mmrobust.gate.rules import parse_rule
from mmrobust.report.comparison import summary
from mmrobust.report.verdict import as_json, github, markdown, table


@pytest.fixture(scope="module")
def runs(tmp_path_factory, evaluate_into):
    folder = tmp_path_factory.mktemp("gate")
    evaluate_into(folder / "main", task="regression")
    evaluate_into(folder / "same", task="regression", seed=1)
    evaluate_into(folder / "worse", task="regression", seed=1, lost={"missing-text": 1.7, "missing-image": 0.3})
    return folder


def judged(runs, *texts, candidate="worse"):
    return check_files(runs / candidate, runs / "main", [parse_rule(text) for text in texts])


def test_without_rules_the_error_may_rise_by_one_per_cent(runs):
    verdict = judged(runs)
    assert {o.rule for o in verdict.outcomes} == {"mae:+1%"}
    assert {(o.scenario, o.missing_rate) for o in verdict.failures} >= {("missing-text", 1.0), ("missing-text", 0.5)}
    assert all(o.difference > 0 and o.at_most > 0 and o.less_is_better for o in verdict.failures)
    assert not judged(runs, candidate="same").failures


def test_a_verdict_is_in_the_unit_of_the_labels(runs):
    verdict = judged(runs, "mae@missing-text:+0.5")
    worst = verdict.failures[0]
    for text in (table(verdict), markdown(verdict), github(verdict)):
        assert f"{worst.candidate:.2f}" in text and " points" not in text and "NaN" not in as_json(verdict)
    assert "smallest true drop that would be found in a cell" in " ".join(verdict.notes)


@pytest.mark.parametrize(
    ("rule", "named", "failed"),
    [
        ("mae<=20", "mae<=20", {"missing-text"}),
        ("auc:+0.5", "auc.mae:+0.5", {"missing-text", "missing-both"}),
        ("auc@missing-text<=8", "auc.mae@missing-text<=8", {"missing-text"}),
        ("auc.pearson:-0.05", "auc.pearson:-0.05", {"missing-text", "missing-both"}),
        ("worst_cell:+10%", "worst_cell.mae:+10%", {"missing-text", "missing-both"}),
        ("relative_robustness:-0.1", "relative_robustness.mae:-0.1", {"missing-text", "missing-both"}),
        ("worth>=2", "worth.mae>=2", {"missing-image"}),
        ("pearson@missing-image>=0.7", "pearson@missing-image>=0.7", set()),
    ],
)
def test_a_figure_has_the_direction_of_its_metric(runs, rule, named, failed):
    verdict = judged(runs, rule)
    assert {o.rule for o in verdict.outcomes} == {named}
    assert {o.scenario for o in verdict.failures} == failed
    assert all(o.less_is_better == (":+" in rule or "<=" in rule) for o in verdict.outcomes)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("mae:-1", r"of mae, less is better; write mae:\+RISE or mae<=CEILING"),
        ("pearson:+0.1", "of pearson, more is better"),
        ("auc:-0.5", r"rule 'auc:-0\.5': of auc\.mae, less is better"),
        ("worst_cell.pearson:+0.1", "of worst_cell.pearson, more is better"),
        ("ece:+0.1", "ece is a figure of classes, and a regression task has none"),
        ("effective_robustness:-0.1", "effective robustness is defined for shares of 1; mae is none"),
        ("relative_robustness:-2", "2 is not a share"),
    ],
)
def test_what_does_not_fit_is_refused(runs, rule, message):
    with pytest.raises(UsageError, match=message):
        judged(runs, rule)


def test_where_the_headline_is_a_share_figures_are_shares(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "accuracy")
    for text, message in (("auc:+0.1", "of auc, more is better"), ("worth>=2", "2 is not a share")):
        with pytest.raises(UsageError, match=message):
            check_files(tmp_path / "accuracy", tmp_path / "accuracy", [parse_rule(text)])
    assert str(rules.parse_rule("auc:+0.1")) == "auc:+0.1"


def test_a_comparison_of_errors(runs):
    found = compare_files(runs / "main", runs / "worse")
    assert found.metric == "mae" and set(found.cells.test) == {"jackknife"} and found.flips.empty
    assert found.as_dict()["cells"][0]["lost"] is None
    assert "surely better in 0, surely worse in" in summary(found) and "worse in 0 of" not in summary(found)
