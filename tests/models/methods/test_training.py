"""Every method from the command line: trained, saved, loaded, with the frozen backbone as it was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrobust.data import Dataset
from mmrobust.models.checkpoint import load_checkpoint

METHODS = {
    "mmp": ["--prompt-level", "attention", "--prompt-length", "4"],
    "msp": ["--prompt-length", "2", "--prompt-depth", "2"],
    "lora": ["--method-set", "rank=2"],
    "adapter": ["--method-set", "bottleneck=4"],
}
HEAD = ["--head", "prototype", "--head-set", "margin=0.2", "--head-set", "contrastive=0.1", "--head-set", "per_class=2"]


@pytest.fixture(scope="module")
def backbone(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "vilt"
    tiny("tiny-vilt").save(folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_what_was_trained_is_what_is_loaded(
    cli: Any, digits: Dataset, backbone: Path, tmp_path: Path, method: str
) -> None:
    if method == "lora" and importlib.util.find_spec("peft") is None:
        pytest.skip("PEFT is not installed")
    out = tmp_path / "run"
    command = ["train", "--data", digits.folder, "--backbone", backbone, "--method", method, "--epochs", "1"]
    outcome = cli(*command, *METHODS[method], *HEAD, "--device", "cpu", "--out", out)
    assert outcome.code == 0, outcome.err
    config = json.loads((out / "config.json").read_text())
    assert config["head"]["margin"] == 0.2 and not config["backbone"]["stored"]
    loaded = load_checkpoint(out)
    assert loaded.classifier.backbone.fingerprint() == config["backbone"]["fingerprint"]
    trained = sum(p.numel() for p in loaded.classifier.trained().values())
    assert trained == config["training"]["trained_parameters"]
    again = load_checkpoint(out)
    assert again.fingerprint == loaded.fingerprint
    sample = [{"text": "seven", "image": None}]
    first, second = (c.classifier.logits(sample, "missing-image") for c in (loaded, again))
    assert first.isfinite().all() and torch.equal(first, second)


def test_how_the_backbone_runs_is_part_of_the_checkpoint(
    cli: Any, digits: Dataset, backbone: Path, tmp_path: Path
) -> None:
    command = ["train", "--data", digits.folder, "--backbone", backbone, "--method", "none", "--epochs", "1"]
    flags = ["--backbone-set", "max_text_length=200", "--backbone-set", "dropout=true", "--device", "cpu"]
    for name, more in (("plain", []), ("changed", flags)):
        assert cli(*command, *more, "--out", tmp_path / name).code == 0
    plain, changed = (load_checkpoint(tmp_path / name) for name in ("plain", "changed"))
    assert plain.config.backbone["settings"] == {}
    assert changed.config.backbone["settings"] == {"max_text_length": 200, "dropout": True}
    assert changed.config.backbone["fingerprint"] == plain.config.backbone["fingerprint"]
    assert changed.fingerprint != plain.fingerprint
    running = changed.classifier.backbone
    assert running.settings.max_text_length == running.processor.max_length == 200
    assert changed.classifier.train(True).backbone.training and not plain.classifier.train(True).backbone.training
    assert not changed.classifier.train(False).backbone.training


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "lora", "--method-set", "rnak=2"], "unknown lora method setting 'rnak': did you mean 'rank'?"),
        (["--method", "none", "--head-set", "margin=1"], "unknown linear head setting 'margin': it has none"),
        (["--method", "none", "--backbone-set", "missing_path=single"], "unknown vilt backbone setting 'missing_path'"),
        (["--method", "none", "--backbone-set", "max_text_length=1"], "max_text_length 1 must be 2 or more"),
        (["--method", "mmp", "--method-set", "length"], "--method-set length: give NAME=VALUE"),
        (["--method", "mmp", "--prompt-level", "attention", "--prompt-length", "7"], "must be even"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(
    cli: Any, digits: Dataset, tmp_path: Path, flags: list[str], said: str
) -> None:
    outcome = cli("train", "--data", digits.folder, "--backbone", "tiny", *flags, "--out", tmp_path / "run")
    assert outcome.code == 2 and said in outcome.err.replace("\n", " ")
    assert not (tmp_path / "run").exists()
