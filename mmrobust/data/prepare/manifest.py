"""The preparer ``manifest``: a table of paths, texts, labels and splits, as a spreadsheet or a script writes it.

CSV (or TSV), JSONL or Parquet, one row per sample. Columns ``id``, ``image``, ``audio``, ``text``, ``label``,
``split``; other names by :class:`ManifestColumns`. Paths are relative to the manifest, or absolute. An empty cell of a
modality is a naturally missing one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.data.dataset import SPLITS, TASK_METRICS, TASKS, DatasetInfo
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.prepare.tables import open_table
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import DataError, UsageError, unknown_name
from mmrobust.files import refuse_to_overwrite
from mmrobust.progress import Progress, no_progress

LABEL_SEPARATOR = "|"
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What a split may be called in a manifest, and what it becomes."""


@dataclass(frozen=True)
class ManifestColumns:
    """Under which name a manifest has each column."""

    id: str = "id"
    image: str = "image"
    audio: str = "audio"
    text: str = "text"
    label: str = "label"
    split: str = "split"


@dataclass
class _Entry:
    """One row of a manifest, checked as far as it can be without its files."""

    where: str
    """File and row, for messages."""
    id: str
    label: str
    split: str
    image: str | None
    audio: str | None
    text: str | None


def prepare_manifest(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    columns: ManifestColumns | None = None,
    task: str | None = None,
    headline_metric: str | None = None,
    licence: str = "unknown",
    described_as: str | None = None,
    limit: int | None = None,
    progress: Progress = no_progress,
    remark: Callable[[str], None] | None = None,
) -> DatasetInfo:
    """Write the samples that the manifest ``source`` lists to the folder ``out``.

    The modalities are the columns image, text and audio that are there and hold anything. The task is multi-label
    where any label holds ``|``, which joins the labels of a sample, and single-label elsewhere; binary has to be asked
    for (the second class in sorted order is the positive one). Classes are sorted, as numbers where all of them are.
    Without an id column, ids are row numbers; without a split column, 80 / 10 / 10 % go to train, validation and test
    in the order of a hash of the ids. Modalities, task and classes are those of the whole manifest, whatever ``limit``.

    Every picture and recording is decoded once, so that a broken one is found now.

    Args:
        source: the manifest, ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        out: the folder to make.
        name: what the data set is called; default: the manifest's name, or that of its folder.
        columns: the names of the manifest's columns.
        task: ``single-label``, ``multi-label`` or ``binary``.
        headline_metric: default: the usual one of the task.
        licence: for ``dataset.json``.
        described_as: where the data are from, for ``dataset.json``; default: the manifest's path.
        limit: keep the first ``limit`` samples of each split.
        progress: told of each sample.
        remark: told what was decided in the user's place.

    Raises:
        UsageError: an unknown task or metric, or ``out`` holds something already.
        DataError: a manifest that cannot be read, or a row of it that does not fit; names file and row.

    """
    refuse_to_overwrite(out, "data set")
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    columns = columns or ManifestColumns()
    header, rows = open_table(source)
    present = _find_columns(source, header, columns)
    entries = [_entry(row, where, cells, present) for row, (where, cells) in enumerate(rows, start=1)]
    if not entries:
        raise DataError(f"{source}: has no rows; one row per sample is expected")
    _check_ids(entries)
    modalities = _modalities(source, entries, columns)
    _check_modalities(entries, modalities)

    task = task or ("multi-label" if any(LABEL_SEPARATOR in entry.label for entry in entries) else "single-label")
    headline_metric = headline_metric or TASK_METRICS[task][0]
    if headline_metric not in TASK_METRICS[task]:
        raise unknown_name(f"metric of the task {task}", headline_metric, TASK_METRICS[task])
    labels = [_labels(entry, task) for entry in entries]
    classes = _sorted_classes({label for sample in labels for label in sample})
    _check_classes(source, classes, task)

    if "split" not in present:
        _assign_splits(entries)
        if remark:
            remark(
                f"{source}: no column '{columns.split}': split 80/10/10 into {', '.join(SPLITS)} by a hash of the ids"
            )
    return write_dataset(
        out,
        _rows(source, entries, labels, {label: i for i, label in enumerate(classes)}, limit, progress),
        name=name or _default_name(source),
        modalities=modalities,
        classes=classes,
        task=task,
        headline_metric=headline_metric,
        licence=licence,
        source=described_as or str(source),
    )


def _find_columns(source: Path, header: list[str], columns: ManifestColumns) -> dict[str, str]:
    """Role → column name, for the columns that are there. One that was asked for by another name must be."""
    found = {}
    for field in dataclasses.fields(columns):
        column = getattr(columns, field.name)
        if column in header:
            found[field.name] = column
        elif column != field.default or field.name == "label":
            raise DataError(f"{source}: {unknown_name('column', column, header)}; name it with --{field.name}-column")
    if not {"image", "text", "audio"} & set(found):
        raise DataError(
            f"{source}: none of the columns {columns.image}, {columns.text}, {columns.audio}; it has "
            f"{', '.join(header)}; name them with --image-column, --text-column, --audio-column"
        )
    return found


