"""The preparer ``manifest``: a table of paths, texts, labels and splits, as a spreadsheet or a script writes it.

CSV (or TSV), JSONL or Parquet, one row per sample, with the columns ``id``, ``image``, ``audio``, ``text``, ``label``
and ``split``, or other names (:class:`ManifestColumns`). Paths are absolute, or relative to the manifest. An empty cell
is a naturally missing modality.

The modalities are those columns of image, text and audio that hold anything, and further ones that are named with their
kind (:class:`ModalityColumn`). Features are lists of numbers in a cell, single numbers, or paths of ``.npy`` files. A
column ``group`` says which samples scenarios treat alike. Columns that are not used are named.

The task is multi-label where any label contains ``|``, which joins the labels of a sample, and single-label elsewhere;
``binary`` has to be asked for (the positive class is then the second in sorted order), and so has any task where labels
are numbers with a fraction. Classes are sorted, as numbers where all are whole numbers. Without
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.cases import KINDS, MODALITIES, check_modality
from mmrobust.data.dataset import Medium
from mmrobust.data.format import SPLITS
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import SPLIT_NAMES, UnusableSample, read_features, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, UsageError, check_name, unknown_name
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
    group: str = "group"


@dataclass(frozen=True)
class ModalityColumn:
    """A further modality of a manifest; raises a ``UsageError`` for a name or kind that there is not."""

    name: str
    kind: str
    column: str

    def __post_init__(self) -> None:
        check_modality(self.name)
        check_name(f"kind of modality ({self.name})", self.kind, KINDS)

    @classmethod
    def parse(cls, text: str) -> ModalityColumn:
        """Read ``NAME=KIND:COLUMN``; a ``UsageError`` where it is not that."""
        name, equals, rest = text.partition("=")
        kind, colon, column = rest.partition(":")
        if not (equals and colon and column):
            raise UsageError(f"--modality {text}: give NAME=KIND:COLUMN, as in frame2=image:second_frame")
        return cls(name.strip(), kind.strip(), column.strip())


@dataclass(frozen=True)
class Entry:
    """One row of a manifest, checked as far as possible without opening its files."""

    where: str
    """File and row, for messages."""
    id: str
    label: str
    split: str | None
    """``None``: the manifest has no column of splits."""
    media: Mapping[str, Any]
    """Modality → its cell: a path, a text, or numbers; ``None``: naturally missing."""
    group: str | None = None


@dataclass
class Survey:
    """What a first pass over a manifest finds. It holds no texts and no media, so that it stays small."""

    rows: int = 0
    modalities: tuple[str, ...] = ()
    """The modalities that at least one row has."""
    labels: dict[str, str] = field(default_factory=dict)
    """Each distinct label cell → the place of its first row, for messages."""
    steps: dict[str, bool] = field(default_factory=dict)
    """Modality of kind features → whether its first array is [T, D]."""
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
    source: Path,
    intake: Intake,
    *,
    columns: ManifestColumns | None = None,
    modalities: Sequence[str] = (),
    task: str | None = None,
) -> Listing:
    """List the samples of the manifest ``source``; without a ``task``, the labels decide it.

    ``modalities`` are further ones, each ``NAME=KIND:COLUMN``.
    """
    columns, further = columns or ManifestColumns(), [ModalityColumn.parse(text) for text in modalities]
    table = open_table(source)
    present, kinds = find_columns(source, table.columns, columns, further)
    if unused := [column for column in table.columns if column not in present.values()]:
        example = f"--modality NAME=KIND:{unused[0]} makes a modality of one"
        intake.say(f"{source}: {', '.join(unused)} {'is' if len(unused) == 1 else 'are'} not used; {example}")
    found = survey(source, table, present, kinds)
    several = any(LABEL_SEPARATOR in label for label in found.labels)
    if task is None:
        check_no_fractions(source, found.labels)
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
        media = {
            modality: None if cell is None else _medium(cell, modality, kinds[modality], source.parent, entry.where)
            for modality, cell in entry.media.items()
        }
        paths = {
            modality: cell for modality, cell in entry.media.items() if kinds[modality] in ("image", "audio") and cell
        }
        yield SampleRow(
            split=split,
            id=entry.id,
            label=tuple(sorted(index[name] for name in split_labels(entry.label, task, entry.where))),
            others=media,
            other_paths=paths,
            group=entry.group,
        )

    description = Description(
        name=source.stem if source.stem != "manifest" else source.resolve().parent.name or source.stem,
        modalities=found.modalities,
        classes=classes,
        licence="unknown",
        source=str(source),
        task=task,
        kinds={modality: kinds[modality] for modality in found.modalities},
        steps=found.steps,
        grouped="group" in present,
    )
    samples = ((found.split(entry), entry) for entry in entries(table, present, kinds))
    return Listing(description, read, samples, found.rows)


def check_no_fractions(source: Path, labels: Iterable[str]) -> None:
    """Raise a ``UsageError`` where all labels are numbers, and one has a fraction: a task has to be chosen."""
    fraction = None
    for label in labels:
        try:
            number = float(label)
        except ValueError:
            return
        if not number.is_integer() and fraction is None:
            fraction = label
    if fraction is not None:
        raise UsageError(
            f"{source}: its labels are numbers, such as {fraction}; --task single-label makes a class of each value"
        )


def find_columns(
    source: Path, header: list[str], columns: ManifestColumns, further: Sequence[ModalityColumn] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Map each role to the name of its column, for the columns that the manifest has; and each modality to its kind."""
    found = {}
    for role in dataclasses.fields(columns):
        column = getattr(columns, role.name)
        if column in header and role.name not in {one.name for one in further}:
            found[role.name] = column
        elif column != role.default or role.name == "label":
            raise DataError(f"{source}: {unknown_name('column', column, header)}; name it with --{role.name}-column")
    kinds = {modality: modality for modality in MODALITIES if modality in found}
    for one in further:
        if one.column not in header:
            raise DataError(f"{source}: {unknown_name('column', one.column, header)}, of modality '{one.name}'")
        if one.name in found:
            raise UsageError(f"--modality names '{one.name}' twice")
        found[one.name], kinds[one.name] = one.column, one.kind
        for modality in MODALITIES:  # a column that is named as a further modality is not the one of its own name
            if modality != one.name and found.get(modality) == one.column:
                del found[modality], kinds[modality]
    if not kinds:
        raise DataError(
            f"{source}: none of the columns {columns.image}, {columns.text}, {columns.audio}; it has "
            f"{', '.join(header)}; name them with --image-column, --text-column, --audio-column or --modality"
        )
    return found, kinds


