"""Reading Parquet files that may be damaged or hostile, and writing them with provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.errors import DataError, MmrobustError
from mmrobust.storage.files import atomic_file, check_file, is_utf8, read_error, system_failure
from mmrobust.storage.provenance import METADATA_KEY

_ROWS_AT_ONCE = 1024
_LFS_POINTER = b"version https://git-lfs.github.com/"


@contextmanager
def reading(place: object, way_out: str = "", what: str = "Parquet") -> Iterator[None]:
    """Turn whatever Arrow raises on a damaged file into a :class:`DataError`.

    The message begins with the ``place``, says ``what`` it should be, and ends with the ``way_out``.

    Raises:
        ReadError: the system did not read it, so that nothing is known of the file.
    """
    try:
        yield
    except MmrobustError:
        raise
    except Exception as cause:  # mostly Arrow's own errors, but text that is not UTF-8 raises others
        if why := system_failure(cause):
            raise read_error(place, why) from cause
        end = f"; {way_out}" if way_out else ""
        raise DataError(f"{place}: cannot be read as {what} ({first_line(cause)}){end}") from cause


def open_parquet(file: Path, what: str, way_out: str = "") -> pq.ParquetFile:
    """Open ``file``, which must be a regular file: a pipe would hang.

    Raises:
        DataError: there is no such file, or it is not Parquet.
    """
    check_file(file, what)
    with reading(file, way_out):
        with file.open("rb") as raw:
            if raw.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise DataError(f"{file}: is a Git LFS pointer, not the {what} itself; fetch it with: git lfs pull")
        place = file if is_utf8(file) else pa.OSFile(os.fsencode(file))
        opened = pq.ParquetFile(place, page_checksum_verification=True, pre_buffer=False, buffer_size=2**18)
        _ = opened.schema_arrow.names  # raises where the schema itself is damaged
    return opened


def read_parquet(file: Path, what: str, way_out: str = "", columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table in ``file``; check its checksums and every value: strings are UTF-8, lists lie in their buffers.

    With ``columns``, only these are read, where they exist.

    Raises:
        DataError: it cannot be read.
    """
    with open_parquet(file, what, way_out) as opened, reading(file, way_out):
        schema = opened.schema_arrow
        batches = list(read_batches(opened, file, what, columns))
        names = [name for name in schema.names if columns is None or name in columns]
        return pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in names], schema.metadata))


def read_batches(
    opened: pq.ParquetFile, file: Path, what: str, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Read what :func:`open_parquet` has ``opened``, some rows at a time, each checked as by :func:`read_parquet`.

    Reading long lists of numbers at once takes several times the memory of the table.

    Raises:
        DataError: two columns have one name. Damage raises Arrow's own errors: see :func:`reading`.
    """
    names = opened.schema_arrow.names
    if len(set(names)) < len(names):
        raise DataError(f"{file}: the {what} has two columns of one name")
    wanted = None if columns is None else [name for name in columns if name in names]
    for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
        batch.validate(full=True)
        yield batch


def checked(table: pa.Table) -> pa.Table:
    """Return ``table`` after validating every value of it."""
    table.validate(full=True)
    return table


def first_line(cause: BaseException) -> str:
    """Return the first line of the message of ``cause``: Arrow appends a trace of its own."""
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def write_table(path: Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """Write ``table`` as Parquet to ``path`` atomically, with its provenance in the metadata."""
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(provenance, sort_keys=True).encode()}
    with (
        atomic_file(path) as partial,
        parquet_sink(partial) as place,
    ):
        pq.write_table(table.replace_schema_metadata(metadata), place, compression="zstd", write_page_checksum=True)


def parquet_sink(file: Path) -> AbstractContextManager[Any]:
    """What Arrow writes ``file`` to: it opens no name that is not UTF-8."""
    return nullcontext(file) if is_utf8(file) else pa.OSFile(os.fsencode(file), "wb")
