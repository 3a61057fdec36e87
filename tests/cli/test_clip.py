"""From the command line: a tiny CLIP is trained, prompted with DCP, and evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from mmrobust.data import Dataset


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clip")


def test_full_then_dcp_then_the_grid(cli: Callable[..., object], digits: Dataset, place: Path) -> None:
    few = ["--data", digits.folder, "--epochs", 1, "--device", "cpu"]
    full = cli("train", *few, "--backbone", "tiny-clip", "--method", "full", "--out", place / "full")
    assert full.code == 0, full.err
    prompted = ["--method", "dcp", "--prompt-length", 6, "--prompt-depth", 2]
    dcp = cli("train", *few, "--backbone", place / "full", *prompted, "--head", "linear", "--out", place / "dcp")
    assert dcp.code == 0, dcp.err
    assert "dcp + linear on clip, unchanged" in dcp.out

    trained = load_file(place / "dcp" / "model.safetensors")
    kinds = {name.split(".")[1] for name in trained if name.startswith("method.")}
    assert kinds == {"attention", "chain", "common", "common_projection", "correlated", "dynamic"}
    assert trained["method.dynamic.text.missing-image"].shape == (2, 128)
    assert json.loads((place / "dcp" / "config.json").read_text())["method"] == {"name": "dcp", "length": 6, "depth": 2}

    grid = ["--missing-rate", "0,1", "--seeds", 1, "--limit", 12, "--device", "cpu"]
    evaluated = cli("eval", place / "full", place / "dcp", "--data", digits.folder, *grid, "--out", place / "eval")
    assert evaluated.code == 0, evaluated.err
    results = pd.read_parquet(place / "eval" / "results.parquet")
    assert set(results["method"]) == {"full", "dcp"}
    assert set(results["prompting"]) == {"situation", "concat"}
    assert results["value"].between(0, 1).all()


def test_a_length_that_three_does_not_divide_is_one_line(
    cli: Callable[..., object], digits: Dataset, tmp_path: Path
) -> None:
    arguments = ["--data", digits.folder, "--backbone", "tiny-clip", "--method", "dcp", "--prompt-length", 16]
    outcome = cli("train", *arguments, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "--prompt-length 16: dcp divides it by 3" in outcome.err
    assert outcome.err.count("\n") <= 2
    assert not (tmp_path / "out").exists()


def test_dcp_on_vilt_is_refused(cli: Callable[..., object], digits: Dataset, tmp_path: Path) -> None:
    arguments = ["--data", digits.folder, "--backbone", "tiny", "--method", "dcp", "--out", tmp_path / "out"]
    outcome = cli("train", *arguments)
    assert outcome.code == 2
    assert "one tower per modality" in outcome.err
