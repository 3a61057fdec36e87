"""Progress without a terminal: plain lines now and then, of what, how much, how fast and how long it still takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.cli import console
from mmrobust.data import Dataset

Cli = Callable[..., Any]
LINE = re.compile(r"^([^:\n]+): [\d,]+ of [\d,]+, (?:[\d,]+/s|\d+ (?:s|m \d\d s) each), \d+ s left$", re.MULTILINE)
STUDY = {"methods": ["none", "lora"], "heads": ["linear"], "recipe": {"epochs": 1}}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for every step, as if each took long."""
    monkeypatch.setattr(console.PlainProgress, "FIRST", 0.0)
    monkeypatch.setattr(console.PlainProgress, "EVERY", 0.0)


@pytest.mark.usefixtures("at_once")
def test_every_long_command_says_how_far_it_is(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(json.dumps(STUDY))
    data, model, backbone = ("--data", digits.folder), trained("none", "linear"), trained("full", "linear")
    student = ("--backbone", backbone, "--method", "none", "--epochs", 1, "--batch-size", 8)
    few = ("--missing-rate", "0,1", "--seeds", 1, "--prompting", "situation")
    commands: dict[tuple[object, ...], str] = {
        ("data", "prepare", "digits", "--limit", 9, "--out", "prepared"): "digits",
        ("data", "verify", digits.folder): "verify digits",
        ("data", "preview", digits.folder, "--scenario", "missing-text", "--out", "preview.html"): "preview",
        ("train", *data, *student, "--out", "new"): "train",
        ("eval", model, *data, *few, "--batch-size", 8, "--out", "main"): "predict",
        ("score", "main", "--missing-rate", "0,0.5,1"): "scoring",
        ("plan", *data, "--scenario", "missing-text", "--inputs", "--out", "plan"): "inputs",
        ("report", "main", "main/results.parquet", "--figures", "figures"): "drawing",
        ("check", "main", "--baseline", "main"): "scoring",
        ("compare", "main", "main"): "scoring",
        ("audit", model, *data, "--only", "batch-independence,determinism"): "audit",
        ("study", "run", "study.yaml", *data, "--out", "study", "--dry-run"): "time a few steps of each",
    }
    for command, what in commands.items():
        code, _, said = cli(*command)
        assert code in (0, 1), (command, said)
        assert any(name.startswith(what) for name in LINE.findall(said)), (command, said)
    code, _, said = cli("data", "verify", digits.folder, "--quiet")
    assert (code, said) == (0, "")


def test_short_work_says_nothing(cli: Cli, digits: Dataset) -> None:
    assert cli("data", "verify", digits.folder).err == ""


def test_lines_are_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 5.0, 20.0, 40.0, 60.0, 3600.0, 3700.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    progress = console.PlainProgress("predict", 1000)
    for units in (100, 100, 100, 100, 100, 500):
        progress.advance(units)
    assert capsys.readouterr().err.splitlines() == [
        "predict: 200 of 1,000, 10/s, 1 m 20 s left",
        "predict: 400 of 1,000, 7/s, 1 m 30 s left",
        "predict: 500 of 1,000, 7 s each, 1 h 00 m left",
    ]


def test_of_unknown_length_it_says_what_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    console.PlainProgress("samples", None).advance(40)
    assert capsys.readouterr().err == "samples: 40, 2/s\n"
