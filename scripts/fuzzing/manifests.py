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

PATHS = (
    *("gone.png", "/etc/hostname", "../raw", ".", "manifest.csv", "~", "~root/x", "~nobody-of-that-name/x"),
    *("file://", "file:///etc/hostname", "file://localhost/%00", "https://example.org/a.png", "s3://", "C:\\x\\y.png"),
    *(
        "..\\raw\\manifest.csv",
        "%2e%2e%2fraw",
        "%",
        "%zz",
        "e\u0301.png",
        "\u00e9/\u00e9",
        "data:,x",
        "nan",
        "None",
        "/data/upload/1",
    ),
)
LABELS = (
    *(
        "[1, 0, 1]",
        "[0, 0, 0]",
        "[1, 0]",
        "[1 0 1]",
        "[1. 0. 1.]",
        "[0.5, 0.5]",
        "['a', 'b']",
        "['a' 'b']",
        '["a", "b"]',
    ),
    *("[]", "[[]]", "[[1]]", "[null]", "[NaN]", "['']", "('a',)", "{'a', 'b'}", "{}", "{'a': 1}", '{"choices": ["a"]}'),
    *(
        '{"choices": 1}',
        '{"choices": [[]]}',
        "[" * 3000,
        "[" * 200 + "]" * 200,
        "[" + "1," * 5000 + "]",
        "(" * 90 + ")" * 90,
    ),
    *("a;b", "a, b", "a|b", ";", ",", "|", "||a", "a;;b", "0.5", "0,5", "1e5", "-0", "1.0", "1.", "+1", "007", "1e999"),
    *("nan", "NaN", "-1", "#N/A", "True", "a\nb", "__import__('os')", "[__import__('os').getcwd()]", "[1, 0, True]"),
)
JSON_LABELS: tuple[Any, ...] = (
    *(
        [1, 0, 1],
        [0, 1],
        [],
        [[]],
        [None],
        [0.5],
        [1.0, 0.0],
        ["a", "b|c"],
        ["a"],
        [""],
        [True, False],
        [{}],
        {},
        {"a": 1},
    ),
    *({"choices": ["a", "b"]}, {"choices": []}, 0.5, -1, 10**30, 1e300, True, None, "a", "['a']", float("nan")),
)
CELLS = (*NASTY_TEXTS, "x" * 200_000, *PATHS, *LABELS)


def damaged_manifest(draw: Draw, folder: Path) -> tuple[str, str]:
    """Damage the manifest in ``folder``. Returns its name and what was done."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    ending = draw(st.sampled_from(("csv", "csv", "tsv", "jsonl", "parquet")))
    name, note = f"manifest.{ending}", "cells"
    for _ in range(draw(st.integers(1, 4))):
        match draw(
            st.sampled_from(("cell", "cell", "cell", "labels", "labels", "paths", "column", "rename", "row", "rows"))
        ):
            case "labels" if len(header) > 4:
                some = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=3))
                for place, row in enumerate(rows):
                    row[4] = some[place % len(some)]
            case "paths":
                rows[draw(st.integers(0, len(rows) - 1))][draw(st.integers(1, 2))] = draw(st.sampled_from(PATHS))
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
        lines: Any = [dict(zip(header, row, strict=True)) for row in rows]
        if draw(st.integers(0, 2)) == 0:  # labels as JSON's own lists and numbers
            for line in lines:
                line["label"] = draw(st.sampled_from(JSON_LABELS))
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
        delimiter = draw(st.sampled_from(",,;\t"))
        writer = csv.writer(buffer, delimiter="\t" if ending == "tsv" else delimiter, escapechar="\\")
        empty = [""] * draw(st.sampled_from((0, 0, 0, 2)))
        writer.writerows([[*row, *empty] for row in (header, *rows)])
        first = draw(st.sampled_from(("", "", "", f"sep={delimiter}\n", "sep=x\n", "\n")))
        text = first + buffer.getvalue()
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
