"""Prompt the Missing as a user meets it: fine-tune, prompt, evaluate under noise and under missing modalities."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from mmrobust.data import Dataset


@pytest.mark.parametrize("backbone", ["tiny", "tiny-cavmae-fusion"])
def test_fine_tune_prompt_and_evaluate(cli: Callable[..., Any], digits: Dataset, tmp_path: Path, backbone: str) -> None:
    full, ptm, grid = tmp_path / "full", tmp_path / "ptm", tmp_path / "grid"
    common = ("--data", digits.folder, "--modalities", "audio,image", "--device", "cpu")
    code, _, err = cli("train", *common, "--backbone", backbone, "--method", "full", "--epochs", 1, "--out", full)
    assert code == 0, err
    code, out, err = cli(
        *("train", *common, "--backbone", full, "--method", "ptm", "--prompt-level", "both", "--prompt-length", 2),
        *("--epochs", 2, "--recipe-set", "share=0.5", "--recipe-set", "lr=1e-2", "--out", ptm),
    )
    assert code == 0, err
    assert "ptm + linear on cavmae, unchanged" in out
    assert "over complete, noisy-audio, noisy-image, noisy-both" in " ".join(out.split())
    config = json.loads((ptm / "config.json").read_text())
    recipe = config["training"]["recipe"]
    assert (recipe["share"], recipe["lr"], recipe["optimizer"], recipe["batching"]) == (0.5, 0.01, "adam", "case-wise")
    assert config["training"]["scenario"] == "noisy-both"
    assert "every case in turn, noise profile default" in (ptm / "README.md").read_text()

    rates = ("--missing-rate", "0,1", "--seeds", 1)
    data = ("--data", digits.folder)
    noisy = ("--scenario", "noisy-audio,noisy-image,noisy-both")
    code, _, err = cli("eval", full, ptm, *data, *noisy, *rates, "--noise-seed", 4, "--out", grid)
    assert code == 0, err
    code, _, err = cli("eval", full, ptm, *data, "--prompting", "concat", *rates, "--out", grid)
    assert code == 0, err
    frame = pd.read_parquet(grid / "results.parquet")
    found = set(zip(frame.checkpoint, frame.scenario, frame.prompting, strict=True))
    noisy_names = {"noisy-audio", "noisy-image", "noisy-both"}
    assert {s for c, s, p in found if (c, p) == ("ptm", "situation")} == noisy_names
    missing = {"missing-audio", "missing-image", "missing-both"}
    assert {s for c, s, p in found if (c, p) == ("ptm", "concat")} == noisy_names | missing

    code, out, err = cli("eval", ptm, *data, *rates, "--out", tmp_path / "other")
    assert (code, out) == (2, "")
    assert "only for complete, noisy-audio, noisy-image, noisy-both; --prompting concat works for any case" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = cli("eval", ptm, *data, *noisy, *rates, "--noise-profile", "released", "--out", grid)
    assert code == 2 and "holds results under noise profile default, seed 4" in err
    code, _, err = cli("eval", ptm, *data, *noisy, "--noise-profile", "relased", "--out", grid)
    assert code == 2 and "unknown noise profile 'relased': did you mean 'released'" in err


def test_without_a_head_to_keep(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    command = ("train", "--data", digits.folder, "--modalities", "audio,image", "--backbone", "tiny")
    code, out, err = cli(*command, "--method", "ptm", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "tiny is no fine-tuned checkpoint: name a checkpoint made by --method full --head linear, or train" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = cli(*command, "--method", "mmp", "--train-head", "--out", tmp_path / "out")
    assert code == 2 and "unknown mmp method setting 'train_head'" in err
    code, _, err = cli(
        *command, "--method", "ptm", "--train-head", "--epochs", 1, "--prompt-length", 2, "--out", tmp_path / "out"
    )
    assert code == 0, err


def test_the_head_of_an_adapted_backbone_is_not_taken(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    """A checkpoint of a tiny backbone holds it whatever the method, but its head knows what the method made of it."""
    common = ("train", "--data", digits.folder, "--modalities", "audio,image", "--epochs", 1)
    adapted = tmp_path / "adapted"
    code, _, err = cli(*common, "--backbone", "tiny", "--method", "adapter", "--out", adapted)
    assert code == 0, err
    ptm = (*common, "--backbone", adapted, "--method", "ptm", "--prompt-length", 2)
    code, out, err = cli(*ptm, "--out", tmp_path / "out")
    assert (code, out) == (2, "") and not (tmp_path / "out").exists()
    assert f"{adapted} was made by --method adapter: its head is trained for that method's features: name a" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = cli(*ptm, "--train-head", "--out", tmp_path / "out")
    assert code == 0, err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: (file.unlink(), os.mkfifo(file)), "model.safetensors: is not a regular file"),
        (lambda file: _rewrite(file, float("nan")), "weight dense.bias holds NaN or infinite numbers"),
        (lambda file: _rewrite(file, float("inf")), "weight dense.bias holds NaN or infinite numbers"),
    ],
    ids=["a pipe", "NaN", "infinite"],
)
def test_a_head_that_is_damaged(
    cli: Callable[..., Any],
    trained: Callable[..., Path],
    digits: Dataset,
    tmp_path: Path,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    full = Path(shutil.copytree(trained("full", "linear", ("audio", "image")), tmp_path / "full"))
    damage(full / "model.safetensors")
    command = ("train", "--data", digits.folder, "--modalities", "audio,image", "--backbone", full, "--method", "ptm")
    code, out, err = cli(*command, "--out", tmp_path / "out")
    assert (code, out) == (2, "") and message in err
    assert len(err.strip().splitlines()) == 1


def _rewrite(file: Path, value: float) -> None:
    tensors = load_file(file)
    tensors["head.dense.bias"].fill_(value)
    save_file(tensors, file)
