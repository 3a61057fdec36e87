"""What feeds a backbone is known by a fingerprint of its own: stable where nothing changed, another where it did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import TINY_TOWERS, load_backbone
from mmrobust.models.backbones.tiny import TINY
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.classifier import Classifier
from mmrobust.scenarios.grid import Grid
from mmrobust.storage.results import Results
from mmrobust.training.feature_cache import Cache
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings

CONFIG, IMAGES, TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer.json"


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def find_images(folder: Path) -> Path:
    """Where the library keeps the settings of the image processor: it has changed its mind about the name."""
    return next(file for name in (IMAGES, "processor_config.json") if (file := folder / name).is_file())


@pytest.mark.parametrize("name", [*TINY, TINY_TOWERS])
def test_it_is_the_same_when_fresh_saved_loaded_used_and_saved_again(
    tiny: Callable[[str], Backbone], tmp_path: Path, name: str
) -> None:
    fresh = tiny(name)
    before = fresh.inputs_fingerprint()
    assert tiny(name).inputs_fingerprint() == before
    fresh.save(tmp_path / "once")
    once = load_backbone(str(tmp_path / "once"), fresh.modalities)
    if "text" in once.modalities:  # a tokenizer that has cut a text keeps in mind where
        once.processor.encode("text", "one two three " * 100)
    assert once.inputs_fingerprint() == before
    once.save(tmp_path / "twice")
    shutil.copytree(tmp_path / "twice", tmp_path / "elsewhere" / "moved")
    assert load_backbone(str(tmp_path / "elsewhere" / "moved"), fresh.modalities).inputs_fingerprint() == before


@pytest.mark.parametrize("method", ["lora", "adapter", "full"])
def test_a_method_does_not_change_it(
    classifier: Callable[..., Classifier], tiny: Callable[[str], Backbone], method: str
) -> None:
    if method == "lora":
        pytest.importorskip("peft")
    built = classifier("tiny-vilt", method)
    assert built.backbone.inputs_fingerprint() == tiny("tiny-vilt").inputs_fingerprint()


def image(**settings: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = find_images(folder)
        inner = next((key for key in ("image", "image_processor") if key in json.loads(file.read_text())), None)
        edit(file, lambda values: (values[inner] if inner else values).update(settings))

    return change


def lower_case_no_more(values: dict[str, Any]) -> None:
    values["normalizer"]["lowercase"] = False


def swap_words(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]


def text_tower(**settings: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / CONFIG, lambda values: values["text_config"].update(settings))


CHANGES = [
    ("tiny-vilt", "mean", image(image_mean=[0.4, 0.5, 0.5])),
    ("tiny-vilt", "resample", image(resample=2)),
    ("tiny-cavmae", "image's spread", image(image_std=[0.3, 0.3, 0.3])),
    ("tiny-cavmae", "audio's mean", lambda f: edit(f / IMAGES, lambda v: v["audio"].update(mean=0.5))),
    ("tiny-vilt", "heads", lambda f: edit(f / CONFIG, lambda v: v.update(num_attention_heads=2))),
    (
        "tiny-clip",
        "a tower's heads",
        text_tower(num_attention_heads=2),
    ),
    ("tiny-clip", "end of text", text_tower(eos_token_id=5)),
    ("tiny-vilt", "normaliser", lambda f: edit(f / TOKENIZER, lower_case_no_more)),
    ("tiny-vilt", "vocabulary", lambda f: edit(f / TOKENIZER, swap_words)),
]


@pytest.mark.parametrize(("name", "change"), [(n, c) for n, _, c in CHANGES], ids=[what for _, what, _ in CHANGES])
def test_what_decides_the_logits_beside_the_weights_changes_it(
    tiny: Callable[[str], Backbone], tmp_path: Path, name: str, change: Callable[[Path], object]
) -> None:
    backbone = tiny(name)
    backbone.save(tmp_path)
    change(tmp_path)
    loaded = load_backbone(str(tmp_path), backbone.modalities)
    assert loaded.fingerprint() == backbone.fingerprint()
    assert loaded.inputs_fingerprint() != backbone.inputs_fingerprint()


def test_what_a_library_writes_beside_them_does_not(tiny: Callable[[str], Backbone], tmp_path: Path) -> None:
    backbone = tiny("tiny-vilt")
    backbone.save(tmp_path)
    noise = {"transformers_version": "99.0", "_name_or_path": "/elsewhere", "new_default": 3, "architectures": ["X"]}
    edit(tmp_path / CONFIG, lambda values: values.update(noise))
    edit(find_images(tmp_path), lambda values: values.update(new_default=3, processor_class="X"))
    assert load_backbone(str(tmp_path), backbone.modalities).inputs_fingerprint() == backbone.inputs_fingerprint()


GRID = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))


def evaluate(checkpoint: Path, digits: Dataset, out: Path, grid: Grid = GRID, said: list[str] | None = None) -> Results:
    loaded = load_checkpoint(checkpoint)
    say = (said if said is not None else []).append
    return evaluate_models({"it": loaded}, digits, grid, out, say=say)


def test_predictions_of_other_inputs_are_not_taken_for_these(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(trained("full", "linear"), tmp_path / "full"))
    before = evaluate(checkpoint, digits, tmp_path / "out")
    shards = set((tmp_path / "out" / "predictions").iterdir())
    image(image_mean=[-3.0, -3.0, -3.0])(checkpoint / "backbone")
    said: list[str] = []
    narrow = Grid(("missing-text",), (1.0,), (0,), ("situation",))
    after = evaluate(checkpoint, digits, tmp_path / "out", narrow, said)
    assert after.provenance["checkpoints"]["it"]["fingerprint"] != before.provenance["checkpoints"]["it"]["fingerprint"]
    (new,) = set((tmp_path / "out" / "predictions").iterdir()) - shards
    rows = [row for path in shards for row in pq.read_table(path).to_pylist()]
    theirs = {(row["id"], row["case"]): row["logits"] for row in rows}
    for row in pq.read_table(new).to_pylist():
        assert not np.allclose(row["logits"], theirs[row["id"], row["case"]])
    alone = evaluate(checkpoint, digits, tmp_path / "alone", narrow)
    assert after.frame.equals(alone.frame)  # no row of before the change is left under its name
    assert len(said) == 1 and "'it' has changed since the results there were made; its earlier rows" in said[0]


def test_a_lasting_cache_does_not_give_features_of_other_inputs(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    backbone = Path(shutil.copytree(trained("full", "linear"), tmp_path / "full"))
    recipe = Recipe(epochs=1, batch_size=16, share=0.3)
    settings = TrainSettings(digits.folder, str(backbone), "none", "linear", recipe, modalities=("image", "text"))
    cache = Cache(folder=tmp_path / "cache")
    train(settings, tmp_path / "before", cache=cache)
    kept = set((tmp_path / "cache").glob("*.rows"))
    train(settings, tmp_path / "same", cache=cache)
    assert set((tmp_path / "cache").glob("*.rows")) == kept
    image(image_mean=[0.0, 0.0, 0.0])(backbone / "backbone")
    train(settings, tmp_path / "after", cache=cache)
    assert len(set((tmp_path / "cache").glob("*.rows"))) == 2 * len(kept)
