"""The preparer ``mmp-arrow``: the arrow files written by ``make_arrow.py`` of MMP's and DCP's repositories.

The source is a folder with the files of one data set, named ``{data set}_{split}.arrow``:

- ``mmimdb_train.arrow``, ``mmimdb_dev.arrow``, ``mmimdb_test.arrow``: image (bytes), plots (list of texts), label
  (a 0 or 1 for each of the 23 genres), genres, image_id, split;
- ``food101_train.arrow``, ``food101_val.arrow``, ``food101_test.arrow``: image, text (list of one), label (a number),
  image_id (``apple_pie_0.jpg``), split;
- ``hatememes_train.arrow``, ``hatememes_dev.arrow``, ``hatememes_test.arrow``: image, text, label, split. They carry no
  ids: samples are numbered in the file's order, ``test-00000``.

Files of other data sets in that form are read too; their classes are then named by their numbers. For a film with
several plots see :data:`mmrobust.data.prepare.mmimdb.PLOTS`; ``each`` is what MMP's own loader does. Terms of use are
those of the data set. The file is mapped, never loaded, and pictures are read from it one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmrobust.data.prepare import food101, hateful_memes, mmimdb
from mmrobust.data.prepare.mmimdb import PLOTS, texts_of
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import check_folder, check_media, one_per_split
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, check_name
from mmrobust.storage.files import check_file
from mmrobust.storage.parquet import reading

KNOWN = {"mmimdb": mmimdb.DESCRIPTION, "food101": food101.DESCRIPTION, "hatememes": hateful_memes.DESCRIPTION}
"""Beginning of the files' names → what the arrow files do not say about the data set."""

TEXT_COLUMNS = ("plots", "text")
MAX_CLASSES = 100_000
"""A larger label is not a class: a list of so many names would only fill the memory."""


@preparer(source="the folder with the arrow files of MMP's make_arrow.py", overrides=("name", "task", "licence"))
def prepare_mmp_arrow(source: Path, intake: Intake, *, plots: str = "all") -> Listing:
    """List the samples of MMP's arrow files; ``plots`` says what becomes of several texts of a sample."""
    check_name("choice of plots", plots, PLOTS)
    kind, files = _find_files(source)
    tables = {split: _open(file) for split, file in files.items()}
    known = KNOWN.get(kind)
    if known is None:
        listed_labels = all(pa.types.is_list(table.schema.field("label").type) for table in tables.values())
        usual_task = "multi-label" if listed_labels else "single-label"
        known = Description(kind, ("image", "text"), (), licence="unknown", source="", task=usual_task)
    classes = known.classes or _classes(tables, files)
    total = sum(batch.num_rows for split, table in tables.items() for batch in _batches(table, files[split]))

    def read(split: str, batch: pa.RecordBatch, index: int, row: int) -> Iterator[SampleRow]:
        cells = {column: batch.column(column)[index].as_py() for column in batch.schema.names}
        where = f"{files[split]}, row {row}"
        check_media("image", cells["image"], where)
        path = str(cells.get("image_id") or "")
        sample_id = Path(path or f"{split}-{row:05d}").stem
        texts = next(cells[column] for column in TEXT_COLUMNS if column in cells)
        label = _label(cells["label"], len(classes), where)
        for part, text in texts_of(sample_id, [texts] if isinstance(texts, str) else texts or [], plots):
            yield SampleRow(split, part, label, image=cells["image"], image_path=path, text=text)

    def samples() -> Iterator[tuple[Any, ...]]:
        for split, table in tables.items():
            row = 0
            for batch in _batches(table, files[split]):
                for index in range(batch.num_rows):
                    yield split, batch, index, row
                    row += 1

    made_from = f"arrow files of make_arrow.py: {', '.join(file.name for file in files.values())}"
    return Listing(replace(known, classes=classes, source=made_from), read, samples(), total)


def _find_files(source: Path) -> tuple[str, dict[str, Path]]:
    """Find the data set that the arrow files in ``source`` belong to, and its file for each split."""
    check_folder(source, "the folder with the arrow files")
    stems = [file.stem for file in sorted(source.glob("*.arrow"))]
    kinds = sorted({stem.rpartition("_")[0] for stem in stems} - {""})
    if len(kinds) != 1:
        found = f"those of {' and '.join(kinds)}" if kinds else "none named {data set}_{split}.arrow"
        raise DataError(f"{source}: expected the arrow files of one data set, found {found}")
    names = one_per_split(source, [stem.rpartition("_")[2] for stem in stems])
    if not names:
        raise DataError(f"{source}: no arrow file's name ends in train, dev (or val) or test")
    return kinds[0], {split: source / f"{kinds[0]}_{name}.arrow" for split, name in names.items()}


def _open(file: Path) -> pa.RecordBatchFileReader:
    """Map ``file``, and check that it is an arrow file with the necessary columns."""
    check_file(file, "arrow file")
    with reading(file, "make it again", "an Arrow file"):
        table = pa.ipc.open_file(pa.memory_map(str(file), "r"))
    columns = table.schema.names
    if not {"image", "label"} <= set(columns) or not set(TEXT_COLUMNS) & set(columns):
        raise DataError(f"{file}: has the columns {', '.join(columns)}; needed are image, label, and plots or text")
    return table


def _batches(table: pa.RecordBatchFileReader, file: Path) -> Iterator[pa.RecordBatch]:
    """The batches of ``table``, each validated, because Arrow trusts the content of a mapped file."""
    for number in range(table.num_record_batches):
        with reading(file, "make it again", "an Arrow file"):
            batch = table.get_batch(number)
            batch.validate(full=True)
        yield batch


def _classes(tables: Mapping[str, pa.RecordBatchFileReader], files: Mapping[str, Path]) -> tuple[str, ...]:
    """Name classes that have no names: after their pictures (``apple_pie_0.jpg``), or else by their numbers."""
    names, count = dict[int, str](), 2
    for split, table in tables.items():
        columns = [name for name in ("label", "image_id") if name in table.schema.names]
        rows = (cells for batch in _batches(table, files[split]) for cells in batch.select(columns).to_pylist())
        for row, cells in enumerate(rows):
            label = cells["label"]
            if isinstance(label, list):
                count = max(count, len(label))
                continue
            if not isinstance(label, int) or not 0 <= label < MAX_CLASSES:
                raise DataError(f"{files[split]}, row {row}: label {label!r:.60} is not the number of a class")
            count = max(count, label + 1)
            name = str(cells["image_id"]).rpartition("_")[0] if "image_id" in cells else ""
            names[label] = name if names.get(label, name) == name else ""
    called = [names.get(label) or str(label) for label in range(count)]
    return tuple(called) if len(set(called)) == count else tuple(map(str, range(count)))


def _label(label: Any, classes: int, where: str) -> tuple[int, ...]:
    """The classes of a sample, from a number or from a 0 or 1 for each class."""
    if isinstance(label, int):
        return (label,)
    if not isinstance(label, list) or len(label) != classes or not set(label) <= {0, 1}:
        raise DataError(f"{where}: label {label!r} is neither a number nor a 0 or 1 for each of {classes} classes")
    return tuple(number for number, carried in enumerate(label) if carried)
