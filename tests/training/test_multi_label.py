"""Multi-label data with rare classes: biases from class frequencies, weights of positives, and what is said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmrobust.data import Dataset
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.training.loop import PREDICTS_NOTHING, train
from mmrobust.training.objective import log_odds, loss, positive_weights
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings, read_recipe
from mmrobust.training.setup import set_up

CLASSES = (*map(str, range(10)), "even", "seldom")
PLAIN = Recipe(epochs=2, batch_size=32, lr=1e-2, balance=0.0, prior=False)


@pytest.fixture(scope="module")
def sparse(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, with a class per digit (10 % each), one for the even ones, one in the test split alone; zeros have no
    class."""

    def rows() -> Iterator[SampleRow]:
        for split in digits.splits:
            for place, sample in enumerate(digits.split(split)):
                (digit,) = sample.label
                label = () if digit == 0 else (digit, 10) if digit % 2 == 0 else (digit,)
                label = (*label, 11) if split == "test" and place == 0 else label
                yield SampleRow(split, sample.id, label, sample.image, "", sample.audio, "", sample.text)

    folder = tmp_path_factory.mktemp("sparse") / "data"
    facts = {"name": "sparse", "modalities": digits.info.modalities, "classes": CLASSES, "task": "multi-label"}
    write_dataset(folder, rows(), **facts, headline_metric="macro_f1", licence="", source="digits")
    return folder


@pytest.fixture
def settings(sparse: Path, trained: Callable[..., Path]) -> TrainSettings:
    """Trains a head on the frozen features of a backbone that knows the digits."""
    backbone = str(trained("full", "linear"))
    return TrainSettings(sparse, backbone, "none", "linear", PLAIN, modalities=("image", "text"))


def test_rare_classes_are_learned_by_default(settings: TrainSettings, tmp_path: Path) -> None:
    """In few steps, with plain binary cross entropy hardly a score passes the threshold."""
    recipe = PLAIN.changed(epochs=12, lr=3e-2)
    default = recipe.changed(balance=Recipe().balance, prior=Recipe().prior)
    best = [
        train(dataclasses.replace(settings, recipe=each), tmp_path / str(at)).training["validation"]
        for at, each in enumerate((recipe, default, default.changed(balance=1.0)))
    ]
    assert min(best[1:]) > 3 * best[0]


def test_a_classifier_that_predicts_nothing_is_told_with_what_to_do(settings: TrainSettings, tmp_path: Path) -> None:
    said: list[str] = []
    hardly = dataclasses.replace(settings, recipe=PLAIN.changed(lr=1e-7, prior=True))
    config = train(hardly, tmp_path / "a", remark=said.append)
    curves = pd.read_parquet(tmp_path / "a" / "training.parquet")
    assert (curves.validation == 0).all()  # every epoch is as good: the one of the lowest loss is kept
    assert config.training["best_epoch"] == curves.validation_loss.idxmin() + 1
    assert said == [
        "class 'seldom' is in 1 test sample, but in no training sample: nothing can learn it",
        PREDICTS_NOTHING,
    ]
    assert "--recipe-set balance=1" in said[1] and "--metric map" in said[1]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_biases_start_at_the_log_odds(settings: TrainSettings, tmp_path: Path, head: str) -> None:
    wanted = dataclasses.replace(settings, head=head, recipe=PLAIN.changed(prior=True))
    setup = set_up(wanted, tmp_path)
    targets = setup.train.targets
    bias = {"linear": "dense.bias", "mlp": "layers.3.bias"}[head]
    found = dict(setup.classifier.head.named_parameters())[bias].detach()
    torch.testing.assert_close(found, log_odds(targets))
    shares = (targets.sum(0) + 0.5) / (len(targets) + 1)
    torch.testing.assert_close(torch.sigmoid(found), shares)
    random = dict(set_up(dataclasses.replace(settings, head=head), tmp_path).classifier.head.named_parameters())[bias]
    assert not torch.allclose(random.detach(), found)


def test_weights_of_positives() -> None:
    targets = torch.tensor([[1.0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    assert positive_weights(targets, 0.0).tolist() == [1, 1, 1, 1]
    assert positive_weights(targets, 1.0).tolist() == pytest.approx([3, 1, 999, 3])  # never below 1
    assert positive_weights(targets, 0.5).tolist() == pytest.approx([math.sqrt(3), 1, math.sqrt(999), math.sqrt(3)])
    logits = torch.zeros(4, 4)
    plain = float(loss(logits, targets, "multi-label", 0.0))
    assert plain == pytest.approx(4 * math.log(2))
    weighed = float(loss(logits, targets, "multi-label", 0.0, positive_weight=positive_weights(targets, 1.0)))
    assert weighed == pytest.approx(math.log(2) * (6 + 4 + 4 + 6) / 4)  # three positives of 3 beside 3 negatives, …


@pytest.mark.parametrize("name", ["mmp-mmimdb", "dcp-mmimdb", "dpl-mmimdb", "dpl-mmimdb-noprompt"])
def test_the_papers_recipes_are_left_as_they_were(name: str) -> None:
    recipe = read_recipe(name).recipe
    assert recipe["balance"] == 0
    assert recipe.get("prior", True) is ("dpl" in name)  # prototypes have no biases


def test_a_checkpoint_of_samples_without_a_class(settings: TrainSettings, tmp_path: Path) -> None:
    """They are trained on like others, and all of their scores can be below the threshold."""
    train(dataclasses.replace(settings, recipe=PLAIN.changed(prior=True)), tmp_path / "a")
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(tmp_path / "a" / "model.safetensors").values())
    assert () in Dataset(settings.data).split("train").labels
