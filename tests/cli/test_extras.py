"""Without an extra, what needs it is refused in one line that names it; the rest of the commands does not import it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset

EXTRAS = {"peft": "peft", "ray": "ray", "hf": "datasets", "report": "altair"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_it_is_named(
    extra: str,
    cli: Callable[..., Any],
    digits: Dataset,
    trained: Callable[..., Path],
    evaluate_into: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = ("--data", digits.folder, "--out", tmp_path / "out")
    evaluate_into(tmp_path / "results")
    command: dict[str, tuple[object, ...]] = {
        "peft": ("train", *data, "--backbone", trained("full", "linear"), "--method", "lora"),
        "ray": ("eval", trained("full", "linear"), *data, "--engine", "ray"),
        "hf": ("data", "prepare", "hf", "--source", tmp_path, "--out", tmp_path / "out"),
        "report": ("report", tmp_path / "results", "--figures", tmp_path / "figures"),
    }
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)  # importing it fails
    monkeypatch.delitem(sys.modules, "mmrobust.report.figures", raising=False)
    code, out, err = cli(*command[extra])
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert f"mmrobust[{extra}]" in err and "pip install" in err


def test_a_study_names_it_before_its_first_training(
    cli: Callable[..., Any], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    (tmp_path / "own.yaml").write_text("methods: [none, lora]\n")
    code, out, err = cli("study", "run", tmp_path / "own.yaml", "--data", digits.folder, "--out", tmp_path / "out")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and "mmrobust[peft]" in err
    assert not (tmp_path / "out").exists()
