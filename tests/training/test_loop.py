"""Training: seeded to the bit, frozen where it says so, resumable to the identical result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmrobust.cases import missing_cases
from mmrobust.data import Dataset
from mmrobust.errors import CheckpointError, Interrupted, MmrobustError, TrainingError, UsageError
from mmrobust.models.backbones import load_backbone
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.training import loop
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import Setup, set_up
from mmrobust.training.state import EpochRecord, TrainingState

RECIPE = Recipe(epochs=3, batch_size=16, lr=5e-3)


@pytest.fixture
def settings(digits: Dataset, trained: Callable[..., Path]) -> TrainSettings:
    return TrainSettings(
        data=digits.folder,
        backbone=str(trained("full", "linear")),
        method="mmp",
        head="prototype",
        recipe=RECIPE,
        modalities=("image", "text"),
        method_settings={"length": 2, "depth": 2, "init": "normal"},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors = dict(load_file(folder / "model.safetensors"))
    if (folder / "backbone").is_dir():
        for file in ("model", "glance"):
            tensors.update(load_file(folder / "backbone" / f"{file}.safetensors"))
    return tensors


def same(left: Path, right: Path) -> bool:
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_twice_the_same_to_the_bit_and_another_seed_is_another(settings: TrainSettings, tmp_path: Path) -> None:
    train(settings, tmp_path / "a")
    train(settings, tmp_path / "b")
    train(dataclasses.replace(settings, seed=1), tmp_path / "c")
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_several_prototypes_of_a_class_begin_the_same_every_time(settings: TrainSettings, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=1)
    several = dataclasses.replace(settings, method="none", method_settings={}, recipe=recipe)
    several = dataclasses.replace(several, head_settings={"per_class": 2, "init": "means"})
    for name in ("a", "b"):
        torch.seed()  # whatever was drawn before
        train(several, tmp_path / name)
    assert same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("method", ["mmp", "full"])
def test_a_stopped_training_resumes_to_the_bit(
    settings: TrainSettings, tmp_path: Path, method: str, after: int
) -> None:
    if method == "full":
        recipe = dataclasses.replace(RECIPE, augment=True)
        settings = dataclasses.replace(settings, method="full", head="linear", recipe=recipe, method_settings={})

    def stop(record: EpochRecord, best: int) -> None:
        if record.epoch == after:
            raise KeyboardInterrupt

    train(settings, tmp_path / "whole")
    with pytest.raises(Interrupted, match=rf"stopped after epoch {after} of 3; .*--resume to continue"):
        train(settings, tmp_path / "stopped", on_epoch=stop)
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {".training"}
    with pytest.raises(UsageError, match="unfinished training; continue it with --resume"):
        train(settings, tmp_path / "stopped")
    with pytest.raises(CheckpointError, match="holds an unfinished training; continue it with train --resume"):
        load_checkpoint(tmp_path / "stopped")
    with pytest.raises(UsageError, match=r"was started with seed=\d+, now 7; repeat its"):
        train(dataclasses.replace(settings, seed=7), tmp_path / "stopped", resume=True)
    with pytest.raises(UsageError, match="started in float32, and this is bfloat16; continue with --dtype float32"):
        train(settings, tmp_path / "stopped", resume=True, dtype="bfloat16")
    train(settings, tmp_path / "stopped", resume=True)
    assert same(tmp_path / "whole", tmp_path / "stopped")
    assert not (tmp_path / "stopped" / ".training").exists()
    curves = [pd.read_parquet(tmp_path / name / "training.parquet") for name in ("whole", "stopped")]
    assert curves[0].train_loss.equals(curves[1].train_loss)


def test_resume_of_what_is_done_or_never_begun(settings: TrainSettings, tmp_path: Path) -> None:
    said: list[str] = []
    config = train(settings, tmp_path / "a", resume=True, remark=said.append)
    assert said == [f"{tmp_path / 'a'}: holds no training to resume; this one starts"]
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    assert train(settings, tmp_path / "a", resume=True) == config
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="already contains files"):
        train(settings, tmp_path / "a")


def test_a_training_that_is_stopped_while_its_checkpoint_is_written(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither before its config is there nor before its states are gone is anything lost."""
    files = {"config.json", "model.safetensors", "README.md", "training.parquet"}
    recipe = dataclasses.replace(RECIPE, epochs=1)
    settings = dataclasses.replace(settings, method="none", method_settings={}, recipe=recipe)
    for number, last in enumerate(("write_card", "save_checkpoint", "remove_state")):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(loop, last, _stopped)
            with pytest.raises(SystemExit):
                train(settings, out)
        assert (out / "config.json").is_file() is (last == "remove_state")
        config = train(settings, out, resume=True)
        assert {path.name for path in out.iterdir()} == files
        assert len(pd.read_parquet(out / "training.parquet")) == config.training["epochs"] == 1


