from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmrobust.data.dataset import Dataset
from mmrobust.data.format import DatasetInfo
from mmrobust.data.writing import ROW_GROUP_ROWS, SampleRow, write_dataset
from mmrobust.errors import DataError, UsageError


def write(folder: Path, rows: Iterable[SampleRow], task: str = "single-label") -> DatasetInfo:
    return write_dataset(
        folder,
        rows,
        name="made",
        modalities=("image", "text"),
        classes=("a", "b", "c"),
        task=task,
        headline_metric="macro_f1",
        licence="CC0",
        source="made",
    )


def rows(count: int, split: str = "train") -> list[SampleRow]:
    return [SampleRow(split, f"{split}-{i}", (i % 3,), image=bytes([i % 256]), text=str(i)) for i in range(count)]


def test_rows_are_cut_into_groups_and_keep_their_order(tmp_path: Path) -> None:
    count = 2 * ROW_GROUP_ROWS + 3
    write(tmp_path / "d", rows(count))
    split = Dataset(tmp_path / "d").split("train")
    assert split.ids == tuple(f"train-{i}" for i in range(count))
    assert [s.text for s in split] == [str(i) for i in range(count)]
    assert pq.ParquetFile(tmp_path / "d" / "train-00000-of-00001.parquet").metadata.num_row_groups == 3


def test_large_media_close_a_group_early(tmp_path: Path) -> None:
    big = [SampleRow("train", str(i), (0,), image=bytes(5 * 2**20), text="") for i in range(4)]
    write(tmp_path / "d", big)
    assert pq.ParquetFile(tmp_path / "d" / "train-00000-of-00001.parquet").metadata.num_row_groups == 2


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    train, test = rows(5), rows(5, "test")
    base = write(tmp_path / "0", [*train, *test]).fingerprint
    interleaved = [row for pair in zip(test, train, strict=True) for row in pair]
    assert write(tmp_path / "1", interleaved).fingerprint == base
    changes = [
        [*train[::-1], *test],
        [*train[:-1], *test],
        [SampleRow("train", "train-0", (1,), image=b"\x00", text="0"), *train[1:], *test],
        [SampleRow("train", "train-0", (0,), image=b"\x00", text="00"), *train[1:], *test],
        [SampleRow("train", "train-0", (0,), image=None, text="0"), *train[1:], *test],
        [SampleRow("train", "train-0", (0,), image=b"", text="0"), *train[1:], *test],
        [SampleRow("validation", "train-0", (0,), image=b"\x00", text="0"), *train[1:], *test],
    ]
    others = [write(tmp_path / str(i), changed).fingerprint for i, changed in enumerate(changes, start=2)]
    assert len({base, *others}) == len(changes) + 1


def test_multi_label_rows(tmp_path: Path) -> None:
    write(
        tmp_path / "d",
        [SampleRow("train", "1", (0, 2), text="x"), SampleRow("train", "2", (1,), text="y")],
        "multi-label",
    )
    assert Dataset(tmp_path / "d").split("train").labels == ((0, 2), (1,))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (SampleRow("train", "train-0", (0,), text=""), "sample id 'train-0' is used twice"),
        (SampleRow("test", "train-0", (0,), text=""), "sample id 'train-0' is used twice"),
        (SampleRow("train", "", (0,), text=""), "sample id '' is empty"),
        (SampleRow("dev", "x", (0,), text=""), "split 'dev' is not one of train, validation, test"),
        (SampleRow("train", "x", (3,), text=""), r"label \[3\] does not fit 3 classes"),
        (SampleRow("train", "x", (-1,), text=""), r"label \[-1\] does not fit"),
        (SampleRow("train", "x", (0, 1), text=""), r"label \[0, 1\] does not fit 3 classes, single-label"),
        (SampleRow("train", "x", (), text=""), r"label \[\] does not fit"),
        (SampleRow("train", "\ud83d", (0,), text=""), r"a sample's id holds half a character .*: '\\ud83d'"),
        (SampleRow("train", "x", (0,), text="\ud83d"), "sample 'x': its text holds half a character"),
        (
            SampleRow("train", "x", (0,), image=b"", image_path="\ud83d"),
            "sample 'x': its image's path holds half a character",
        ),
    ],
)
def test_a_row_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, row: SampleRow, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "d", [*rows(ROW_GROUP_ROWS + 1), row])
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> Iterator[SampleRow]:
        yield from rows(ROW_GROUP_ROWS + 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "d", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="made: no sample was found; nothing is written"):
        write(tmp_path / "d", [])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "d", rows(3))
    with pytest.raises(UsageError, match="already contains files"):
        write(tmp_path / "d", rows(4))
    assert Dataset(tmp_path / "d").info.splits == {"train": 3}
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        write(tmp_path / "file", rows(4))
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty", rows(4)).splits == {"train": 4}


def test_a_folder_that_nothing_can_be_renamed_to_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> Iterator[SampleRow]:
        raise AssertionError("a row was asked for")
        yield

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    for place in (tmp_path / "link", Path()):
        with pytest.raises(UsageError, match="is a link, a mount point or the current folder; name a folder inside it"):
            write(place, never())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]
    write(tmp_path / "real" / "d", rows(3))
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", rows(3))
    assert Dataset(tmp_path / "empty").info.splits == {"train": 3}


def test_a_source_that_cannot_be_read_is_not_called_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    def unreadable() -> Iterator[SampleRow]:
        yield rows(1)[0]
        raise PermissionError(13, "Permission denied", "theirs/x.wav")

    with pytest.raises(DataError, match=r"^theirs/x\.wav: cannot be read \(Permission denied\)$"):
        write(tmp_path / "d", unreadable())
    assert list(tmp_path.iterdir()) == []
