"""Reading tables row by row: CSV, TSV, JSONL and Parquet, with the place of each row for messages."""

from __future__ import annotations

import codecs
import csv
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.errors import DataError

MAX_CELL_CHARACTERS = 2**26
"""Longest cell or line of a CSV. Python's own limit, 131,072, is less than some texts have."""
CHARACTERS_AT_ONCE = 2**20
"""Characters that are read at a time."""
BATCH_ROWS = 256
"""Rows of a Parquet table that are read at a time."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What may delimit the cells of a CSV or TSV file, and what it is called."""

EMPTY_WORDS = ("nan", "none", "null", "<na>", "nat", "n/a", "#n/a", "#ref!", "#name?", "#value!", "#div/0!")
"""What pandas, databases and spreadsheets write in place of a value that is not there, in lower case."""

Cells = dict[str, Any]
Rows = Iterator[tuple[str, Cells]]
"""For each row its place, for messages, and its cells by column."""


@dataclass(frozen=True)
class Table:
    """A table that can be read repeatedly, and is never held in memory."""

    columns: list[str]
    rows: Callable[[], Rows]
    """Reads the rows from the start. An invalid row raises a ``DataError`` when it is reached."""
    format: str
    """Its format, for messages: ``CSV delimited by semicolons``."""


def open_table(source: Path, needed: Sequence[str] = (), what: str = "manifest") -> Table:
    """Open a table, in the format that its name ends in.

    The cells of a CSV or TSV file are delimited by commas, semicolons or tabs: by what its first line has most of, or
    what a line ``sep=;`` before it says. Columns without a name, and rows, that are empty throughout are left out, as
    spreadsheets add both.

    Args:
        source: the file.
        needed: columns that it must have.
        what: what it is, for messages.

    Raises:
        DataError: the file is missing or cannot be read (the message names the line), its ending is unknown, or it
            lacks a ``needed`` column.
    """
    if source.is_dir():
        raise DataError(f"{source}: is a folder; name the {what} itself, a CSV, TSV, JSONL or Parquet file")
    if not source.is_file():
        raise DataError(f"{source}: no such file; name the {what}, a CSV, TSV, JSONL or Parquet file")
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise DataError(f"{source}: its format is unknown; the name must end in {', '.join(_READERS)}")
    table = reader(source, what)
    for column in needed:
        if column not in table.columns:
            raise DataError(f"{source}: no column '{column}'; it has {', '.join(table.columns)}")
    return table


def rounded_hint(name: str) -> str:
    """A remark on an id such as 9.91214E+15, beginning with a semicolon; empty for others."""
    if not re.fullmatch(r"\d([.,]\d+)?[eE]\+\d+", name):
        return ""
    return f"; '{name}' was rounded by a spreadsheet: export the ids as text"


