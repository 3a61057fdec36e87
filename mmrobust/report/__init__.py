"""Reports of results. Every format prints the same :class:`~mmrobust.report.report.Report`.

Adding a format: one module with ``render(report) -> str``, and one line in :data:`FORMATS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmrobust.report.report import Report


@dataclass(frozen=True)
class Format:
    """A format that a report is written in. Its module, and what that needs, is imported on first use."""

    module: str
    help: str
    """Help text of the flag of ``mmrobust report`` that writes it."""

    def __call__(self, report: Report) -> str:
        """Write ``report`` in this format."""
        text: str = importlib.import_module(self.module).render(report)
        return text


FORMATS = {
    "html": Format("mmrobust.report.html", "Write one self-contained page: charts, filters, sortable tables."),
    "markdown": Format("mmrobust.report.markdown", "Write the report as Markdown."),
    "latex": Format("mmrobust.report.latex", "Write booktabs tables, to compile alone or to \\input in a paper."),
    "csv": Format("mmrobust.report.csv", "Write the rows as CSV, in full precision."),
}
"""The formats that are written to a file, by the name of their flag: ``--html FILE``.

The terminal has :func:`mmrobust.report.terminal.show`, pictures have :func:`mmrobust.report.figures.draw`.
"""