def _stopped(*arguments: object) -> None:
    raise SystemExit


def test_the_backbone_is_bit_identical_after_prompt_training(settings: TrainSettings, tmp_path: Path) -> None:
    before = load_backbone(settings.backbone, ("image", "text")).fingerprint()
    config = train(settings, tmp_path / "mmp")
    assert config.backbone["fingerprint"] == before
    assert load_backbone(settings.backbone, ("image", "text")).fingerprint() == before


def test_the_best_epoch_is_kept(settings: TrainSettings, tmp_path: Path) -> None:
    config = train(settings, tmp_path / "a")
    curves = pd.read_parquet(tmp_path / "a" / "training.parquet")
    best = curves.sort_values(["validation", "validation_loss"], ascending=[False, True]).index[0]
    assert config.training["best_epoch"] == best + 1
    assert config.training["validation"] == curves.validation.max()
    assert list(curves.epoch) == [1, 2, 3]


def test_patience(settings: TrainSettings, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=30, patience=2, lr=1e-9)
    config = train(dataclasses.replace(settings, recipe=recipe), tmp_path / "a")
    assert config.training["epochs"] == 3  # the metric never rose after the first, though the loss may have fallen


def test_learning_lowers_the_loss(settings: TrainSettings, tmp_path: Path) -> None:
    train(dataclasses.replace(settings, recipe=dataclasses.replace(RECIPE, epochs=6)), tmp_path / "a")
    losses = pd.read_parquet(tmp_path / "a" / "training.parquet").train_loss
    assert losses.iloc[-1] < losses.iloc[0]


def test_divergence_says_where_and_what_to_try(settings: TrainSettings, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=16, lr=1e30, warmup=0, clip=0)
    wild = dataclasses.replace(settings, method="full", head="mlp", recipe=recipe, method_settings={})
    with pytest.raises(
        TrainingError, match=r"became NaN or infinite at epoch \d, step \d+, first seen in .*; try a smaller --lr"
    ):
        train(wild, tmp_path / "a")


