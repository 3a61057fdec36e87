"""The preparer ``mmp-arrow``: the arrow files that ``make_arrow.py`` of MMP's and DCP's repositories writes.

The source is a folder with the files of one data set, named ``{data set}_{split}.arrow``:

- ``mmimdb_train.arrow``, ``mmimdb_dev.arrow``, ``mmimdb_test.arrow``: image (bytes), plots (list of texts), label
  (a 0 or 1 for each of the 23 genres), genres, image_id, split;
- ``food101_train.arrow``, ``food101_val.arrow``, ``food101_test.arrow``: image, text (list of one), label (a number),
  image_id (``apple_pie_0.jpg``), split;
- ``hatememes_train.arrow``, ``hatememes_dev.arrow``, ``hatememes_test.arrow``: image, text, label, split. They carry no
  ids: samples are numbered in the file's order, ``test-00000``.

Files of other data sets in that form are read too; their classes are then called by their numbers. A film's several
plots are treated as in :mod:`mmrobust.data.prepare.plots`; ``each`` is what MMP's own loader makes of them. Terms of
use are those of the data set. Pictures are read from the file one at a time; it is mapped, never loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare import food101, hateful_memes, mmimdb
from mmrobust.data.prepare.intake import Intake, Listed, Remark, check_media, no_remark
from mmrobust.data.prepare.plots import PLOTS, texts_of
from mmrobust.data.prepare.splits import one_per_split
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import DataError, unknown_name
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import check_file, refuse_to_overwrite
from mmrobust.storage.parquet import reading
from mmrobust.storage.tasks import TASK_METRICS


@dataclass(frozen=True)
class Known:
    """What the arrow files of a known data set do not carry."""

    name: str
    task: str
    licence: str
    classes: tuple[str, ...] = ()
    """Empty: a class is called as the pictures of it are, ``apple_pie_0.jpg``."""
    sizes: Mapping[str, int] = field(default_factory=dict)


KNOWN = {
    "mmimdb": Known("mmimdb", "multi-label", mmimdb.LICENCE, mmimdb.CLASSES, mmimdb.SIZES),
    "food101": Known("food101", "single-label", food101.LICENCE, sizes=food101.SIZES),
    "hatememes": Known("hateful-memes", "binary", hateful_memes.LICENCE, hateful_memes.CLASSES),
}
"""By the beginning of the files' names."""

TEXT_COLUMNS = ("plots", "text")
MOST_CLASSES = 100_000
"""A label beyond is no class: a list of so many names would only fill the memory."""


def prepare_mmp_arrow(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    task: str | None = None,
    licence: str | None = None,
    plots: str = "all",
    limit: int | None = None,
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
) -> DatasetInfo:
    """Write the samples of MMP's arrow files to the folder ``out``.

    Args:
        source: the folder with the files of one data set.
        out: the folder to make.
        name: default: the data set's.
        task: default: the data set's; of an unknown one, multi-label where a label is a list.
        licence: default: the data set's.
        plots: what becomes of several texts of a sample, see :data:`mmrobust.data.prepare.plots.PLOTS`.
        limit: keep the first ``limit`` pictures of each split.
        allow_incomplete: leave out samples whose picture cannot be decoded.
        progress: told of each picture.
        remark: told of sizes that are not the release's, and of each sample that is left out.

    Raises:
        UsageError: an unknown choice of plots or task, or ``out`` holds something already.
        DataError: no such files, of several data sets, or of another form.
    """
    refuse_to_overwrite(out, "data set")
    if plots not in PLOTS:
        raise unknown_name("choice of plots", plots, PLOTS)
    if task is not None and task not in TASK_METRICS:
        raise unknown_name("task", task, TASK_METRICS)
    kind, files = _find_files(source)
    tables = {split: _open(file) for split, file in files.items()}
    listed_labels = all(pa.types.is_list(table.schema.field("label").type) for table in tables.values())
    usual = Known(kind, "multi-label" if listed_labels else "single-label", "unknown")
    known = KNOWN.get(kind, usual)
    task = task or known.task
    classes = known.classes or _classes(tables, files)
    intake = Intake(
        name or known.name,
        sizes=known.sizes,
        limit=limit,
        allow_incomplete=allow_incomplete,
        progress=progress,
        remark=remark,
    )

    rows = sum(batch.num_rows for split, table in tables.items() for batch in _batches(table, files[split]))

    def read(split: str, batch: pa.RecordBatch, index: int, row: int) -> Sequence[Row]:
        cells = {column: batch.column(column)[index].as_py() for column in batch.schema.names}
        where = f"{files[split]}, row {row}"
        check_media("image", cells["image"], where)
        sample_id = Path(str(cells.get("image_id") or f"{split}-{row:05d}")).stem
        texts = next(cells[column] for column in TEXT_COLUMNS if column in cells)
        made = functools.partial(
            Row,
            split=split,
            label=_label(cells["label"], len(classes), where),
            image=cells["image"],
            image_path=str(cells.get("image_id") or ""),
        )
        texts = [texts] if isinstance(texts, str) else texts or []
        return [made(id=part, text=text) for part, text in texts_of(sample_id, texts, plots)]

    def listed() -> Iterator[Listed]:
        for split, table in tables.items():
            row = 0
            for batch in _batches(table, files[split]):
                for index in range(batch.num_rows):
                    yield split, functools.partial(read, split, batch, index, row)
                    row += 1

    return write_dataset(
        out,
        intake.rows(listed(), rows),
        name=intake.name,
        modalities=("image", "text"),
        classes=classes,
        task=task,
        headline_metric=TASK_METRICS[task][0],
        licence=licence or known.licence,
        source=f"arrow files of make_arrow.py: {', '.join(file.name for file in files.values())}",
        record=intake.record,
    )


