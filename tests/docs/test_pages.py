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
    "MMROBUST_EVAL_MISSING_RATE": "0,0.7,1",
    "MMROBUST_EVAL_SEEDS": "2",
    "MMROBUST_AUDIT_LIMIT": "8",
}
"""What shortens a page; a flag of the page itself goes before."""


def test_readme(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    # All checks are run by the page on the audit.
    perform_page("README.md", shell(**SHORT, MMROBUST_AUDIT_ONLY="batch-independence,frozen-backbone"))


@pytest.fixture
def project(shell: Callable[..., Any], digits: Any, trained: Callable[..., Path]) -> Any:
    """A folder as a user of some days has it: data, two checkpoints, their results, a baseline."""
    made = shell(**SHORT)
    shutil.copytree(digits.folder, made.folder / "data" / "digits")
    for name, checkpoint in (("full", trained("full", "linear")), ("mmp", trained("mmp", "prototype"))):
        shutil.copytree(checkpoint, made.folder / "checkpoints" / name)
    for name, checkpoint in (("main", "full"), ("new", "mmp")):
        made.run(f"mmrobust eval checkpoints/{checkpoint} --data data/digits --out results/{name}")
        assert made.code == 0
    made.run("mmrobust baseline save results/main baselines/main --allow-dirty")
    assert made.code == 0
    return made


# Sixteen samples after one epoch show nothing, which the page's own test suite is warned of.
@pytest.mark.filterwarnings("ignore::mmrobust.testing.RobustnessWarning")
@pytest.mark.parametrize(
    "name",
    ["own-model", "three-modalities", "data", "train", "evaluate", "elsewhere", "report", "gate", "audit", "formats"],
)
def test_how_to(name: str, project: Any, perform_page: Callable[..., None]) -> None:
    perform_page(f"docs/{name}.md", project)


def test_a_first_report_takes_ten_lines_and_one_command(root: Path, blocks_on: Callable[..., Any]) -> None:
    """Of the reader's own model: the page begins with both, and the README leads to it after its two commands."""
    theirs, command, *_ = blocks_on(root / "docs" / "own-model.md")
    assert theirs.text.startswith("# my_model.py\n")
    assert len([line for line in theirs.text.splitlines() if line.strip() and not line.startswith("#")]) <= 10
    ((line, _),) = command.commands()
    assert line.startswith("mmrobust eval my_model.py:model ")
    readme = (root / "README.md").read_text(encoding="utf-8")
    after = readme.partition("## Two commands")[2]
    assert after.index("docs/own-model.md") < after.index("\n## ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\nmmrobust data info nowhere\n```", "exit code 2 mmrobust: nowhere: no such folder"),
        ("```console\n$ mmrobust --version\nmmrobust 9.9\n```", "the page says: mmrobust 9.9"),
        ("```console\n$ mmrobust data info nowhere\n…\n$ echo $?\n0\n```", "printed: 2 the page says: 0"),
        ("```console\n$ head -1 examples/README.md\n# Examples\n…\nMore\n```", "the page says"),
        ("```bash\nhead -1 examples/nothing.md\n```", "exit code 1"),
        ("```python\ndef test_it():\n    assert False, 'it fails'\n```", "it fails"),
    ],
)
def test_a_wrong_page_would_be_found(
    text: str, message: str, shell: Callable[..., Any], perform_text: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError) as raised:
        perform_text(text, "page.md", shell())
    assert message in " ".join(str(raised.value).split())


def test_what_differs_is_left_open(shell: Callable[..., Any], perform_text: Callable[..., None]) -> None:
    lines = "# Examples\n\n…\n| example | what … |\n…"
    perform_text(f"```console\n$ head -12 examples/README.md\n{lines}\n```", "page.md", shell())


def test_tutorial(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    perform_page("docs/tutorial.md", shell())
