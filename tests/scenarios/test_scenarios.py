from __future__ import annotations

import hashlib
import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrobust.cases import PROMPTINGS, Case
from mmrobust.errors import UsageError
from mmrobust.scenarios.draws import ScenarioDraw, affected_count, missing_table, rank_samples
from mmrobust.scenarios.grid import DEFAULT_RATES, DEFAULT_SEEDS, Cell, Grid, make_grid, parse_rates
from mmrobust.scenarios.scenario import Scenario, noisy_scenario_names, scenario_names, training_cases

PAIR = ("image", "text")
TRIPLE = ("image", "text", "audio")

ids = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)
rates = st.integers(0, 1000).map(lambda permille: permille / 1000)
seeds = st.integers(0, 5)
names = st.sampled_from(scenario_names(PAIR))


def naive_table(sample_ids: list[str], name: str, rate: float, seed: int) -> dict[str, str]:
    """A missing table as DESIGN says it in words, for complete samples of image and text."""
    ranked = sorted(sample_ids, key=lambda i: hashlib.blake2b(f"{seed}/{name}/{i}".encode()).digest())
    affected = ranked[: int(len(ranked) * Fraction(str(rate)))]
    table = dict.fromkeys(sample_ids, "complete")
    for rank, sample_id in enumerate(affected):
        table[sample_id] = name if name != "missing-both" else ("missing-image", "missing-text")[rank % 2]
    return table


@given(ids, names, rates, seeds)
def test_a_table_is_what_the_definition_says(sample_ids: list[str], name: str, rate: float, seed: int) -> None:
    table = missing_table(sample_ids, Scenario.parse(name, PAIR), rate, seed)
    assert table == naive_table(sample_ids, name, rate, seed)
    assert list(table) == sample_ids


def test_a_table_never_changes() -> None:
    """Pinned: a change here makes every result that was ever stored incomparable."""
    sample_ids = [f"sample-{i:03d}" for i in range(200)]
    table = missing_table(sample_ids, Scenario.parse("missing-both", PAIR), 0.7, 0)
    assert Counter(table.values()) == {"complete": 60, "missing-image": 70, "missing-text": 70}
    digest = hashlib.blake2b(json.dumps(table).encode(), digest_size=16).hexdigest()
    assert digest == "706daa38606acc7d27c6be401a7dac0a"


@given(ids, names, rates, rates, seeds)
def test_tables_are_nested_over_rates(sample_ids: list[str], name: str, one: float, two: float, seed: int) -> None:
    draw = ScenarioDraw(sample_ids, Scenario.parse(name, PAIR), seed)
    fewer, more = draw.table(min(one, two)), draw.table(max(one, two))
    affected = fewer != "complete"
    assert (more[affected] == fewer[affected]).all()


@given(ids, names, rates, seeds, st.randoms(use_true_random=False))
def test_a_table_does_not_depend_on_the_order_of_samples(sample_ids, name, rate, seed, random) -> None:
    scenario = Scenario.parse(name, PAIR)
    shuffled = random.sample(sample_ids, len(sample_ids))
    assert missing_table(shuffled, scenario, rate, seed) == missing_table(sample_ids, scenario, rate, seed)


@given(ids, names, seeds, st.integers(1, 4))
def test_a_shard_ranks_its_samples_as_the_whole_does(sample_ids: list[str], name: str, seed: int, shards: int) -> None:
    whole = [sample_ids[i] for i in rank_samples(sample_ids, name, seed)]
    shard = sample_ids[::shards]
    assert [shard[i] for i in rank_samples(shard, name, seed)] == [i for i in whole if i in set(shard)]


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_the_count_is_exactly_the_floor(samples: int, percent: int) -> None:
    assert affected_count(samples, percent / 100) == samples * percent // 100


def test_the_count_of_a_rate_that_floats_cannot_hold() -> None:
    assert int(100 * 0.29) == 28  # what the naive product gives
    assert affected_count(100, 0.29) == 29


@given(ids, rates, seeds)
def test_missing_both_halves_the_affected(sample_ids: list[str], rate: float, seed: int) -> None:
    table = Counter(missing_table(sample_ids, Scenario.parse("missing-both", PAIR), rate, seed).values())
    assert table["missing-image"] + table["missing-text"] == affected_count(len(sample_ids), rate)
    assert 0 <= table["missing-image"] - table["missing-text"] <= 1


