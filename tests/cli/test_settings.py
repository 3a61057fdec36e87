"""``--method-set``, ``--head-set`` and ``--backbone-set``: with values, without, and the flags that they replace."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mmrobust.cli.settings import field_docstrings
from mmrobust.configuration import look_up
from mmrobust.data import Dataset
from mmrobust.models.backbones import FAMILIES
from mmrobust.models.checkpoint import CheckpointConfig
from mmrobust.models.heads import HEADS, head_class
from mmrobust.models.methods import METHODS, method_class
from mmrobust.training.recipe import Recipe

SETTINGS = [
    Recipe,
    *(method_class(name).config_class for name in METHODS),
    *(head_class(name).config_class for name in HEADS),
    *(look_up(FAMILIES, name, "family").settings_class for name in FAMILIES),
]


@pytest.mark.parametrize("settings", dict.fromkeys(SETTINGS), ids=lambda cls: cls.__name__)
def test_every_setting_has_a_meaning(settings: type[Any]) -> None:
    assert {field.name for field in dataclasses.fields(settings)} == set(field_docstrings(settings))


def lines(cli: Any, *words: object) -> list[str]:
    code, printed, said = cli("train", *words)
    assert (code, said) == (0, "")
    return printed.splitlines()


def test_without_a_value_the_settings_of_the_method_are_listed(cli: Any) -> None:
    printed = lines(cli, "--method", "mmp", "--method-set")
    assert printed[0] == "method mmp: --method-set NAME=VALUE"
    assert {"  level=input", "  length=16", "  layers=[]"} < set(printed)
    assert any("Number of prompted layers" in line for line in printed)
    assert lines(cli, "--method-set", "--method", "mmp") == lines(cli, "--method", "mmp", "--method-set", "") == printed


def test_a_setting_that_is_a_mapping_shows_its_default(cli: Any) -> None:
    assert '  margins={"complete": 0.1}' in lines(cli, "--head", "prototype", "--head-set")


def test_the_recipe_may_name_the_method(cli: Any) -> None:
    assert lines(cli, "--recipe", "ptm-cifar10-av", "--method-set")[0] == "method ptm: --method-set NAME=VALUE"


def test_where_nothing_is_named_all_are_listed(cli: Any) -> None:
    printed = lines(cli, "--method-set", "--head-set", "--backbone-set")
    for title in ("method full has no settings", "method dcp: --method-set NAME=VALUE", "head linear has no settings"):
        assert title in printed
    families = ["vilt", "clip", "cavmae", "towers"]
    assert [line for line in printed if "--backbone-set" in line] == [
        f"backbone {family}: --backbone-set NAME=VALUE" for family in families
    ]


@pytest.mark.parametrize("named", ["tiny-cavmae", "folder"])
def test_the_settings_of_a_backbone_are_those_of_its_family(cli: Any, tiny: Any, tmp_path: Path, named: str) -> None:
    if named == "folder":
        tiny("tiny-cavmae").save(tmp_path / "weights")
    backbone = named if named != "folder" else tmp_path / "weights"
    printed = lines(cli, "--backbone", backbone, "--backbone-set")
    assert printed[0] == "backbone cavmae: --backbone-set NAME=VALUE" and "  missing_path=fill" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "mpm", "--method-set"), "unknown method 'mpm': did you mean 'mmp'"),
        (("--backbone", "tiny-vlit", "--backbone-set"), "unknown tiny backbone 'tiny-vlit': did you mean 'tiny-vilt'"),
        (("--backbone", "./none", "--backbone-set"), "no such folder"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(cli: Any, words: tuple[str, ...], said: str) -> None:
    code, printed, err = cli("train", *words)
    assert (code, printed) == (2, "") and said in err


def test_the_old_flags_still_work_and_name_the_new_way(cli: Any, digits: Dataset, tmp_path: Path) -> None:
    command = ("train", "--data", digits.folder, "--backbone", "tiny", "--method", "none", "--epochs", "1")
    old = ("--max-text-length", "100", "--backbone-dropout")
    code, _, said = cli(*command, *old, "--out", tmp_path / "old")
    assert code == 0
    assert said.splitlines()[:2] == [
        "--backbone-dropout is deprecated: use --backbone-set dropout=true",
        "--max-text-length is deprecated: use --backbone-set max_text_length=100",
    ]
    new = ("--backbone-set", "max_text_length=100", "--backbone-set", "dropout=true")
    code, _, said = cli(*command, *new, "--out", tmp_path / "new")
    assert code == 0 and "deprecated" not in said
    configs = [CheckpointConfig.read(tmp_path / name) for name in ("old", "new")]
    assert configs[0].backbone == configs[1].backbone
    assert configs[0].backbone["settings"] == {"dropout": True, "max_text_length": 100}


def test_the_old_flags_are_hidden(cli: Any) -> None:
    code, printed, _ = cli("train", "--help")
    assert code == 0 and "--backbone-set" in printed
    assert not any(flag in printed for flag in ("--backbone-dropout", "--missing-path", "--max-text-length"))


def test_the_settings_of_the_recipe_are_listed(cli: Any) -> None:
    printed = lines(cli, "--recipe-set")
    assert printed[0] == "recipe: --recipe-set NAME=VALUE"
    assert {"  epochs=20", "  schedule=linear"} < set(printed)


def test_a_recipe_that_is_named_shows_its_own_values(cli: Any) -> None:
    named = ("--recipe", "mmp-mmimdb", "--backbone", "tiny-vilt")
    printed = lines(cli, *named, "--recipe-set", "--method-set", "--backbone-set")
    assert printed[0] == "recipe mmp-mmimdb: --recipe-set NAME=VALUE"
    assert {"  batch_size=256", "  layers=[0, 1, 2, 3, 4, 5]", "  max_text_length=1024"} < set(printed)
    assert "  batch_size=64" in lines(cli, "--recipe-set")
