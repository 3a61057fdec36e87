"""Fixtures that every test may use: real data, and the command line as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mmrobust.cli import app
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits

SHARED = Path(__file__).resolve().parents[2] / "shared"


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: the real data (av-digits, emoji) lie beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The embedded data set, 60 samples of each split."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(folder, limit=60)
    return Dataset(folder)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``mmrobust`` with these arguments, in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
