"""Writing a canonical data set: a folder that appears when all of its samples are written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.data.dataset import Medium, Sample
from mmrobust.data.format import FORMAT_VERSION, GROUP, INFO_FILE, SPLITS, DatasetInfo, FeatureFacts, parquet_schema
from mmrobust.errors import DataError
from mmrobust.storage.files import atomic_folder, write_json, writing
from mmrobust.storage.fingerprints import new_digest
from mmrobust.storage.parquet import parquet_sink
from mmrobust.storage.tasks import REGRESSION, Label

ROW_GROUP_ROWS = 256
ROW_GROUP_BYTES = 8 * 2**20
"""A row group ends at whichever limit is reached first, so that reading one is cheap for any media."""


@dataclass(frozen=True)
class SampleRow:
    """One sample to write. ``None`` where a modality is naturally missing."""

    split: str
    id: str
    label: Label
    image: bytes | None = None
    image_path: str = ""
    """Where the picture was found; for people, since only the bytes are read."""
    audio: bytes | None = None
    audio_path: str = ""
    text: str | None = None
    others: Mapping[str, Medium | None] = field(default_factory=dict)
    """What is stored of modalities with other names, by name."""
    other_paths: Mapping[str, str] = field(default_factory=dict)
    """Where they were found, likewise."""
    group: str | None = None
    """Scenarios treat the samples of a group alike."""

    @property
    def media(self) -> Mapping[str, Medium | None]:
        """Modality → what is stored of it."""
        return {"image": self.image, "audio": self.audio, "text": self.text, **self.others}

    @property
    def paths(self) -> Mapping[str, str]:
        """Modality → where it was found."""
        return {"image": self.image_path, "audio": self.audio_path, **self.other_paths}


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
        media = [_hashed(row.media.get(modality)) for modality in self._modalities]
        group = [] if row.group is None else [b"group", row.group.encode()]
        for part in [row.id.encode(), repr(row.label).encode(), *media, *group]:
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


def _hashed(medium: Medium | None) -> bytes | None:
    """A medium as the bytes that are hashed."""
    if isinstance(medium, np.ndarray):
        return repr(medium.shape).encode() + medium.astype("<f4").tobytes()
    return medium.encode() if isinstance(medium, str) else medium


class _Moments:
    """Mean and standard deviation of each dimension of features, as rows come in."""

    def __init__(self, width: int) -> None:
        self._count, self._mean, self._squares = 0, np.zeros(width), np.zeros(width)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the time steps of [T, D], or one vector [D]."""
        for row in np.atleast_2d(values).astype(np.float64):
            self._count += 1
            before = row - self._mean
            self._mean = self._mean + before / self._count
            self._squares = self._squares + before * (row - self._mean)

    def facts(self, steps: bool) -> FeatureFacts:
        """The facts of features with these moments."""
        std = np.sqrt(self._squares / max(1, self._count))
        return FeatureFacts(steps, tuple(self._mean.tolist()), tuple(std.tolist()))


