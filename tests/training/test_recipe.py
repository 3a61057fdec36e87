"""Recipes: checked values, files, flags on top."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.errors import UsageError
from mmrobust.training.objective import learning_rate
from mmrobust.training.recipe import DEFAULT, FINE_TUNING, SCRATCH, Recipe, default_recipe, read_recipe


def test_defaults_by_method_and_backbone() -> None:
    assert default_recipe("mmp", "tiny") is DEFAULT
    assert default_recipe("full", "tiny-vilt") is SCRATCH
    assert default_recipe("full", "dandelin/vilt-b32-mlm") is FINE_TUNING


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 0.5\nbetas: [0.8, 0.9]\n")
    recipe = read_recipe(tmp_path / "mine.yaml", DEFAULT)
    assert (recipe.lr, recipe.betas, recipe.epochs) == (0.5, (0.8, 0.9), DEFAULT.epochs)
    assert recipe.changed(lr=None, epochs=3) == Recipe(lr=0.5, betas=(0.8, 0.9), epochs=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown recipe setting 'epoch': did you mean 'epochs'"),
        ("lr: -1", "recipe setting lr = -1.0 is out of range"),
        ("lr: fast", "recipe setting lr = 'fast': must be a number"),
        ("schedule: cosin", "unknown schedule 'cosin': did you mean 'cosine'"),
        ("", "holds no settings"),
        ("{", "is no YAML"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "mine.yaml", DEFAULT)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "none.yaml", DEFAULT)


def test_schedules() -> None:
    linear = [learning_rate(Recipe(lr=1.0, warmup=0.1), step, 100) for step in range(100)]
    assert linear[0] == 0
    assert linear[10] == 1
    assert linear[55] == pytest.approx(0.5)
    assert learning_rate(Recipe(lr=1.0, warmup=0, schedule="cosine"), 50, 100) == pytest.approx(0.5)
    assert learning_rate(Recipe(lr=1.0, warmup=0, schedule="constant"), 99, 100) == 1.0
