"""Fixtures that every test may use: real data, and the command line as a user meets it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mmrobust.cli import app
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.setup import TrainSettings

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


SMALL = Recipe(epochs=1, batch_size=16, lr=1e-3)


@pytest.fixture(scope="session")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Checkpoints on ``digits``, one epoch each, made when they are first asked for.

    ``trained("mmp", "prototype")`` is a checkpoint folder; its frozen backbone is ``trained("full", "linear")``.
    ``modalities`` chooses the family: image + text is ViLT, audio + image CAV-MAE.
    """
    folder = tmp_path_factory.mktemp("checkpoints")

    def checkpoint(method: str, head: str, modalities: tuple[str, ...] = ("image", "text")) -> Path:
        out = folder / "-".join((method, head, *modalities))
        if not out.is_dir():
            settings = TrainSettings(
                data=digits.folder,
                backbone="tiny" if method == "full" else str(checkpoint("full", "linear", modalities)),
                method=method,
                head=head,
                recipe=SMALL,
                modalities=modalities,
                missing_rate=0.0 if method == "full" else 0.7,
                method_settings={"length": 2, "init": "normal"} if method == "mmp" else {},
            )
            train(settings, out)
        return out

    return checkpoint


@pytest.fixture(autouse=True, scope="session")
def _offline() -> None:
    """No test may reach the Hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"