def entries(table: Table, present: Mapping[str, str], kinds: Mapping[str, str]) -> Iterator[Entry]:
    """Read the rows of ``table`` from the start, with the columns ``present`` (role → name)."""
    return (_entry(row, where, cells, present, kinds) for row, (where, cells) in enumerate(table.rows(), start=1))


def _entry(
    row: int, where: str, cells: Mapping[str, Any], present: Mapping[str, str], kinds: Mapping[str, str]
) -> Entry:
    values: dict[str, Any] = {}
    for role, column in present.items():
        cell = cells.get(column)
        values[role] = _numbers(cell) if kinds.get(role) == "features" else _cell(where, role, column, cell)
    label, split = values.get("label"), values.get("split")
    if label is None:
        raise DataError(f"{where}: the label is empty; every sample needs one")
    if "split" in present and (split or "").lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split '{split or ''}' is not one of {', '.join(SPLITS)} (or val, valid, dev)")
    sample_id = values.get("id") if "id" in present else f"row-{row:06d}"
    if sample_id is None:
        raise DataError(f"{where}: the id is empty; fill it in, or leave out the column of ids")
    media = {modality: values.get(modality) for modality in kinds}
    return Entry(where, sample_id, label, SPLIT_NAMES[split.lower()] if split else None, media, values.get("group"))


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


def _numbers(value: Any) -> Any:
    """A cell of features: a list, a number as a list of one, or a path; ``None`` where it is empty."""
    if isinstance(value, str):
        value = value.strip()
        try:
            return [float(value)] if value else None
        except ValueError:
            return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return [value] if isinstance(value, (int, float)) else value


def _medium(cell: Any, modality: str, kind: str, folder: Path, where: str) -> Medium:
    """What is stored of a modality, from its cell; raises ``UnusableSample``."""
    if kind == "text":
        return str(cell)
    if kind == "features":
        return read_features(modality, folder / cell if isinstance(cell, str) else cell, where)
    return read_media(kind, folder / cell, where)


def survey(source: Path, table: Table, present: Mapping[str, str], kinds: Mapping[str, str]) -> Survey:
    """Read all rows of ``table`` once."""
    found, first_row, hashes = Survey(), dict[str, int](), array("Q")
    seen, empty_row = set[str](), None
    for entry in entries(table, present, kinds):
        found.rows += 1
        if entry.id in first_row:
            raise DataError(f"{entry.where}: id '{entry.id}' is already that of row {first_row[entry.id]}")
        first_row[entry.id] = found.rows
        found.labels.setdefault(entry.label, entry.where)
        has = {modality for modality, cell in entry.media.items() if cell is not None}
        for modality in has - found.steps.keys():
            if kinds[modality] == "features":
                with suppress(UnusableSample):  # reported when it is read
                    medium = _medium(entry.media[modality], modality, "features", source.parent, entry.where)
                    found.steps[modality] = isinstance(medium, np.ndarray) and medium.ndim == 2
        seen |= has
        if not has and empty_row is None:
            empty_row = entry
        if entry.split is None:
            hashes.append(_hash(entry.id))
    if not found.rows:
        raise DataError(f"{source}: has no rows; give one row per sample")
    if not seen:
        raise DataError(
            f"{source}: the columns {' and '.join(present[modality] for modality in kinds)} are empty throughout"
        )
    found.modalities = (*order_modalities(seen & set(MODALITIES)), *(m for m in kinds if m in seen - set(MODALITIES)))
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
