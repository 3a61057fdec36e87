"""``mmrobust audit``: a verdict in the terminal, as JSON, and as an exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mmrobust.audit.checks import CHECKS
from mmrobust.data import Dataset


@pytest.fixture(scope="module")
def checkpoint(trained: Callable[..., Path]) -> Path:
    return trained("none", "linear")


def test_a_sound_checkpoint_passes(cli: Any, checkpoint: Path, digits: Dataset) -> None:
    code, out, err = cli("audit", checkpoint, "--data", digits.folder, "--limit", 4)
    assert (code, err) == (0, "")
    title, header, *rows, summary = out.splitlines()
    assert title.startswith(f"{checkpoint}: none + linear on vilt; digits · test · 4 samples")
    assert header.split() == ["check", "verdict", "limit", "found"]
    assert [row.split()[0] for row in rows] == list(CHECKS)
    assert summary == "PASS: 6 checks passed, 2 informational"


def test_json_has_every_figure_limit_and_reason(cli: Any, checkpoint: Path, digits: Dataset) -> None:
    chosen = "batch-independence,frozen-backbone"
    code, out, _ = cli("audit", checkpoint, "--data", digits.folder, "--limit", 4, "--only", chosen, "--json")
    described = json.loads(out)
    assert (code, described["passed"], described["samples"]) == (0, True, 4)
    batch, frozen = described["checks"]
    assert batch["figure"] <= batch["limit"] == 1e-4
    assert set(batch["details"]) == {"alone", "permuted", "beside extremes"}
    assert "accuracy depends on the batch size" in batch["why"]
    assert frozen["details"]["expected"] == frozen["details"]["found"]


def test_a_changed_backbone_is_exit_code_1_and_named(
    cli: Any, checkpoint: Path, trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    full = trained("full", "linear")
    copy = shutil.copytree(checkpoint, tmp_path / "none")
    weights = shutil.copytree(full, tmp_path / full.name) / "backbone" / "model.safetensors"
    tensors = load_file(weights)
    tensors["layernorm.weight"][0] += 1e-3
    save_file(tensors, weights, {"format": "pt"})
    options = ("--data", digits.folder, "--limit", 4, "--only", "frozen-backbone,calibration")
    code, out, err = cli("audit", copy, *options)
    assert (code, err) == (1, "")
    assert "FAIL: frozen-backbone (fingerprint " in out
    assert "but it was trained on " in out
    assert "prompts and heads mean nothing" in out
    assert cli("audit", copy, *options, "--backbone", full).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "determinisms"], "unknown check 'determinisms': did you mean 'determinism'?"),
        (["--limit", 1], "--limit 1: at least two samples are needed"),
        (["--seed", -1], "seed -1: give a whole number of 0 or more"),
        (["--split", "tset"], "'tset': did you mean 'test'?"),
    ],
)
def test_what_cannot_be_audited_is_one_line(
    cli: Any, checkpoint: Path, digits: Dataset, arguments: list[Any], message: str
) -> None:
    code, out, err = cli("audit", checkpoint, "--data", digits.folder, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_what_is_no_checkpoint_is_refused(cli: Any, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    code, _, err = cli("audit", tmp_path, "--data", digits.folder)
    assert code == 2 and "holds results; name the model itself, a checkpoint or my_model.py:model" in err
    code, _, err = cli("audit", digits.folder, "--data", digits.folder)
    assert code == 2
    assert "config.json: no such file" in err
