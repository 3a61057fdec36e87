"""A further table of a report: what :mod:`mmrobust.report.analyses` adds to the curves, ready to print."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace

import pandas as pd

from mmrobust.report.curve_table import places
from mmrobust.report.numbers import BOTH


@dataclass(frozen=True)
class Section:
    """A table whose cells are text, with the figures behind it."""

    kind: str
    """``standings``, ``prompting``, ``effective``, ``dependence``, ``rates``, ``classes``, ``worth``, ``reliability``
    or ``costs``."""
    title: str
    note: str
    """What the figures are, in a sentence or two."""
    columns: tuple[str, ...]
    labels: int
    """Number of leading columns that hold names; all others hold numbers."""
    rows: tuple[tuple[str, ...], ...]
    """The cells as printed."""
    frame: pd.DataFrame
    """The figures behind the rows, tidy and in full precision: shares, not percentages."""
    better: tuple[int, ...] = ()
    """For each column of numbers: 1 if higher is better, −1 if lower is, 0 if neither. Empty: no column has a best."""
    dataset: str = ""
    split: str = ""
    metric: str = ""
    """The headline metric of the data set."""

    @functools.cached_property
    def folded(self) -> Section:
        """This table for people: where prompting makes no difference in any row, each row once."""
        if "prompting" not in self.columns:
            return self
        at = self.columns.index("prompting")
        both = tuple(dict.fromkeys((*row[:at], BOTH, *row[at + 1 :]) for row in self.rows))
        promptings = {row[at] for row in self.rows}
        return replace(self, rows=both) if len(self.rows) == len(promptings) * len(both) > len(both) else self

    def is_rate(self, column: int) -> bool:
        """Whether a column holds values at one missing rate."""
        return column >= self.labels and self.columns[column].replace(".", "").isdigit()

    def place(self, row: int, column: int) -> int | None:
        """The place of a cell among its rivals: the rows that differ from its row in the last label only.

        Columns count labels too. As for :meth:`~mmrobust.report.curve_table.CurveTable.place`; ``None`` also for a
        label, and for a column that has no best.
        """
        return self._places.get((row, column))

    @functools.cached_property
    def _places(self) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for column, sign in enumerate(self.better, start=self.labels):
            if not sign:
                continue
            rivals: dict[tuple[str, ...], dict[int, float]] = {}
            for row, cells in enumerate(self.rows):
                with contextlib.suppress(ValueError):  # a dash
                    rivals.setdefault(cells[: self.labels - 1], {})[row] = sign * float(cells[column])
            found |= {(row, column): place for values in rivals.values() for row, place in places(values).items()}
        return found
