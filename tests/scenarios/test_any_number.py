"""Scenarios for any number of modalities: every combination, rates for each, groups, and what depends on labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmrobust.cases import Case
from mmrobust.errors import DataError, UsageError
from mmrobust.scenarios.draws import ScenarioDraw, Traits, affected_count, missing_table, rank_samples
from mmrobust.scenarios.grid import Grid, availability_of, parse_grid, scenario_and_rate
from mmrobust.scenarios.missing_tables import read_missing_table
from mmrobust.scenarios.scenario import Scenario, training_cases, usual_scenario

PAIR = ("image", "text")
TRIPLE = ("image", "text", "audio")
FOUR = ("video", "imu", "words", "age")

ids = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)
rates = st.integers(0, 1000).map(lambda permille: permille / 1000)
own_rates = st.integers(0, 100).map(lambda percent: percent / 100)
seeds = st.integers(0, 5)


def each(**of: float) -> str:
    return "missing-each:" + "+".join(f"{modality}={rate:g}" for modality, rate in sorted(of.items()))


def test_tables_of_two_modalities_are_what_they_were() -> None:
    """Pinned with the tables of 0.1: both families of two modalities, with and without natural gaps."""
    digest, sample_ids = hashlib.blake2b(digest_size=8), [f"s{i}" for i in range(997)]
    for pair in (PAIR, ("audio", "image")):
        gaps = [Case.missing(pair, pair[i % 2]) if i % 7 == 0 else Case.complete(pair) for i in range(997)]
        one, two = pair
        for name in (*(f"missing-{m}" for m in pair), "missing-both", f"noisy-{one}", "noisy-both@2"):
            names = (name,) if name != "noisy-both@2" else (name, f"missing-{one}+noisy-{two}")
            for scenario in names:
                for seed in (0, 1, 5):
                    for natural in (None, gaps):
                        draw = ScenarioDraw(sample_ids, Scenario.parse(scenario, pair), seed, natural)
                        for rate in (0, 0.29, 0.3, 0.7, 1):
                            digest.update("|".join(draw.table(rate)).encode())
                            digest.update(draw.affected(rate).astype("<i8").tobytes())
    assert digest.hexdigest() == "7596014c7e321e9e"


def test_missing_any_has_every_incomplete_combination_in_equal_shares() -> None:
    names = [case.name for case in Scenario.parse("missing-any", TRIPLE).cases]
    assert sorted(names) == [
        *("missing-audio", "missing-image", "missing-image+missing-audio", "missing-image+missing-text"),
        *("missing-text", "missing-text+missing-audio"),
    ]
    table = missing_table([str(i) for i in range(600)], Scenario.parse("missing-any", TRIPLE), 0.5, 0)
    assert Counter(table.values()) == {"complete": 300, **dict.fromkeys(names, 50)}
    assert len(Scenario.parse("missing-any", FOUR).cases) == 14
    assert usual_scenario(TRIPLE) == "missing-any" and usual_scenario(PAIR) == "missing-both"
    assert [case.name for case in training_cases("missing-any", PAIR)] == ["complete", "missing-image", "missing-text"]
    with pytest.raises(UsageError, match="missing-any: of 9 modalities; it takes 8 at most"):
        Scenario.parse("missing-any", [f"m{i}" for i in range(9)])


@given(ids, rates, rates, seeds, st.permutations(FOUR), st.randoms())
def test_missing_any_is_nested_and_the_same_in_any_order(
    sample_ids: list[str], one: float, two: float, seed: int, order: list[str], random: object
) -> None:
    draw = ScenarioDraw(sample_ids, Scenario.parse("missing-any", FOUR), seed)
    fewer, more = draw.table(min(one, two)), draw.table(max(one, two))
    assert (fewer != "complete").sum() == affected_count(len(sample_ids), min(one, two))
    assert (more[fewer != "complete"] == fewer[fewer != "complete"]).all()
    shuffled = sorted(sample_ids, reverse=True)
    other = missing_table(shuffled, Scenario.parse("missing-any", order), one, seed)
    ours = missing_table(sample_ids, Scenario.parse("missing-any", FOUR), one, seed)
    lost = {i: set(FOUR) - set(Case.parse(name, FOUR).present) for i, name in ours.items()}
    assert {i: set(FOUR) - set(Case.parse(name, order).present) for i, name in other.items()} == lost


def test_composed_missing_cases_are_scenarios() -> None:
    scenario = Scenario.parse("missing-image+missing-audio", TRIPLE)
    assert [case.name for case in scenario.cases] == ["missing-image+missing-audio"]
    assert Scenario.parse("missing-audio+missing-image", TRIPLE).cases == scenario.cases
    with pytest.raises(UsageError, match="nothing present: image, text are all missing"):
        Scenario.parse("missing-image+missing-text", PAIR)
    with pytest.raises(UsageError, match="unknown scenario for image and text 'complete'"):
        Scenario.parse("complete", PAIR)


@given(ids, st.integers(1, 99), rates, seeds)
def test_missing_both_in_uneven_shares(sample_ids: list[str], percent: int, rate: float, seed: int) -> None:
    share = Fraction(percent, 100)
    name = f"missing-both:{float(share):g}"
    scenario = Scenario.parse(name, PAIR)
    draw = ScenarioDraw(sample_ids, scenario, seed)
    counted = Counter(draw.table(rate))
    affected = affected_count(len(sample_ids), rate)
    assert counted["missing-image"] == -(-affected * share.numerator // share.denominator)
    assert counted["missing-image"] + counted["missing-text"] == affected
    even = ScenarioDraw(sample_ids, Scenario.parse("missing-both", PAIR), seed)
    assert (draw.affected(rate) == even.affected(rate)).all()  # the same samples, whatever the share
    if percent == 50:
        assert (draw.table(rate) == even.table(rate)).all()


@given(st.data(), ids, seeds)
def test_rates_for_each_modality(data: st.DataObject, sample_ids: list[str], seed: int) -> None:
    given_rates = {m: data.draw(own_rates) for m in TRIPLE}
    if not any(given_rates.values()):
        given_rates["text"] = 0.5
    scenario = Scenario.parse(each(**given_rates), TRIPLE)
    rate = scenario.rate
    assert rate == float(sum(Fraction(str(r)) for r in given_rates.values()) / 3)
    draw = ScenarioDraw(sample_ids, scenario, seed)
    table = draw.table(rate)
    drawn = {
        m: {
            sample_ids[i]
            for i in rank_samples(sample_ids, f"missing-each/{m}", seed)[: int(Fraction(str(r)) * len(sample_ids))]
        }
        for m, r in given_rates.items()
    }
    for sample_id, name in zip(sample_ids, table, strict=True):
        lost = set(TRIPLE) - set(Case.parse(name, TRIPLE).present)
        would = {m for m in TRIPLE if sample_id in drawn[m]}
        if len(would) < 3:
            assert lost == would
        else:  # it keeps the one that its hash names
            key = hashlib.blake2b(f"{seed}/missing-each/keep/{sample_id}".encode()).digest()[:8]
            assert lost == would - {sorted(TRIPLE)[int.from_bytes(key, "big") % 3]}
    assert [sample_ids[i] for i in draw.affected(rate)] == [
        i for i, name in zip(sample_ids, table, strict=True) if name != "complete"
    ]
    more = {m: data.draw(st.floats(r, 1).map(lambda x: round(x, 2))) for m, r in given_rates.items()}
    higher = Scenario.parse(each(**{m: max(r, given_rates[m]) for m, r in more.items()}), TRIPLE)
    again = ScenarioDraw(sample_ids, higher, seed)
    assert set(draw.affected(rate).tolist()) <= set(again.affected(higher.rate).tolist())
    turned = tuple(reversed(TRIPLE))
    other = ScenarioDraw(sample_ids[::-1], Scenario.parse(scenario.name, turned), seed).table(rate)[::-1]
    assert [set(Case.parse(n, turned).present) for n in other] == [set(Case.parse(n, TRIPLE).present) for n in table]


@given(st.data(), seeds)
def test_rates_for_each_modality_where_some_are_missing_by_nature(data: st.DataObject, seed: int) -> None:
    lost = st.sets(st.sampled_from(TRIPLE), max_size=2)
    natural = [Case.missing(TRIPLE, *n) for n in data.draw(st.lists(lost, min_size=1, max_size=40))]
    scenario = Scenario.parse(each(image=0.9, text=1, audio=0.8), TRIPLE)
    sample_ids = [str(i) for i in range(len(natural))]
    draw = ScenarioDraw(sample_ids, scenario, seed, natural)
    for name, before in zip(draw.table(scenario.rate), natural, strict=True):
        case = Case.parse(name, TRIPLE)
        assert case.present and set(case.present) <= set(before.present)
        assert len(before.present) > 1 or case == before


def test_a_scenario_with_rates_of_its_own_has_one_rate() -> None:
    draw = ScenarioDraw(["a", "b"], Scenario.parse("missing-each:image=0.3+text=0.7", PAIR), 0)
    with pytest.raises(UsageError, match=r"has its own missing rates, 0.5 of all pairs"):
        draw.table(0.3)


@given(st.data(), rates, rates, seeds, st.sampled_from(["missing-any", "missing-text", each(image=0.4, text=0.7)]))
def test_the_samples_of_a_group_share_their_case(
    data: st.DataObject, one: float, two: float, seed: int, name: str
) -> None:
    groups = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40))
    sample_ids = [str(i) for i in range(len(groups))]
    scenario = Scenario.parse(name, TRIPLE)
    traits = Traits(groups=tuple(groups))
    draw = ScenarioDraw(sample_ids, scenario, seed, None, traits)
    fewer, more = (min(one, two), max(one, two)) if scenario.rate is None else (scenario.rate, scenario.rate)
    table = draw.table(fewer)
    assert all(len({c for c, g in zip(table, groups, strict=True) if g == group}) == 1 for group in groups)
    # The groups are drawn as if each were one sample of that name.
    names = list(dict.fromkeys(groups))
    assert dict(zip(groups, table, strict=True)) == missing_table(names, scenario, fewer, seed)
    affected = table != "complete"
    assert (draw.table(more)[affected] == table[affected]).all()
    assert set(draw.affected(fewer).tolist()) == set(np.flatnonzero(affected).tolist())


@given(st.data(), rates, rates, seeds, st.integers(1, 100))
def test_missing_not_at_random_meets_the_shares_as_long_as_it_can(
    data: st.DataObject, one: float, two: float, seed: int, percent: int
) -> None:
    labels = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=60))
    sample_ids = [str(i) for i in range(len(labels))]
    share = Fraction(percent, 100)
    scenario = Scenario.parse(f"missing-both^label=rare:{float(share):g}", PAIR)
    traits = Traits(labels=tuple((label,) for label in labels), classes=("a", "rare", "c"))
    draw = ScenarioDraw(sample_ids, scenario, seed, None, traits)
    fewer, more = draw.table(min(one, two)), draw.table(max(one, two))
    assert (more[fewer != "complete"] == fewer[fewer != "complete"]).all()
    affected = draw.affected(max(one, two))
    assert len(affected) == affected_count(len(labels), max(one, two))
    rare, there = sum(labels[i] == 1 for i in affected), labels.count(1)
    others = len(labels) - there
    wanted = share * len(affected)
    assert rare == there or len(affected) - rare == others or abs(rare - wanted) < 1
    cases = Counter(more[i] for i in affected if labels[i] == 1)
    assert abs(cases["missing-image"] - cases["missing-text"]) <= 1  # half and half within the class too


def test_missing_by_group_and_by_several_classes() -> None:
    groups = tuple("xxxxyyyyzz")
    sample_ids = [str(i) for i in range(10)]
    of_group = Scenario.parse("missing-text^group=y", PAIR)
    table = ScenarioDraw(sample_ids, of_group, 0, None, Traits(groups=groups)).table(0.34)
    assert [c != "complete" for c in table] == [g == "y" for g in groups]
    labels = tuple((i % 4,) for i in range(400))
    scenario = Scenario.parse("missing-text^label=p:0.5^label=q:0.25", PAIR)
    traits = Traits(labels=labels, classes=("p", "q", "r", "s"))
    affected = ScenarioDraw([str(i) for i in range(400)], scenario, 3, None, traits).affected(0.3)
    assert Counter(labels[i][0] for i in affected)[0] == 60 and Counter(labels[i][0] for i in affected)[1] == 30
    # A multi-label sample counts under the first class that it has.
    several = Traits(labels=((0, 1), (1,), (), (2,)), classes=("p", "q", "r"))
    assert ScenarioDraw("abcd", Scenario.parse("missing-text^label=q", PAIR), 0, None, several).affected(
        0.5
    ).tolist() in (
        [0, 1],
        [1, 0],
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing-both:0", "give the share that loses image, above 0 and below 1"),
        ("missing-both:half", "give the share that loses image"),
        ("missing-both:0.30", "is called 'missing-both:0.3'"),
        ("missing-any:0.3", "unknown scenario"),
        ("missing-each:image", "give each modality once with a rate from 0 to 1"),
        ("missing-each:image=0.3+image=0.4", "give each modality once"),
        ("missing-each:audio=0.3", "unknown modality 'audio'"),
        ("missing-each:text=0.3+image=0.4", r"is called 'missing-each:image=0.4\+text=0.3'"),
        ("missing-each:image=0", "nothing can be missing"),
        ("missing-text^label", r"'\^label' is not \^label=CLASS:SHARE"),
        ("missing-text^label=a:0", "with a share above 0"),
        ("missing-text^size=a", r"'\^size=a' is not"),
        ("missing-text^label=a:0.6^label=b:0.6", "shares of 1 together"),
        ("missing-text^label=a:0.6^group=b:0.1", "depends on labels or groups, not both"),
        ("missing-text^label=a:0.6^label=a:0.1", "names a label twice"),
        ("missing-each:image=0.3^label=a", "rates of their own and a dependence exclude each other"),
    ],
)
def test_scenarios_that_there_are_not(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Scenario.parse(name, PAIR)


def test_a_dependence_on_what_is_not_there() -> None:
    traits = Traits(labels=((0,),), classes=("drama", "comedy"))
    with pytest.raises(UsageError, match="unknown class 'drma': did you mean 'drama'"):
        ScenarioDraw(["a"], Scenario.parse("missing-text^label=drma:0.8", PAIR), 0, None, traits)
    with pytest.raises(UsageError, match=r"'missing-text\^group=x': the samples have no groups"):
        ScenarioDraw(["a"], Scenario.parse("missing-text^group=x", PAIR), 0, None, traits)
    with pytest.raises(UsageError, match="unknown group 'x'"):
        ScenarioDraw(["a"], Scenario.parse("missing-text^group=x", PAIR), 0, None, Traits(groups=("y",)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("65/65", ("missing-both", 0.7)),
        ("100/30", ("missing-text", 0.7)),
        ("30/100", ("missing-image", 0.7)),
        ("50/50", ("missing-both", 1.0)),
        ("80/40", ("missing-both:0.25", 0.8)),
        ("82.5/82.5", ("missing-both", 0.35)),
    ],
)
def test_availabilities_are_understood(name: str, expected: tuple[str, float]) -> None:
    scenario, rate = availability_of(name, PAIR)
    assert (scenario, rate) == expected
    table = missing_table([str(i) for i in range(2000)], Scenario.parse(scenario, PAIR), rate, 0)
    for modality, part in zip(PAIR, name.split("/"), strict=True):
        lost = sum(case == f"missing-{modality}" for case in table.values())
        assert lost == round(2000 * (1 - float(part) / 100))
    grid = Grid((name,), (0.0, 0.5), (0,)).of(PAIR)
    image, text = name.split("/")
    assert grid.notes == (
        f"{name} is taken as {scenario} at {rate:g}: {image} % image available and {text} % text available",
    )
    assert {(cell.scenario, cell.missing_rate) for cell in grid.cells()} == {expected}


@pytest.mark.parametrize(
    ("name", "modalities", "message"),
    [
        ("40/50", PAIR, "110 % of the samples would lose one of two"),
        ("100/100", PAIR, "nothing is missing"),
        ("65/65", TRIPLE, "availabilities are of two modalities, not image, text, audio"),
    ],
)
def test_availabilities_that_cannot_be(name: str, modalities: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Grid((name,), (0.5,), (0,)).of(modalities)


def test_rates_for_each_modality_are_written_as_rates() -> None:
    assert parse_grid(None, ["text=0.7,image=0.3;image=1"]) == (
        ("missing-each:image=0.3+text=0.7", "missing-each:image=1"),
        (),
    )
    assert parse_grid(["missing-text"], ["0.5", "image=0.2"]) == (("missing-text", "missing-each:image=0.2"), (0.5,))
    grid = Grid(("missing-text", "missing-each:image=0.3+text=0.7"), (0.0, 1.0), (0, 1)).of(PAIR)
    assert grid.points == (("missing-each:image=0.3+text=0.7", 0.5),)
    assert len(list(grid.cells())) == 2 * (2 * 2 + 2)
    assert grid.of(PAIR) == grid
    assert scenario_and_rate(None, "image=0.3,text=0.7", PAIR) == ("missing-each:image=0.3+text=0.7", 0.5)
    assert scenario_and_rate("65/65", None, PAIR) == ("missing-both", 0.7)
    assert scenario_and_rate("missing-text", "0.25", PAIR) == ("missing-text", 0.25)


@pytest.mark.parametrize(
    ("name", "share"), [("missing-any", 0.3), ("missing-text", 0.2), ("missing-text+missing-audio", 0.1)]
)
def test_a_rate_over_all_pairs_is_converted(name: str, share: float) -> None:
    scenario = Scenario.parse(name, TRIPLE)
    table = missing_table([str(i) for i in range(3000)], scenario, scenario.rate_of_pairs(share), 0)
    assert sum(case.count("missing-") for case in table.values()) == pytest.approx(3 * 3000 * share, abs=3)


def test_a_share_of_pairs_that_cannot_be() -> None:
    with pytest.raises(
        UsageError, match=r"scenario 'missing-any' can miss 50.0% of all pairs at most, not the share 0.7"
    ):
        Scenario.parse("missing-any", TRIPLE).rate_of_pairs(0.7)
    with pytest.raises(UsageError, match="has rates of its own"):
        Scenario.parse("missing-each:image=0.3", TRIPLE).rate_of_pairs(0.1)
    with pytest.raises(UsageError, match=r"can miss 0\.0% of all pairs"):
        Scenario.parse("noisy-image:blur@3", TRIPLE).rate_of_pairs(0.1)


@pytest.mark.parametrize(
    ("scenarios", "given_rates", "message"),
    [
        (["missing-text"], ["image=0.3"], "--missing-rate image=0.3 is a scenario of its own"),
        (None, ["0.5", "image=0.3"], "--missing-rate 0.5 is for which --scenario"),
        (None, ["image=0.3,text"], "missing rate 'image=0.3,text': give each modality one"),
        (None, ["image=much"], "missing rate 'image=much': give each modality one"),
        (None, ["image=1.3"], "missing rate 1.3 is not a share"),
        (None, ["image=0.3,image=0.4"], "names image twice"),
    ],
)
def test_rates_that_cannot_be(scenarios: list[str] | None, given_rates: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_grid(scenarios, given_rates)
    with pytest.raises(UsageError, match="give no --missing-rate"):
        scenario_and_rate("65/65", "0.5", PAIR)


def test_masks_in_json_lines_are_read(tmp_path: Path) -> None:
    """As AOEPT's ``generate_missing_table.py`` writes them: for the samples of all splits, in any order."""
    lines = [
        {"id": "other-split", "text_missing": True, "image_missing": True},
        {"id": "b", "text_missing": False, "image_missing": True},
        {"id": "a", "text_missing": True, "image_missing": False},
        {"id": 7, "text_missing": False, "image_missing": False},
    ]
    file = tmp_path / "both-0.7.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    table = read_missing_table(file, ["a", "b", "7"], PAIR)
    assert dict(table.cases) == {"a": "missing-text", "b": "missing-image", "7": "complete"}
    assert table.rate == 2 / 3
    for ids_, change, message in (
        (["a", "b", "c"], {"id": "d"}, "has 2 of the split's 3 samples; there is no line for 'c'"),
        (["a"], {"id": "a"}, "sample 'a' is listed twice"),
        (["x"], {"id": "x", "text_missing": 1.5}, "text_missing is 1.5, not true or false"),
        (
            ["x"],
            {"id": "x", "image_missing": True, "text_missing": True},
            "sample 'x' lacks image and text: nothing is",
        ),
    ):
        file.write_text("\n".join(json.dumps(line) for line in [*lines, lines[1] | change]))
        with pytest.raises(DataError, match=message):
            read_missing_table(file, ids_, PAIR)


def test_codes_for_each_film_are_read_where_rows_are_plots(tmp_path: Path) -> None:
    groups = ["f1", "f1", "f2", "f3", "f3", "f3"]
    sample_ids = [str(i) for i in range(6)]
    torch.save(torch.tensor([1.0, 0.0, 2.0]), tmp_path / "t.pt")
    table = read_missing_table(tmp_path / "t.pt", sample_ids, PAIR, None, groups)
    assert list(table.cases.values()) == ["missing-text"] * 2 + ["complete"] + ["missing-image"] * 3
    torch.save(torch.zeros(4), tmp_path / "t.pt")
    with pytest.raises(DataError, match="has 4 codes, but the split has 6 samples in 3 groups"):
        read_missing_table(tmp_path / "t.pt", sample_ids, PAIR, None, groups)
