"""The preparer ``manifest``: a table of paths, texts, labels and splits, as a spreadsheet or a script writes it.

CSV (or TSV), JSONL or Parquet, one row per sample. Columns ``id``, ``image``, ``audio``, ``text``, ``label``,
``split``; other names by :class:`ManifestColumns`. Paths are relative to the manifest, or absolute. An empty cell of a
modality is a naturally missing one.

The table is read twice and never held in memory: once to check it and to learn its classes (:func:`survey`), once to
write its samples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from mmrobust.data.format import SPLITS, DatasetInfo, choose_task
from mmrobust.data.prepare.entries import Entry, ManifestColumns, entries, find_columns, split_labels, survey
from mmrobust.data.prepare.intake import Intake, Remark, no_remark, read_media
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import refuse_to_overwrite
from mmrobust.storage.text_tables import open_table


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
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
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
        allow_incomplete: leave out samples whose files are not there or cannot be decoded.
        progress: told of each sample.
        remark: told what was decided in the user's place.

    Raises:
        UsageError: an unknown task or metric, or ``out`` holds something already.
        DataError: a manifest that cannot be read, or a row of it that does not fit; names file and row.

    """
    refuse_to_overwrite(out, "data set")
    if task is not None:  # an unknown one is found before anything is read
        choose_task(task, headline_metric, task)
    columns = columns or ManifestColumns()
    table = open_table(source)
    present = find_columns(source, table.columns, columns)
    found = survey(source, table, present, columns)

    task, headline_metric = choose_task(task, headline_metric, found.usual_task)
    names = (name for label, where in found.labels.items() for name in split_labels(label, task, where))
    classes = sorted_classes(set(names))
    index = {name: label for label, name in enumerate(classes)}
    _check_classes(source, classes, task)

    intake = Intake(
        name or _default_name(source), limit=limit, allow_incomplete=allow_incomplete, progress=progress, remark=remark
    )
    if "split" not in present:
        intake.note(
            f"{source}: no column '{columns.split}': split 80/10/10 into {', '.join(SPLITS)} by a hash of the ids"
        )

    def read(entry: Entry, split: str) -> Sequence[Row]:
        row = Row(
            split=split,
            id=entry.id,
            label=tuple(sorted(index[name] for name in split_labels(entry.label, task, entry.where))),
            image=_media(source, entry, "image", entry.image),
            image_path=entry.image or "",
            audio=_media(source, entry, "audio", entry.audio),
            audio_path=entry.audio or "",
            text=entry.text,
        )
        return (row,)

    splits = ((entry, found.split(entry)) for entry in entries(table, present))
    return write_dataset(
        out,
        intake.rows(((split, functools.partial(read, entry, split)) for entry, split in splits), found.rows),
        name=intake.name,
        modalities=found.modalities,
        classes=classes,
        task=task,
        headline_metric=headline_metric,
        licence=licence,
        source=described_as or str(source),
        record=intake.record,
    )


def _media(source: Path, entry: Entry, modality: str, path: str | None) -> bytes | None:
    """The file at ``path``, checked; ``None`` where the modality is missing by nature."""
    return None if path is None else read_media(modality, source.parent / path, entry.where)


def sorted_classes(classes: set[str]) -> tuple[str, ...]:
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


def _default_name(source: Path) -> str:
    return source.stem if source.stem != "manifest" else source.resolve().parent.name or source.stem