def test_prototypes_begin_at_the_class_means(settings: TrainSettings, tmp_path: Path) -> None:
    from mmrobust.training.sources import LiveSource, starting_features
    from mmrobust.training.validation import validate

    def begun(setup: Setup) -> float:
        classifier, source = setup.classifier, LiveSource(setup.classifier, setup.train.encoded)
        if classifier.head.starts_from_features:
            features = starting_features(source, setup.train, missing_cases(classifier.modalities))
            classifier.head.start_from(features)
        return validate(source, setup.train, "accuracy").metric

    random = set_up(dataclasses.replace(settings, head_settings={"init": "random"}), tmp_path)
    means = set_up(dataclasses.replace(settings, head_settings={"init": "means"}), tmp_path)
    assert begun(means) > begun(random)
    prototypes = means.classifier.head.prototypes
    assert set(prototypes["missing-text"]) == {"image"}
    assert not np.allclose(prototypes["complete"]["image"].detach(), prototypes["missing-text"]["image"].detach())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mmpp"}, "unknown method 'mmpp': did you mean 'mmp'"),
        ({"head": "protoype"}, "unknown head 'protoype': did you mean 'prototype'"),
        ({"missing_rate": 1.2}, "missing rate 1.2 is not a share"),
        ({"scenario": "missing-audio"}, "unknown scenario for image and text 'missing-audio'"),
        ({"modalities": ("image", "smell")}, "unknown modality of digits 'smell'"),
        ({"modalities": ("audio", "image")}, r"\(vilt\) takes image \+ text, the data set gives audio \+ image"),
        ({"backbone": "no/such/folder"}, "no such folder; --backbone takes tiny"),
        ({"backbone": "nobody/nothing"}, "no model in reach on the Hub"),
        ({"backbone": "tiny-bert"}, "unknown tiny backbone 'tiny-bert'"),
        ({"fill": "one"}, "unknown fill 'one': did you mean 'ones'"),
        ({"method_settings": {"lenght": 2}}, "unknown mmp method setting 'lenght': did you mean 'length'"),
        ({"method_settings": {"length": 0}}, "--prompt-length 0: must be 1 or more"),
        ({"method_settings": {"length": 2**63 - 1}}, "--prompt-length 9223372036854775807: must be 65,536 or less"),
        ({"method_settings": {"level": "outside"}}, "unknown prompt level 'outside'"),
        ({"head_settings": {"scale": -1.0}}, "must be positive"),
        ({"data": Path("nowhere")}, "nowhere: no such folder"),
    ],
)
def test_settings_that_do_not_fit(
    settings: TrainSettings, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(MmrobustError, match=message):
        train(dataclasses.replace(settings, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_nothing_can_be_drawn_from(settings: TrainSettings, seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed {seed}: give a whole number of 0 or more"):
        dataclasses.replace(settings, seed=seed)


def test_a_frozen_method_is_no_backbone(settings: TrainSettings, trained: Callable[..., Path], tmp_path: Path) -> None:
    other = dataclasses.replace(settings, backbone=str(trained("none", "linear")))
    with pytest.raises(MmrobustError, match="holds no backbone"):
        train(other, tmp_path / "out")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"dtype": "bfloat61"}, "unknown dtype 'bfloat61': did you mean 'bfloat16'"),
        ({"device": "cdua"}, "unknown device 'cdua': did you mean 'cuda'"),
    ],
)
def test_a_device_or_a_dtype_that_there_is_not(
    settings: TrainSettings, tmp_path: Path, where: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(settings, tmp_path / "out", **where)  # type: ignore[arg-type]  # a table of either
    assert not (tmp_path / "out").exists()


def record(epoch: int, metric: float, loss: float) -> EpochRecord:
    return EpochRecord(epoch, 0.5, metric, loss, 1e-3, 1.0, 10.0)


def test_a_lower_loss_breaks_ties_of_the_metric() -> None:
    """1.0 in all four epochs kept the first, with a loss of 1.09 against 0.19."""
    state = TrainingState()
    kept = [state.add(record(n, 1.0, loss)) for n, loss in enumerate((1.09, 0.6, 0.19, 0.2), start=1)]
    assert (kept, state.best_epoch, state.since_improvement) == ([True, True, True, False], 3, 3)
    assert state.add(record(5, 1.5, 9.0)) and state.best_epoch == 5  # a better metric counts, whatever its loss
    assert not state.add(record(6, 0.9, 0.0)) and state.since_improvement == 1


def test_the_best_epoch_of_a_training_with_ties(settings: TrainSettings, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=4, lr=1e-6)  # nothing changes but the loss
    config = train(dataclasses.replace(settings, recipe=recipe), tmp_path / "a")
    curves = pd.read_parquet(tmp_path / "a" / "training.parquet")
    assert curves.validation.nunique() == 1
    assert config.training["best_epoch"] == curves.validation_loss.idxmin() + 1
