"""The canonical data set: a folder of ``{split}-*.parquet`` and a ``dataset.json``.

Columns: ``id`` (string, unique), one per modality (of kind image or audio: struct{bytes, path}; text: string; features:
list<float32>, or list<list<float32>> along time), ``label`` (int, list<int> for multi-label, or double
for regression) and, where samples have one, ``group`` (string). A null modality is naturally missing.
``datasets.load_dataset`` opens the same folder, since the Parquet schema carries Hugging Face's feature metadata.
"""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.cases import Case
from mmrobust.data.format import GROUP, INFO_FILE, DatasetInfo, parquet_schema
from mmrobust.errors import DataError, check_name
from mmrobust.scenarios.draws import Traits
from mmrobust.storage.parquet import checked, open_parquet, reading
from mmrobust.storage.tasks import REGRESSION, Label

Positions = npt.NDArray[np.int64]
"""Positions of samples in a split, counted from 0."""

ROW_GROUPS_BYTES = 16 * 2**20
"""Memory for the row groups of a split that were read last, as stored in the file."""


Medium = bytes | str | npt.NDArray[np.float32]
"""What is stored of a modality: an encoded picture or recording, a text, or features [D] or [T, D]."""


@dataclass(frozen=True)
class Sample:
    """One row of a split: media still encoded, ``None`` where a modality is naturally missing."""

    id: str
    label: Label
    """The class, the classes of a multi-label sample, or the number."""
    media: Mapping[str, Medium | None] = field(default_factory=dict, repr=False)
    """Modality → what is stored of it."""
    origin: str = ""
    """Folder, split and row, for messages."""
    info: DatasetInfo | None = field(default=None, repr=False)
    """The data set's; ``None``: every modality is called as its kind."""
    group: str | None = None

    def first(self, kind: str) -> Medium | None:
        """What is stored of the first modality of this kind; ``None`` where it is missing, or there is none."""
        kinds = {m: m for m in self.media} if self.info is None else self.info.kinds
        return next((self.media.get(modality) for modality, its in kinds.items() if its == kind), None)

    @property
    def image(self) -> bytes | None:
        """The encoded picture, where the data set has a modality ``image``."""
        return self.media.get("image")  # type: ignore[return-value]  # of kind image

    @property
    def audio(self) -> bytes | None:
        """The encoded recording, where the data set has a modality ``audio``."""
        return self.media.get("audio")  # type: ignore[return-value]  # of kind audio

    @property
    def text(self) -> str | None:
        """The text, where the data set has a modality ``text``."""
        return self.media.get("text")  # type: ignore[return-value]  # of kind text


class Dataset:
    """A canonical data set on disk; a ``DataError`` where the folder is none.

    In the folder ``cache``, if one is given, encoded inputs are kept for later commands: see
    :mod:`mmrobust.data.input_store`.
    """

    def __init__(self, folder: str | Path, cache: str | Path | None = None) -> None:
        self.folder, self.cache = Path(folder), None if cache is None else Path(cache)
        self.info = DatasetInfo.read(self.folder)

    def split(self, name: str) -> Split:
        """The split ``train``, ``validation`` or ``test``.

        Raises:
            UsageError: no such split.
            DataError: it is empty, or its files disagree with ``dataset.json``.
        """
        check_name(f"split of {self.folder}", name, self.info.splits)
        return Split(self, name)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.info.splits)


