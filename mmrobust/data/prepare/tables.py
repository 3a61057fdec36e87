"""Tables as people write them: CSV, TSV, JSONL, Parquet. Read row by row, with the place of each for messages."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmrobust.errors import DataError

MAX_CELL_CHARACTERS = 2**26
"""Longest cell of a CSV; Python's own limit is 131,072, less than some texts have."""

Cells = dict[str, Any]
Table = tuple[list[str], Iterator[tuple[str, Cells]]]
"""Column names, and (where it stands, cells) of each row."""


def open_table(source: Path) -> Table:
    """Open a table by its ending.

    Returns:
        The column names, and for each row where it stands (for messages) and its cells by column.

    Raises:
        DataError: no such file, an unknown ending, or one that cannot be read; the message names the line.
    """
    if source.is_dir():
        raise DataError(f"{source}: is a folder; --source names the manifest itself, a CSV, JSONL or Parquet file")
    if not source.is_file():
        raise DataError(f"{source}: no such file; --source names a manifest, a CSV, JSONL or Parquet file")
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise DataError(f"{source}: ends in none of {', '.join(_READERS)}, so its format is not known")
    try:
        return reader(source)
    except UnicodeDecodeError as cause:
        raise DataError(
            f"{source}: is not UTF-8 text ({cause.reason} at byte {cause.start}); save it as UTF-8"
        ) from None


def _read_delimited(source: Path, delimiter: str) -> Table:
    previous = csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            numbered = [(reader.line_num, fields) for fields in reader if fields]
    except csv.Error as cause:
        raise DataError(
            f"{source}, line {reader.line_num}: cannot be read as {source.suffix[1:].upper()} ({cause})"
        ) from cause
    finally:
        csv.field_size_limit(previous)
    if not numbered:
        raise DataError(f"{source}: is empty; the first line names the columns")
    header = [column.strip() for column in numbered[0][1]]
    twice = [column for i, column in enumerate(header) if column in header[:i]]
    if twice:
        raise DataError(f"{source}: column '{twice[0]}' is there twice")

    def rows() -> Iterator[tuple[str, Cells]]:
        for row, (line, fields) in enumerate(numbered[1:], start=1):
            where = f"{source}, row {row} (line {line})"
            if len(fields) != len(header):
                raise DataError(f"{where}: has {len(fields)} fields, the header names {len(header)}")
            yield where, dict(zip(header, fields, strict=True))

    return header, rows()


def _read_jsonl(source: Path) -> Table:
    parsed: list[tuple[str, Cells]] = []
    header: dict[str, None] = {}
    with source.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            where = f"{source}, row {len(parsed) + 1} (line {line})"
            try:
                cells = json.loads(text)
            except (ValueError, RecursionError) as cause:
                raise DataError(f"{where}: is no JSON ({cause})") from cause
            if not isinstance(cells, dict):
                raise DataError(f"{where}: is no JSON object; each line is one, with a key per column")
            parsed.append((where, cells))
            header.update(dict.fromkeys(cells))
    if not parsed:
        raise DataError(f"{source}: is empty; each line is one JSON object")
    return list(header), iter(parsed)


def _read_parquet(source: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(source)
    except (pa.ArrowException, OSError) as cause:
        reason = (str(cause).splitlines() or ["damaged"])[0]
        raise DataError(f"{source}: cannot be read as Parquet ({reason})") from cause
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    return table.column_names, ((f"{source}, row {row}", cells) for row, cells in enumerate(rows, start=1))


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": functools.partial(_read_delimited, delimiter=","),
    ".tsv": functools.partial(_read_delimited, delimiter="\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
