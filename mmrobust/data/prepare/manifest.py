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

import dataclasses
import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrobust.cases import MODALITIES
from mmrobust.data.format import SPLITS
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import SPLIT_NAMES, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, UsageError, unknown_name
from mmrobust.storage.text_tables import Table, open_table

LABEL_SEPARATOR = "|"


@dataclass(frozen=True)
class ManifestColumns:
    """The name of each column in a manifest."""

    id: str = "id"
    image: str = "image"
    audio: str = "audio"
    text: str = "text"
    label: str = "label"
    split: str = "split"


@dataclass(frozen=True)
class Entry:
    """One row of a manifest, checked as far as possible without opening its files."""

    where: str
    """File and row, for messages."""
    id: str
    label: str
    split: str | None
    """``None``: the manifest has no column of splits."""
    image: str | None
    audio: str | None
    text: str | None


@dataclass
class Survey:
    """What a first pass over a manifest finds. It holds no texts and no media, so that it stays small."""

    rows: int = 0
    modalities: tuple[str, ...] = ()
    """The modalities that at least one row has."""
    labels: dict[str, str] = field(default_factory=dict)
    """Each distinct label cell → the place of its first row, for messages."""
    ranks: tuple[int, int] | None = None
    """Ids whose hash is below the first go to test, below the second to validation; ``None``: there is a split
    column."""

    def split(self, entry: Entry) -> str:
        """The split that ``entry`` belongs to."""
        if entry.split is not None:
            return entry.split
        assert self.ranks is not None
        hashed = _hash(entry.id)
        return "test" if hashed < self.ranks[0] else "validation" if hashed < self.ranks[1] else "train"


@preparer(
    source="a CSV, JSONL or Parquet file of paths, texts, labels and splits",
    overrides=("name", "headline_metric", "licence", "source"),
)
def prepare_manifest(
    source: Path, intake: Intake, *, columns: ManifestColumns | None = None, task: str | None = None
) -> Listing:
    """List the samples of the manifest ``source``; without a ``task``, the labels decide it."""
    columns = columns or ManifestColumns()
    table = open_table(source)
    present = find_columns(source, table.columns, columns)
    found = survey(source, table, present, columns)
    several = any(LABEL_SEPARATOR in label for label in found.labels)
    task = task or ("multi-label" if several else "single-label")
    names = (name for label, where in found.labels.items() for name in split_labels(label, task, where))
    classes = sort_classes(set(names))
    index = {name: label for label, name in enumerate(classes)}
    if len(classes) < 2:
        raise DataError(f"{source}: every sample is of class '{classes[0]}'; two or more classes are needed")
    if task == "binary" and len(classes) != 2:
        raise UsageError(f"{source}: has {len(classes)} classes; --task binary needs two, use single-label")
    if "split" not in present:
        division = f"split 80/10/10 into {', '.join(SPLITS)} by a hash of the ids"
        intake.note(f"{source}: no column '{columns.split}': {division}")

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


def find_columns(source: Path, header: list[str], columns: ManifestColumns) -> dict[str, str]:
    """Map each role to the name of its column, for the columns that the manifest has."""
    found = {}
    for role in dataclasses.fields(columns):
        column = getattr(columns, role.name)
        if column in header:
            found[role.name] = column
        elif column != role.default or role.name == "label":
            raise DataError(f"{source}: {unknown_name('column', column, header)}; name it with --{role.name}-column")
    if found.keys().isdisjoint(MODALITIES):
        raise DataError(
            f"{source}: none of the columns {columns.image}, {columns.text}, {columns.audio}; it has "
            f"{', '.join(header)}; name them with --image-column, --text-column, --audio-column"
        )
    return found


def entries(table: Table, present: Mapping[str, str]) -> Iterator[Entry]:
    """Read the rows of ``table`` from the start, with the columns ``present`` (role → name)."""
    return (_entry(row, where, cells, present) for row, (where, cells) in enumerate(table.rows(), start=1))


