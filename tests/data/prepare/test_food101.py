from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.food101 import DESCRIPTION, prepare_food101
from mmrobust.errors import DataError

Pictures = list[Any]
WriteJson = Callable[[Path, Any], Path]

SPLITS = {
    "train": ["apple_pie_0.jpg", "apple_pie_1.jpg", "hot_and_sour_soup_7.jpg"],
    "val": ["hot_and_sour_soup_2.jpg"],
    "test": ["apple_pie_3.jpg", "sushi_4.jpg"],
}
CLASSES = {"sushi": 0, "hot_and_sour_soup": 1, "apple_pie": 2}


@pytest.fixture
def titles(emoji: Pictures) -> dict[str, str]:
    """A title for each picture but one."""
    names = [name for split in SPLITS.values() for name in split]
    return {name: picture.text for name, picture in zip(names, emoji, strict=False) if name != "apple_pie_1.jpg"}


@pytest.fixture
def source(emoji: Pictures, titles: dict[str, str], tmp_path: Path, write_json: WriteJson) -> Path:
    """Six pictures of three dishes, laid out as MMP has them."""
    root = tmp_path / "Food101"
    for picture, (split, name) in zip(emoji, ((s, n) for s, names in SPLITS.items() for n in names), strict=False):
        folder = root / "images" / ("test" if split == "test" else "train") / name.rpartition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture.jpeg)
    write_json(root / "split.json", SPLITS)
    write_json(root / "class_idx.json", CLASSES)
    write_json(root / "text.json", titles)
    return root


def test_the_layout_of_mmp(source: Path, titles: dict[str, str], emoji: Pictures, tmp_path: Path) -> None:
    info = prepare_food101(source, tmp_path / "out")
    assert (info.name, info.modalities, info.task) == ("food101", ("image", "text"), "single-label")
    assert info.classes == ("sushi", "hot_and_sour_soup", "apple_pie")  # in the order of their numbers
    assert info.splits == {"train": 2, "validation": 1, "test": 2}
    assert info.left_out == {"no text": 1}  # as MMP does; it counts towards the release's size
    assert info.notes[0] == "train has 3 samples, the release of food101 61,142"
    assert sorted(info.files) == ["class_idx.json", "split.json"]
    first = next(iter(Dataset(tmp_path / "out").split("train")))
    assert (first.id, first.label, first.text) == ("apple_pie_0", (2,), titles["apple_pie_0.jpg"])
    assert first.image == emoji[0].jpeg


def test_titles_as_kaggle_has_them(source: Path, titles: dict[str, str], tmp_path: Path) -> None:
    expected = prepare_food101(source, tmp_path / "json").fingerprint
    (source / "text.json").unlink()
    (source / "texts").mkdir()
    for split in ("train", "test"):
        with (source / "texts" / f"{split}_titles.csv").open("w", newline="", encoding="utf-8") as file:
            names = [name for s, names in SPLITS.items() for name in names if (s == "test") == (split == "test")]
            rows = ([name, titles[name], name.rpartition("_")[0]] for name in names if name in titles)
            csv.writer(file).writerows(rows)
    assert prepare_food101(source.parent, tmp_path / "csv").fingerprint == expected


def test_the_sizes_are_the_release_s() -> None:
    assert DESCRIPTION.sizes == {"train": 61_142, "validation": 6_846, "test": 22_716}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "split.json").unlink(), r"holds no split\.json"),
        (lambda s: (s / "class_idx.json").unlink(), r"class_idx\.json: no such file; it is in MMP's repository"),
        (lambda s: (s / "text.json").unlink(), r"holds neither text\.json nor texts/train_titles\.csv"),
        (lambda s: (s / "text.json").write_text("[]"), "is not the titles of the pictures"),
        (lambda s: (s / "class_idx.json").write_text('{"sushi": 0, "apple_pie": 2}'), "not numbered from 0 to 1"),
        (
            lambda s: (s / "class_idx.json").write_text('{"sushi": 0, "apple_pie": 1}'),
            r"'hot_and_sour_soup_7\.jpg' belongs to no class of class_idx\.json",
        ),
        (lambda s: (s / "images/test/sushi/sushi_4.jpg").unlink(), r"sushi_4\.jpg cannot be read"),
        (lambda s: (s / "images/test/sushi/sushi_4.jpg").write_bytes(b""), r"sushi_4\.jpg: the picture is empty"),
    ],
)
def test_a_damaged_source_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(source)
    with pytest.raises(DataError, match=message) as raised:
        prepare_food101(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_titles_with_too_few_fields(source: Path, tmp_path: Path) -> None:
    (source / "text.json").unlink()
    (source / "texts").mkdir()
    (source / "texts" / "test_titles.csv").write_text("")
    (source / "texts" / "train_titles.csv").write_text("apple_pie_0.jpg,pie\n")
    with pytest.raises(DataError, match=r"train_titles\.csv, line 1: has 2 fields, not picture, title and class"):
        prepare_food101(source, tmp_path / "out")
