"""Writing a canonical data set: a folder that appears when all of its samples are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.data.dataset import Sample
from mmrobust.data.format import INFO_FILE, SPLITS, DatasetInfo, parquet_schema
from mmrobust.errors import DataError
from mmrobust.storage.files import atomic_folder, write_json, writing
from mmrobust.storage.fingerprints import new_digest

ROW_GROUP_ROWS = 256
ROW_GROUP_BYTES = 8 * 2**20
"""A row group ends at whichever limit is reached first, so that reading one is cheap for any media."""


@dataclass(frozen=True)
class SampleRow:
    """One sample to write. ``None`` where a modality is naturally missing."""

    split: str
    id: str
    label: tuple[int, ...]
    image: bytes | None = None
    image_path: str = ""
    """Where the picture was found; for people, since only the bytes are read."""
    audio: bytes | None = None
    audio_path: str = ""
    text: str | None = None


@dataclass
class Record:
    """What is recorded while preparing: the fields of the same names of :class:`DatasetInfo`."""

    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


class Fingerprint:
    """The hash of a data set: over every id, label and byte of every split, in order."""

    def __init__(self, modalities: Sequence[str]) -> None:
        self._modalities = tuple(modalities)
        self._digests = {split: new_digest() for split in SPLITS}
        self._rows = dict.fromkeys(SPLITS, 0)

    def add(self, split: str, row: SampleRow | Sample) -> None:
        """Hash the next row of ``split``, each field preceded by its length, so that no two rows hash alike."""
        media = {"image": row.image, "audio": row.audio, "text": None if row.text is None else row.text.encode()}
        for part in [row.id.encode(), repr(row.label).encode(), *(media[m] for m in self._modalities)]:
            self._digests[split].update(b"-" if part is None else b"%d:" % len(part) + part)
        self._rows[split] += 1

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows of each split that has any."""
        return {split: rows for split, rows in self._rows.items() if rows}

    def hexdigest(self) -> str:
        """The hash of all splits."""
        whole = new_digest()
        for split in SPLITS:
            whole.update(f"{split}/{self._rows[split]}/{self._digests[split].hexdigest()}".encode())
        return whole.hexdigest()


class DatasetWriter:
    """Writes rows into split files; see :func:`write_dataset`."""

    def __init__(self, folder: Path, modalities: Sequence[str], classes: Sequence[str], task: str) -> None:
        self._folder, self._task, self._classes = folder, task, len(classes)
        self._schema = parquet_schema(modalities, classes, task)
        self._files: dict[str, pq.ParquetWriter] = {}
        self._pending: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._pending_bytes = dict.fromkeys(SPLITS, 0)
        self.fingerprint = Fingerprint(modalities)
        self._ids: set[str] = set()

    def add(self, row: SampleRow) -> None:
        """Append ``row`` to its split.

        Raises:
            DataError: its id is empty or used already, its split is unknown, its label is not a class, or a text cannot
                be encoded as UTF-8.
        """
        check_characters(row.id, "a sample's id")
        if row.split not in SPLITS:
            raise DataError(f"sample '{row.id}': split '{row.split}' is not one of {', '.join(SPLITS)}")
        if not row.id or row.id in self._ids:
            raise DataError(f"sample id '{row.id}' is {'used twice' if row.id else 'empty'}; ids must be unique")
        labels, multi = list(row.label), self._task == "multi-label"
        if any(not 0 <= label < self._classes for label in labels) or not (multi or len(labels) == 1):
            raise DataError(f"sample '{row.id}': label {labels} does not fit {self._classes} classes, {self._task}")
        for value, what in ((row.text, "text"), (row.image_path, "image's path"), (row.audio_path, "audio's path")):
            check_characters(value or "", f"sample '{row.id}': its {what}")
        self._ids.add(row.id)
        cells: dict[str, Any] = {"id": row.id, "text": row.text, "label": labels if multi else labels[0]}
        cells["image"] = None if row.image is None else {"bytes": row.image, "path": row.image_path}
        cells["audio"] = None if row.audio is None else {"bytes": row.audio, "path": row.audio_path}
        self._pending[row.split].append({name: cells[name] for name in self._schema.names})
        self._pending_bytes[row.split] += sum(len(x) for x in (row.image, row.audio, row.text) if x is not None)
        self.fingerprint.add(row.split, row)
        if len(self._pending[row.split]) >= ROW_GROUP_ROWS or self._pending_bytes[row.split] >= ROW_GROUP_BYTES:
            self._flush(row.split)

    def _flush(self, split: str) -> None:
        if not self._pending[split]:
            return
        if split not in self._files:
            path = self._folder / f"{split}-00000-of-00001.parquet"
            self._files[split] = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._files[split].write_table(pa.Table.from_pylist(self._pending[split], schema=self._schema))
        self._pending[split], self._pending_bytes[split] = [], 0

    def close(self) -> None:
        """Finish the files."""
        for split in SPLITS:
            self._flush(split)
        for file in self._files.values():
            file.close()


def _read_from(source: str, rows: Iterable[SampleRow]) -> Iterator[SampleRow]:
    """The rows. An error while reading ``source`` is reported as such, not as one of writing."""
    try:
        yield from rows
    except OSError as cause:
        raise DataError(f"{cause.filename or source}: cannot be read ({cause.strerror or cause})") from cause


def check_characters(value: str, what: str) -> None:
    """Raise a ``DataError`` unless ``value`` is UTF-8: a lone surrogate, as in odd JSON and file names, is not."""
    try:
        value.encode()
    except UnicodeEncodeError as cause:
        shown = value.encode("ascii", "backslashreplace").decode()[:80]
        raise DataError(f"{what} holds half a character (a lone surrogate): '{shown}'; fix the source") from cause


def write_dataset(
    folder: Path,
    rows: Iterable[SampleRow],
    *,
    name: str,
    modalities: Sequence[str],
    classes: Sequence[str],
    task: str,
    headline_metric: str,
    licence: str,
    source: str,
    record: Record | None = None,
) -> DatasetInfo:
    """Write ``rows`` as the canonical data set ``folder``, which appears only when all of them are written.

    Splits may be mixed; within a split, the order of the rows is kept. Only ids are held in memory. The ``record``, as
    it is when the last row is written, goes into ``dataset.json``.

    Raises:
        UsageError: ``folder`` holds files already.
        DataError: a row is invalid (see :meth:`DatasetWriter.add`), or there are no rows.
    """
    for value in (name, source, licence, *classes):
        check_characters(value, "a name, a class or the source")
    with writing(folder, "nothing of it is kept"), atomic_folder(folder, "data set") as partial:
        with closing(DatasetWriter(partial, modalities, classes, task)) as writer:
            for row in _read_from(source, rows):
                writer.add(row)
        written = writer.fingerprint
        if not written.rows:
            raise DataError(f"{source}: no sample was found; nothing is written")
        info = DatasetInfo(
            name=name,
            modalities=tuple(modalities),
            classes=tuple(classes),
            task=task,
            headline_metric=headline_metric,
            splits=written.rows,
            fingerprint=written.hexdigest(),
            licence=licence,
            source=source,
            **({} if record is None else asdict(record)),
        )
        write_json(partial / INFO_FILE, asdict(info))
    return info
