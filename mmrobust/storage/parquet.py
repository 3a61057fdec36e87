"""Parquet files from anywhere: opened after a look at them, and every value checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.errors import DataError, MmrobustError
from mmrobust.storage.files import check_file


@contextmanager
def reading(place: object, way_out: str = "", what: str = "Parquet") -> Iterator[None]:
    """Turn whatever a damaged file makes Arrow raise into one line.

    Args:
        place: the file, or the part of it, for the message.
        way_out: what to do about it, for the message's end.
        what: what it should be.

    Raises:
        DataError: the block failed.
    """
    try:
        yield
    except MmrobustError:
        raise
    except Exception as cause:  # Arrow's own errors mostly, but names and texts that are no UTF-8 raise others
        end = f"; {way_out}" if way_out else ""
        raise DataError(f"{place}: cannot be read as {what} ({first_line(cause)}){end}") from cause


def open_parquet(file: Path, what: str, way_out: str = "") -> pq.ParquetFile:
    """``file``, opened. What is no regular file would hang, and is refused.

    Raises:
        DataError: no such file, or no Parquet.
    """
    check_file(file, what)
    with reading(file, way_out):
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        _ = opened.schema_arrow.names  # of a damaged file not even these can be read
    return opened


def read_parquet(file: Path, what: str, way_out: str = "", columns: Sequence[str] | None = None) -> pa.Table:
    """The table in ``file``, its checksums and every value checked: texts are UTF-8, lists lie within their buffers.

    Args:
        file: the file.
        what: what it is, for the message.
        way_out: what to do where it is damaged, for the message.
        columns: only those of them that there are; ``None``: all.

    Raises:
        DataError: it cannot be read.
    """
    with open_parquet(file, what, way_out) as opened, reading(file, way_out):
        there = opened.schema_arrow.names
        if len(set(there)) < len(there):
            raise DataError(f"{file}: a column is there twice; it is the {what}")
        return checked(opened.read(None if columns is None else [name for name in columns if name in there]))


def checked(table: pa.Table) -> pa.Table:
    """``table``, every value of which was looked at."""
    table.validate(full=True)
    return table


def first_line(cause: BaseException) -> str:
    """What ``cause`` says first: Arrow appends a trace of its own."""
    return (str(cause).splitlines() or [type(cause).__name__])[0]
