"""Reports: every format is made from the same :class:`~mmrobust.report.tables.Report`.

Adding a format: one module with ``render(report) -> str``, and one line in :data:`FORMATS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmrobust.report.tables import Report


@dataclass(frozen=True)
class Format:
    """A format that a report is written in; its module, and what that needs, is imported when it is first used."""

    module: str
    help: str
    """Of the flag of ``mmrobust report`` that writes it."""

    def __call__(self, report: Report) -> str:
        """``report`` in this format."""
        text: str = importlib.import_module(self.module).render(report)
        return text


FORMATS = {
    "html": Format("mmrobust.report.html", "Write one self-contained page: charts, filters, sortable tables."),
    "markdown": Format("mmrobust.report.markdown", "Write the report as Markdown."),
    "latex": Format("mmrobust.report.latex", "Write booktabs tables, to compile alone or to \\input in a paper."),
    "csv": Format("mmrobust.report.csv", "Write the rows as CSV, in full precision."),
}
"""The formats that are written to a file, each by the flag of its name: ``--html FILE``.

The terminal's is :func:`mmrobust.report.terminal.show`, and of pictures :func:`mmrobust.report.figures.draw`.
"""
