"""What the data do not allow is said before anything is trained, by name and with a way out that works."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.errors import TrainingError
from mmrobust.runtime.progress import no_progress
from mmrobust.training.distributed import ProcessGroup
from mmrobust.training.feature_cache import Cache
from mmrobust.training.loop import train
from mmrobust.training.recipe import CASE_WISE, GRID, Recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import set_up
from mmrobust.training.state import StateStore
from mmrobust.training.trainer import Trainer

RECIPE = Recipe(epochs=1, batch_size=30)
MIXED = {"scenario": "noisy-both", "method": "mmp", "method_settings": {"length": 2, "init": "normal"}}
APART = RECIPE.changed(batching=CASE_WISE)
EVERYWHERE = ("train", "validation")


@pytest.fixture
def settings(digits: Dataset, trained: Callable[..., Path]) -> TrainSettings:
    full = str(trained("full", "linear"))
    return TrainSettings(digits.folder, full, "none", "linear", RECIPE, modalities=("image", "text"))


def changed(data: Dataset, folder: Path, columns: Mapping[str, Callable[[int, Any], Any]], splits: Any) -> Path:
    """A copy of ``data`` in which these columns hold what a function makes of (row, value)."""
    shutil.copytree(data.folder, folder)
    for file in (file for split in splits for file in folder.glob(f"{split}-*.parquet")):
        table = pq.read_table(file)
        for name, change in columns.items():
            at, kind = table.schema.get_field_index(name), table.schema.field(name)
            values = [change(row, value) for row, value in enumerate(table[name].to_pylist())]
            table = table.set_column(at, kind, pa.array(values, kind.type))
        pq.write_table(table, file)
    return folder


NOBODY = {"image": lambda row, value: value if row % 2 else None, "text": lambda row, value: None if row % 2 else value}
SOME = {"text": lambda row, value: None if row < 5 else value}
LACK = r"\d {} samples, such as '.*', lack a modality by nature and are in case 'missing-text', but mmp \+ linear under"
NONE_CAN = r"batches are to run in complete, .*noisy-both, but no {} sample has what any of these calls present; take"


@pytest.mark.parametrize(
    ("columns", "splits", "change", "message"),
    [
        (
            NOBODY,
            EVERYWHERE,
            {"head": "prototype", "head_settings": {"init": "means"}},
            "none can be in case 'complete': none has image and text; take --head-set init=xavier",
        ),
        (NOBODY, EVERYWHERE, {"scenario": "noisy-both", "recipe": APART}, NONE_CAN.format("training")),
        (NOBODY, ["validation"], {"scenario": "noisy-both", "recipe": APART}, NONE_CAN.format("validation")),
        (SOME, EVERYWHERE, MIXED, LACK.format("training") + r" noisy-both learns complete, .* batching=case-wise"),
        (SOME, ["validation"], MIXED, LACK.format("validation") + ".* batching=case-wise"),
        (
            SOME,
            EVERYWHERE,
            MIXED | {"recipe": APART.changed(validate_on=GRID)},
            LACK.format("validation") + ".* validate_on=table",
        ),
    ],
)
def test_samples_that_lack_what_the_training_wants(
    settings: TrainSettings,
    digits: Dataset,
    tmp_path: Path,
    columns: Any,
    splits: Any,
    change: dict[str, Any],
    message: str,
) -> None:
    data = changed(digits, tmp_path / "data", columns, splits)
    with pytest.raises(TrainingError, match=message):
        train(dataclasses.replace(settings, data=data, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "change"),
    [
        (NOBODY, {"head": "prototype"}),
        (SOME, MIXED | {"recipe": APART}),
        (SOME, MIXED | {"scenario": "missing-both"}),
    ],
)
def test_the_ways_out_are_some(
    settings: TrainSettings, digits: Dataset, tmp_path: Path, columns: Any, change: dict[str, Any]
) -> None:
    data = changed(digits, tmp_path / "data", columns, EVERYWHERE)
    assert train(dataclasses.replace(settings, data=data, **change), tmp_path / "out").training["epochs"] == 1


EVERY_CASE = ("complete", "missing-image", "missing-text")


@pytest.mark.parametrize(
    ("columns", "change", "shown"),
    [
        ({}, {"scenario": "missing-both"}, EVERY_CASE),
        ({}, {"scenario": "missing-text"}, ("complete", "missing-text")),
        ({}, {"scenario": "missing-image", "missing_rate": 0.0}, ("complete", "missing-image")),
        ({}, {"scenario": "missing-text", "recipe": APART}, EVERY_CASE),
        (SOME, {"scenario": "missing-image"}, EVERY_CASE),
        ({}, {"scenario": "noisy-text:ocr@3"}, ("complete", "noisy-text")),
    ],
)
def test_the_head_is_told_in_which_cases_samples_can_be(
    settings: TrainSettings, digits: Dataset, tmp_path: Path, columns: Any, change: dict[str, Any], shown: Any
) -> None:
    data = changed(digits, tmp_path / "data", columns, EVERYWHERE)
    setup = set_up(dataclasses.replace(settings, data=data, head="prototype", **change), tmp_path / "out")
    assert setup.classifier.head.trained_cases == shown


def two_classes(data: Dataset, folder: Path, validated: Callable[[int, int], int]) -> Path:
    """Low and high digits, scored by AUROC; the validation split's labels are what ``validated`` makes of them."""
    changed(data, folder, {"label": lambda row, label: int(label >= 5)}, ("train", "test"))
    half = changed(Dataset(folder), folder.with_name("half"), {"label": validated}, ["validation"])
    info = json.loads((half / "dataset.json").read_text())
    info |= {"task": "binary", "classes": ["low", "high"], "headline_metric": "auroc"}
    (half / "dataset.json").write_text(json.dumps(info))
    return half


def test_a_validation_split_of_one_class_has_no_auroc(settings: TrainSettings, digits: Dataset, tmp_path: Path) -> None:
    data = two_classes(digits, tmp_path / "data", lambda row, label: 1)
    with pytest.raises(TrainingError, match=r"the auroc of 60 validation samples in complete, .* is not defined"):
        train(dataclasses.replace(settings, data=data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_metric_that_becomes_no_number_ends_the_training(
    settings: TrainSettings, digits: Dataset, tmp_path: Path
) -> None:
    data = two_classes(digits, tmp_path / "data", lambda row, label: int(label >= 5))
    settings = dataclasses.replace(settings, data=data)
    setup = set_up(settings, tmp_path)
    run = Trainer(
        *(setup, settings, StateStore(tmp_path / "out", ""), Cache(on=False), ProcessGroup(), no_progress),
        on_epoch=lambda record, best: None,
        on_step=lambda tick: None,
    )
    setup.validation.targets[:, 0], setup.validation.targets[:, 1] = 0, 1
    with pytest.raises(TrainingError, match="the validation auroc became NaN or infinite at epoch 1, step 2; try"):
        run.fit()
