"""The rules of the gate, from text and from TOML."""

from __future__ import annotations

import pytest

from mmrobust.errors import UsageError
from mmrobust.gate.rules import DROP, DROP_PERCENT, FLOOR, Rule, choose_rules, parse_rule, read_rules


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("accuracy:-0.01", Rule("accuracy", None, None, DROP, 0.01)),
        ("accuracy@missing-image:-5%", Rule("accuracy", "missing-image", None, DROP_PERCENT, 5.0)),
        ("macro_f1@missing-image/0.7>=0.8", Rule("macro_f1", "missing-image", 0.7, FLOOR, 0.8)),
        (" accuracy @ missing-both / 1 :- .5 % ", Rule("accuracy", "missing-both", 1.0, DROP_PERCENT, 0.5)),
        ("accuracy@noisy-image:blur@3:-1%", Rule("accuracy", "noisy-image:blur@3", None, DROP_PERCENT, 1.0)),
        ("auroc@noisy-both@2/0.5>=0.6", Rule("auroc", "noisy-both@2", 0.5, FLOOR, 0.6)),
        (
            "accuracy@table:mmimdb_test_0.7@1a2b3c4d/0.7:-0.01",
            Rule("accuracy", "table:mmimdb_test_0.7@1a2b3c4d", 0.7, DROP, 0.01),
        ),
        ("auroc:-0", Rule("auroc", None, None, DROP, 0.0)),
        ("auroc:-1e-3", Rule("auroc", None, None, DROP, 0.001)),
    ],
)
def test_text(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy:0.01", "accuracy:*0.01", "accuracy/0.7:-0.01", "accuracy>0.8", "@x:-1", "a:-1%%"]
)
def test_what_is_no_rule_is_refused_with_the_syntax(text):
    with pytest.raises(UsageError, match=r"is not understood: write METRIC\[@SCENARIO\[/RATE\]\]:-DROP"):
        parse_rule(text)


def test_values_out_of_range_are_refused():
    with pytest.raises(UsageError, match="rule 'accuracy:-5': 5 is not a share, from 0 to 1"):
        parse_rule("accuracy:-5")
    with pytest.raises(UsageError, match="101 is not percent, from 0 to 100"):
        parse_rule("accuracy:-101%")
    with pytest.raises(UsageError, match="missing rate 70 is not a share of the samples"):
        parse_rule("accuracy@missing-image/70:-0.01")


def test_what_a_rule_covers():
    assert parse_rule("accuracy:-0.01").covers("accuracy", "missing-text", 0.3)
    assert not parse_rule("accuracy:-0.01").covers("macro_f1", "missing-text", 0.3)
    assert not parse_rule("accuracy@missing-image:-0.01").covers("accuracy", "missing-text", 0.3)
    assert parse_rule("accuracy@missing-text/0.3:-0.01").covers("accuracy", "missing-text", 0.1 + 0.2)


def write(tmp_path, text):
    file = tmp_path / "gates.toml"
    file.write_text(text)
    return file


def test_a_file_holds_lines_and_tables(tmp_path):
    file = write(
        tmp_path,
        """
        fail = ["accuracy:-0.01"]
        [[rule]]
        metric = "accuracy"
        scenario = "missing-text"
        rate = 1
        floor = 0.6
        [[rule]]
        metric = "macro_f1"
        drop_percent = 5
        """,
    )
    assert [str(rule) for rule in read_rules(file)] == [
        "accuracy:-0.01",
        "accuracy@missing-text/1>=0.6",
        "macro_f1:-5%",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fails = []", "unknown key 'fails': did you mean 'fail'"),
        ("[[rule]]\nmetrik = 'accuracy'", "unknown key of a rule 'metrik': did you mean 'metric'"),
        ("[[rule]]\nmetric = 'accuracy'", "a .*rule.* has a metric and one of drop, drop_percent, floor, not metric"),
        ("[[rule]]\nmetric = 'accuracy'\ndrop = 0.1\nfloor = 0.1", "one of drop, drop_percent, floor"),
        ("[[rule]]\nmetric = 'accuracy'\ndrop = '1%'", "key 'drop' of a rule is '1%': give a number"),
        ("[[rule]]\nmetric = 'accuracy'\ndrop = true", "key 'drop' of a rule is True: give a number"),
        ("[[rule]]\nmetric = 1\ndrop = 0.1", "key 'metric' of a rule is 1: give text"),
        ("[[rule]]\nmetric = 'accuracy'\nrate = 0.5\ndrop = 0.1", "names a rate but no scenario"),
        ("fail = 'accuracy:-0.01'", "'fail' must be a list of rules"),
        ("rule = 3", "'rule' must be a list of tables"),
        ("", "no rule in it"),
        ("fail = [", "cannot be read as TOML"),
        ("fail = ['accuracy-0.01']", "is not understood"),
    ],
)
def test_a_file_that_says_nothing_sensible_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(UsageError, match=r"gates\.toml: .*" + message):
        read_rules(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gates\.toml: no such file"):
        read_rules(tmp_path / "gates.toml")


def test_the_command_line_goes_before_the_file():
    file, line = parse_rule("accuracy:-0.01"), parse_rule("accuracy:-5%")
    other = parse_rule("accuracy@missing-text:-0.2")
    assert choose_rules([file, other], [line]) == [line, other]


def test_two_rules_of_one_source_for_the_same_cells_are_refused():
    with pytest.raises(UsageError, match=r"rules 'accuracy:-0\.01' and 'accuracy:-2%' are for the same cells"):
        choose_rules([], [parse_rule("accuracy:-0.01"), parse_rule("accuracy:-2%")])
    choose_rules([], [parse_rule("accuracy:-0.01"), parse_rule("accuracy>=0.5")])  # a drop and a floor both hold
