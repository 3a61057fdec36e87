"""Settings from mappings and from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mmrobust.configuration import check_json, from_mapping, parse_settings
from mmrobust.errors import UsageError


@dataclass(frozen=True)
class Settings:
    rank: int = 8
    alpha: float = 16.0
    learned: bool = True
    init: str = "means"
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Nothing:
    pass


def test_pairs_become_settings_of_the_right_kinds() -> None:
    pairs = ["rank=4", "alpha=1e-3", "learned=false", "init=random", "layers=[0, 2]"]
    assert from_mapping(Settings, parse_settings(pairs, "--method-set"), "lora method") == Settings(
        4, 0.001, False, "random", (0, 2)
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rnak": 4}, "unknown lora method setting 'rnak': did you mean 'rank'?"),
        ({"rank": 1.5}, "lora method setting rank = 1.5: must be a whole number"),
        ({"rank": True}, "rank = True: must be a whole number"),
        ({"alpha": "big"}, "alpha = 'big': must be a number"),
        ({"learned": "maybe"}, "must be true or false"),
        ({"init": 3}, "init = 3: must be a string"),
        ({"layers": 3}, "must be a list"),
        ({"layers": ["a"]}, "must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_mapping(Settings, values, "lora method")
    assert said in str(caught.value)


def test_settings_of_what_has_none_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown none method setting 'rank': it has none"):
        from_mapping(Nothing, {"rank": 4}, "none method")


@pytest.mark.parametrize(("pair", "said"), [("rank", "--head-set rank: give NAME=VALUE"), ("a=[1", "cannot be read")])
def test_pairs_that_are_none_are_refused(pair: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_settings([pair], "--head-set")


RECORD = {"name": str, "classes?": [str], "costs?": {str: {"seconds": float, "joules?": float}}}


def test_json_of_the_right_types_passes() -> None:
    for value in ({"name": "a"}, {"name": "a", "classes": None, "other": object()}, {"name": "a", "classes": ["b"]}):
        check_json(value, RECORD)
    check_json({"name": "a", "costs": {"x": {"seconds": 1}, "y": {"seconds": 0.5, "joules": 2.0}}}, RECORD)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "name is missing"),
        ({"name": None}, "name is missing"),
        ({"name": 1}, "name = 1: must be a string"),
        ({"name": "a", "classes": "b"}, "classes = 'b': must be a list, like [0, 2]"),
        ({"name": "a", "classes": ["b", 1]}, "classes/1 = 1: must be a string"),
        ({"name": "a", "costs": []}, "costs = []: must be a mapping, like {key: value}"),
        ({"name": "a", "costs": {"x": {}}}, "costs/x/seconds is missing"),
        ({"name": "a", "costs": {"x": {"seconds": "1"}}}, "costs/x/seconds = '1': must be a number"),
        ({"name": "a", "costs": {"x": {"seconds": float("nan")}}}, "costs/x/seconds = nan: must be a number"),
    ],
)
def test_json_of_other_types_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_json(value, RECORD)
    assert str(caught.value) == message
