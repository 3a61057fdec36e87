"""Settings from mappings and from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mmrobust.configuration import from_mapping, parse_settings
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
        ({"init": 3}, "init = 3: must be a word"),
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


@pytest.mark.parametrize(("pair", "said"), [("rank", "--head-set rank: give KEY=VALUE"), ("a=[1", "cannot be read")])
def test_pairs_that_are_none_are_refused(pair: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_settings([pair], "--head-set")
