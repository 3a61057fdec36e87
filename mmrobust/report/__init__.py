"""Reports: every format is made from the same :class:`~mmrobust.report.tables.Report`.

Adding a format: one module with ``render(report) -> str``, and one line in :data:`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable

from mmrobust.report import csv, markdown
from mmrobust.report.tables import Report

FORMATS: dict[str, Callable[[Report], str]] = {
    "markdown": markdown.render,
    "csv": csv.render,
}
"""The formats that are written to a file. The terminal's is :func:`mmrobust.report.terminal.show`."""
