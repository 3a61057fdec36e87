"""Predictions on disk: Parquet shards with one row per (sample, case, prompting).

A change to the schema raises its version, and the reader keeps reading the older ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmrobust.errors import DataError
from mmrobust.storage.parquet import open_parquet, read_batches, reading, write_table
from mmrobust.storage.provenance import read_provenance

PREDICTIONS_VERSION = 4
"""Version 3 added ``group``, version 4 labels that are numbers. Without either, predictions are still written as
version 2, and with groups alone as version 3."""
PREDICTIONS_FOLDER = "predictions"
PREDICTIONS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # the sample
        ("position", pa.int64()),  # its index in the split; since version 2
        ("natural", pa.string()),  # the case it is in before any scenario; since version 2
        ("case", pa.string()),  # the case it was predicted in
        ("prompting", pa.string()),  # situation or concat
        ("noise_seed", pa.int64()),  # seed of its degradation; null where nothing is degraded
        # the true class, or the classes of a multi-label sample: always a list, so that the column has one type
        ("label", pa.list_(pa.int64())),
        ("logits", pa.list_(pa.float32())),  # [classes]
    ]
)
GROUPED_SCHEMA = PREDICTIONS_SCHEMA.append(pa.field("group", pa.string()))
"""The columns where samples have groups: the group of the sample besides; since version 3."""
NUMBER = pa.list_(pa.float64())
"""The type of the column ``label`` of a regression task, a list of the number alone; since version 4."""


def predictions_schema(*, grouped: bool, numbers: bool) -> pa.Schema:
    """The columns of predictions: with groups of samples or not, with labels that are numbers or classes."""
    schema = GROUPED_SCHEMA if grouped else PREDICTIONS_SCHEMA
    at = schema.get_field_index("label")
    return schema.set(at, pa.field("label", NUMBER)) if numbers else schema


@dataclass(frozen=True)
class ShardHeader:
    """The metadata of a shard of predictions, read without its rows."""

    path: Path
    provenance: dict[str, Any]
    """See :data:`mmrobust.storage.provenance.SHAPES`."""
    rows: int
    placed: bool
    """Whether it has the positions of its samples in the split; false in schema version 1."""


@dataclass(frozen=True)
class Shard:
    """A shard of predictions as arrays: n predictions of C classes each."""

    path: Path
    provenance: dict[str, Any]
    """See :data:`mmrobust.storage.provenance.SHAPES`."""
    id: pa.Array
    case: pa.Array
    prompting: pa.Array
    label: pa.Array
    logits: npt.NDArray[np.float32]
    """[n, C]"""
    position: npt.NDArray[np.int64] | None
    """[n], index of the sample in the split; ``None`` in schema version 1."""
    natural: pa.Array | None
    """[n], case before any scenario; ``None`` in schema version 1."""
    group: pa.Array | None = None
    """[n], the group of the sample; ``None`` where samples have none."""

    def placed(self, place: Mapping[str, int]) -> Shard:
        """Return the shard with positions looked up in ``place`` (id → position); -1 for an unknown id."""
        ids = self.id.to_pylist()
        return replace(self, position=np.asarray([place.get(name, -1) for name in ids], dtype=np.int64))

    def within(self, samples: int) -> Shard:
        """Return the rows for the first ``samples`` samples of the split, without those of unknown position."""
        assert self.position is not None
        inside = np.flatnonzero((self.position >= 0) & (self.position < samples))
        if len(inside) == len(self.position):
            return self
        rows = pa.array(inside)
        return replace(
            self,
            **{name: getattr(self, name).take(rows) for name in ("id", "case", "prompting", "label")},
            logits=self.logits[inside],
            position=self.position[inside],
            natural=None if self.natural is None else self.natural.take(rows),
            group=None if self.group is None else self.group.take(rows),
        )

    def by_case(self) -> Iterator[tuple[tuple[str, str], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]]:
        """Yield each (case, prompting) with the positions [k] and logits [k, C] of its predictions."""
        assert self.position is not None
        case, prompting = self.case.dictionary_encode(), self.prompting.dictionary_encode()
        codes = case.indices.to_numpy() * len(prompting.dictionary) + prompting.indices.to_numpy()
        keys = [(c, p) for c in case.dictionary.to_pylist() for p in prompting.dictionary.to_pylist()]
        for code in sorted(np.unique(codes).tolist(), key=lambda code: keys[code]):
            of_key = np.flatnonzero(codes == code)
            first, after = int(of_key[0]), int(of_key[-1]) + 1
            # Rows that follow one another, as mmrobust writes them, need no copy.
            rows = slice(first, after) if after - first == len(of_key) else of_key
            yield keys[code], (self.position[rows], self.logits[rows])


def read_shard_header(path: Path) -> ShardHeader:
    """Read the metadata of the shard of predictions in ``path``; raises as :func:`read_shard`."""
    with open_parquet(path, "predictions") as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    provenance = read_provenance(schema, path, "predictions", PREDICTIONS_VERSION)
    return ShardHeader(path, provenance, rows, "position" in schema.names)


def read_shard(path: Path) -> Shard:
    """Read the shard of predictions in ``path`` and check every page of it.

    Raises:
        DataError: it cannot be read, is damaged, or is not a shard of predictions.
    """
    with open_parquet(path, "predictions") as file, reading(path):
        found = file.schema_arrow
        provenance = read_provenance(found, path, "predictions", PREDICTIONS_VERSION)
        absent = [n for n in PREDICTIONS_SCHEMA.names if n not in found.names]
        if absent and not (provenance["schema_version"] == 1 and set(absent) <= {"position", "natural"}):
            raise DataError(f"{path}: is not a table of predictions: no column {', '.join(absent)}")
        every = predictions_schema(grouped=True, numbers=_are_numbers(found))
        schema = pa.schema([field for field in every if field.name in found.names])
        small, logits, rows = list[pa.RecordBatch](), np.empty((0, 0), dtype=np.float32), 0
        for batch in read_batches(file, path, "predictions"):
            part = _checked(path, batch, schema)
            values = part["logits"].flatten().to_numpy().reshape(part.num_rows, -1)
            if not rows:
                logits = np.empty((file.metadata.num_rows, values.shape[1]), dtype=np.float32)
            if values.shape[1] != logits.shape[1]:
                raise DataError(f"{path}: {_RAGGED}")
            # The logits are nearly all of a shard. Copied part by part, they are never in memory twice.
            logits[rows : rows + part.num_rows] = values
            small.append(part.drop_columns("logits"))
            rows += part.num_rows
    if not rows:
        raise DataError(f"{path}: {_RAGGED}")
    columns = pa.Table.from_batches(small).combine_chunks()
    return Shard(
        path,
        provenance,
        **{name: columns[name].combine_chunks() for name in ("id", "case", "prompting", "label")},
        logits=logits,
        position=columns["position"].to_numpy() if "position" in schema.names else None,
        natural=columns["natural"].combine_chunks() if "natural" in schema.names else None,
        group=columns["group"].combine_chunks() if "group" in schema.names else None,
    )


def _are_numbers(schema: pa.Schema) -> bool:
    """Whether the labels are numbers, not classes."""
    label = schema.field("label").type
    return bool(pa.types.is_list(label) and pa.types.is_floating(label.value_type))


_RAGGED = "its predictions have different numbers of classes"


def _checked(path: Path, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of the schema of some rows of a shard, or a ``DataError`` where they are no predictions."""
    with reading(path, what="predictions"):
        batch = batch.select(schema.names).cast(schema)
    for name in schema.names:
        column = batch[name]
        inner = column.flatten().null_count if pa.types.is_list(column.type) else 0
        if name != "noise_seed" and (column.null_count or inner):
            raise DataError(f"{path}: a prediction has no value in column {name}")
    if "position" in schema.names and batch.num_rows and pc.min(batch["position"]).as_py() < 0:
        raise DataError(f"{path}: a prediction has a negative position")
    lengths = pc.unique(pc.list_value_length(batch["logits"])).to_pylist()
    if batch.num_rows and (len(lengths) != 1 or not lengths[0]):
        raise DataError(f"{path}: {_RAGGED}")
    return batch


def write_shard(path: Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """Write predictions (columns as :func:`predictions_schema`) to ``path`` atomically, with checksums."""
    version = PREDICTIONS_VERSION if _are_numbers(table.schema) else 3 if "group" in table.column_names else 2
    write_table(path, table, {"kind": "predictions", "schema_version": version, **provenance})