def _entry(row: int, where: str, cells: Mapping[str, Any], present: Mapping[str, str]) -> Entry:
    values = {role: _cell(where, role, column, cells.get(column)) for role, column in present.items()}
    label, split = values.get("label"), values.get("split")
    if label is None:
        raise DataError(f"{where}: the label is empty; every sample needs one")
    if "split" in present and (split or "").lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split '{split or ''}' is not one of {', '.join(SPLITS)} (or val, valid, dev)")
    sample_id = values.get("id") if "id" in present else f"row-{row:06d}"
    if sample_id is None:
        raise DataError(f"{where}: the id is empty; fill it in, or leave out the column of ids")
    media = {modality: values.get(modality) for modality in MODALITIES}
    return Entry(where, sample_id, label, SPLIT_NAMES[split.lower()] if split else None, **media)


def _cell(where: str, role: str, column: str, value: Any) -> str | None:
    """A cell as text; ``None`` where it is empty (null, NaN or blank)."""
    if role == "label" and isinstance(value, list) and all(isinstance(part, (str, int)) for part in value):
        return LABEL_SEPARATOR.join(str(part) for part in value) or None  # several labels, in JSON
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas turns a column of integers with an empty cell into floats
    if isinstance(value, (str, int, float)):
        return str(value).strip() or None
    raise DataError(f"{where}: '{column}' holds a {type(value).__name__}, not text, a number or a path")


def survey(source: Path, table: Table, present: Mapping[str, str], columns: ManifestColumns) -> Survey:
    """Read all rows of ``table`` once."""
    found, first_row, hashes = Survey(), dict[str, int](), array("Q")
    seen, empty_row = set[str](), None
    for entry in entries(table, present):
        found.rows += 1
        if entry.id in first_row:
            raise DataError(f"{entry.where}: id '{entry.id}' is already that of row {first_row[entry.id]}")
        first_row[entry.id] = found.rows
        found.labels.setdefault(entry.label, entry.where)
        has = {modality for modality in MODALITIES if getattr(entry, modality) is not None}
        seen |= has
        if not has and empty_row is None:
            empty_row = entry
        if entry.split is None:
            hashes.append(_hash(entry.id))
    if not found.rows:
        raise DataError(f"{source}: has no rows; give one row per sample")
    if not seen:
        raise DataError(
            f"{source}: the columns {columns.image}, {columns.text} and {columns.audio} are empty throughout"
        )
    found.modalities = order_modalities(seen)
    if empty_row is not None:
        nothing = f"sample '{empty_row.id}' has no {' and no '.join(found.modalities)}"
        raise DataError(f"{empty_row.where}: {nothing}; leave the row out")
    if hashes:
        ranked, tenth = sorted(hashes), found.rows // 10
        found.ranks = (ranked[tenth], ranked[2 * tenth])
    return found


def order_modalities(found: set[str]) -> tuple[str, ...]:
    """The modalities ``found`` in their usual order: text after image; of audio and image alone, audio first."""
    if found == {"image", "audio"}:
        return ("audio", "image")  # the order of the audio-visual literature
    return tuple(modality for modality in MODALITIES if modality in found)


def _hash(sample_id: str) -> int:
    """The first 64 bits of a hash of the id, by which samples are split where the manifest does not split them."""
    return int.from_bytes(hashlib.blake2b(f"manifest/split/{sample_id}".encode()).digest()[:8], "big")


def split_labels(label: str, task: str, where: str) -> tuple[str, ...]:
    """Split the cell ``label`` into the names of its classes, each once."""
    if task != "multi-label":
        return (label,)
    labels = tuple(dict.fromkeys(part.strip() for part in label.split(LABEL_SEPARATOR)))
    if "" in labels:
        raise DataError(f"{where}: label '{label}' has an empty part")
    return labels


def sort_classes(classes: set[str]) -> tuple[str, ...]:
    """Sort the names of classes: as numbers where all of them are whole numbers, as text otherwise."""
    try:
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(classes))
