"""Recipes: checked values, files, flags on top."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mmrobust.configuration import from_mapping
from mmrobust.data import Dataset
from mmrobust.errors import UsageError
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.training.objective import learning_rate
from mmrobust.training.recipe import DEFAULT, Recipe, default_recipe
from mmrobust.training.recipes import BUILTIN
from mmrobust.training.settings import TrainOptions, read_recipe


def test_defaults_by_method_and_backbone() -> None:
    assert default_recipe("mmp", "tiny") == DEFAULT
    assert default_recipe("lora", "tiny") == default_recipe("adapter", "tiny") == Recipe(lr=1e-3, betas=(0.9, 0.999))
    scratch, fine_tuning = default_recipe("full", "tiny-vilt"), default_recipe("full", "dandelin/vilt-b32-mlm")
    assert (scratch.epochs, scratch.lr, scratch.schedule, scratch.augment) == (30, 1e-3, "cosine", True)
    assert fine_tuning == Recipe(epochs=10, batch_size=32, lr=5e-5, weight_decay=1e-2, betas=(0.9, 0.999))


def test_a_folder_or_a_hub_id_that_is_called_tiny_is_fine_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-vilt-x").mkdir()
    monkeypatch.chdir(tmp_path)
    for backbone in ("tiny-vilt-x", "tiny-vilt-x/", "tinyorg/vilt", "tiny-org/vilt", "tiny-study/checkpoints/full"):
        assert not default_recipe("full", backbone).augment


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 0.5\nbetas: [0.8, 0.9]\n")
    own = read_recipe(str(tmp_path / "mine.yaml")).overridden_by(TrainOptions(method="none", backbone="tiny"))
    recipe = own.resolve(tmp_path, recipe_name="mine.yaml").recipe
    assert (recipe.lr, recipe.betas, recipe.epochs) == (0.5, (0.8, 0.9), DEFAULT.epochs)
    assert recipe.changed(lr=None, epochs=3) == Recipe(lr=0.5, betas=(0.8, 0.9), epochs=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown recipe setting 'epoch': did you mean 'epochs'"),
        ("lr: -1", "recipe setting lr = -1.0 is out of range"),
        ("lr: fast", "recipe setting lr = 'fast': must be a number"),
        ("schedule: cosin", "unknown schedule 'cosin': did you mean 'cosine'"),
        ("methods: mmp", "unknown recipe setting 'methods': did you mean 'method'"),
        ("method_settings: 16", "recipe setting method_settings = 16: must be a mapping"),
        ("method: {name: mmp}", "recipe setting method = {'name': 'mmp'}: must be a string"),
        ("", "holds no settings"),
        ("{", "is not valid YAML"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; expected the recipe"):
        read_recipe(str(tmp_path / "none.yaml"))


def test_schedules() -> None:
    linear = [learning_rate(Recipe(lr=1.0, warmup=0.1), step, 100) for step in range(100)]
    assert linear[0] == 0
    assert linear[10] == 1
    assert linear[55] == pytest.approx(0.5)
    assert learning_rate(Recipe(lr=1.0, warmup=0, schedule="cosine"), 50, 100) == pytest.approx(0.5)
    assert learning_rate(Recipe(lr=1.0, warmup=0, schedule="constant"), 99, 100) == 1.0


def test_flags_lie_over_a_recipe_setting_by_setting(tmp_path: Path) -> None:
    flags = TrainOptions(backbone="tiny", missing_rate=0.1, method_settings={"length": 4}, recipe={"lr": 1e-3})
    settings = read_recipe("mmp-mmimdb").overridden_by(flags).resolve(tmp_path, seed=3, recipe_name="mmp-mmimdb")
    assert (settings.method, settings.head, settings.backbone, settings.missing_rate) == ("mmp", "mlp", "tiny", 0.1)
    assert settings.method_settings == {"level": "input", "length": 4, "layers": [0, 1, 2, 3, 4, 5]}
    assert (settings.recipe.lr, settings.recipe.batch_size, settings.recipe.betas) == (1e-3, 256, (0.9, 0.98))
    assert settings.recipe_name == "mmp-mmimdb"


def test_prompt_depth_takes_the_place_of_a_recipes_layers(tmp_path: Path) -> None:
    """--prompt-depth had no effect beside layers, and left no way out on a backbone of fewer layers."""
    recipe = read_recipe("mmp-mmimdb")
    for asked, layers, depth in (
        ({"depth": 4}, (), 4),
        ({"length": 4}, (0, 1, 2, 3, 4, 5), 6),
        ({"depth": 4, "layers": [1]}, (1,), 4),
    ):
        flags = TrainOptions(backbone="tiny", method_settings=asked)
        config = recipe.overridden_by(flags).resolve(tmp_path).method_config()
        assert (config.layers, config.depth) == (layers, depth)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_recipe_is_whole_and_says_where_its_numbers_come_from(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    settings = recipe.overridden_by(TrainOptions(backbone=recipe.backbone or "checkpoint")).resolve(
        tmp_path, recipe_name=name
    )
    for kind, chosen, values in (
        (method_class, settings.method, settings.method_settings),
        (head_class, settings.head, settings.head_settings),
    ):
        from_mapping(kind(chosen).config_class, values, chosen)
    lines = BUILTIN[name].read_text().splitlines()
    assert lines[0].startswith("# ")
    numbers = [line for line in lines if any(sign.isdigit() for sign in line) and not line.startswith("#")]
    assert all(" # " in line for line in numbers)


SECTIONS = """
about: mine
method: none
head: prototype
scenario: missing-both
missing_rate: 0.7
lr: 0.5
head_settings: {scale: 8.0, margin: 0.2}
where:
  - {scenario: missing-text, head_settings: {margin: 0.3}}
  - {scenario: missing-text, missing_rate: 0.5, lr: 0.1, head_settings: {scale: 4.0}}
