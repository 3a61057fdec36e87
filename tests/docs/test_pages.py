"""The pages' commands and Python, run one after the other as a reader would, on small data and short trainings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data.prepare import PREPARERS
from mmrobust.data.prepare.mmimdb import CLASSES
from mmrobust.data.prepare.urbansound8k_av import DESCRIPTION
from mmrobust.studies import runner

URBAN = DESCRIPTION.classes

SHORT = {
    "MMROBUST_DATA_PREPARE_LIMIT": "24",
    "MMROBUST_TRAIN_EPOCHS": "1",
    "MMROBUST_EVAL_LIMIT": "16",
    "MMROBUST_EVAL_MISSING_RATE": "0,0.7,1",
    "MMROBUST_EVAL_SEEDS": "2",
    "MMROBUST_AUDIT_LIMIT": "8",
}
"""What shortens a page; a flag of the page itself goes before."""


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


@pytest.mark.parametrize(
    "name",
    ["three-modalities", "data", "train", "evaluate", "elsewhere", "report", "audit", "formats"],
)
def test_how_to(name: str, project: Any, perform_page: Callable[..., None]) -> None:
    perform_page(f"docs/{name}.md", project)


def test_i_have_a_model(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    perform_page("docs/own-model.md", shell())


def test_i_train_here(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    perform_page("docs/tutorial.md", shell())


# The page's own test suite compares a baseline with itself, and is warned of that.
@pytest.mark.filterwarnings("ignore::mmrobust.testing.RobustnessWarning")
def test_i_gate_releases(shell: Callable[..., Any], perform_page: Callable[..., None]) -> None:
    perform_page("docs/gate.md", shell())


def test_a_first_report_takes_ten_lines(root: Path, blocks_on: Callable[..., Any]) -> None:
    theirs = next(block for block in blocks_on(root / "docs" / "own-model.md") if block.language == "python")
    assert theirs.text.startswith("# my_model.py\n")
    assert len([line for line in theirs.text.splitlines() if line.strip() and not line.startswith("#")]) <= 10


def test_the_readme_is_short_and_leads_to_the_four_doors(root: Path, blocks_on: Callable[..., Any]) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 500
    assert [command for block in blocks_on(root / "README.md") for command, _ in block.commands()] == [
        "make demo    # everything, on embedded data: about two minutes on two cores",
        "make test    # the tests",
    ]
    assert (text.count("!["), len(re.findall(r"^\|[ :|-]+\|$", text, re.MULTILINE))) == (1, 1)
    assert re.findall(r"\*\*\[(I .*?)\]\((.*?)\)", text) == [
        ("I have a model", "docs/own-model.md"),
        ("I train here", "docs/tutorial.md"),
        ("I reproduce a paper", "docs/reproduce.md"),
        ("I gate releases", "docs/gate.md"),
    ]


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


def raw_films(digits: Any, folder: Path) -> None:
    """MM-IMDb's layout in miniature: the digits' pictures as posters, their texts as plots."""
    (folder / "dataset").mkdir(parents=True)
    splits = {"train": "train", "dev": "validation", "test": "test"}
    named = {theirs: [*digits.split(ours)][:12] for theirs, ours in splits.items()}
    for sample in chain.from_iterable(named.values()):
        (folder / "dataset" / f"{sample.id}.jpeg").write_bytes(sample.image)
        about = {"genres": [CLASSES[sample.label[0]]], "plot": [sample.text]}
        (folder / "dataset" / f"{sample.id}.json").write_text(json.dumps(about))
    ids = {split: [sample.id for sample in samples] for split, samples in named.items()}
    (folder / "split.json").write_text(json.dumps(ids))


def raw_sounds(digits: Any, folder: Path) -> None:
    """UrbanSound8K-AV's layout in miniature: the digits' recordings, each as a cut of a recording of its own."""
    for sample in digits.split("train"):
        label = URBAN[sample.label[0]]
        for kind, suffix, medium in (("sound", "wav", sample.audio), ("vision", "jpg", sample.image)):
            file = folder / f"Dataset_v3_{kind}" / label / f"{sample.id.rpartition('-')[2]}-0-0-0.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(medium)


def test_reproduce(
    shell: Callable[..., Any], digits: Any, perform_page: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trainings in this process: that each has its own is tested with the studies, and costs seconds for each.
    monkeypatch.setattr(runner, "_run_locally", lambda jobs, work: (work(job) or job for job in jobs))
    made = shell()
    raw_films(digits, made.folder / "raw" / "mmimdb")
    raw_sounds(digits, made.folder / "raw" / "UrbanSound8K-AV")
    perform_page("docs/reproduce.md", made)
    latex = (made.folder / "rehearsals" / "dpl" / "study.tex").read_text()
    assert "are predicted (\\texttt{f1\\_absent: skip})" in latex
    assert "65/65" in (made.folder / "dpl-published.tex").read_text()
    assert "prototype − linear | dcp" in (made.folder / "rehearsals" / "fewer" / "study.md").read_text()


def test_the_sources_are_those_that_are_prepared(root: Path) -> None:
    page = (root / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("| name | what the folder `--source` holds |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| .+ \| .+ \|$", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(PREPARERS)
