"""The schema of the two tables that evaluation writes, predictions and results, and of their provenance.

Both are Parquet and carry the provenance as JSON in the file's key-value metadata, under ``mmrobust``. A change to a
schema raises its version, and the reader goes on reading the older ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmrobust.errors import DataError, NewerFormatError
from mmrobust.storage.files import atomic_file
from mmrobust.storage.parquet import first_line, open_parquet, read_parquet, reading
from mmrobust.storage.shape import DESCRIBED, SHAPES, misfit

RESULTS_VERSION = 1
PREDICTIONS_VERSION = 2
RESULTS_FILE = "results.parquet"
PREDICTIONS_FOLDER = "predictions"
_METADATA_KEY = b"mmrobust"

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # the sample
        ("position", pa.int64()),  # its place in the split, from 0; since version 2
        ("natural", pa.string()),  # the case that it is in before any scenario; since version 2
        ("case", pa.string()),  # the case it was predicted in
        ("prompting", pa.string()),  # situation or concat
        ("noise_seed", pa.int64()),  # seed of its degradation; null where nothing is degraded
        # the true class, or the classes of a multi-label sample: always a list, so that the column has one type
        ("label", pa.list_(pa.int64())),
        ("logits", pa.list_(pa.float32())),  # [classes]
    ]
)

RESULTS_SCHEMA = pa.schema(
    [
        # The key of a row:
        ("checkpoint", pa.string()),  # the name under which the checkpoint was evaluated
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("scenario", pa.string()),
        ("missing_rate", pa.float64()),  # η in [0, 1]
        ("seed", pa.int64()),  # the mask seed: who is affected
        ("prompting", pa.string()),
        ("metric", pa.string()),
        # What was evaluated:
        ("method", pa.string()),
        ("head", pa.string()),
        ("backbone", pa.string()),
        # How many samples the value is over, and how many of them the scenario affected:
        ("n", pa.int64()),
        ("n_affected", pa.int64()),
        ("n_naturally_missing", pa.int64()),  # samples that lacked a modality before any scenario
        # The value, and its 95 % bootstrap interval over samples (null where it was not computed):
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
    ]
)

RESULTS_KEYS = ("checkpoint", "dataset", "split", "scenario", "missing_rate", "seed", "prompting", "metric")
CELL_KEYS = ("scenario", "missing_rate", "seed", "prompting", "metric")
"""The part of the key that two checkpoints on the same data share."""


_COUNTS = ("n", "n_affected", "n_naturally_missing")
_NULLABLE = ("value", "ci_low", "ci_high")


class Results(NamedTuple):
    """A results table and where it comes from."""

    frame: pd.DataFrame
    """One row per ``RESULTS_KEYS``, columns as ``RESULTS_SCHEMA``."""
    provenance: dict[str, Any]
    """``versions``, ``git``, ``device``, ``dtype``, ``command``, ``started``, ``finished``, ``dataset`` (name,
    fingerprint, split, task, headline_metric), ``checkpoints`` (name → fingerprint, backbone_fingerprint, fill …),
    ``noise`` (profile and seed behind the noisy scenarios, where there are any)."""

    @property
    def headline_metric(self) -> str:
        """The metric that the data set names as its headline.

        Raises:
            DataError: the provenance does not say.
        """
        dataset = self.provenance.get("dataset") or {}
        if not dataset.get("headline_metric"):
            raise DataError("the results do not name the headline metric of their data; run mmrobust eval again")
        return str(dataset["headline_metric"])


@dataclass(frozen=True)
class ShardHeader:
    """What a shard of predictions says of itself, read without its rows."""

    path: Path
    provenance: dict[str, Any]
    """As of :class:`Shard`."""
    rows: int
    placed: bool
    """Whether it says where in the split its samples stand; not in schema 1."""


@dataclass(frozen=True)
class Shard:
    """A shard of predictions, as arrays: n predictions of C classes each."""

    path: Path
    provenance: dict[str, Any]
    """``identity``, what it is a hash of (``checkpoint``, ``dataset``, ``split``, ``dtype`` …), and more."""
    id: pa.Array
    case: pa.Array
    prompting: pa.Array
    label: pa.Array
    logits: npt.NDArray[np.float32]
    """[n, C]"""
    position: npt.NDArray[np.int64] | None
    """``None`` in a shard of schema 1."""
    natural: pa.Array | None
    """``None`` in a shard of schema 1."""

    def placed(self, place: Mapping[str, int]) -> Shard:
        """The same with the positions that ``place`` gives the ids; -1 for an id that it does not know."""
        ids = self.id.to_pylist()
        return replace(self, position=np.asarray([place.get(name, -1) for name in ids], dtype=np.int64))

    def within(self, samples: int) -> Shard:
        """What is about the first ``samples`` of the split, and known to lie in it."""
        assert self.position is not None
        kept = np.flatnonzero((self.position >= 0) & (self.position < samples))
        if len(kept) == len(self.position):
            return self
        rows = pa.array(kept)
        return replace(
            self,
            id=self.id.take(rows),
            case=self.case.take(rows),
            prompting=self.prompting.take(rows),
            label=self.label.take(rows),
            logits=self.logits[kept],
            position=self.position[kept],
            natural=None if self.natural is None else self.natural.take(rows),
        )

    def by_case(self) -> Iterator[tuple[tuple[str, str], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]]:
        """(case, prompting) → positions and logits."""
        assert self.position is not None
        case, prompting = self.case.dictionary_encode(), self.prompting.dictionary_encode()
        codes = case.indices.to_numpy() * len(prompting.dictionary) + prompting.indices.to_numpy()
        keys = [(c, p) for c in case.dictionary.to_pylist() for p in prompting.dictionary.to_pylist()]
        for code in sorted(np.unique(codes).tolist(), key=lambda code: keys[code]):
            rows = codes == code
            yield keys[code], (self.position[rows], self.logits[rows])


def read_shard_header(path: Path) -> ShardHeader:
    """What the shard of predictions in ``path`` says of itself.

    Raises:
        DataError: it cannot be read, or is no shard of predictions.
    """
    with open_parquet(path, "predictions") as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    provenance = read_provenance(schema, path, "predictions", PREDICTIONS_VERSION)
    return ShardHeader(path, provenance, rows, "position" in schema.names)


def read_shard(path: Path) -> Shard:
    """The shard of predictions in ``path``, every page of it checked.

    Raises:
        DataError: it cannot be read, is torn, or is no shard of predictions.
    """
    table = read_parquet(path, "predictions").combine_chunks()
    provenance = read_provenance(table.schema, path, "predictions", PREDICTIONS_VERSION)
    since_2 = ("position", "natural")
    absent = [n for n in PREDICTIONS_SCHEMA.names if n not in table.schema.names]
    if absent and not (provenance["schema_version"] == 1 and set(absent) <= set(since_2)):
        raise DataError(f"{path}: holds no predictions: no column {', '.join(absent)}")
    schema = pa.schema([field for field in PREDICTIONS_SCHEMA if field.name not in absent])
    with reading(path, what="predictions"):
        table = table.select(schema.names).cast(schema)
    for name in schema.names:
        if name != "noise_seed" and (table[name].null_count or _inner_nulls(table[name])):
            raise DataError(f"{path}: holds predictions without a value in column {name}")
    if "position" in schema.names and table.num_rows and pc.min(table["position"]).as_py() < 0:
        raise DataError(f"{path}: holds predictions of a sample before the first")
    columns = {n: table[n].combine_chunks() for n in table.schema.names}
    lengths = pc.unique(pc.list_value_length(columns["logits"])).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise DataError(f"{path}: holds predictions of different numbers of classes")
    return Shard(
        path,
        provenance,
        columns["id"],
        columns["case"],
        columns["prompting"],
        columns["label"],
        columns["logits"].flatten().to_numpy().reshape(-1, lengths[0]),
        columns["position"].to_numpy() if "position" in columns else None,
        columns.get("natural"),
    )


def write_shard(path: Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """A shard of predictions (columns as ``PREDICTIONS_SCHEMA``) with checksums, to ``path``, atomically."""
    write_table(path, table, {"kind": "predictions", "schema_version": PREDICTIONS_VERSION, **provenance})


def write_table(path: Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """``table`` as Parquet with its provenance, atomically."""
    metadata = {**(table.schema.metadata or {}), _METADATA_KEY: json.dumps(provenance, sort_keys=True).encode()}
    with atomic_file(path) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd", write_page_checksum=True)


def identified(
    frame: pd.DataFrame, name: str, described: Mapping[str, Any], dataset: Mapping[str, Any]
) -> pd.DataFrame:
    """Scored cells with the columns that say whose they are, as ``RESULTS_SCHEMA`` has them.

    Args:
        frame: one row per cell and metric.
        name: of the checkpoint.
        described: the checkpoint, as the provenance has it.
        dataset: the data, as the provenance has them.
    """
    columns: list[str] = list(RESULTS_SCHEMA.names)
    return frame.assign(
        checkpoint=name,
        dataset=dataset["name"],
        split=dataset["split"],
        **{key: described[key] for key in ("method", "head", "backbone")},
    )[columns]


def write_results(path: Path, frame: pd.DataFrame, provenance: Mapping[str, Any]) -> None:
    """The results table ``frame`` (columns as ``RESULTS_SCHEMA``), sorted by its key, to ``path``, atomically."""
    frame = frame.sort_values(list(RESULTS_KEYS), kind="stable", ignore_index=True)
    table = pa.Table.from_pandas(frame, schema=RESULTS_SCHEMA, preserve_index=False).replace_schema_metadata(None)
    write_table(path, table, {"kind": "results", "schema_version": RESULTS_VERSION, **provenance})


def read_results(path: Path) -> Results:
    """The results in ``path``: a results file, or the folder that holds ``results.parquet``.

    Raises:
        DataError: no such file, no results table, an empty one, or one of a newer schema.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    if not file.is_file():
        where = f"{path}: holds no {RESULTS_FILE}" if path.is_dir() else f"{path}: no such file or folder"
        raise DataError(f"{where}; results are made by: mmrobust eval CHECKPOINT --data DIR --out {path}")
    table = read_parquet(file, "results", "run mmrobust eval again")
    provenance = read_provenance(table.schema, file, "results", RESULTS_VERSION)
    absent = [name for name in RESULTS_SCHEMA.names if name not in table.schema.names]
    if absent:
        raise DataError(f"{file}: is no results table: no column {', '.join(absent)}")
    try:
        table = table.select(RESULTS_SCHEMA.names).cast(RESULTS_SCHEMA)
    except (pa.ArrowException, ValueError) as cause:
        raise DataError(f"{file}: a column has another type than results have ({first_line(cause)})") from cause
    if not table.num_rows:
        raise DataError(f"{file}: holds no rows; run mmrobust eval again")
    _check_rows(table, file)
    frame = table.to_pandas()
    for name in frame["checkpoint"].unique():
        if name not in provenance["checkpoints"]:
            raise DataError(f"{file}: holds results of '{name}', and does not say what that is")
    return Results(frame, provenance)


