from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.data.decoding import decode
from mmrobust.data.format import INFO_FILE
from mmrobust.data.inspection import verify
from mmrobust.errors import DataError


@pytest.fixture
def copy(digits: Dataset, tmp_path: Path) -> Path:
    """The embedded data set, to damage."""
    return Path(shutil.copytree(digits.folder, tmp_path / "digits"))


def rewrite(folder: Path, split: str, row: int, **changes: Any) -> None:
    """Change cells of one row, as something that does not know the format would."""
    file = folder / f"{split}-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[row] |= changes
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)


def said(folder: Path) -> list[tuple[str, str, str]]:
    return [(fault.split, fault.part, str(fault)) for fault in verify(Dataset(folder)).faults]


def test_a_data_set_in_order(digits: Dataset) -> None:
    found = verify(digits)
    assert (found.samples, found.faults) == (180, ())
    assert found.as_dict() == {"ok": True, "folder": str(digits.folder), "samples": 180, "faults": ()}


def test_samples_that_cannot_be_read(copy: Path) -> None:
    rewrite(copy, "test", 3, audio={"bytes": b"RIFF", "path": "x.wav"}, image={"bytes": b"", "path": "x.png"})
    image, audio, fingerprint = said(copy)
    assert image[:2] == ("test", "image")
    assert image[2].endswith("(test, row 3): the picture is empty (0 bytes)")
    assert audio[2].startswith("sample 'digit-")
    assert "the recording cannot be read" in audio[2]
    assert fingerprint == (
        "",
        "fingerprint",
        f"{copy}: its content does not match the fingerprint in dataset.json; prepare it again",
    )


def test_ids_labels_and_samples_without_anything(copy: Path) -> None:
    rewrite(copy, "test", 0, label=10)
    rewrite(copy, "test", 1, image=None, text=None, audio=None)
    rewrite(copy, "test", 2, id=Dataset(copy).split("train").ids[0])
    rewrite(copy, "test", 4, label=None)
    found = said(copy)
    assert [part for _, part, _ in found] == ["label", "modalities", "id", "label", "fingerprint"]
    assert "label 10 is not one of the 10 classes" in found[0][2]
    assert "has no image and no text and no audio" in found[1][2]
    assert "another sample has the same id" in found[2][2]


def test_changed_bytes_that_still_decode_are_seen(copy: Path) -> None:
    rewrite(copy, "validation", 0, text="another text")
    assert [part for _, part, _ in said(copy)] == ["fingerprint"]


def test_a_damaged_part_of_a_file_and_a_file_that_is_gone(copy: Path) -> None:
    file = copy / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[200:2000] = bytes(1800)
    file.write_bytes(content)
    (copy / "test-00000-of-00001.parquet").unlink()
    found = verify(Dataset(copy))
    assert [(fault.split, fault.part) for fault in found.faults] == [("train", "file"), ("test", "file")]
    assert "(train, rows 0 to 59): cannot be read as Parquet" in str(found.faults[0])
    assert "split 'test' has 0 rows" in str(found.faults[1])
    assert found.samples == 60  # those of the split that is whole


def test_a_data_set_of_format_1_is_verified_as_it_was_written(copy: Path) -> None:
    values = json.loads((copy / INFO_FILE).read_text())
    for key in ("left_out", "notes", "files"):
        del values[key]
    (copy / INFO_FILE).write_text(json.dumps(values | {"format_version": 1}))
    assert Dataset(copy).info.left_out == {}
    assert said(copy) == []


def test_what_other_programs_write(copy: Path) -> None:
    """No id, and media that have only a path: both within the types of the format."""
    file = copy / "test-00000-of-00001.parquet"
    schema = pq.read_schema(file)
    rows = pq.read_table(file).to_pylist()
    rows[0]["id"] = None
    rows[1]["image"]["bytes"] = None
    free = pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)
    pq.write_table(pa.Table.from_pylist(rows, schema=free), file)
    (nameless, path, *_) = said(copy)
    assert nameless[:2] == ("test", "id")
    assert nameless[2].endswith("(test, row 0): has no id")
    assert path[:2] == ("test", "image")
    assert path[2].endswith("its image has a path but no bytes")
    split = Dataset(copy).split("test")
    with pytest.raises(DataError, match="its image has a path but no bytes; prepare the data set again"):
        decode(split.read([1])[0], "image")