def test_other_seeds_and_scenarios_affect_other_samples() -> None:
    sample_ids = [str(i) for i in range(500)]
    affected = {
        (name, seed): frozenset(ScenarioDraw(sample_ids, Scenario.parse(name, PAIR), seed).affected(0.5))
        for name in scenario_names(PAIR)
        for seed in range(3)
    }
    assert len(set(affected.values())) == len(affected)
    one, two = affected["missing-text", 0], affected["missing-text", 1]
    assert 90 < len(one & two) < 160  # half of 250, as if drawn independently


@given(st.data(), st.sampled_from([f"missing-{m}" for m in TRIPLE]), rates, seeds)
def test_natural_cases_of_three_modalities(data: st.DataObject, name: str, rate: float, seed: int) -> None:
    lost = st.sets(st.sampled_from(TRIPLE), max_size=2)
    natural = [Case.missing(TRIPLE, *n) for n in data.draw(st.lists(lost, min_size=1, max_size=40))]
    sample_ids = [str(i) for i in range(len(natural))]
    draw = ScenarioDraw(sample_ids, Scenario.parse(name, TRIPLE), seed, natural)
    (target,) = (m for m in TRIPLE if name == f"missing-{m}")

    able = [i for i, case in enumerate(natural) if not case.is_missing(target) and len(case.present) > 1]
    affected = draw.affected(rate).tolist()
    assert len(affected) == affected_count(len(able), rate)
    assert set(affected) <= set(able)
    for i, outcome in enumerate(draw.table(rate)):
        case = Case.parse(outcome, TRIPLE)
        expected = set(natural[i].present) - ({target} if i in affected else set())
        assert set(case.present) == expected


def test_a_sample_with_one_modality_left_is_never_affected() -> None:
    natural = [Case.missing(PAIR, "text"), Case.missing(PAIR, "image"), Case.complete(PAIR)]
    for name in scenario_names(PAIR):
        draw = ScenarioDraw(["a", "b", "c"], Scenario.parse(name, PAIR), 0, natural)
        assert draw.table(1)[:2].tolist() == ["missing-text", "missing-image"]
        assert draw.affected(1).tolist() == [2]


def test_no_samples_make_an_empty_table() -> None:
    assert missing_table([], Scenario.parse("missing-text", PAIR), 0.5, 0) == {}


def test_scenarios_of_the_modalities() -> None:
    assert scenario_names(PAIR) == ("missing-image", "missing-text", "missing-both")
    assert scenario_names(TRIPLE) == ("missing-image", "missing-text", "missing-audio", "missing-any")
    with pytest.raises(
        UsageError, match=r"unknown scenario for image and text 'missing-txt': did you mean 'missing-text'\?"
    ):
        Scenario.parse("missing-txt", PAIR)
    with pytest.raises(UsageError, match="missing-audio"):
        Scenario.parse("missing-audio", PAIR)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0.7"], (0.7,)),
        (["0,0.5", "1"], (0.0, 0.5, 1.0)),
        (["0:1:0.1"], DEFAULT_RATES),
        (["0.1:0.5:0.2", " 0.3 "], (0.1, 0.3, 0.5)),
        (["0:1:0.3"], (0.0, 0.3, 0.6, 0.9)),
        (["0.7,0.70"], (0.7,)),
        (["0.5:0.5:1"], (0.5,)),
    ],
)
def test_rates_are_read(texts: list[str], expected: tuple[float, ...]) -> None:
    assert parse_rates(texts) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.2", "missing rate 1.2 is not a share"),
        ("-0.1", "missing rate -0.1 is not a share"),
        ("0:2:0.5", "missing rate 2 is not a share"),
        ("most", "'most' is neither a number nor start:stop:step"),
        ("", "'' is neither"),
        ("70%", "'70%' is neither a number nor start:stop:step; is 0.7 meant"),
        ("0.7,", "missing rates '0.7,': one of them is empty; commas separate rates"),
        ("0,7", r"missing rate 7 is not a share .* \(in '0,7'; is 0.7 meant\? Decimals are written with a point\)"),
        ("nan", "'nan' is neither"),
        ("0:1", "'0:1' is neither"),
        ("1:0:0.1", "'1:0:0.1' is neither"),
        ("0:1:0", "'0:1:0' is neither"),
        ("0:1:1e-9", "more than 10,000"),
    ],
)
def test_rates_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_rates([text])


