"""What a recipe can ask of the loop: batches in parts, a learning rate for the head, draws, a grid to validate on."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.training.loop import train
from mmrobust.training.objective import make_optimizer
from mmrobust.training.recipe import GRID, Recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import set_up
from mmrobust.training.sources import LiveSource
from mmrobust.training.splits import PositionsByCase
from mmrobust.training.trainer import StepRecord, Trainer
from mmrobust.training.validation import GRID_RATES, validate, validation_groups

RECIPE = Recipe(epochs=2, batch_size=20, lr=5e-3)


@pytest.fixture(scope="module")
def settings(digits: Dataset, trained: Callable[..., Path]) -> TrainSettings:
    """Trains a head, on the frozen features."""
    full = str(trained("full", "linear"))
    return TrainSettings(digits.folder, full, "none", "linear", RECIPE, modalities=("image", "text"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def test_a_batch_in_parts_is_the_same_step(settings: TrainSettings, tmp_path: Path) -> None:
    train(settings, tmp_path / "whole")
    train(dataclasses.replace(settings, recipe=RECIPE.changed(accumulate=3)), tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "method_settings"), [("none", {}), ("mmp", {"length": 2, "layers": [3]}), ("full", {})]
)
def test_batches_that_are_loaded_ahead_are_the_same(
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    method_settings: dict[str, Any],
) -> None:
    """As on a GPU, in a thread: cached features and streams, of which its memory holds some, and inputs."""
    recipe = RECIPE.changed(accumulate=2, batching="case-wise")
    settings = dataclasses.replace(settings, method=method, method_settings=method_settings, recipe=recipe)
    train(settings, tmp_path / "in-turn")
    monkeypatch.setattr(LiveSource, "ahead", True)
    monkeypatch.setattr("mmrobust.training.feature_cache.device_room", lambda _: MemoryBudget(2**18))
    threads: set[str] = set()
    true = EncodedSplit.prefetch

    def spied(self: EncodedSplit, *arguments: Any, **options: Any) -> Any:
        for step in true(self, *arguments, **options):
            threads.add(threading.current_thread().name)
            yield step

    monkeypatch.setattr(EncodedSplit, "prefetch", spied)
    train(settings, tmp_path / "ahead")
    assert "mmrobust-background" in threads
    in_turn, ahead = weights(tmp_path / "in-turn"), weights(tmp_path / "ahead")
    assert all(torch.equal(ahead[name], tensor) for name, tensor in in_turn.items())


def test_what_is_augmented_ahead_does_not_depend_on_what_is_computed_meanwhile(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpointed layers save and restore the global generator while a thread draws."""
    monkeypatch.setattr(LiveSource, "ahead", True)
    recipe = RECIPE.changed(augment=True)
    settings = dataclasses.replace(settings, method="full", method_settings={}, recipe=recipe)
    train(settings, tmp_path / "plain")
    true = LiveSource.features

    def restores(self: LiveSource, *arguments: Any) -> Any:
        before = torch.get_rng_state()
        time.sleep(0.02)
        torch.set_rng_state(before)
        return true(self, *arguments)

    monkeypatch.setattr(LiveSource, "features", restores)
    train(settings, tmp_path / "restored")
    plain, restored = weights(tmp_path / "plain"), weights(tmp_path / "restored")
    assert all(torch.equal(restored[name], tensor) for name, tensor in plain.items())


def test_the_head_has_its_own_learning_rate(settings: TrainSettings, tmp_path: Path) -> None:
    prompts = {"method": "mmp", "method_settings": {"length": 2, "layers": [3]}}
    setup = set_up(dataclasses.replace(settings, **prompts), tmp_path)
    optimizer = make_optimizer(setup.classifier, RECIPE.changed(head_lr=10.0))
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in setup.classifier.trained().items():
        assert scales[id(parameter)] == (10.0 if name.startswith("head.") else 1.0)
    assert len(scales) == len(setup.classifier.trained())


