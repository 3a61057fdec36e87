"""The preparer ``manifest``: a table of paths, texts, labels and splits, as a spreadsheet or a script writes it.

CSV (or TSV), JSONL or Parquet, one row per sample, with the columns ``id``, ``image``, ``audio``, ``text``, ``label``
and ``split``, or other names (:class:`ManifestColumns`). What a table means is found out, and said in a line: what
delimits it (``storage/text_tables.py``), what its labels are (``label_forms.py``), and where its paths start
(``media_paths.py``). In Parquet, media may also be bytes, or structs of ``bytes`` and ``path``. An empty cell is a
naturally missing modality.

The modalities are those columns of image, text and audio that hold anything, and further ones that are named with their
kind (:class:`ModalityColumn`). Features are lists of numbers in a cell, single numbers, or paths of ``.npy`` files. A
column ``group`` says which samples scenarios treat alike. Columns that are not used are named.

The task is multi-label where any sample has several classes or, as ``[]``, none, and single-label elsewhere; ``binary``
has to be asked for (the positive class is then the second in sorted order), and so has ``regression``, whose labels are
finite numbers, called as their column is. Classes are sorted, as numbers where all
are whole numbers. Without a column of ids, ids are row numbers; without a column of splits, 80 / 10 / 10 % go to train,
validation and test, in the order of a hash of the ids. Modalities, task and classes are those of the whole manifest,
whatever the ``limit``.

The table is read twice and never held in memory: once to check it and to find its classes (:func:`survey`), and once to
write its samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.cases import KINDS, MODALITIES, check_modality
from mmrobust.data.dataset import Medium
from mmrobust.data.format import SPLITS
from mmrobust.data.prepare.label_forms import LabelCell, find_label_form, label_cell, number_in
from mmrobust.data.prepare.media_paths import find_base, find_file
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import SPLIT_NAMES, UnusableSample, check_media, read_features, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, UsageError, check_name, unknown_name
from mmrobust.storage.tasks import REGRESSION, Label
from mmrobust.storage.text_tables import EMPTY_WORDS, Table, open_table, rounded_hint

MEDIA = ("image", "audio")
"""The kinds of modalities whose cells are paths, or bytes."""
PATH_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "file_path", "image_path", "img", "wav", "url")
"""Columns in which other programs name the files of their samples."""
PATHS_TRIED = 20
"""Paths of each modality by which the folder is found that they start in."""
MANY_CLASSES = 50
"""A table with more classes, most of them of one sample, is asked about: its labels are hardly classes."""


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
class MediaCell:
    """A picture or recording that a cell names or holds."""

    path: str
    """Empty where the cell holds only bytes."""
    content: bytes | None = None
    """``None``: the path is to be read."""


@dataclass(frozen=True)
class Entry:
    """One row of a manifest, checked as far as possible without opening its files."""

    where: str
    """File and row, for messages."""
    id: str
    label: LabelCell
    split: str | None
    """``None``: the manifest has no column of splits."""
    media: Mapping[str, Any]
    """Modality → its cell: a :class:`MediaCell`, a text, or numbers; ``None``: naturally missing."""
    group: str | None = None


@dataclass
class Survey:
    """What a first pass over a manifest finds. It holds no texts and no media, so that it stays small."""

    rows: int = 0
    modalities: tuple[str, ...] = ()
    """The modalities that at least one row has."""
    labels: dict[LabelCell, str] = field(default_factory=dict)
    """Each distinct label cell → the place of its first row, for messages."""
    paths: dict[str, list[str]] = field(default_factory=dict)
    """The first paths of each modality, at most :data:`PATHS_TRIED`."""
    empty_words: dict[str, str] = field(default_factory=dict)
    """Each text such as ``nan`` that stands for none elsewhere → the place of its first row."""
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
    label_as_class: bool = False,
    label_separator: str | None = None,
    media_root: Path | None = None,
) -> Listing:
    """List the samples of the manifest ``source``; without a ``task``, the labels decide it.

    ``label_as_class`` and ``label_separator`` say how labels are read, where that is not clear; ``media_root`` says
    where paths start, where it is not the manifest's folder. ``modalities`` are further ones, each
    ``NAME=KIND:COLUMN``.
    """
    columns, further = columns or ManifestColumns(), [ModalityColumn.parse(text) for text in modalities]
    table = open_table(source)
    present, kinds = find_columns(source, table, columns, further)
    found = survey(source, table, present, kinds)
    form = find_label_form(source, found.labels, task=task, as_class=label_as_class, separator=label_separator)
    task = task or ("multi-label" if form.several else "single-label")
    numbers = task == REGRESSION
    classes = (present["label"],) if numbers else form.classes(found.labels)
    index = {name: label for label, name in enumerate(classes)}
    if len(classes) < 2 and not numbers:
        of = f"every sample is of class '{classes[0]}'" if classes else "no sample has a class"
        raise DataError(f"{source}: {of}; two or more classes are needed")
    if task == "binary" and len(classes) != 2:
        raise UsageError(f"{source}: has {len(classes)} classes; --task binary needs two, use single-label")
    bases = {modality: media_root or find_base(source.parent, paths) for modality, paths in found.paths.items()}
    what = f"of {classes[0]}" if numbers else f"{len(classes)} classes"
    intake.say(f"{source}: {table.format}; labels are {form}: {task}, {what}{_started(source, bases)}")
    if unused := [column for column in table.columns if column not in present.values()]:
        example = f"--modality NAME=KIND:{unused[0]} makes a modality of one"
        intake.say(f"{source}: {', '.join(unused)} {'is' if len(unused) == 1 else 'are'} not used; {example}")
    _doubt(source, found, () if numbers else classes, form.kind == "index", intake)
    if "split" not in present:
        division = f"split 80/10/10 into {', '.join(SPLITS)} by a hash of the ids"
        intake.note(f"{source}: no column '{columns.split}': {division}")

    def medium(modality: str, cell: Any, where: str) -> Medium | None:
        kind = kinds[modality]
        if kind == "features":
            return _features(modality, cell, bases.get(modality, source.parent), where)
        if not isinstance(cell, MediaCell):
            return None if cell is None else str(cell)
        if cell.content is not None:
            check_media(kind, cell.content, f"{where}: the {modality} in the table")
            return cell.content
        return read_media(kind, find_file(bases[modality], cell.path, modality, where), where)

    def label(entry: Entry) -> Label:
        if numbers:
            return (number_in(entry.label, entry.where),)
        return tuple(sorted(index[name] for name in form.names(entry.label, entry.where)))

    def read(split: str, entry: Entry) -> Iterator[SampleRow]:
        media = {modality: medium(modality, cell, entry.where) for modality, cell in entry.media.items()}
        yield SampleRow(
            split=split,
            id=entry.id,
            label=label(entry),
            others=media,
            other_paths={m: cell.path for m, cell in entry.media.items() if isinstance(cell, MediaCell)},
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


def _started(source: Path, bases: Mapping[str, Path]) -> str:
    """Where paths start, if that is not the manifest's folder."""
    others = {modality: base for modality, base in bases.items() if base != source.parent}
    return "".join(f"; paths of {modality} start in {base}" for modality, base in others.items())


