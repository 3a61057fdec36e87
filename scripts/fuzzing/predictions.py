"""Files of predictions that another program wrote, and damage to them."""

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
from fuzzing.values import NASTY_NUMBERS, NASTY_TEXTS, Draw, changed_bytes, changed_value

CASES = ("complete", "missing-text", "missing-image")
VALUES = (
    *NASTY_TEXTS,
    "0,7",
    "70%",
    "1e5",
    "9.9E+15",
    "1_0",
    "-0.0",
    "inf",
    "1.000,5",
    "[0.1]",
    "NaN",
    "#N/A",
    "1e-400",
)
NAMES = (
    *(
        *NASTY_TEXTS,
        "complete",
        "Complete",
        "missing-both",
        "noisy-image:blur@3",
        "noisy-image@9",
        "missing-image+missing-text",
    ),
    *("missing-image+noisy-text", "missing-audio", "situation", "concat", "none"),
)


def damaged_predictions(draw: Draw, folder: Path, ids: list[str], classes: tuple[str, ...]) -> tuple[str, str]:
    """Write predictions of ``ids`` into ``folder``, and damage them. Returns the file's name and what was done."""
    header = ["id", "case", *classes]
    if told := draw(st.booleans()):
        header.append("prompting")
    rows: list[list[Any]] = []
    for case in CASES:
        for place, name in enumerate(ids):
            scores = [round(((place * 7 + number * 3) % 11) / 10, 3) for number in range(len(classes))]
            rows.append([name, case, *scores, *(["situation"] if told else [])])
    notes = []
    for _ in range(draw(st.integers(0, 3))):
        action = draw(
            st.sampled_from(("value", "value", "id", "name", "column", "row", "rows", "probabilities", "seed"))
        )
        notes.append(action)
        row = rows[draw(st.integers(0, len(rows) - 1))]
        match action:
            case "value":
                row[draw(st.integers(2, len(row) - 1))] = draw(st.sampled_from((*VALUES, *NASTY_NUMBERS)))
            case "id":
                row[0] = draw(st.sampled_from((*VALUES, *NASTY_NUMBERS, rows[0][0])))
            case "name":
                row[draw(st.sampled_from((1, len(row) - 1)))] = draw(st.sampled_from(NAMES))
            case "column":
                place = draw(st.integers(0, len(header) - 1))
                header[place] = draw(st.sampled_from((*header, "x", "", " id", "noise_seed", "Case")))
            case "row":
                rows.append(list(row))
            case "rows":
                rows = rows[: draw(st.integers(0, 3))] or [row]
            case "probabilities":
                for each in rows:
                    each[2 : 2 + len(classes)] = [1 / len(classes)] * len(classes)
            case "seed" if "noise_seed" not in header:
                header.append("noise_seed")
                for each in rows:
                    each.append(draw(st.sampled_from(("", 0, 1, "3.0", -1, "x", 10**30))))
    ending = draw(st.sampled_from(("csv", "csv", "tsv", "jsonl", "parquet")))
    file = folder / f"predictions.{ending}"
    if ending == "parquet":
        columns = {
            name: [_text(row[place]) for row in rows] for place, name in enumerate(header) if place < len(rows[0])
        }
        pq.write_table(pa.table(columns), file)
        if draw(st.booleans()):
            notes.append(damaged_table(draw, file))
        return file.name, ", ".join(notes)
    if ending == "jsonl":
        lines: Any = [dict(zip(header, row, strict=False)) for row in rows]
        if draw(st.integers(0, 2)) == 0:
            lines = changed_value(draw, lines)
        text = "\n".join(json.dumps(line) for line in lines)
    else:
        buffer = io.StringIO()
        delimiter = "\t" if ending == "tsv" else draw(st.sampled_from(",,;\t"))
        csv.writer(buffer, delimiter=delimiter, escapechar="\\").writerows([header, *rows])
        text = draw(st.sampled_from(("", "", f"sep={delimiter}\n"))) + buffer.getvalue()
    data = text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1"))), "backslashreplace")
    put(file, changed_bytes(draw, data) if draw(st.integers(0, 4)) == 0 else data)
    return file.name, ", ".join(notes)


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()