class Split:
    """One split: ids, labels and natural cases in memory; media are read from Parquet row groups when asked for."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset, self.info, self.name = dataset, dataset.info, name
        self.files = sorted(dataset.folder.glob(f"{name}-*.parquet"))
        self._files = [_open(file, self.info) for file in self.files]
        self._groups = [  # (file, row group, number of rows)
            (file, group, file.metadata.row_group(group).num_rows)
            for file in self._files
            for group in range(file.metadata.num_row_groups)
        ]
        self._starts = np.cumsum([0, *(rows for _, _, rows in self._groups)])
        rows, declared = int(self._starts[-1]), self.info.splits[name]
        if rows != declared:
            raise DataError(f"{dataset.folder}: split '{name}' has {rows} rows, {INFO_FILE} says {declared}")
        if not rows:
            raise DataError(f"{dataset.folder}: split '{name}' is empty")
        # The row groups that were read last, with their bytes; the latest at the end.
        self._recent: dict[int, tuple[pa.Table, int]] = {}
        self._one_reader = threading.Lock()
        self._rows = np.arange(rows)  # position → row of the files
        self._unusable: dict[str, npt.NDArray[np.bool_]] = {}  # modality → for each row of the files

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Positions:
        """The row [N] of each sample in the split's files, of which there are :attr:`file_rows`."""
        return self._rows

    @property
    def file_rows(self) -> int:
        """Number of rows in the split's files, of which samples may have been left out."""
        return int(self._starts[-1])

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """The sample ids, in the split's order."""
        column = self._column("id")["id"]
        ids: list[str] = column.to_pylist()
        if column.null_count or len(set(ids)) < len(ids):
            repeated = f"id '{Counter(ids).most_common(1)[0][0]}' appears twice"
            problem = "a sample has no id" if column.null_count else repeated
            raise DataError(f"{self.dataset.folder}: split '{self.name}': {problem}; prepare the data set again")
        return tuple(ids[row] for row in self._rows.tolist())

    @functools.cached_property
    def labels(self) -> tuple[Label, ...]:
        """The class, the classes, or the number of each sample."""
        labels = [_members(label) for label in self._column("label")["label"].to_pylist()]
        classes = range(len(self.info.classes))
        numbers = self.info.task == REGRESSION
        for row, label in enumerate(labels):
            if not (is_number(label[0]) if numbers else all(one in classes for one in label)):
                wanted = "a label is a finite number" if numbers else f"classes count from 0 to {len(classes) - 1}"
                raise DataError(
                    f"{self.dataset.folder} ({self.name}, row {row}): label {list(label)}; {wanted}; prepare the data "
                    "set again"
                )
        return tuple(labels[row] for row in self._rows.tolist())

    @functools.cached_property
    def groups(self) -> tuple[str, ...] | None:
        """The group of each sample; ``None`` where the data set has no groups. A sample without one is its own."""
        if not self.info.grouped:
            return None
        groups = self._column(GROUP)[GROUP].to_pylist()
        return tuple(groups[row] or sample_id for row, sample_id in zip(self._rows.tolist(), self.ids, strict=True))

    @property
    def traits(self) -> Traits:
        """What missing tables may depend on besides the ids."""
        numbers = self.info.task == REGRESSION
        return Traits(self.groups, None if numbers else self.labels, self.info.classes)

    @functools.cached_property
    def presence(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Modality → whether each sample has it [N]. Reads null counts and paths, no media."""
        return {modality: self._present(modality)[self._rows] for modality in self.info.modalities}

    @functools.cached_property
    def sample_bytes(self) -> float:
        """Average size of a sample in the files."""
        sizes = [file.metadata.row_group(group).total_byte_size for file, group, _ in self._groups]
        return float(max(1, sum(sizes)) / int(self._starts[-1]))

    def natural_cases(self, modalities: Sequence[str]) -> tuple[Case, ...] | None:
        """The natural case of each sample for a model of these modalities; ``None`` where all are complete.

        Raises:
            DataError: a sample has none of the modalities; names it.
        """
        present = np.stack([self.presence[m] for m in modalities])
        if present.all():
            return None
        for position in np.flatnonzero(~present.any(axis=0))[:1]:
            lacking = " and no ".join(modalities)
            raise DataError(f"{self.dataset.folder}: sample '{self.ids[position]}' has no {lacking}")
        return tuple(
            Case.missing(modalities, *(m for m, p in zip(modalities, row, strict=True) if not p)) for row in present.T
        )

    def without(self, positions: Collection[int]) -> Split:
        """The split without the samples at these positions; a ``DataError`` where none is left."""
        if len(positions) == len(self):
            raise DataError(f"{self.dataset.folder}: no sample of split '{self.name}' can be used")
        return self._altered(np.delete(self._rows, sorted(positions)), self._unusable)

    def with_missing(self, unusable: Mapping[str, Collection[int]]) -> Split:
        """The split with further naturally missing modalities: modality → positions of the samples."""
        flagged = dict(self._unusable)
        for modality, positions in unusable.items():
            flags = np.array(flagged.get(modality, np.zeros(int(self._starts[-1]), dtype=bool)))
            flags[self._rows[sorted(positions)]] = True
            flagged[modality] = flags
        return self._altered(self._rows, flagged)

    def _altered(self, rows: Positions, unusable: dict[str, npt.NDArray[np.bool_]]) -> Split:
        """Return a copy with these rows and unusable media, and nothing that was computed for the original."""
        altered = copy.copy(self)
        for name in ("ids", "labels", "groups", "presence"):
            altered.__dict__.pop(name, None)
        altered._rows, altered._unusable, altered._recent = rows, unusable, {}
        return altered

    def release(self) -> None:
        """Drop the row groups in memory, when the split will not be needed for a while."""
        self._recent.clear()

    def read(self, positions: Sequence[int] | Positions) -> list[Sample]:
        """The samples at these positions, in that order. Each row group is read once, whatever the order.

        Raises:
            DataError: a part of the file is damaged.
        """
        rows = self._rows[np.asarray(positions, dtype=np.int64)]
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        samples: dict[int, Sample] = {}
        for group in np.unique(groups).tolist():
            table, start = self._row_group(group), int(self._starts[group])
            samples |= {row: self._sample(table, row - start, row) for row in rows[groups == group].tolist()}
        return [samples[row] for row in rows.tolist()]

    def __iter__(self) -> Iterator[Sample]:
        return (sample for group in range(self.row_groups) for sample in self.read_row_group(group))

    @property
    def row_groups(self) -> int:
        """Number of row groups in the split's files."""
        return len(self._groups)

    def rows_of_group(self, group: int) -> range:
        """The positions of the samples in row group ``group``."""
        first, last = np.searchsorted(self._rows, self._starts[[group, group + 1]]).tolist()
        return range(first, last)

    def read_row_group(self, group: int) -> Iterator[Sample]:
        """The samples of row group ``group``, which is not kept in memory afterwards. Raises as :meth:`read`."""
        rows, table = self._rows[self.rows_of_group(group)].tolist(), self._table(group)
        return (self._sample(table, row - int(self._starts[group]), row) for row in rows)

    def _sample(self, table: pa.Table, index: int, row: int) -> Sample:
        """The sample in ``row`` of the files, which is row ``index`` in the ``table`` of its row group."""
        cells = {name: table[name][index] for name in table.column_names}
        media = {
            modality: None
            if modality in self._unusable and self._unusable[modality][row]
            else _medium(cells[modality], kind)
            for modality, kind in self.info.kinds.items()
        }
        return Sample(
            id=cells["id"].as_py(),
            label=_members(cells["label"].as_py()),
            media=media,
            origin=f"{self.dataset.folder} ({self.name}, row {row})",
            info=self.info,
            group=cells[GROUP].as_py() if GROUP in cells else None,
        )

    def _row_group(self, index: int) -> pa.Table:
        """A row group, from memory or from the file."""
        with self._one_reader:
            if index in self._recent:
                self._recent[index] = self._recent.pop(index)
            else:
                table = self._table(index)
                self._recent[index] = table, table.nbytes
                while len(self._recent) > 1 and sum(size for _, size in self._recent.values()) > ROW_GROUPS_BYTES:
                    del self._recent[next(iter(self._recent))]
            return self._recent[index][0]

    def _table(self, index: int) -> pa.Table:
        """Read a row group from the file."""
        file, group, _ = self._groups[index]
        first, last = self._starts[index], self._starts[index + 1] - 1
        with reading(f"{self.dataset.folder} ({self.name}, rows {first} to {last})"):
            return checked(file.read_row_group(group))

    def _column(self, name: str) -> pa.Table:
        """Read one column of the whole split, as a table."""
        with reading(f"{self.dataset.folder} ({self.name}, column {name})"):
            return checked(pa.concat_tables(file.read(columns=[name]) for file in self._files))

    def _present(self, modality: str) -> npt.NDArray[np.bool_]:
        leaf = f"{modality}.path" if self.info.kinds[modality] in ("image", "audio") else modality
        parts = []
        for file, group, rows in self._groups:
            with reading(f"{self.dataset.folder} ({self.name}, column {leaf})"):
                column = file.read_row_group(group, columns=[leaf]).column(0)
            parts.append(column.is_valid().to_numpy() if column.null_count else np.ones(rows, dtype=bool))
        present = np.concatenate(parts)
        return present & ~self._unusable[modality] if modality in self._unusable else present


def _open(file: Path, info: DatasetInfo) -> pq.ParquetFile:
    """Open ``file``, and check that it is Parquet with the columns and types that ``info`` demands."""
    steps = {modality: facts.steps for modality, facts in info.features.items()}
    expected = parquet_schema(info.modalities, info.classes, info.task, info.kinds, steps, info.grouped)
    # Not memory-mapped: pages that were read once would keep counting as memory.
    opened = open_parquet(file, "split of a data set", "prepare the data set again")
    names = opened.schema_arrow.names
    for column in expected:
        if names.count(column.name) != 1:
            found = "no" if column.name not in names else "more than one"
            raise DataError(f"{file}: {found} column '{column.name}'; a data set has {', '.join(expected.names)}")
        kind = opened.schema_arrow.field(column.name).type
        if kind != column.type:
            raise DataError(f"{file}: column '{column.name}' is {kind}, not {column.type}")
    return opened


def _medium(cell: pa.Scalar, kind: str) -> Medium | None:
    """What a cell of a modality's column holds."""
    if not cell.is_valid:
        return None
    if kind == "features":
        values = cell.values
        if not pa.types.is_list(values.type):
            return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
        widths = set(values.value_lengths().to_pylist())
        # Time steps of different widths are no array; decoding refuses an empty one.
        return flat.reshape(len(values), -1) if len(widths) == 1 and None not in widths else flat[:0].reshape(0, 0)
    stored: Medium | None = cell.as_py() if kind == "text" else cell.as_py()["bytes"]
    return stored


def is_number(label: Any) -> bool:
    """Whether a label of a regression task is there and finite."""
    return label is not None and math.isfinite(label)


def _members(label: Any) -> Label:
    """The class, the classes, or the number in a cell of the column ``label``."""
    return tuple(label) if isinstance(label, list) else (label,)
