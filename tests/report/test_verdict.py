"""The verdict in the formats that CI systems read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema

from mmrobust.gate.outcome import FAIL, INCONCLUSIVE, PASS, Outcome, Verdict
from mmrobust.report import verdict as formats

JUNIT = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")


def outcome(
    drop=0.05,
    scenario="missing-text",
    rate=0.7,
    checkpoint="mmp",
    paired=True,
    rule="accuracy:-0.01",
    kind="drop",
    detectable=0.008,
):
    p = 0.0004 if drop > 0.01 else 0.8
    sure = {"p_value": p, "at_most": 0.01 - drop, "detectable": detectable} if paired else {}
    verdict = FAIL if drop > 0.01 else INCONCLUSIVE if paired and detectable > 0.01 else PASS
    values = {"baseline": 0.9, "candidate": 0.9 - drop, "limit": 0.89, "verdict": verdict}
    about = {"checkpoint": checkpoint, "scenario": scenario, "missing_rate": rate, "prompting": "situation"}
    return Outcome(**about, metric="accuracy", seeds=3, rule=rule, kind=kind, **values, **sure)


FAILED = Verdict((outcome(0.07), outcome(0.03, rate=0.5), outcome(0.0, rate=0.0)), ("a note",))
PASSED = Verdict((outcome(0.0), outcome(0.01, rate=0.5)), ())


@pytest.mark.parametrize("verdict", [FAILED, PASSED, Verdict((outcome(0.0, detectable=0.04),), ())])
def test_junit_is_valid_with_a_test_case_per_cell(verdict):
    text = formats.junit(verdict)
    JUNIT.validate(text)
    (suite,) = ElementTree.fromstring(text)
    assert (suite.get("tests"), suite.get("failures")) == (str(len(verdict.outcomes)), str(len(verdict.failures)))
    assert len(suite.findall("testcase")) == len(verdict.outcomes)
    assert len(suite.findall("testcase/failure")) == len(verdict.failures)


def test_junit_says_what_failed():
    (suite,) = ElementTree.fromstring(formats.junit(FAILED))
    case = suite.find("testcase")
    assert case.get("name") == "accuracy@missing-text/0.7 situation accuracy:-0.01"
    failure = case.find("failure")
    assert failure.get("type") == "regression"
    said = "83.0 %, baseline 90.0 % (-7.0 points), surely ≤ -6.0, p <0.001; under rule accuracy:-0.01"
    assert failure.get("message") == f"accuracy@missing-text/0.7 situation of mmp: {said}"


def test_junit_escapes_what_xml_would_take_for_its_own():
    JUNIT.validate(formats.junit(Verdict((outcome(checkpoint='a<b>&"c"'),), ())))


def test_junit_has_no_character_that_xml_has_not():
    text = formats.junit(Verdict((outcome(checkpoint="a\x00b\x1b[31mc\ud800\uffff"),), ("bell \x07",)))
    JUNIT.validate(text)
    assert "mmrobust.a�b�[31mc��" in text and "bell �" in text


def test_names_in_the_table_are_no_emoji():
    assert "clip:x:1 :o:" in formats.table(Verdict((outcome(checkpoint="clip:x:1 :o:"), outcome()), ()))


def test_github_annotates_the_worst_cells_after_the_verdict():
    many = Verdict(tuple(outcome(0.5 - i / 100, rate=i / 100) for i in range(20)), ())
    lines = formats.github(many).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("::error title=mmrobust check::FAIL: 20 of 20 cells compared; worst: ")
    assert lines[1].startswith(
        "::error title=accuracy@missing-text/0 situation (mmp)::accuracy@missing-text/0 situation"
    )
    assert "40.0 %25, baseline 90.0 %25" in lines[1]
    assert lines[-1] == "::error title=mmrobust check::and 12 more in the summary"
    assert "more in the summary" not in formats.github(replace(many, outcomes=many.outcomes[:9]))
    twice = tuple(replace(o, prompting=name) for o in many.outcomes[:9] for name in ("situation", "concat"))
    folded = formats.github(replace(many, outcomes=twice)).splitlines()
    assert len(folded) == 10 and "both promptings (mmp)" in folded[-1]


def test_every_form_counts_the_same_cells_and_what_is_not_shown_is_counted():
    outcomes = [outcome(0.07), outcome(0.0, rate=0.0), outcome(0.0, rate=0.1)]
    twice = tuple(replace(o, prompting=name) for o in outcomes for name in ("situation", "concat"))
    verdict = Verdict(twice, ())
    text = formats.table(verdict)
    assert "FAIL: 2 of 6 cells compared" in text and text.count("both promptings") == 2  # the row, and the worst
    assert "Note: 4 passed cells are not shown." in text
    assert {"compared": 6, "failed": 2}.items() <= json.loads(formats.as_json(verdict)).items()
    assert 'tests="6" failures="2"' in formats.junit(verdict)
    floors = tuple(replace(o, rule="accuracy>=0.5", kind="floor", verdict=PASS) for o in twice)
    assert "FAIL: 2 of 12 comparisons in 6 cells" in formats.table(Verdict((*twice, *floors), ()))


def test_a_drop_of_more_than_the_baseline_has_is_none_that_could_be_found():
    poor = replace(outcome(0.0, detectable=0.16), baseline=0.15, candidate=0.15, limit=0.14)
    text = formats.table(Verdict((poor,), ()))
    assert " 1.0        none " in text and "some could have shown none" in text


@pytest.mark.parametrize("name", formats.ERROR_FORMATS)
def test_an_error_is_told_in_every_format(name):
    assert formats.ERROR_FORMATS.keys() == formats.VERDICT_FORMATS.keys()
    text = formats.ERROR_FORMATS[name]('results: "<none>"')
    if name == "json":
        assert json.loads(text) == {"verdict": "error", "passed": False, "message": 'results: "<none>"'}
    elif name == "junit":
        JUNIT.validate(text)
        (suite,) = ElementTree.fromstring(text)
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "1")
        assert suite.find("testcase/error").get("message") == 'results: "<none>"'
    elif name == "github":
        assert text == '::error title=mmrobust check::ERROR: results: "<none>"\n'
    else:
        assert "ERROR: results: " in text


def test_that_nothing_changed_is_a_notice():
    same = replace(PASSED, warnings=("'mmp' has identical predictions on both sides", "another"))
    kinds = [line.partition(" ")[0] for line in formats.github(same).splitlines()]
    assert kinds == ["::notice", "::warning", "::notice"]


def test_the_largest_drop_that_could_have_stayed_hidden_is_of_an_inconclusive_cell():
    ruled_out = replace(outcome(-0.3, detectable=0.2, rate=0.1), verdict=PASS)
    verdict = Verdict((*UNSURE.outcomes, ruled_out), ())
    assert verdict.largest_detectable == 0.04
    assert "the largest that could have stayed hidden: 4.0 points" in formats.summary(verdict)


@pytest.mark.parametrize(
    ("counts_as", "said"),
    [
        ("warn", "exits with 0 (--inconclusive warn; fail makes it 1"),
        ("fail", "exits with 1 (--inconclusive fail; warn makes it 0"),
    ],
)
def test_an_inconclusive_verdict_says_what_to_do(counts_as, said):
    verdict = replace(UNSURE, inconclusive_as=counts_as)
    for name in ("table", "github", "junit"):
        text = formats.VERDICT_FORMATS[name](verdict)
        assert f"inconclusive {said}, and pass counts" in text
        assert "more samples, a wider limit or fewer cells would decide" in text


def test_github_says_that_it_passed():
    assert formats.github(PASSED) == "::notice title=mmrobust check::PASS: 2 cells compared, none below its limit\n"


def test_github_commands_are_escaped():
    _, line = formats.github(Verdict((outcome(checkpoint="a,b:c\nd"),), ())).splitlines()
    assert "title=accuracy@missing-text/0.7 situation (a%2Cb%3Ac%0Ad)::" in line


def test_markdown_is_worst_first_and_shows_how_sure_it_is():
    lines = formats.markdown(FAILED).splitlines()
    worst = "worst: accuracy@missing-text/0.7 situation, -7.0 points under rule accuracy:-0.01"
    assert lines[0] == f"### ❌ FAIL: 2 of 3 cells compared; {worst}"
    assert (
        lines[2]
        == "| | checkpoint | cell | baseline | candidate | difference | surely | p | allowed | detectable | rule |"
    )
    assert "| 90.0 | 83.0 | -7.0 | ≤ -6.0 | <0.001 | 1.0 | 0.8 | `accuracy:-0.01` |" in lines[4]
    assert "| 90.0 | 87.0 | -3.0 |" in lines[5]
    assert lines[-2:] == ["- a note", "- 1 passed cell is not shown"]


def test_a_summary_keeps_within_its_bytes_and_says_what_it_left_out():
    many = Verdict(tuple(outcome(0.5, checkpoint=f"ü-{i}") for i in range(20_000)), ("a note",))
    assert len(formats.markdown(many).encode()) > formats.SUMMARY_BYTES
    text = formats.markdown(many, formats.SUMMARY_BYTES)
    shown = text.count("**fail**")
    assert len(text.encode()) <= formats.SUMMARY_BYTES < len(text.encode()) + 300
    assert f"- {20_000 - shown} more cells did not fit here" in text


UNSURE = Verdict((outcome(0.0, detectable=0.04),), ("a note",), ("a warning",))


def test_an_inconclusive_verdict_is_told_in_every_format():
    said = "a drop of 1.0 points could not have been shown, only one of 4.0"
    assert "INCONCLUSIVE: 1 of 1 cell compared could not have shown a drop as large as its limit" in formats.table(
        UNSURE
    )
    assert "Warning: a warning." in formats.table(UNSURE)
    markdown = formats.markdown(UNSURE)
    assert (
        "### ⚠️ INCONCLUSIVE" in markdown and "| **inconclusive** |" in markdown and "**Warning**: a warning" in markdown
    )
    verdict = json.loads(formats.as_json(UNSURE))
    assert (verdict["verdict"], verdict["passed"], verdict["inconclusive"]) == ("inconclusive", False, 1)
    assert (verdict["outcomes"][0]["verdict"], verdict["warnings"]) == ("inconclusive", ["a warning"])
    annotations = formats.github(UNSURE).splitlines()
    assert [line.partition(" ")[0] for line in annotations] == ["::warning"] * 3
    assert said in annotations[-1]
    (suite,) = ElementTree.fromstring(formats.junit(UNSURE))
    assert (suite.get("skipped"), suite.get("failures")) == ("1", "0")
    assert said in suite.find("testcase/skipped").get("message")


def test_inconclusive_cells_that_count_as_failures_are_failures():
    verdict = replace(UNSURE, inconclusive_as="fail")
    assert (verdict.value, verdict.failed) == ("inconclusive", True)
    JUNIT.validate(formats.junit(verdict))
    (suite,) = ElementTree.fromstring(formats.junit(verdict))
    assert (suite.get("skipped"), suite.get("failures")) == ("0", "1")
    assert suite.find("testcase/failure").get("type") == "inconclusive"
    assert formats.github(verdict).splitlines()[-1].startswith("::error ")


def test_annotations_name_every_inconclusive_cell():
    many = Verdict(tuple(outcome(0.0, checkpoint=f"c{i}", detectable=0.04) for i in range(50)), ())
    lines = formats.github(many).splitlines()
    assert len(lines) <= formats.MOST_ANNOTATIONS
    assert all(f"(c{i})" in "".join(lines) for i in range(50))


def test_without_predictions_there_is_no_column_for_them():
    assert "surely" not in formats.table(Verdict((outcome(paired=False),), ()))
    assert "surely" in formats.table(FAILED)


def test_a_drop_that_is_not_sure_passes_and_is_told():
    unsure = Verdict((Outcome(**{**vars(outcome(0.03)), "verdict": PASS, "p_value": 0.2}),), ())
    assert "PASS: 1 cell compared, none surely below its limit" in formats.table(unsure)


def test_an_error_that_no_drop_bounds_is_null_in_json():
    unbounded = replace(outcome(0.0), metric="mae", detectable=float("inf"))
    text = formats.as_json(Verdict((unbounded,), ()))
    assert json.loads(text, parse_constant=pytest.fail)["outcomes"][0]["detectable"] is None


def test_a_cell_that_is_the_same_under_both_promptings_is_shown_once():
    twice = [replace(outcome(0.07), prompting=name) for name in ("situation", "concat")]
    other = [replace(outcome(drop, rate=0.5), prompting=name) for drop, name in ((0.03, "situation"), (0.04, "concat"))]
    shown = formats.table(Verdict((*twice, *other), ()))
    assert shown.split("FAIL:")[0].count("missing-text/0.7 both promptings") == 1 and "0.7 situation" not in shown
    assert "missing-text/0.5 situation" in shown and "missing-text/0.5 concat" in shown
