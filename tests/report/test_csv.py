"""The report as CSV."""

from __future__ import annotations

import csv
import io

import pandas as pd

from mmrobust.report import FORMATS
from mmrobust.report.report import build_report
from mmrobust.storage.results import RESULTS_SCHEMA


def test_every_row_comes_back_in_full_precision(two):
    header, *rows = csv.reader(io.StringIO(FORMATS["csv"](build_report(two))))
    assert header == RESULTS_SCHEMA.names
    whole = pd.concat([frame for frame, _ in two], ignore_index=True)
    assert len(rows) == len(whole)
    for column in ("value", "ci_low", "ci_high", "missing_rate"):
        assert [float(row[header.index(column)]) for row in rows] == whole[column].tolist()


def test_other_metrics_are_there_unless_one_is_named(two):
    assert "macro_f1" in FORMATS["csv"](build_report(two))
    assert "macro_f1" not in FORMATS["csv"](build_report(two, metric="accuracy"))
