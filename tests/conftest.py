"""Fixtures that every test may use: real data, and the command line as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from mmrobust.backbones.base import Backbone
from mmrobust.backbones.tiny import TINY, make_tiny
from mmrobust.cli import app
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits

ROOT = Path(__file__).resolve().parents[1]
SHARED = next((above / "shared" for above in ROOT.parents if (above / "shared").is_dir()), ROOT.parent / "shared")


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Golden(NamedTuple):
    """What was recorded from a paper's own code."""

    weights: dict[str, torch.Tensor]
    io: dict[str, torch.Tensor]
    config: dict[str, Any]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository, or beside a folder that it lies in."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: the real data (av-digits, emoji) lie beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The embedded data set, 60 samples of each split."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(folder, limit=60)
    return Dataset(folder)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Golden]:
    """Weights (reference's names), inputs and outputs, and configuration of one recorded run."""

    def read(name: str) -> Golden:
        folder = shared / "golden" / name
        weights, io = (load_file(folder / f"{kind}.safetensors") for kind in ("weights", "io"))
        return Golden(weights, io, json.loads((folder / "config.json").read_text()))

    return read


@pytest.fixture(scope="session")
def tiny(digits: Dataset) -> Callable[[str], Backbone]:
    """A fresh tiny backbone of that name with random weights."""

    def build(name: str) -> Backbone:
        family, _ = TINY[name]
        return make_tiny(name, family.modalities, digits.split("train"), seed=0)

    return build


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``mmrobust`` with these arguments, in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