def _entry(row: int, where: str, cells: Mapping[str, Any], present: Mapping[str, str]) -> _Entry:
    values = {role: _cell(where, role, column, cells.get(column)) for role, column in present.items()}
    label, split = values.get("label"), values.get("split")
    if label is None:
        raise DataError(f"{where}: the label is empty; every sample needs one")
    if "split" in present and (split or "").lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split '{split or ''}' is none of {', '.join(SPLITS)} (or val, valid, dev)")
    sample_id = values.get("id") if "id" in present else f"row-{row:06d}"
    if sample_id is None:
        raise DataError(f"{where}: the id is empty; every sample needs one, or none has an id column")
    return _Entry(
        where=where,
        id=sample_id,
        label=label,
        split=SPLIT_NAMES[split.lower()] if split else "",
        image=values.get("image"),
        audio=values.get("audio"),
        text=values.get("text"),
    )


def _cell(where: str, role: str, column: str, value: Any) -> str | None:
    """Read a cell as text; ``None`` where it is empty: null, NaN or blank."""
    if role == "label" and isinstance(value, list) and all(isinstance(part, (str, int)) for part in value):
        return LABEL_SEPARATOR.join(str(part) for part in value) or None  # the labels of a sample, as JSON has them
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # how a column of integers with an empty cell arrives from a data frame
    if isinstance(value, (str, int, float)):
        return str(value).strip() or None
    raise DataError(f"{where}: '{column}' holds a {type(value).__name__}, not text, a number or a path")


def _check_ids(entries: Iterable[_Entry]) -> None:
    first: dict[str, _Entry] = {}
    for entry in entries:
        if entry.id in first:
            raise DataError(f"{entry.where}: id '{entry.id}' is that of {first[entry.id].where} already")
        first[entry.id] = entry


def _modalities(source: Path, entries: list[_Entry], columns: ManifestColumns) -> tuple[str, ...]:
    found = tuple(m for m in ("image", "text", "audio") if any(getattr(entry, m) is not None for entry in entries))
    if not found:
        raise DataError(
            f"{source}: the columns {columns.image}, {columns.text} and {columns.audio} are empty throughout"
        )
    return ("audio", "image") if found == ("image", "audio") else found  # the order of the audio-visual literature


def _check_modalities(entries: Iterable[_Entry], modalities: tuple[str, ...]) -> None:
    for entry in entries:
        if all(getattr(entry, modality) is None for modality in modalities):
            raise DataError(
                f"{entry.where}: sample '{entry.id}' has no {' and no '.join(modalities)}; leave the row out"
            )


def _labels(entry: _Entry, task: str) -> tuple[str, ...]:
    """Split off the classes of a sample, each once."""
    if task != "multi-label":
        return (entry.label,)
    labels = tuple(dict.fromkeys(label.strip() for label in entry.label.split(LABEL_SEPARATOR)))
    if "" in labels:
        raise DataError(f"{entry.where}: label '{entry.label}' has an empty part")
    return labels


def _sorted_classes(classes: set[str]) -> tuple[str, ...]:
    """Sorted as numbers where all are whole numbers, as text otherwise."""
    try:
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(classes))


def _check_classes(source: Path, classes: tuple[str, ...], task: str) -> None:
    if len(classes) < 2:
        raise DataError(f"{source}: every sample is of class '{classes[0]}'; two or more classes are needed")
    if task == "binary" and len(classes) != 2:
        raise UsageError(f"{source}: has {len(classes)} classes; --task binary needs two, use single-label")


def _assign_splits(entries: list[_Entry]) -> None:
    """Give a tenth to test, a tenth to validation, the rest to train, in the order of a hash of the ids."""
    ranked = sorted(entries, key=lambda e: hashlib.blake2b(f"manifest/split/{e.id}".encode()).digest())
    tenth = len(ranked) // 10
    for rank, entry in enumerate(ranked):
        entry.split = "test" if rank < tenth else "validation" if rank < 2 * tenth else "train"


def _default_name(source: Path) -> str:
    return source.stem if source.stem != "manifest" else source.resolve().parent.name or source.stem


def _rows(
    source: Path,
    entries: list[_Entry],
    labels: list[tuple[str, ...]],
    classes: Mapping[str, int],
    limit: int | None,
    progress: Progress,
) -> Iterator[Row]:
    written = dict.fromkeys(SPLITS, 0)
    with progress(source.name, len(entries)) as advance:
        for entry, label in zip(entries, labels, strict=True):
            advance(1)
            if limit is not None and written[entry.split] >= limit:
                continue
            written[entry.split] += 1
            yield Row(
                split=entry.split,
                id=entry.id,
                label=tuple(sorted(classes[name] for name in label)),
                image=_read_media(source, entry, "image", entry.image, decode_image),
                image_path=entry.image or "",
                audio=_read_media(source, entry, "audio", entry.audio, decode_audio),
                audio_path=entry.audio or "",
                text=entry.text,
            )


def _read_media(
    source: Path, entry: _Entry, modality: str, path: str | None, decode: Callable[[bytes, str], object]
) -> bytes | None:
    """Read the file at ``path`` and see that it can be decoded; ``None`` where the modality is missing by nature."""
    if path is None:
        return None
    file = source.parent / path
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as cause:  # ValueError: a path with a zero byte
        reason = getattr(cause, "strerror", None) or str(cause)
        raise DataError(f"{entry.where}: {modality} {file} cannot be read ({reason})") from cause
    decode(content, f"{entry.where}: {file}")
    return content