def _doubt(source: Path, found: Survey, classes: tuple[str, ...], whole: bool, intake: Intake) -> None:
    """Note what is more likely a mistake than meant; ``whole``: whether the labels are whole numbers."""
    numbers = f" --task {REGRESSION} predicts numbers" if whole else ""
    if len(classes) > MANY_CLASSES and len(found.labels) > found.rows // 2:
        intake.note(f"{source}: {len(found.labels)} different labels in {found.rows} rows: are they classes?{numbers}")
    for name in classes:
        if name == "-1" or name.lower() in EMPTY_WORDS:
            intake.note(
                f"{source}: label '{name}' is a class like others; if it stands for no label, leave those rows out"
            )
    for word, where in found.empty_words.items():
        intake.note(f"{where}: the text '{word}' is taken as it stands; if it stands for no text, leave the cell empty")


def find_columns(
    source: Path, table: Table, columns: ManifestColumns, further: Sequence[ModalityColumn] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Map each role to the name of its column, for the columns that the manifest has; and each modality to its kind."""
    found, header = {}, table.columns
    for role in dataclasses.fields(columns):
        column = getattr(columns, role.name)
        if column in header and role.name not in {one.name for one in further}:
            found[role.name] = column
        elif column != role.default or role.name == "label":
            unknown = unknown_name("column", column, header)
            flag = f"--{role.name}-column"
            said = f"{flag}: {unknown}" if column != role.default else f"{unknown}; name it with {flag}"
            raise DataError(f"{source} ({table.format}): {said}")
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
        likely = next((name for name in header if name.lower() in PATH_COLUMNS), None)
        way = "name them with --image-column, --text-column, --audio-column or --modality"
        if likely is not None:
            way = (
                f"if '{likely}' has the pictures or recordings, say --image-column {likely} or --audio-column {likely}"
            )
        raise DataError(
            f"{source}: none of the columns {columns.image}, {columns.text}, {columns.audio}; it has "
            f"{', '.join(header)}; {way}"
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
        value, kind = cells.get(column), kinds.get(role)
        if kind == "features":
            values[role] = _numbers(value)
        elif role != "label":
            values[role] = _media_cell(where, column, value) if kind in MEDIA else _cell(where, column, value)
    label, split = label_cell(where, present["label"], cells.get(present["label"])), values.get("split")
    if label is None:
        raise DataError(f"{where}: the label is empty; every sample needs one (in multi-label data, [] is none)")
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
        media={modality: values[modality] for modality in kinds},
        group=values.get("group"),
    )


def _media_cell(where: str, column: str, value: Any) -> MediaCell | None:
    """A cell of paths, of bytes, or of Hugging Face's structs of both; ``None`` where it is empty."""
    if isinstance(value, bytes):
        return MediaCell("", value)
    if not isinstance(value, Mapping):
        path = _cell(where, column, value)
        return None if path is None else MediaCell(path)
    content, path = value.get("bytes"), value.get("path")
    if isinstance(content, bytes):
        return MediaCell(path if isinstance(path, str) else "", content)
    if content is None and (path is None or isinstance(path, str)) and value.keys() & {"bytes", "path"}:
        return MediaCell(path) if path else None
    keys = ", ".join(map(str, value)) or "nothing"
    raise DataError(
        f"{where}: '{column}' holds a struct of {keys}; it takes a path, bytes, or a struct of bytes and path"
    )


def _cell(where: str, column: str, value: Any) -> str | None:
    """A cell as text; ``None`` where it is empty (null, NaN or blank)."""
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


def _features(modality: str, cell: Any, base: Path, where: str) -> Medium | None:
    """The features of a cell, from their file or as they stand; raises ``UnusableSample``."""
    if cell is None:
        return None
    return read_features(modality, find_file(base, cell, modality, where) if isinstance(cell, str) else cell, where)


def survey(source: Path, table: Table, present: Mapping[str, str], kinds: Mapping[str, str]) -> Survey:
    """Read all rows of ``table`` once."""
    found, first_row, hashes = Survey(), dict[str, int](), array("Q")
    seen, empty_row = set[str](), None
    for entry in entries(table, present, kinds):
        found.rows += 1
        if entry.id in first_row:
            again = f"id '{entry.id}' is already that of row {first_row[entry.id]}{rounded_hint(entry.id)}"
            raise DataError(f"{entry.where}: {again}")
        first_row[entry.id] = found.rows
        found.labels.setdefault(entry.label, entry.where)
        has = {modality for modality, cell in entry.media.items() if cell is not None}
        seen |= has
        for modality in has:
            _note_cell(found, modality, kinds[modality], entry, source.parent)
        if not has and empty_row is None:
            empty_row = entry
        if entry.split is None:
            hashes.append(_hash(entry.id))
    if not found.rows:
        raise DataError(f"{source}: has no rows; give one row per sample")
    if not seen:
        empty = " and ".join(present[modality] for modality in kinds)
        raise DataError(f"{source}: the columns {empty} are empty throughout")
    found.modalities = (*order_modalities(seen & set(MODALITIES)), *(m for m in kinds if m in seen - set(MODALITIES)))
    if empty_row is not None:
        nothing = f"sample '{empty_row.id}' has no {' and no '.join(found.modalities)}"
        raise DataError(f"{empty_row.where}: {nothing}; leave the row out")
    if hashes:
        ranked, tenth = sorted(hashes), found.rows // 10
        found.ranks = (ranked[tenth], ranked[2 * tenth])
    return found


def _note_cell(found: Survey, modality: str, kind: str, entry: Entry, folder: Path) -> None:
    """Keep what a survey wants to know of a cell."""
    cell = entry.media[modality]
    if kind == "text" and cell.lower() in EMPTY_WORDS:
        found.empty_words.setdefault(cell, entry.where)
    path = cell.path if isinstance(cell, MediaCell) and cell.content is None else cell if kind == "features" else None
    if kind in MEDIA or isinstance(path, str):
        paths = found.paths.setdefault(modality, [])
        if isinstance(path, str) and len(paths) < PATHS_TRIED:
            paths.append(path)
    if kind == "features" and modality not in found.steps:
        with suppress(UnusableSample):  # reported when it is read
            base = find_base(folder, found.paths.get(modality, []))
            values = _features(modality, cell, base, entry.where)
            found.steps[modality] = isinstance(values, np.ndarray) and values.ndim == 2


def order_modalities(found: set[str]) -> tuple[str, ...]:
    """The modalities ``found`` in their usual order: text after image; of audio and image alone, audio first."""
    if found == {"image", "audio"}:
        return ("audio", "image")  # the order of the audio-visual literature
    return tuple(modality for modality in MODALITIES if modality in found)


def _hash(sample_id: str) -> int:
    """The first 64 bits of a hash of the id, by which samples are split where the manifest does not split them."""
    return int.from_bytes(hashlib.blake2b(f"manifest/split/{sample_id}".encode()).digest()[:8], "big")
