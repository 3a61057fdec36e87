"""The report as CSV: the tidy rows behind it, in full precision, for a spreadsheet or another program."""

from __future__ import annotations

from mmrobust.report.tables import Report
from mmrobust.results import RESULTS_SCHEMA


def render(report: Report) -> str:
    """The rows of ``report``, columns as ``RESULTS_SCHEMA``; floats as written by ``repr``, unknown ones empty."""
    return report.results.to_csv(index=False, columns=list(RESULTS_SCHEMA.names), lineterminator="\n")