@pytest.mark.parametrize(("draws", "tables"), [(1, 1), (2, 2), (0, 3)])
def test_missing_tables_are_fixed_taken_in_turn_or_drawn_anew(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: int, tables: int
) -> None:
    seen: list[frozenset[tuple[str, int]]] = []
    true = Trainer._epoch

    def spied(self: Trainer, optimizer: Any, epoch: int, advance: Any) -> Any:
        split, _ = self._drawn(epoch)
        seen.append(frozenset((case, int(p)) for case, ps in split.by_case(self.chosen).items() for p in ps))
        return true(self, optimizer, epoch, advance)

    monkeypatch.setattr(Trainer, "_epoch", spied)
    train(dataclasses.replace(settings, recipe=RECIPE.changed(epochs=3, draws=draws)), tmp_path / "a")
    assert len(seen) == 3 and len(set(seen)) == tables
    assert (seen[2] == seen[0]) is (draws > 0)


def test_validation_on_a_grid_is_the_mean_over_its_cells(settings: TrainSettings, tmp_path: Path) -> None:
    setup = set_up(settings, tmp_path)
    groups = validation_groups(setup.validation, RECIPE.changed(validate_on=GRID), [], 0)
    assert len(groups) == 3 * len(GRID_RATES)  # missing-image, missing-text, missing-both
    complete: PositionsByCase = {"complete": np.arange(60)}
    assert [len(g) for g in groups[::3]] == [1, 1, 1] and np.array_equal(groups[0]["complete"], complete["complete"])
    source = LiveSource(setup.classifier, setup.validation.encoded)
    alone = [validate(source, setup.validation, "accuracy", [group]).metric for group in groups]
    assert validate(source, setup.validation, "accuracy", groups).metric == pytest.approx(np.mean(alone))
    train(dataclasses.replace(settings, recipe=RECIPE.changed(validate_on=GRID)), tmp_path / "grid")


def test_how_often_one_looks_changes_nothing(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings, tmp_path / "each")
    monkeypatch.setattr(Trainer, "_looks", lambda self, index: False)  # as on a GPU, where looking means waiting
    ticks: list[StepRecord] = []
    train(settings, tmp_path / "last", on_step=ticks.append)
    assert [(tick.epoch, tick.step) for tick in ticks] == [(1, 3), (2, 3)]
    each, last = (pd.read_parquet(tmp_path / name / "training.parquet") for name in ("each", "last"))
    assert each.train_loss.equals(last.train_loss) and each.validation.equals(last.validation)
    assert all(torch.equal(one, weights(tmp_path / "last")[name]) for name, one in weights(tmp_path / "each").items())


def test_what_it_cost_is_in_the_checkpoint_and_every_step_is_told(settings: TrainSettings, tmp_path: Path) -> None:
    ticks: list[StepRecord] = []
    config = train(settings, tmp_path / "a", on_step=ticks.append)
    cost = config.training["efficiency"]
    assert cost["trained_parameters"] == 1490 and cost["batch_size"] == 20 and cost["samples_per_epoch"] == 60
    assert cost["seconds_per_epoch"] > 0 and cost["cache_seconds"] > 0 and cost["device"] == "cpu"
    assert cost["peak_memory"] is None or 0 < cost["peak_memory"] < 2**30
    assert [(tick.epoch, tick.step, tick.steps) for tick in ticks] == [(e, s, 3) for e in (1, 2) for s in (1, 2, 3)]
    curves = pd.read_parquet(tmp_path / "a" / "training.parquet")
    assert ticks[-1].loss == pytest.approx(curves.train_loss.iloc[-1])
    assert (curves.validation_seconds > 0).all()


def test_a_report_of_costs(cli: Callable[..., Any], settings: TrainSettings, tmp_path: Path) -> None:
    train(settings, tmp_path / "none")
    grid = ("--data", settings.data, "--missing-rate", "0,1", "--seeds", 1, "--prompting", "situation")
    assert cli("eval", tmp_path / "none", settings.backbone, *grid, "--out", tmp_path / "grid").code == 0
    code, out, err = cli("report", tmp_path / "grid", "--efficiency")
    assert code == 0, err
    (none,) = (line for line in out.splitlines() if line.startswith("none ") and " s" in line)
    assert "1,490" in none and "once: what it took" in out