def _check_rows(table: pa.Table, file: Path) -> None:
    """Raise where a row of results has no key, or numbers that cannot be.

    Raises:
        DataError: the message names the column.
    """
    for name in RESULTS_SCHEMA.names:
        if name not in _NULLABLE and table[name].null_count:
            raise DataError(f"{file}: a row has no {name}; run mmrobust eval again")
    for name, least, most in (("missing_rate", 0.0, 1.0), ("seed", 0, 2**62), *((n, 0, 2**62) for n in _COUNTS)):
        found = pc.min_max(table[name]).as_py()
        if not least <= found["min"] <= found["max"] <= most:
            raise DataError(f"{file}: a row has a {name} of {found['min']} or {found['max']}; run mmrobust eval again")
    if pc.any(pc.is_nan(table["missing_rate"])).as_py():  # of which the least and the largest do not tell
        raise DataError(f"{file}: a row has a missing_rate that is no number; run mmrobust eval again")
    for name in _NULLABLE:
        if pc.any(pc.is_inf(table[name])).as_py():
            raise DataError(f"{file}: a row has an infinite {name}; run mmrobust eval again")


def read_provenance(schema: pa.Schema, file: Path, kind: str, newest: int) -> dict[str, Any]:
    """The provenance in a Parquet schema.

    Raises:
        DataError: the file is not of the ``kind`` that mmrobust writes, of a newer version than ``newest``, or says of
            itself what makes no sense.
    """
    raw = (schema.metadata or {}).get(_METADATA_KEY)
    try:
        provenance: Any = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict) or provenance.get("kind") != kind:
        raise DataError(f"{file}: was not written by mmrobust as {kind}")
    version = provenance.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{file}: {kind} of schema {version}, which there is not")
    if version > newest:
        said = f"{kind} of schema {version}, newer than this mmrobust reads ({newest}); upgrade it"
        raise NewerFormatError(f"{file}: {said}")
    described = DESCRIBED if kind == "predictions" and provenance.keys() & {"about", "described"} else {}
    under_noise = {"noise_seed!": int} if "noise_profile" in provenance else {}
    if wrong := misfit(provenance, SHAPES.get(kind, {}) | described | under_noise):
        raise DataError(f"{file}: what it says of itself is damaged ({wrong})")
    return provenance


def _inner_nulls(column: pa.ChunkedArray) -> int:
    return int(pc.list_flatten(column).null_count) if pa.types.is_list(column.type) else 0