def delimited_lines(source: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV file that is not blank: the number of its last line, and its fields.

    Raises:
        DataError: the file is not Unicode text or not CSV; the message names the line.
    """
    reader = csv.reader(_lines(source, newline=""), delimiter=delimiter, strict=True)
    while True:
        # The limit is global to the process, so it is raised only while a row is read.
        previous = csv.field_size_limit(MAX_CELL_CHARACTERS)
        try:
            fields = next(reader, None)
        except UnicodeDecodeError as cause:
            raise _no_unicode(source, cause) from None
        except csv.Error as cause:
            kind = source.suffix[1:].upper()
            raise DataError(f"{source}, line {reader.line_num}: cannot be read as {kind} ({cause})") from cause
        finally:
            csv.field_size_limit(previous)
        if fields is None:
            return
        if fields:
            yield reader.line_num, fields


def json_lines(source: Path) -> Rows:
    """Yield the place of each line of a JSONL file, for messages, and the object in it.

    Raises:
        DataError: the file is not Unicode text, or a line is not a JSON object; the message names it.
    """
    row = 0
    try:
        for line, text in enumerate(_lines(source), start=1):
            if not text.strip():
                continue
            row += 1
            where = f"{source}, row {row} (line {line})"
            try:
                cells = json.loads(text)
            except (ValueError, RecursionError) as cause:
                raise DataError(f"{where}: is not JSON ({cause})") from cause
            if not isinstance(cells, dict):
                raise DataError(f"{where}: is not a JSON object; each line must be one, with a key per column")
            yield where, cells
    except UnicodeDecodeError as cause:
        raise _no_unicode(source, cause) from None


def _lines(source: Path, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a file, which is open only while lines are read: a reader may stop halfway."""
    number = place = 0
    encoding = _encoding(source)
    while True:
        some, size = [], 0
        with source.open(encoding=encoding, newline=newline) as file:
            file.seek(place)
            while size < CHARACTERS_AT_ONCE and (line := file.readline(MAX_CELL_CHARACTERS + 1)):
                some.append(line)
                size += len(line)
            place = file.tell()
        if not some:
            return
        for line in some:
            number += 1
            if len(line) > MAX_CELL_CHARACTERS:
                raise DataError(f"{source}, line {number}: is longer than {MAX_CELL_CHARACTERS:,} characters")
            yield line


def _encoding(source: Path) -> str:
    """UTF-8, or the UTF-16 that a byte order mark says: spreadsheets call it Unicode text."""
    with source.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"


def _no_unicode(source: Path, cause: UnicodeDecodeError) -> DataError:
    way = "save it as UTF-8 (in a spreadsheet: as CSV UTF-8)" if source.suffix.lower() == ".csv" else "save it as UTF-8"
    return DataError(f"{source}: is not UTF-8 text ({cause.reason} at byte {cause.start}); {way}")


def _delimiter(source: Path, usual: str) -> tuple[str, int]:
    """What delimits the cells of ``source``, and the number of lines before its header.

    It is what a line ``sep=;`` says, or what the first line has most of, outside quotes; of equals, the ``usual``.
    """
    try:
        line = next(_lines(source), "")
    except UnicodeDecodeError as cause:
        raise _no_unicode(source, cause) from None
    said = re.fullmatch(r'"?sep=(.)"?\s*', line)
    if said and said[1] in DELIMITERS:
        return said[1], 1
    bare = re.sub(r'"[^"]*"', "", line)
    return max((usual, *DELIMITERS), key=bare.count), 0


def _open_delimited(source: Path, what: str, usual: str) -> Table:
    delimiter, before = _delimiter(source, usual)

    def read() -> Iterator[tuple[int, list[str]]]:
        return itertools.islice(delimited_lines(source, delimiter), before, None)

    first = next(read(), None)
    if first is None:
        raise DataError(f"{source}: is empty; the first line must name the columns")
    header = [column.strip() for column in first[1]]
    width = max((at for at, column in enumerate(header, start=1) if column), default=1)
    header = header[:width]  # what is to the right of it has no name, and must be empty
    twice = [column for i, column in enumerate(header) if column in header[:i]]
    if twice:
        raise DataError(f"{source}: column '{twice[0]}' appears twice")

    def rows() -> Rows:
        for row, (line, fields) in enumerate(itertools.islice(read(), 1, None), start=1):
            if len(fields) > 1 and not any(field.strip() for field in fields):
                continue
            where = f"{source}, row {row} (line {line})"
            if len(fields) < width or any(field.strip() for field in fields[width:]):
                raise DataError(f"{where}: has {len(fields)} fields, the header names {width}")
            yield where, dict(zip(header, fields[:width], strict=True))

    return Table(header, rows, f"{source.suffix[1:].upper()} delimited by {DELIMITERS[delimiter]}")


def _open_jsonl(source: Path, what: str) -> Table:
    columns = dict.fromkeys(column for _, cells in json_lines(source) for column in cells)
    if not columns:
        raise DataError(f"{source}: is empty; each line must be a JSON object")
    return Table(list(columns), functools.partial(json_lines, source), "JSONL")


def _open_parquet(source: Path, what: str) -> Table:
    from mmrobust.storage.parquet import open_parquet, reading

    file = open_parquet(source, what)

    def rows() -> Rows:
        row = 0
        with reading(source):
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for cells in batch.to_pylist():
                    row += 1
                    yield f"{source}, row {row}", cells

    return Table(file.schema_arrow.names, rows, "Parquet")


_READERS: dict[str, Callable[[Path, str], Table]] = {
    ".csv": functools.partial(_open_delimited, usual=","),
    ".tsv": functools.partial(_open_delimited, usual="\t"),
    ".jsonl": _open_jsonl,
    ".parquet": _open_parquet,
}
