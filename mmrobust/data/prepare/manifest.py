"""The preparer ``manifest``: a table of paths, texts, labels and splits, as a spreadsheet or a script writes it.

CSV (or TSV), JSONL or Parquet, one row per sample, with the columns ``id``, ``image``, ``audio``, ``text``, ``label``
and ``split``, or other names (:class:`ManifestColumns`). Paths are absolute, or relative to the manifest. An empty cell
is a naturally missing modality.

The modalities are those columns of image, text and audio that hold anything. The task is multi-label where any label
contains ``|``, which joins the labels of a sample, and single-label elsewhere; ``binary`` has to be asked for (the
positive class is then the second in sorted order). Classes are sorted, as numbers where all are whole numbers. Without
a column of ids, ids are row numbers; without a column of splits, 80 / 10 / 10 % go to train, validation and test, in
the order of a hash of the ids. Modalities, task and classes are those of the whole manifest, whatever the ``limit``.

The table is read twice and never held in memory: once to check it and to find its classes (:func:`survey`), and once to
write its samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmrobust.data.format import SPLITS
from mmrobust.data.prepare.entries import (
    Entry,
    ManifestColumns,
    entries,
    find_columns,
    sort_classes,
    split_labels,
    survey,
)
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, UsageError
from mmrobust.storage.text_tables import open_table


@preparer(
    source="a CSV, JSONL or Parquet file of paths, texts, labels and splits",
    overrides=("name", "headline_metric", "licence", "source"),
)
def prepare_manifest(
    source: Path, intake: Intake, *, columns: ManifestColumns | None = None, task: str | None = None
) -> Listing:
    """List the samples of a manifest.

    Args:
        source: the manifest, ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        intake: reads the samples.
        columns: the names of the manifest's columns.
        task: ``single-label``, ``multi-label`` or ``binary``; default: by the labels.

    Raises:
        UsageError: the task does not fit the classes.
        DataError: the manifest cannot be read, or a row of it is invalid; names file and row.
    """
    columns = columns or ManifestColumns()
    table = open_table(source)
    present = find_columns(source, table.columns, columns)
    found = survey(source, table, present, columns)

    task = task or found.usual_task
    names = (name for label, where in found.labels.items() for name in split_labels(label, task, where))
    classes = sort_classes(set(names))
    index = {name: label for label, name in enumerate(classes)}
    if len(classes) < 2:
        raise DataError(f"{source}: every sample is of class '{classes[0]}'; two or more classes are needed")
    if task == "binary" and len(classes) != 2:
        raise UsageError(f"{source}: has {len(classes)} classes; --task binary needs two, use single-label")
    if "split" not in present:
        intake.note(
            f"{source}: no column '{columns.split}': split 80/10/10 into {', '.join(SPLITS)} by a hash of the ids"
        )

    def read(split: str, entry: Entry) -> Iterator[SampleRow]:
        def media(modality: str, path: str | None) -> bytes | None:
            return None if path is None else read_media(modality, source.parent / path, entry.where)

        yield SampleRow(
            split=split,
            id=entry.id,
            label=tuple(sorted(index[name] for name in split_labels(entry.label, task, entry.where))),
            image=media("image", entry.image),
            image_path=entry.image or "",
            audio=media("audio", entry.audio),
            audio_path=entry.audio or "",
            text=entry.text,
        )

    description = Description(
        name=source.stem if source.stem != "manifest" else source.resolve().parent.name or source.stem,
        modalities=found.modalities,
        classes=classes,
        licence="unknown",
        source=str(source),
        task=task,
    )
    samples = ((found.split(entry), entry) for entry in entries(table, present))
    return Listing(description, read, samples, found.rows)