class DatasetWriter:
    """Writes rows into split files; see :func:`write_dataset`."""

    def __init__(
        self,
        folder: Path,
        modalities: Sequence[str],
        classes: Sequence[str],
        task: str,
        kinds: Mapping[str, str] | None = None,
        steps: Mapping[str, bool] | None = None,
        grouped: bool = False,
    ) -> None:
        self._folder, self._task, self._classes, self._grouped = folder, task, len(classes), grouped
        self._kinds = {modality: (kinds or {}).get(modality, modality) for modality in modalities}
        self._steps = dict(steps or {})
        self._moments: dict[str, dict[str, _Moments]] = {m: {} for m, kind in self._kinds.items() if kind == "features"}
        self._widths: dict[str, int] = {}
        self._schema = parquet_schema(modalities, classes, task, kinds, steps, grouped)
        self._files: dict[str, pq.ParquetWriter] = {}
        self._open = ExitStack()
        self._pending: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._pending_bytes = dict.fromkeys(SPLITS, 0)
        self.fingerprint = Fingerprint(modalities)
        self._ids: set[str] = set()

    def add(self, row: SampleRow) -> None:
        """Append ``row`` to its split.

        Raises:
            DataError: its id is empty or used already, its split is unknown, its label is not a class (of a regression
                task, a finite number), or a text cannot be encoded as UTF-8.
        """
        check_characters(row.id, "a sample's id")
        if row.split not in SPLITS:
            raise DataError(f"sample '{row.id}': split '{row.split}' is not one of {', '.join(SPLITS)}")
        if not row.id or row.id in self._ids:
            raise DataError(f"sample id '{row.id}' is {'used twice' if row.id else 'empty'}; ids must be unique")
        labels, multi = list(row.label), self._task == "multi-label"
        if self._task == REGRESSION:
            if len(labels) != 1 or not np.isfinite(labels[0]):
                raise DataError(f"sample '{row.id}': label {labels} is not one finite number")
        elif any(not 0 <= label < self._classes for label in labels) or not (multi or len(labels) == 1):
            raise DataError(f"sample '{row.id}': label {labels} does not fit {self._classes} classes, {self._task}")
        cells: dict[str, Any] = {"id": row.id, "label": labels if multi else labels[0]}
        if self._grouped:
            check_characters(row.group or "", f"sample '{row.id}': its group")
            cells[GROUP] = row.group
        for modality, kind in self._kinds.items():
            cells[modality] = self._cell(row, modality, kind)
            self._pending_bytes[row.split] += _size(row.media.get(modality))
        self._ids.add(row.id)
        self._pending[row.split].append({name: cells[name] for name in self._schema.names})
        self.fingerprint.add(row.split, row)
        if len(self._pending[row.split]) >= ROW_GROUP_ROWS or self._pending_bytes[row.split] >= ROW_GROUP_BYTES:
            self._flush(row.split)

    def _cell(self, row: SampleRow, modality: str, kind: str) -> Any:
        """A modality of a row as the column holds it."""
        medium, path = row.media.get(modality), row.paths.get(modality, "")
        check_characters(path, f"sample '{row.id}': its {modality}'s path")
        if medium is None:
            return None
        if kind == "text":
            check_characters(str(medium), f"sample '{row.id}': its {modality}")
            return medium
        if kind != "features":
            return {"bytes": medium, "path": path}
        assert isinstance(medium, np.ndarray)
        steps, width = self._steps.get(modality, False), self._widths.setdefault(modality, medium.shape[-1])
        if medium.ndim != 1 + steps or medium.shape[-1] != width:
            usual = f"[T, {width}]" if steps else f"[{width}]"
            raise DataError(f"sample '{row.id}': its {modality} has shape {list(medium.shape)}, others have {usual}")
        self._moments[modality].setdefault(row.split, _Moments(width)).add(medium)
        return medium.tolist()

    @property
    def features(self) -> dict[str, FeatureFacts]:
        """The facts of each modality of kind features, of the rows so far."""
        found = {}
        for modality, of_split in self._moments.items():
            if not of_split:
                raise DataError(f"no sample has any {modality}; leave the modality out")
            first = next(split for split in SPLITS if split in of_split)
            found[modality] = of_split[first].facts(self._steps.get(modality, False))
        return found

    def _flush(self, split: str) -> None:
        if not self._pending[split]:
            return
        if split not in self._files:
            path = self._folder / f"{split}-00000-of-00001.parquet"
            place = self._open.enter_context(parquet_sink(path))
            self._files[split] = pq.ParquetWriter(place, self._schema, compression="zstd")
            self._open.callback(self._files[split].close)
        self._files[split].write_table(pa.Table.from_pylist(self._pending[split], schema=self._schema))
        self._pending[split], self._pending_bytes[split] = [], 0

    def close(self) -> None:
        """Finish the files."""
        for split in SPLITS:
            self._flush(split)
        self._open.close()


def _size(medium: Medium | None) -> int:
    """The bytes, or characters, of a medium."""
    return 0 if medium is None else medium.nbytes if isinstance(medium, np.ndarray) else len(medium)


def _read_from(source: str, rows: Iterable[SampleRow]) -> Iterator[SampleRow]:
    """The rows. An error while reading ``source`` is reported as such, not as one of writing."""
    try:
        yield from rows
    except OSError as cause:
        raise DataError(f"{cause.filename or source}: cannot be read ({cause.strerror or cause})") from cause


def _readable(path: str) -> str:
    r"""``path`` with the bytes that are not UTF-8 as ``\xe9``."""
    with suppress(UnicodeEncodeError):  # it does not come from a path
        return os.fsencode(path).decode(errors="backslashreplace")
    return path


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
    kinds: Mapping[str, str] | None = None,
    steps: Mapping[str, bool] | None = None,
    grouped: bool = False,
) -> DatasetInfo:
    """Write ``rows`` as the canonical data set ``folder``, which appears only when all of them are written.

    Splits may be mixed; within a split, the order of the rows is kept. Only ids are held in memory. The ``record``, as
    it is when the last row is written, goes into ``dataset.json``. ``kinds``, ``steps`` and ``grouped`` are as for
    :func:`mmrobust.data.format.parquet_schema`.

    Raises:
        UsageError: ``folder`` holds files already.
        DataError: a row is invalid (see :meth:`DatasetWriter.add`), or there are no rows.
    """
    name, source = _readable(name), _readable(source)
    for value in (name, source, licence, *classes):
        check_characters(value, "a name, a class or the source")
    with writing(folder, "nothing of it is kept"), atomic_folder(folder, "data set") as partial:
        with closing(DatasetWriter(partial, modalities, classes, task, kinds, steps, grouped)) as writer:
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
            kinds={modality: (kinds or {}).get(modality, modality) for modality in modalities},
            features=writer.features,
            grouped=grouped,
            format_version=FORMAT_VERSION if task == REGRESSION else FORMAT_VERSION - 1,
            **({} if record is None else asdict(record)),
        )
        write_json(partial / INFO_FILE, asdict(info))
    return info