"""


@pytest.mark.parametrize(
    ("asked", "lr", "head"),
    [
        ({}, 0.5, {"scale": 8.0, "margin": 0.2}),
        ({"missing_rate": 0.5}, 0.5, {"scale": 8.0, "margin": 0.2}),
        ({"scenario": "missing-text"}, 0.5, {"scale": 8.0, "margin": 0.3}),
        ({"scenario": "missing-text", "missing_rate": 0.5}, 0.1, {"scale": 4.0, "margin": 0.3}),
        (
            {"scenario": "missing-text", "missing_rate": 0.5, "recipe": {"lr": 0.9}, "head_settings": {"margin": 0.0}},
            0.9,
            {"scale": 4.0, "margin": 0.0},
        ),
        ({"scenario": "missing-text", "missing_rate": 0.5, "head": "linear"}, 0.1, {}),
    ],
)
def test_a_section_is_for_its_scenario_and_rate_and_below_the_flags(
    tmp_path: Path, asked: dict[str, Any], lr: float, head: dict[str, float]
) -> None:
    (tmp_path / "mine.yaml").write_text(SECTIONS)
    recipe = read_recipe(str(tmp_path / "mine.yaml"))
    settings = recipe.overridden_by(TrainOptions(backbone="tiny", **asked)).resolve(tmp_path)
    assert (settings.recipe.lr, settings.head_settings) == (lr, head)
    assert (settings.scenario, settings.missing_rate) == (
        asked.get("scenario", "missing-both"),
        asked.get("missing_rate", 0.7),
    )


def test_a_recipe_that_nothing_overrides_has_its_sections_too(tmp_path: Path) -> None:
    text = SECTIONS.replace("missing-both", "missing-text") + "backbone: tiny\n"
    (tmp_path / "mine.yaml").write_text(text)
    settings = read_recipe(str(tmp_path / "mine.yaml")).resolve(tmp_path)
    assert settings.head_settings == {"scale": 8.0, "margin": 0.3}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{lr: 0.1}", "must be settings with a scenario"),
        ("3", "section 3 under where must be settings with a scenario"),
        ("{scenario: missing-text, method: mmp}", "method cannot stand in a section under where"),
        ("{scenario: missing-text, lrr: 0.1}", "unknown recipe setting 'lrr': did you mean 'lr'"),
        ("{scenario: missing-text, lr: -1}", "recipe setting lr = -1.0 is out of range"),
    ],
)
def test_sections_that_are_refused(tmp_path: Path, section: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(SECTIONS + f"  - {section}\n")
    with pytest.raises(UsageError, match=message):
        read_recipe(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("method: none\nscenario: missing-both\nwhere: []\n")
    with pytest.raises(UsageError, match="missing_rate is missing, which a recipe with sections under where must name"):
        read_recipe(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("scenario: missing-both\nmissing_rate: 0.7\nwhere: {}\n")
    with pytest.raises(UsageError, match="where must be a list of sections"):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_a_section_for_a_scenario_that_the_data_cannot_have_is_refused(tmp_path: Path, digits: Dataset) -> None:
    (tmp_path / "mine.yaml").write_text(SECTIONS + "  - {scenario: missing-txet, lr: 0.1}\n")
    with pytest.raises(UsageError, match=r"section 3 under where: unknown scenario .* 'missing-txet'"):
        dataclasses.replace(read_recipe(str(tmp_path / "mine.yaml")), backbone="tiny").resolve(digits.folder)


# OverfitFlow/DPL, scripts of DPL_DCP: margin when something is missing, weight of the loss over prototypes.
RELEASED = {
    ("mmimdb", "missing-both", 0.7): (0.1, 0.15, 0.9),
    ("mmimdb", "missing-text", 0.7): (0.1, 0.15, 0.1),
    ("mmimdb", "missing-image", 0.9): (0.1, 0.15, 0.1),
    ("hateful-memes", "missing-both", 0.7): (0.15, 0.3, 5.0),
    ("hateful-memes", "missing-text", 0.7): (0.15, 0.2, 9.0),
    ("hateful-memes", "missing-image", 0.7): (0.15, 0.2, 4.0),
    ("hateful-memes", "missing-both", 0.9): (0.15, 0.25, 8.0),
    ("food101", "missing-both", 0.7): (0.15, 0.3, 1.0),
    ("food101", "missing-text", 0.7): (0.15, 0.3, 0.6),
    ("food101", "missing-image", 0.7): (0.15, 0.3, 0.4),
    ("food101", "missing-image", 0.9): (0.15, 0.25, 0.6),
}


@pytest.mark.parametrize(("data", "scenario", "rate"), RELEASED)
def test_dpls_recipes_are_the_releases(tmp_path: Path, data: str, scenario: str, rate: float) -> None:
    asked = TrainOptions(scenario=scenario, missing_rate=rate)
    settings = read_recipe(f"dpl-{data}").overridden_by(asked).resolve(tmp_path)
    head = settings.head_config()
    assert (head.margins["complete"], head.margin, head.prototype_loss) == RELEASED[data, scenario, rate]
    assert (settings.method, settings.recipe.lr, settings.recipe.batch_size) == ("dcp", 1e-2, 256)
    bare = read_recipe(f"dpl-{data}-noprompt").overridden_by(asked).resolve(tmp_path)
    assert (bare.method, bare.method_settings) == ("none", {"train_pooling": True})
    assert bare.head_config().prototype_loss > 0 or data != "mmimdb"


def test_a_recipe_without_a_backbone_or_a_method_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say --backbone: recipe ptm-cifar10-av names none"):
        read_recipe("ptm-cifar10-av").resolve(tmp_path, recipe_name="ptm-cifar10-av")
    with pytest.raises(UsageError, match="unknown recipe 'mmp-imdb': did you mean 'mmp-mmimdb'"):
        read_recipe("mmp-imdb")
