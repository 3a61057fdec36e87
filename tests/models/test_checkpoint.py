"""Checkpoints: written, moved, read again, and every way in which they can be unreadable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmrobust
from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.checkpoint import load_checkpoint


@pytest.fixture
def copy(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of an ``mmp`` checkpoint, to damage."""
    shutil.copytree(trained("full", "linear"), tmp_path / trained("full", "linear").name)
    return Path(shutil.copytree(trained("mmp", "linear"), tmp_path / "mmp"))


def test_a_checkpoint_is_only_what_was_trained(trained: Callable[..., Path]) -> None:
    folder = trained("mmp", "linear")
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "training.parquet",
    }
    assert {name.split(".")[0] for name in load_file(folder / "model.safetensors")} == {"method", "pooling", "head"}
    assert (trained("full", "linear") / "backbone" / "model.safetensors").is_file()


def test_it_says_what_it_is(trained: Callable[..., Path]) -> None:
    config = json.loads((trained("mmp", "linear") / "config.json").read_text())
    full = json.loads((trained("full", "linear") / "config.json").read_text())
    assert config["method"] == {
        "name": "mmp",
        "level": "input",
        "length": 2,
        "depth": 6,
        "layers": [],
        "init": "normal",
    }
    assert config["cases"] == ["complete", "missing-image", "missing-text"]
    assert config["backbone"]["fingerprint"] == full["backbone"]["fingerprint"]
    assert config["training"]["missing_rate"] == 0.7
    card = (trained("mmp", "linear") / "README.md").read_text()
    assert "`mmp` on a vilt backbone with a `linear` head" in card
    assert "missing-both at a missing rate of 0.7, seed 0" in card


def test_a_checkpoint_and_its_backbone_may_move_together(copy: Path) -> None:
    assert mmrobust.load(copy).classes == tuple("0123456789")


def test_a_backbone_that_is_gone_or_elsewhere(copy: Path, trained: Callable[..., Path]) -> None:
    full = copy.parent / trained("full", "linear").name
    moved = full.rename(copy.parent / "elsewhere")
    config = json.loads((copy / "config.json").read_text())
    config["backbone"]["id"] = "gone/backbone"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"its backbone gone/backbone is gone; name its new place with --backbone"
    ):
        mmrobust.load(copy)
    assert mmrobust.load(copy, backbone=str(moved)).task == "single-label"


def test_a_backbone_that_has_changed(copy: Path, trained: Callable[..., Path]) -> None:
    weights = copy.parent / trained("full", "linear").name / "backbone" / "model.safetensors"
    tensors = load_file(weights)
    tensors["layernorm.weight"] += 1
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match="has other weights now"):
        mmrobust.load(copy)


def test_the_fingerprint_is_of_the_weights(copy: Path) -> None:
    before = load_checkpoint(copy).fingerprint
    assert load_checkpoint(copy).fingerprint == before
    tensors = load_file(copy / "model.safetensors")
    tensors["head.dense.bias"][0] += 1e-3
    save_file(tensors, copy / "model.safetensors")
    assert load_checkpoint(copy).fingerprint != before


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json: no such file"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), r"JSON object was expected"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), r"is no checkpoint of mmrobust"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04pickle"), r"model\.safetensors: cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: no such file"),
        (lambda f: _rewrite(f, lambda t: t.pop("head.dense.bias")), r"weight head\.dense\.bias is missing"),
        (lambda f: _rewrite(f, lambda t: t.update(x=torch.ones(1))), r"weight x is not known"),
        (
            lambda f: _rewrite(f, lambda t: t.update({"head.dense.bias": torch.ones(3)})),
            r"weight head\.dense\.bias is of shape \[3\], not \[10\]",
        ),
    ],
)
def test_damage(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message):
        mmrobust.load(copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 99, "checkpoint format 99 is newer"),
        ("method", {"name": "mmpp"}, "unknown method 'mmpp': did you mean 'mmp'"),
        ("head", {"name": "linear", "scal": 1}, "unknown linear head setting 'scal'"),
        ("surprise", 1, "unknown key 'surprise'"),
    ],
)
def test_a_config_that_does_not_fit(copy: Path, key: str, value: object, message: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=message):
        mmrobust.load(copy)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"dtype": "flaot32"}, "unknown dtype 'flaot32': did you mean 'float32'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:99"}, "device cuda:99: PyTorch sees"),
    ],
)
def test_a_device_or_a_dtype_that_there_is_not(
    trained: Callable[..., Path], where: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        mmrobust.load(trained("mmp", "linear"), **where)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        mmrobust.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="not in reach on the Hub"):
        mmrobust.load("nobody/nothing")
