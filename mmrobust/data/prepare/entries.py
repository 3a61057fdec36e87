"""The rows of a manifest: finding its columns, reading its cells, and a first pass that learns classes and splits."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrobust.data.format import SPLITS
from mmrobust.data.prepare.splits import SPLIT_NAMES
from mmrobust.errors import DataError, unknown_name
from mmrobust.storage.text_tables import Table

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

    @property
    def usual_task(self) -> str:
        """The task that the labels suggest."""
        return "multi-label" if any(LABEL_SEPARATOR in label for label in self.labels) else "single-label"

    def split(self, entry: Entry) -> str:
        """The split that ``entry`` belongs to."""
        if entry.split is not None:
            return entry.split
        assert self.ranks is not None
        hashed = _hash(entry.id)
        return "test" if hashed < self.ranks[0] else "validation" if hashed < self.ranks[1] else "train"


def find_columns(source: Path, header: list[str], columns: ManifestColumns) -> dict[str, str]:
    """Map each role to the name of its column, for the columns that the manifest has.

    Raises:
        DataError: there is no label or no modality, or a column named by the user is missing.
    """
    found = {}
    for role in dataclasses.fields(columns):
        column = getattr(columns, role.name)
        if column in header:
            found[role.name] = column
        elif column != role.default or role.name == "label":
            raise DataError(f"{source}: {unknown_name('column', column, header)}; name it with --{role.name}-column")
    if not {"image", "text", "audio"} & set(found):
        raise DataError(
            f"{source}: none of the columns {columns.image}, {columns.text}, {columns.audio}; it has "
            f"{', '.join(header)}; name them with --image-column, --text-column, --audio-column"
        )
    return found


def entries(table: Table, present: Mapping[str, str]) -> Iterator[Entry]:
    """Read the rows of ``table`` from the start, with the columns ``present`` (role → name).

    Raises:
        DataError: a row is invalid; raised when it is reached.
    """
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
    return Entry(
        where=where,
        id=sample_id,
        label=label,
        split=SPLIT_NAMES[split.lower()] if split else None,
        image=values.get("image"),
        audio=values.get("audio"),
        text=values.get("text"),
    )


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
    """Read all rows of ``table`` once.

    Raises:
        DataError: there are no rows or no modalities, a row is invalid, or an id appears twice; names file and row.
    """
    found, first_row, hashes = Survey(), dict[str, int](), array("Q")
    seen, empty_row = set[str](), None
    for entry in entries(table, present):
        found.rows += 1
        if entry.id in first_row:
            raise DataError(f"{entry.where}: id '{entry.id}' is already that of row {first_row[entry.id]}")
        first_row[entry.id] = found.rows
        found.labels.setdefault(entry.label, entry.where)
        has = {modality for modality in ("image", "text", "audio") if getattr(entry, modality) is not None}
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
    return tuple(modality for modality in ("image", "text", "audio") if modality in found)


def _hash(sample_id: str) -> int:
    """The first 64 bits of a hash of the id, by which samples are split where the manifest does not split them."""
    return int.from_bytes(hashlib.blake2b(f"manifest/split/{sample_id}".encode()).digest()[:8], "big")


def split_labels(label: str, task: str, where: str) -> tuple[str, ...]:
    """Split the cell ``label`` into the names of its classes, each once.

    Raises:
        DataError: a part is empty; the message begins with ``where``.
    """
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
