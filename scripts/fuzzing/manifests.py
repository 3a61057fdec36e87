"""Damage to manifests: cells, columns, separators, encodings."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from fuzzing.sound import put
from fuzzing.tables import damaged_table
from fuzzing.values import NASTY_TEXTS, Draw, changed_bytes, changed_value, nested

CELLS = (*NASTY_TEXTS, "a|b", "|", "||a", "x" * 200_000, "gone.png", "/etc/hostname", "../raw", ".", "manifest.csv")


def damaged_manifest(draw: Draw, folder: Path) -> tuple[str, str]:
    """Damage the manifest in ``folder``. Returns its name and what was done."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    ending = draw(st.sampled_from(("csv", "csv", "tsv", "jsonl", "parquet")))
    name, note = f"manifest.{ending}", "cells"
    for _ in range(draw(st.integers(1, 4))):
        match draw(st.sampled_from(("cell", "cell", "cell", "column", "rename", "row", "rows"))):
            case "cell":
                row = rows[draw(st.integers(0, len(rows) - 1))]
                row[draw(st.integers(0, len(row) - 1))] = draw(st.one_of(st.sampled_from(CELLS), st.text(max_size=6)))
            case "column":
                at, value = draw(st.integers(0, len(header) - 1)), draw(st.sampled_from(CELLS))
                for row in rows:
                    row[at % len(row)] = value
            case "rename":
                header[draw(st.integers(0, len(header) - 1))] = draw(st.sampled_from((*header, "x", "", "ID", " id")))
            case "row":
                rows.insert(draw(st.integers(0, len(rows))), list(draw(st.sampled_from(rows))))
            case "rows":
                rows = rows[: draw(st.integers(1, 3))]
    if ending == "parquet":
        columns: dict[str, Any] = {}
        for at, column in enumerate(header):
            columns[column] = [row[at] for row in rows]
        pq.write_table(pa.table({k: [_utf8(v) for v in vs] for k, vs in columns.items()}), folder / name)
        return name, damaged_table(draw, folder / name)
    if ending == "jsonl":
        lines = [dict(zip(header, row, strict=True)) for row in rows]
        match draw(st.sampled_from(("plain", "values", "deep", "other", "digits"))):
            case "values":
                lines = changed_value(draw, lines)
                note = "values"
            case "deep":
                return name, _write(folder / name, '{"id": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "deep")
            case "other":
                return name, _write(
                    folder / name, draw(st.sampled_from(("1\n", "[]\n", "{}\n", "null\n", "\n"))), "other"
                )
            case "digits":
                return name, _write(folder / name, '{"id": ' + "9" * 5000 + "}\n", "digits")
        text = "\n".join(json.dumps(line) for line in lines)
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter="\t" if ending == "tsv" else ",", escapechar="\\")
        writer.writerows([header, *rows])
        text = buffer.getvalue()
    data = text.encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(("plain", "plain", "plain", "bytes", "encoding", "ends", "nested", "quote", "empty"))):
        case "bytes":
            data, note = changed_bytes(draw, data), "bytes"
        case "encoding":
            coding = draw(st.sampled_from(("utf-16", "utf-32", "utf-8-sig", "latin-1", "cp1252")))
            data, note = text.encode(coding, "replace"), coding
        case "ends":
            data, note = data.replace(b"\r\n", draw(st.sampled_from((b"\r", b"\n\n", b"\n\r", b"\x0b")))), "line ends"
        case "nested":
            data, note = json.dumps(nested(200)).encode(), "no table"
        case "quote":
            data, note = data.replace(b",", b',"', 1), "an open quote"
        case "empty":
            data, note = draw(st.sampled_from((b"", b"\n", b"\xef\xbb\xbf", b"\0" * 100, b","))), "nothing"
    put(folder / name, data)
    return name, note


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _write(file: Path, text: str, note: str) -> str:
    put(file, text.encode())
    return note