def _find_files(source: Path) -> tuple[str, dict[str, Path]]:
    """The data set that the arrow files in ``source`` are of, and its file for each split."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; --source names the folder with the arrow files")
    stems = [file.stem for file in sorted(source.glob("*.arrow"))]
    kinds = sorted({stem.rpartition("_")[0] for stem in stems} - {""})
    if len(kinds) != 1:
        said = f"those of {' and '.join(kinds)}" if kinds else "none named {data set}_{split}.arrow"
        raise DataError(f"{source}: expected the arrow files of one data set, found {said}")
    try:
        names = one_per_split([stem.rpartition("_")[2] for stem in stems])
    except ValueError as cause:
        raise DataError(f"{source}: {cause}") from None
    if not names:
        raise DataError(f"{source}: no arrow file's name ends in train, dev (or val) or test")
    return kinds[0], {split: source / f"{kinds[0]}_{name}.arrow" for split, name in names.items()}


def _open(file: Path) -> pa.RecordBatchFileReader:
    """``file`` mapped, with the columns that are needed.

    Raises:
        DataError: no arrow file, or other columns.
    """
    check_file(file, "arrow file")
    with reading(file, "make it again", "an Arrow file"):
        table = pa.ipc.open_file(pa.memory_map(str(file), "r"))
    columns = table.schema.names
    if not {"image", "label"} <= set(columns) or not set(TEXT_COLUMNS) & set(columns):
        raise DataError(f"{file}: has the columns {', '.join(columns)}; needed are image, label, and plots or text")
    return table


def _batches(table: pa.RecordBatchFileReader, file: Path) -> Iterator[pa.RecordBatch]:
    """The batches of ``table``, each looked through: what lies in a mapped file is believed as it lies there.

    Raises:
        DataError: one is damaged.
    """
    for number in range(table.num_record_batches):
        with reading(file, "make it again", "an Arrow file"):
            batch = table.get_batch(number)
            batch.validate(full=True)
        yield batch


def _columns(table: pa.RecordBatchFileReader, file: Path, *names: str) -> Iterator[tuple[Any, ...]]:
    """These columns of ``table``, row by row."""
    for batch in _batches(table, file):
        yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def _classes(tables: Mapping[str, pa.RecordBatchFileReader], files: Mapping[str, Path]) -> tuple[str, ...]:
    """The classes of labels that have no names: as the pictures of each are called, else by their numbers.

    Raises:
        DataError: a label that is no number of a class.
    """
    names: dict[int, str] = {}
    count = 2
    for split, table in tables.items():
        named = "image_id" in table.schema.names
        for row, (label, *rest) in enumerate(_columns(table, files[split], "label", *(["image_id"] if named else []))):
            if isinstance(label, list):
                count = max(count, len(label))
                continue
            if not isinstance(label, int) or not 0 <= label < MOST_CLASSES:
                raise DataError(f"{files[split]}, row {row}: label {label!r:.60} is no number of a class")
            count = max(count, label + 1)
            name = str(rest[0]).rpartition("_")[0] if named else ""
            names[label] = name if names.get(label, name) == name else ""
    called = [names.get(label) or str(label) for label in range(count)]
    return tuple(called) if len(set(called)) == count else tuple(map(str, range(count)))


def _label(label: Any, classes: int, where: str) -> tuple[int, ...]:
    """The classes of a sample, from their number or from a 0 or 1 for each."""
    if isinstance(label, int):
        return (label,)
    if not isinstance(label, list) or len(label) != classes or not set(label) <= {0, 1}:
        raise DataError(f"{where}: label {label!r} is neither a number nor a 0 or 1 for each of {classes} classes")
    return tuple(number for number, carried in enumerate(label) if carried)
