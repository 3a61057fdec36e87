"""The report as CSV: the tidy rows behind it, in full precision, for a spreadsheet or another program."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.csv as pa_csv

from mmrobust.report.report import Report
from mmrobust.storage.results import RESULTS_SCHEMA


def render(report: Report) -> str:
    """Write the rows of ``report``, columns as ``RESULTS_SCHEMA``.

    A float is the shortest decimal that reads back as the same number; an unknown value is empty. Arrow writes this in
    a twentieth of the time that pandas takes, which matters for a hundred thousand rows.
    """
    rows = pa.Table.from_pandas(report.results, schema=RESULTS_SCHEMA, preserve_index=False)
    try:
        text = _write(rows, "none")
    except pa.ArrowInvalid:  # a name holds a comma, a quote or a line break: quote every string
        text = _write(rows, "needed")
    return ",".join(RESULTS_SCHEMA.names) + "\n" + text


def _write(rows: pa.Table, quoting: str) -> str:
    text = io.BytesIO()
    pa_csv.write_csv(rows, text, pa_csv.WriteOptions(include_header=False, quoting_style=quoting))
    return text.getvalue().decode()