def test_a_grid_lists_its_cells_once_each_in_order() -> None:
    grid = Grid(("missing-text", "missing-text"), (0.7, 0, 0.7), (0, 1), ("situation",))
    assert list(grid.cells()) == [
        Cell("missing-text", 0.0, 0, "situation"),
        Cell("missing-text", 0.0, 1, "situation"),
        Cell("missing-text", 0.7, 0, "situation"),
        Cell("missing-text", 0.7, 1, "situation"),
    ]


def test_the_default_grid() -> None:
    cells = list(make_grid(PAIR, None, DEFAULT_RATES, DEFAULT_SEEDS, PROMPTINGS).cells())
    assert len(cells) == len(set(cells)) == 3 * 11 * 3 * 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ((("missing-text",), (), (0,)), "the grid has no rates"),
        ((("missing-text",), (0.5,), ()), "the grid has no seeds"),
        ((("missing-text",), (0.5,), (0,), ()), "the grid has no promptings"),
        ((("missing-text",), (1.2,), (0,)), "missing rate 1.2"),
        ((("missing-text",), (float("nan"),), (0,)), "missing rate nan"),
        ((("missing-text",), (0.5,), (0,), ("concatt",)), r"did you mean 'concat'\?"),
    ],
)
def test_a_grid_that_is_none(axes: tuple[tuple[object, ...], ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Grid(*axes)


def test_one_modality_cannot_be_missing() -> None:
    grid = Grid((), (0.5,), (0,))
    with pytest.raises(UsageError, match=r"a model of text alone has no missing-modality scenario; .* noisy-text:"):
        grid.of(("text",))
    assert Grid(("noisy-text:ocr@2",), (0.5,), (0,)).of(("text",)).scenarios == ("noisy-text:ocr@2",)


def test_the_table_is_an_array_in_the_order_of_the_split() -> None:
    draw = ScenarioDraw(["b", "a"], Scenario.parse("missing-text", PAIR), 0)
    assert isinstance(draw.table(1.0), np.ndarray)
    assert draw.table(1.0).tolist() == ["missing-text", "missing-text"]


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        (("audio", "image"), ("noisy-audio", "noisy-image", "noisy-both")),
        (("image", "text"), ("noisy-image", "noisy-text", "noisy-both")),
        (TRIPLE, ("noisy-image", "noisy-text", "noisy-audio")),
        (("text",), ("noisy-text",)),
    ],
)
def test_noisy_scenarios_are_of_each_modality_and_of_both(
    modalities: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert noisy_scenario_names(modalities) == expected
    for name in expected:
        assert [case.name for case in Scenario.parse(name, modalities).cases] == [name]
    assert not set(expected) & set(scenario_names(modalities))
    with pytest.raises(UsageError, match="unknown scenario"):
        Scenario.parse("noisy-none", modalities)


@pytest.mark.parametrize(
    "name",
    [
        "noisy-image:blur@3",
        "noisy-text:word-drop@2",
        "noisy-image@4",
        "noisy-both@2",
        "noisy-image:blur@3+noisy-text:word-drop@2",
        "noisy-image@1+noisy-text",
        "missing-image+noisy-text:ocr@5",
        "noisy-text:ocr@5+noisy-image:blur@1",
    ],
)
def test_a_scenario_may_name_its_corruption(name: str) -> None:
    (case,) = Scenario.parse(name, PAIR).cases
    assert set(case.name.split("+")) == set(name.split("+")) and Case.parse(name, PAIR) == case
    assert set(missing_table(["a", "b"], Scenario.parse(name, PAIR), 1.0, 0).values()) == {case.name}
    assert case.plain.name in {c.name for c in training_cases(name, PAIR)}
    assert not any(c.noise for c in training_cases(name, PAIR))


def test_one_cause_of_both() -> None:
    (case,) = Scenario.parse("noisy-both:rain@3", ("audio", "image")).cases
    assert case.corruption("audio") == case.corruption("image") == ("rain", 3)
    assert case.name == "noisy-both:rain@3" and case.plain.name == "noisy-both"
    with pytest.raises(UsageError, match=r"is called 'noisy-both:rain@3'"):
        Scenario.parse("noisy-audio:rain@3+noisy-image:rain@3", ("audio", "image"))
    (case,) = Scenario.parse("noisy-image:rain@3+noisy-audio:rain@3", ("image", "audio", "text")).cases
    assert case.degraded == ("image", "audio")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("noisy-image:blurr@3", "unknown corruption of image 'blurr': did you mean 'blur'? Known: gaussian"),
        ("noisy-image:blur", "'noisy-image:blur' has no severity: give one from 1 to 5, as in noisy-image:blur@3"),
        ("noisy-text@7", "'noisy-text@7' has severity 7: give one from 1 to 5, as in noisy-text@3"),
        ("noisy-both:rain@3", "unknown corruption of text 'rain'"),
        ("noisy-both:blur@3", "name the corruption of each modality, noisy-image:NAME@SEVERITY+noisy-text:NAME@"),
        ("noisy-text+noisy-image", "scenario 'noisy-text+noisy-image' is called 'noisy-both'"),
        ("noisy-imgae:blur@3", "unknown scenario for image and text 'noisy-imgae:blur@3': did you mean 'noisy-image'"),
        ("missing-image:blur@3", "unknown scenario for image and text 'missing-image:blur@3'"),
        ("noisy-image@03", "unknown scenario for image and text 'noisy-image@03'"),
        ("complete", "unknown scenario for image and text 'complete'"),
    ],
)
def test_scenarios_that_there_are_not(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Scenario.parse(name, PAIR)
    assert message in str(raised.value)


@given(ids, rates, seeds)
def test_a_noisy_table_affects_whom_its_name_ranks(sample_ids: list[str], rate: float, seed: int) -> None:
    table = missing_table(sample_ids, Scenario.parse("noisy-both", ("audio", "image")), rate, seed)
    order = rank_samples(sample_ids, "noisy-both", seed)[: affected_count(len(sample_ids), rate)]
    assert {i for i, case in table.items() if case == "noisy-both"} == {sample_ids[p] for p in order}


def test_what_is_missing_by_nature_is_not_noisy() -> None:
    modalities = ("audio", "image")
    natural = [Case.complete(modalities), Case.missing(modalities, "audio")]

    def at_once(name: str) -> list[str]:
        return list(missing_table(["a", "b"], Scenario.parse(name, modalities), 1.0, 0, natural).values())

    assert at_once("noisy-audio") == ["noisy-audio", "missing-audio"]
    assert at_once("noisy-both") == ["noisy-both", "missing-audio+noisy-image"]
    assert at_once("noisy-both@2") == ["noisy-both@2", "missing-audio+noisy-image@2"]


def test_the_cases_to_tell_apart_come_from_the_training_scenario() -> None:
    def names_of(scenario: str, modalities: tuple[str, ...]) -> list[str]:
        return [case.name for case in training_cases(scenario, modalities)]

    noisy = ["complete", "noisy-audio", "noisy-image", "noisy-both"]
    assert names_of("noisy-audio", ("audio", "image")) == names_of("noisy-both", ("audio", "image")) == noisy
    assert names_of("missing-both", PAIR) == ["complete", "missing-image", "missing-text"]
    pair = ["complete", "noisy-image", "noisy-text", "noisy-both"]
    assert names_of("noisy-image", PAIR) == names_of("noisy-text:ocr@2", PAIR) == pair
    assert names_of("missing-image+noisy-text", PAIR) == [*pair, "missing-image+noisy-text"]


@pytest.mark.parametrize("seeds", [0, -1, 10_001, 10**9])
def test_a_number_of_seeds_that_no_grid_has(seeds: int) -> None:
    with pytest.raises(UsageError, match=rf"--seeds {seeds}: give a number of mask seeds from 1 to 10,000"):
        make_grid(PAIR, None, (0.0,), seeds, ("situation",))


@given(st.lists(st.text(max_size=3), min_size=1, max_size=60), st.integers(0, 3))
def test_the_order_is_that_of_the_whole_hashes(sample_ids: list[str], seed: int) -> None:
    digests = [hashlib.blake2b(f"{seed}/missing-text/{sample_id}".encode()).digest() for sample_id in sample_ids]
    expected = sorted(range(len(sample_ids)), key=lambda i: (digests[i], sample_ids[i]))
    assert rank_samples(sample_ids, "missing-text", seed).tolist() == expected
