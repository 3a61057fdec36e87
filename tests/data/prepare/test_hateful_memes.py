from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.hateful_memes import prepare_hateful_memes
from mmrobust.errors import DataError

Pictures = list[Any]


def write_memes(root: Path, name: str, numbers: range, *, labels: bool = True) -> Path:
    """A JSONL file of the release, whose pictures lie in ``img``."""
    lines = []
    for number in numbers:
        meme = {"id": number, "img": f"img/{number:05d}.png", "text": f"look at number {number}"}
        lines.append(json.dumps(meme | ({"label": number % 2} if labels else {})))
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / name


@pytest.fixture
def source(emoji: Pictures, tmp_path: Path) -> Path:
    """Twelve memes, as released."""
    root = tmp_path / "hateful_memes"
    (root / "img").mkdir(parents=True)
    for number in range(12):
        (root / "img" / f"{number:05d}.png").write_bytes(emoji[number].png)
    write_memes(root, "train.jsonl", range(4))
    write_memes(root, "dev_seen.jsonl", range(4, 6))
    write_memes(root, "test_seen.jsonl", range(6, 9))
    write_memes(root, "test_unseen.jsonl", range(9, 11))
    return root


def test_the_release(source: Path, emoji: Pictures, tmp_path: Path) -> None:
    info = prepare_hateful_memes(source, tmp_path / "out")
    assert (info.name, info.task, info.headline_metric) == ("hateful-memes", "binary", "auroc")
    assert info.classes == ("not hateful", "hateful")
    assert info.splits == {"train": 4, "validation": 2, "test": 3}
    sample = list(Dataset(tmp_path / "out").split("test"))[1]
    assert (sample.id, sample.label, sample.text) == ("00007", (1,), "look at number 7")
    assert sample.image == emoji[7].png


def test_it_says_which_test_file_was_used_and_has_its_hash(source: Path, tmp_path: Path) -> None:
    remarks: list[str] = []
    info = prepare_hateful_memes(source, tmp_path / "seen", remark=remarks.append)
    assert remarks[0] == info.notes[0] == "the test split is test_seen.jsonl"
    assert info.files["test_seen.jsonl"] == hashlib.sha256((source / "test_seen.jsonl").read_bytes()).hexdigest()
    assert sorted(info.files) == ["dev_seen.jsonl", "test_seen.jsonl", "train.jsonl"]
    assert "test has 3 samples, the release of hateful-memes 1,000" in info.notes

    unseen = prepare_hateful_memes(source, tmp_path / "unseen", test_file="test_unseen.jsonl")
    assert unseen.splits["test"] == 2
    assert "test has 2 samples, the release of hateful-memes 2,000" in unseen.notes


def test_a_test_file_without_labels_is_not_used_unasked(source: Path, tmp_path: Path) -> None:
    (source / "test_seen.jsonl").unlink()
    write_memes(source, "test.jsonl", range(6, 9), labels=False)
    info = prepare_hateful_memes(source, tmp_path / "out")
    assert info.notes[0] == "the test split is test_unseen.jsonl, since not every line of test.jsonl has a label"
    (source / "test_unseen.jsonl").unlink()
    for asked in (None, "test.jsonl"):
        with pytest.raises(DataError, match=r"test\.jsonl: has no labels, as it was first released; --test-file"):
            prepare_hateful_memes(source, tmp_path / "no", test_file=asked)


def test_the_folder_data_of_the_archive_and_the_dev_file_of_the_first_release(source: Path, tmp_path: Path) -> None:
    (source / "dev_seen.jsonl").rename(source / "dev.jsonl")
    (tmp_path / "above").mkdir()
    source.rename(tmp_path / "above" / "data")
    assert prepare_hateful_memes(tmp_path / "above", tmp_path / "out").splits["validation"] == 2


def change(source: Path, name: str, old: str, new: str) -> None:
    text = (source / name).read_text()
    assert old in text
    (source / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train.jsonl", '"label": 1', '"label": 2', r"train\.jsonl, row 2 \(line 2\): label 2 is neither 0 nor 1"),
        ("train.jsonl", '"label": 1', '"lable": 1', "row 2 .*: label None is neither 0 nor 1"),
        ("train.jsonl", '"text"', '"words"', "row 1 .*: has no 'text'"),
        ("train.jsonl", '"img/00000.png"', "3", "row 1 .*: has no 'img'"),
        ("train.jsonl", "{", "", r"row 1 \(line 1\): is not JSON"),
        ("train.jsonl", "00001.png", "00000.png", "sample id '00000' is used twice"),
        ("dev_seen.jsonl", "00004.png", "0004.png", r"row 1 .*: image .*0004\.png cannot be read"),
    ],
)
def test_a_line_that_does_not_fit_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    change(source, name, old, new)
    with pytest.raises(DataError, match=message) as raised:
        prepare_hateful_memes(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_files_that_are_not_there(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tset\.jsonl: no such file; --test-file names one of: test_seen\.jsonl"):
        prepare_hateful_memes(source, tmp_path / "out", test_file="tset.jsonl")
    for name in ("test_seen.jsonl", "test_unseen.jsonl"):
        (source / name).unlink()
    with pytest.raises(DataError, match=r"holds none of test_seen\.jsonl"):
        prepare_hateful_memes(source, tmp_path / "out")
    (source / "dev_seen.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds neither dev_seen\.jsonl nor dev\.jsonl"):
        prepare_hateful_memes(source, tmp_path / "out")
    (source / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no train\.jsonl"):
        prepare_hateful_memes(source, tmp_path / "out")
