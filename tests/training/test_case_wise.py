"""Case-wise training: each batch in each case, in turn, on a fixed share of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmrobust.cases import Case, noisy_cases
from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.degradations import Noise
from mmrobust.errors import Interrupted, TrainingError, UsageError
from mmrobust.training.loop import train
from mmrobust.training.objective import loss, make_optimizer
from mmrobust.training.recipe import BCE, Recipe, default_recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import set_up
from mmrobust.training.sources import LiveSource
from mmrobust.training.splits import epoch_batches, training_share
from mmrobust.training.state import EpochRecord
from mmrobust.training.validation import validate, validation_groups

AUDIO_IMAGE = ("audio", "image")
CASES = noisy_cases(AUDIO_IMAGE)
RECIPE = default_recipe("ptm", "full").changed(epochs=3, batch_size=7, share=0.5)


@pytest.fixture
def settings(digits: Dataset, trained: Callable[..., Path]) -> TrainSettings:
    return TrainSettings(
        data=digits.folder,
        backbone=str(trained("full", "linear", AUDIO_IMAGE)),
        method="ptm",
        head="linear",
        recipe=RECIPE,
        modalities=AUDIO_IMAGE,
        scenario="noisy-both",
        method_settings={"length": 2, "level": "both"},
    )


def test_each_batch_runs_in_every_case_in_turn(settings: TrainSettings, tmp_path: Path) -> None:
    split = set_up(settings, tmp_path).train
    order = np.random.default_rng(0).permutation(30)
    batches = epoch_batches(split, order, RECIPE, CASES)
    assert [list(batch) for batch in batches] == [[case.name] for case in CASES] * 5
    for case in CASES:
        seen = [batch[case.name] for batch in batches if case.name in batch]
        assert np.array_equal(np.concatenate(seen), order)
        assert [len(positions) for positions in seen] == [7, 7, 7, 7, 2]


def test_a_sample_is_in_no_case_that_its_nature_forbids(settings: TrainSettings, tmp_path: Path) -> None:
    split = set_up(settings, tmp_path).train
    split.encoded.split.presence["audio"][:10] = False
    try:
        batches = epoch_batches(split, np.arange(10), RECIPE, CASES)
        assert batches == []
        (batch,) = epoch_batches(split, np.arange(8, 12), RECIPE, CASES[:1])
        assert batch["complete"].tolist() == [10, 11]
        assert [len(next(iter(group.values()))) for group in validation_groups(split, RECIPE, CASES, 0)] == [50] * 4
    finally:
        split.encoded.split.presence["audio"][:10] = True


def test_the_share_is_fixed_nested_and_seeded() -> None:
    ids = [f"s{i}" for i in range(200)]
    third, half = training_share(ids, 0.3, 0), training_share(ids, 0.5, 0)
    assert len(third) == 60 and set(third) < set(half) and list(third) == sorted(third)
    assert not np.array_equal(third, training_share(ids, 0.3, 1))
    assert np.array_equal(training_share(ids, 1.0, 0), np.arange(200))
    with pytest.raises(TrainingError, match=r"a share of 0.001 of 200 training samples is none"):
        training_share(ids, 0.001, 0)


def test_validation_is_the_mean_over_the_cases(settings: TrainSettings, tmp_path: Path) -> None:
    setup = set_up(settings, tmp_path)
    groups = validation_groups(setup.validation, RECIPE, CASES, 0)
    source = LiveSource(setup.classifier, setup.validation.encoded)
    alone = [validate(source, setup.validation, "accuracy", [group]).metric for group in groups]
    assert validate(source, setup.validation, "accuracy", groups).metric == pytest.approx(np.mean(alone))
    assert len(set(alone)) > 1


@pytest.mark.parametrize("after", [1, 2])
def test_a_stopped_training_resumes_to_the_bit(settings: TrainSettings, tmp_path: Path, after: int) -> None:
    def stop(record: EpochRecord, best: int) -> None:
        if record.epoch == after:
            raise KeyboardInterrupt

    train(settings, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "stopped", on_epoch=stop)
    train(settings, tmp_path / "stopped", resume=True)
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys() and all(torch.equal(whole[name], stopped[name]) for name in whole)
    curves = [pd.read_parquet(tmp_path / name / "training.parquet") for name in ("whole", "stopped")]
    assert curves[0].train_loss.equals(curves[1].train_loss) and curves[0].validation.equals(curves[1].validation)


def test_prompts_of_a_case_learn_from_that_case_alone(settings: TrainSettings, tmp_path: Path) -> None:
    """So training the cases in turn is training each by itself, as the paper does."""
    setup = set_up(settings, tmp_path)
    optimizer = make_optimizer(setup.classifier, RECIPE)
    before = {name: p.detach().clone() for name, p in setup.classifier.trained().items()}
    batch = {"noisy-audio": np.arange(4)}
    samples = setup.train.encoded.samples(batch["noisy-audio"], CASES[1])
    inputs = setup.train.encoded.processor.collate(samples)
    targets = setup.train.targets[:4]
    features = setup.classifier.features(inputs, ("noisy-audio",))
    logits, _ = setup.classifier.learn(features, "noisy-audio", targets)
    loss(logits, targets, "single-label", 0.1, BCE).backward()
    optimizer.step()
    moved = {name for name, p in setup.classifier.trained().items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.endswith(".noisy-audio")}


@pytest.mark.parametrize(("draws", "noises"), [(1, 1), (0, 2)])
def test_noise_is_the_samples_own_or_drawn_anew_in_each_epoch_but_not_in_validation(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: int, noises: int
) -> None:
    """Under a missing table too: full fine-tuning on noisy inputs, as a baseline."""
    seen: list[tuple[str, Noise]] = []
    true = EncodedSplit.packed

    def spied(self: EncodedSplit, positions: Any, modality: str, case: Case, noise: Noise | None = None) -> Any:
        if modality in case.degraded:
            seen.append((self.split.name, noise or self.noise))
        return true(self, positions, modality, case, noise)

    monkeypatch.setattr(EncodedSplit, "packed", spied)
    mixed = Recipe(epochs=2, batch_size=30, lr=1e-3, draws=draws)
    changes = {"method": "full", "method_settings": {}, "recipe": mixed, "missing_rate": 0.5, "seed": 3}
    config = train(dataclasses.replace(settings, **changes, noise_profile="released"), tmp_path / "full")
    assert config.cases == [case.name for case in CASES] and config.training["noise_profile"] == "released"
    drawn = {name: list(dict.fromkeys(noise for split, noise in seen if split == name)) for name, _ in seen}
    assert drawn["validation"] == [Noise("released", 3)]
    assert len(drawn["train"]) == noises and {noise.profile for noise in drawn["train"]} == {"released"}


def test_the_loss_is_the_references(golden: Any) -> None:
    io = golden("cavmae").io
    targets = (io["in.soft_label"] > 0.5).float()
    for task in ("single-label", "multi-label"):
        ours = loss(io["out.multimodal"], targets, task, 0.1, BCE) / len(targets)
        torch.testing.assert_close(ours, io["out.bce_loss"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mse"}, "unknown loss 'mse'"),
        ({"optimizer": "adamv"}, "unknown optimizer 'adamv': did you mean 'adam"),
        ({"batching": "casewise"}, "unknown batching 'casewise': did you mean 'case-wise'"),
        ({"share": 0.0}, "recipe setting share = 0.0 is out of range"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(RECIPE, **change)


def test_a_fine_tuned_backbone_runs_on_as_it_was_fine_tuned(settings: TrainSettings, tmp_path: Path) -> None:
    short = Recipe(epochs=1, batch_size=30, lr=1e-3)
    changes = {
        "method": "full",
        "method_settings": {},
        "recipe": short,
        "missing_rate": 0.5,
        "scenario": "missing-both",
    }
    full = dataclasses.replace(settings, **changes, backbone_settings={"missing_path": "average", "dropout": True})
    train(full, tmp_path / "full")
    head_only = dataclasses.replace(full, method="none", backbone=str(tmp_path / "full"), backbone_settings={})
    assert set_up(head_only, tmp_path / "none").config.backbone["settings"] == {"missing_path": "average"}
    asked = dataclasses.replace(head_only, backbone_settings={"missing_path": "fill"})
    assert set_up(asked, tmp_path / "none").classifier.backbone.settings.missing_path == "fill"
