"""Damage to the bytes, schemas and values of Parquet tables, and to missing tables in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from fuzzing.sound import put
from fuzzing.values import NASTY_TEXTS, Draw, changed_bytes

TYPES: tuple[Any, ...] = (
    pa.null(),
    pa.bool_(),
    pa.int8(),
    pa.uint64(),
    pa.float64(),
    pa.float16(),
    pa.string(),
    pa.large_string(),
    pa.binary(),
    pa.date32(),
    pa.timestamp("ns"),
    pa.decimal128(38, 10),
    pa.list_(pa.float32()),
    pa.list_(pa.list_(pa.int64())),
    pa.struct([("bytes", pa.string()), ("path", pa.int64())]),
    pa.struct([("path", pa.string())]),
    pa.dictionary(pa.int32(), pa.string()),
)


def damaged_table(draw: Draw, file: Path) -> str:
    """Damage the table in ``file``. Returns what was done."""
    if file.suffix != ".parquet" or draw(st.integers(0, 2)) == 0:
        put(file, changed_bytes(draw, file.read_bytes()))
        return "bytes changed"
    table = pq.read_table(file)
    name = draw(st.sampled_from(table.schema.names))
    index = table.schema.get_field_index(name)
    action = draw(st.sampled_from(("drop", "type", "values", "values", "values", "rows", "twice", "rename", "groups")))
    match action:
        case "drop":
            table = table.drop_columns([name])
        case "type":
            kind = draw(st.sampled_from(TYPES))
            table = table.set_column(index, name, _cast(table[name], kind))
            action = f"type {kind}"
        case "values":
            table = table.set_column(index, pa.field(name, table.schema.field(name).type), _odd(draw, table[name]))
        case "rows":
            match draw(st.sampled_from(("none", "doubled", "first", "reversed"))):
                case "none":
                    table = table.slice(0, 0)
                case "doubled":
                    table = pa.concat_tables([table, table])
                case "first":
                    table = table.slice(0, 1)
                case "reversed":
                    table = table.take(pa.array(range(table.num_rows - 1, -1, -1)))
        case "twice":
            table = table.append_column(name, table[name])
        case "rename":
            other = draw(st.sampled_from((*table.schema.names, "x", "", "\x1b[31m")))
            table = table.rename_columns([other if column == name else column for column in table.schema.names])
    size = draw(st.sampled_from((1, 3, 1000))) if action == "groups" else 1000
    file.unlink()
    try:
        pq.write_table(table, file, row_group_size=size)
    except pa.ArrowException:  # Parquet has no such type
        file.write_bytes(b"PAR1")
    return f"{name}: {action}"


def _cast(column: Any, kind: Any) -> Any:
    try:
        return column.cast(kind)
    except (pa.ArrowException, ValueError, TypeError):
        return pa.nulls(len(column), kind)


def _odd(draw: Draw, column: Any) -> Any:
    """Return the column with some or all values replaced by odd ones of the same type."""
    kind, rows = column.type, column.to_pylist()
    places = (
        range(len(rows)) if draw(st.integers(0, 3)) == 0 else draw(st.lists(st.integers(0, len(rows) - 1), max_size=3))
    )
    value = draw(st.one_of(st.none(), _of(kind)))
    for place in places:
        rows[place] = value
    if pa.types.is_string(kind) and draw(st.integers(0, 3)) == 0:  # bytes that are not UTF-8, in a column of strings
        raw = [None if row is None else row.encode("utf-8", "surrogatepass") + b"\xff" for row in rows]
        return pa.chunked_array([pa.array(raw, pa.binary()).view(pa.string())])
    try:
        return pa.chunked_array([pa.array(rows, kind)])
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.chunked_array([pa.nulls(len(rows), kind)])


def _of(kind: Any) -> st.SearchStrategy[Any]:
    """Return odd values of a type."""
    if pa.types.is_string(kind):
        return st.one_of(st.sampled_from([t for t in NASTY_TEXTS if t != "\ud800"]), st.just("x" * 2**22))
    if pa.types.is_integer(kind):
        return st.sampled_from((0, 1, -1, 3, 10**9, 2**62, -(2**63)))
    if pa.types.is_floating(kind):
        return st.sampled_from((0.0, -1.0, 2.0, 1e38, float("nan"), float("inf"), float("-inf")))
    if pa.types.is_binary(kind):
        return st.sampled_from((b"", b"\0", b"\xff" * 100, bytes(2**20)))
    if pa.types.is_list(kind):
        return st.lists(st.one_of(st.none(), _of(kind.value_type)), max_size=12)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: st.one_of(st.none(), _of(field.type)) for field in kind})
    return st.none()
