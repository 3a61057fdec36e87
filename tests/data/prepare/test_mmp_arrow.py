from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.mmimdb import CLASSES
from mmrobust.data.prepare.mmp_arrow import prepare_mmp_arrow
from mmrobust.errors import DataError, UsageError

Pictures = list[Any]


def write_arrow(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A file as make_arrow.py writes it: a data frame, as one record batch of a file."""
    table = pa.Table.from_pandas(pd.DataFrame(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.RecordBatchFileWriter(sink, table.schema) as writer:
        writer.write_table(table)
    return file


def films(emoji: Pictures, split: str, *plots: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "image": emoji[i].jpeg,
            "plots": texts,
            "label": [int(genre in ("Drama", "Film-Noir")) for genre in CLASSES],
            "genres": ["Drama", "Film-Noir", "News"],
            "image_id": f"{i:07d}",
            "split": split,
        }
        for i, texts in enumerate(plots)
    ]


def test_mmimdb(emoji: Pictures, tmp_path: Path) -> None:
    for split, plots in (("train", [["a", "b"], ["c"]]), ("dev", [["d"]]), ("test", [["e", "f"]])):
        rows = films(emoji, split, *plots)
        for row in rows:
            row["image_id"] = f"{split}{row['image_id']}"
        write_arrow(tmp_path / "in" / f"mmimdb_{split}.arrow", rows)
    info = prepare_mmp_arrow(tmp_path / "in", tmp_path / "out")
    assert (info.name, info.task, info.headline_metric) == ("mmimdb", "multi-label", "macro_f1")
    assert info.classes == CLASSES
    assert info.splits == {"train": 2, "validation": 1, "test": 1}
    assert "train has 2 samples, the release of mmimdb 15,552" in info.notes
    first = next(iter(Dataset(tmp_path / "out").split("train")))
    assert (first.id, first.label, first.text) == ("train0000000", (0, 22), "a b")
    assert first.image == emoji[0].jpeg
    assert prepare_mmp_arrow(tmp_path / "in", tmp_path / "each", plots="each").splits["train"] == 3
    prepare_mmp_arrow(tmp_path / "in", tmp_path / "first", plots="first")
    assert [s.text for s in Dataset(tmp_path / "first").split("train")] == ["a", "c"]


def test_food101(emoji: Pictures, tmp_path: Path) -> None:
    for start, split in enumerate(("train", "val", "test")):
        rows = [
            {
                "image": emoji[i].jpeg,
                "text": [emoji[i].text],
                "label": 2 * (i % 2),
                "image_id": f"{'hot_and_sour_soup' if i % 2 else 'apple_pie'}_{10 * start + i}.jpg",
                "split": split,
            }
            for i in range(3)
        ]
        write_arrow(tmp_path / "in" / f"food101_{split}.arrow", rows)
    info = prepare_mmp_arrow(tmp_path / "in", tmp_path / "out")
    assert (info.name, info.task) == ("food101", "single-label")
    assert info.classes == ("apple_pie", "1", "hot_and_sour_soup")  # class 1 has no picture here
    assert info.splits == {"train": 3, "validation": 3, "test": 3}
    sample = list(Dataset(tmp_path / "out").split("validation"))[1]
    assert (sample.id, sample.label, sample.text) == ("hot_and_sour_soup_11", (2,), emoji[1].text)


def test_hatememes_have_no_ids(emoji: Pictures, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        rows = [{"image": emoji[i].png, "text": [emoji[i].text], "label": i % 2, "split": split} for i in range(4)]
        write_arrow(tmp_path / "in" / f"hatememes_{split}.arrow", rows)
    info = prepare_mmp_arrow(tmp_path / "in", tmp_path / "out", limit=2)
    assert (info.name, info.task, info.classes) == ("hateful-memes", "binary", ("not hateful", "hateful"))
    assert Dataset(tmp_path / "out").split("validation").ids == ("validation-00000", "validation-00001")


def test_a_data_set_of_its_own(emoji: Pictures, tmp_path: Path) -> None:
    rows = [{"image": emoji[i].png, "text": "plain text", "label": i, "split": "train"} for i in range(3)]
    write_arrow(tmp_path / "in" / "pets_train.arrow", rows)
    info = prepare_mmp_arrow(tmp_path / "in", tmp_path / "out", name="mine", licence="CC0")
    assert (info.name, info.licence, info.task, info.classes) == ("mine", "CC0", "single-label", ("0", "1", "2"))
    assert next(iter(Dataset(tmp_path / "out").split("train"))).text == "plain text"


def test_a_broken_picture_is_named(emoji: Pictures, tmp_path: Path) -> None:
    rows = films(emoji, "train", ["a"], ["b"])
    rows[1]["image"] = rows[1]["image"][:100]
    write_arrow(tmp_path / "in" / "mmimdb_train.arrow", rows)
    with pytest.raises(DataError, match=r"mmimdb_train\.arrow, row 1: the picture cannot be read"):
        prepare_mmp_arrow(tmp_path / "in", tmp_path / "out")
    info = prepare_mmp_arrow(tmp_path / "in", tmp_path / "out", allow_incomplete=True)
    assert (info.splits, info.left_out) == ({"train": 1}, {"image unreadable": 1})


def test_what_are_no_such_files(emoji: Pictures, tmp_path: Path) -> None:
    folder = tmp_path / "in"

    def fails(message: str) -> None:
        with pytest.raises(DataError, match=message):
            prepare_mmp_arrow(folder, tmp_path / "out")

    fails("in: no such folder")
    folder.mkdir()
    fails(r"found none named \{data set\}_\{split\}\.arrow")
    write_arrow(folder / "mmimdb_extra.arrow", films(emoji, "extra", ["a"]))
    fails("no arrow file's name ends in train, dev")
    train = write_arrow(folder / "mmimdb_train.arrow", films(emoji, "train", ["a"]))
    (folder / "mmimdb_extra.arrow").rename(folder / "food101_test.arrow")
    fails("found those of food101 and mmimdb")
    (folder / "food101_test.arrow").rename(folder / "mmimdb_test.arrow")
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) // 2])
    fails(r"mmimdb_train\.arrow: cannot be read as an Arrow file")
    write_arrow(train, [{"image": emoji[0].png, "caption": ["a"], "label": 1}])
    fails("has the columns image, caption, label; needed are image, label, and plots or text")
    write_arrow(train, [{"image": emoji[0].png, "text": ["a"], "label": [1, 0]}])
    fails(r"row 0: label \[1, 0\] is neither a number nor a 0 or 1 for each of 23 classes")
    write_arrow(train, films(emoji, "train", ["never seen"]))
    train.write_bytes(train.read_bytes().replace(b"never seen", b"never \xff\xfe\xfd\xfc"))
    fails(r"mmimdb_train\.arrow: cannot be read as an Arrow file")
    train.unlink()
    os.mkfifo(train)
    fails(r"mmimdb_train\.arrow: is not a regular file; expected the arrow file")
    train.unlink()
    write_arrow(folder / "mmimdb_training.arrow", films(emoji, "train", ["a"]))
    write_arrow(train, films(emoji, "train", ["a"]))
    fails("train and training both name the split train")


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown choice of plots 'al'"):
        prepare_mmp_arrow(tmp_path, tmp_path / "out", plots="al")
    with pytest.raises(UsageError, match="unknown task 'multi': did you mean 'multi-label'"):
        prepare_mmp_arrow(tmp_path, tmp_path / "out", task="multi")


@pytest.mark.parametrize("label", [None, "two", 10**9, -1])
def test_labels_that_are_no_classes(emoji: Pictures, tmp_path: Path, label: Any) -> None:
    write_arrow(tmp_path / "in" / "mine_train.arrow", [{"image": emoji[0].png, "text": ["a"], "label": label}])
    with pytest.raises(DataError, match=rf"mine_train\.arrow, row 0: label {label!r} is not the number of a class"):
        prepare_mmp_arrow(tmp_path / "in", tmp_path / "out")
