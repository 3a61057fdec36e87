"""The pages' commands and Python, run one after the other as a reader would, on small data and short trainings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHORT = {
    "MMROBUST_DATA_PREPARE_LIMIT": "24",
    "MMROBUST_TRAIN_EPOCHS": "1",
    "MMROBUST_EVAL_LIMIT": "16",
    "MMROBUST_AUDIT_LIMIT": "8",
}
"""What shortens a page; a flag of the page itself goes before."""


def test_readme(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    perform_page("README.md", shell(**SHORT))


@pytest.fixture
def project(shell: Callable[..., Any], digits: Any, trained: Callable[..., Path]) -> Any:
    """A folder as a user of some days has it: data, two checkpoints, their results, a baseline."""
    made = shell(**SHORT)
    shutil.copytree(digits.folder, made.folder / "data" / "digits")
    for name, checkpoint in (("full", trained("full", "linear")), ("mmp", trained("mmp", "prototype"))):
        shutil.copytree(checkpoint, made.folder / "checkpoints" / name)
    for name, checkpoint in (("main", "full"), ("new", "mmp")):
        grid = "--data data/digits --missing-rate 0,0.7,1 --seeds 2"
        made.run(f"mmrobust eval checkpoints/{checkpoint} {grid} --out results/{name}")
        assert made.code == 0
    made.run("mmrobust baseline save results/main baselines/main --allow-dirty")
    assert made.code == 0
    return made


@pytest.mark.parametrize("name", ["data", "train", "evaluate", "report", "gate", "audit", "formats"])
def test_how_to(name: str, project: Any, perform_page: Callable[..., None]) -> None:
    perform_page(f"docs/{name}.md", project)


def test_tutorial(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    perform_page("docs/tutorial.md", shell())
