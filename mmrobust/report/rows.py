"""One table of a report: the curves of one metric on one split, and which of them is best."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

UNKNOWN = "–"


@dataclass(frozen=True)
class Point:
    """A metric at one missing rate. Shares in [0, 1]; NaN where not known."""

    value: float
    """Mean over mask seeds."""
    ci_low: float
    ci_high: float
    """Ends of the 95 % interval over samples, mean over mask seeds."""
    spread: float
    """Standard deviation over mask seeds."""


@dataclass(frozen=True)
class Row:
    """One curve and its robustness figures, as in :mod:`mmrobust.scoring.robustness`; NaN where not defined."""

    checkpoint: str
    scenario: str
    prompting: str
    points: dict[float, Point]
    """By missing rate."""
    auc_eta: float
    complete: float
    relative_robustness: float
    worst_value: float
    worst_rate: float
    worst_seed: float
    drop_per_10_points: float


@dataclass(frozen=True)
class Table:
    """The rows of one metric on one split of one data set."""

    dataset: str
    split: str
    metric: str
    n: int
    """Samples of the split that were scored."""
    n_naturally_missing: int
    seeds: int
    """Mask seeds behind each value."""
    rates: tuple[float, ...]
    rows: tuple[Row, ...]
    """By scenario, prompting and checkpoint."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios, in the order of the rows."""
        return tuple(dict.fromkeys(row.scenario for row in self.rows))

    @property
    def promptings(self) -> tuple[str, ...]:
        """The promptings, in the order of the rows."""
        return tuple(dict.fromkeys(row.prompting for row in self.rows))

    def is_best(self, row: Row, rate: float) -> bool:
        """Whether ``row`` has the best value at ``rate`` of the checkpoints beside it: same scenario, same prompting.

        Values that are equal as printed (one decimal of a percentage) are equally good. Nothing is best alone.
        """
        return self.place(row, rate) == 1

    def place(self, row: Row, column: float | str) -> int | None:
        """The place of ``row`` in a column, among the checkpoints of the same scenario and prompting.

        Args:
            row: a row of this table.
            column: a missing rate, or the name of a field of :class:`Row` of which more is better.

        Returns:
            1 for the best, 2 for the best but one …; what is equal as printed shares a place. ``None`` for an unknown
            value, and where there are no rivals.
        """
        own, rivals = _printed(row, column), self._rivals(row.scenario, row.prompting, column)
        if own is None or len(rivals) < 2:
            return None
        return 1 + sorted(set(rivals), reverse=True).index(own)

    def _rivals(self, scenario: str, prompting: str, column: float | str) -> list[float]:
        """Every checkpoint's value in a column, as printed."""
        if column not in self._columns:
            rivals = self._columns[column] = {}
            for row in self.rows:
                value = _printed(row, column)
                if value is not None:
                    rivals.setdefault((row.scenario, row.prompting), []).append(value)
        return self._columns[column].get((scenario, prompting), [])

    @functools.cached_property
    def _columns(self) -> dict[float | str, dict[tuple[str, str], list[float]]]:
        return {}

    @functools.cached_property
    def extent(self) -> tuple[float, float]:
        """The lowest and the highest value of any row at any rate; NaN where none is known."""
        values = [p.value for row in self.rows for p in row.points.values() if not math.isnan(p.value)]
        return (min(values), max(values)) if values else (math.nan, math.nan)

    @property
    def uncertainty(self) -> str:
        """What a reader should know of the noise in the numbers, in one sentence."""
        points = [point for row in self.rows for point in row.points.values()]
        widths = sorted(h for p in points if not math.isnan(h := (p.ci_high - p.ci_low) / 2))
        spreads = [p.spread for p in points if not math.isnan(p.spread)]
        said = [f"mean of {self.seeds} mask seeds" if self.seeds > 1 else "one mask seed"]
        if widths:
            said.append(f"95 % interval over samples ±{percent(widths[len(widths) // 2])} (at most {_pm(widths[-1])})")
        if spreads:
            said.append(f"spread over seeds at most {percent(max(spreads))}")
        return ", ".join(said)


@dataclass(frozen=True)
class Section:
    """One more table of a report, beside the curves: see :mod:`mmrobust.report.sections`."""

    kind: str
    """``standings``, ``prompting``, ``effective``, ``rates``, ``classes``, ``reliability`` or ``costs``."""
    title: str
    note: str
    """What the figures are, in a sentence or two."""
    columns: tuple[str, ...]
    labels: int
    """So many of the columns, from the first, are names; the others are numbers."""
    rows: tuple[tuple[str, ...], ...]
    """The cells as they are printed."""
    frame: pd.DataFrame
    """The figures behind the rows, tidy and in full precision: shares, not percentages."""
    dataset: str = ""
    """The data set that it is of."""
    split: str = ""
    metric: str = ""
    """The headline metric of the table that it belongs to."""
    better: tuple[int, ...] = ()
    """For each column of numbers: 1 where more is better, −1 where less is, 0 where neither; none: nothing is."""

    def is_rate(self, column: int) -> bool:
        """Whether a column is one of values at a missing rate."""
        return column >= self.labels and self.columns[column].replace(".", "").isdigit()

    def place(self, row: int, column: int) -> int | None:
        """The place of a cell among the rows that its last label alone tells apart from it.

        Args:
            row: number of the row.
            column: number of the column, labels included.

        Returns:
            As :meth:`Table.place`; ``None`` for a label, and where nothing is better than anything else too.
        """
        return self._places.get((row, column))

    @functools.cached_property
    def _places(self) -> dict[tuple[int, int], int]:
        rivals: dict[tuple[int, tuple[str, ...]], dict[int, float]] = {}
        signs = [(self.labels + number, sign) for number, sign in enumerate(self.better) if sign]
        for row, cells in enumerate(self.rows):
            for column, sign in signs:
                with contextlib.suppress(ValueError):  # a dash
                    values = rivals.setdefault((column, cells[: self.labels - 1]), {})
                    values[row] = sign * float(cells[column])
        places: dict[tuple[int, int], int] = {}
        for (column, _), values in rivals.items():
            order = sorted(set(values.values()), reverse=True)
            if len(values) > 1:
                places |= {(row, column): 1 + order.index(value) for row, value in values.items()}
        return places


def _printed(row: Row, column: float | str) -> float | None:
    """A value of ``row`` as printed, which is what a reader compares."""
    if isinstance(column, str):
        value = float(getattr(row, column))
    else:
        value = row.points[column].value if column in row.points else math.nan
    return None if math.isnan(value) else float(percent(value))


def percent(share: float, decimals: int = 1) -> str:
    """A share as a percentage: 0.9333 is ``93.3``; NaN is a dash."""
    return UNKNOWN if math.isnan(share) else f"{100 * share:.{decimals}f}"


def p_value(p: float | None) -> str:
    """A p-value as it is printed; a dash where there is none, or it is not defined."""
    if p is None or math.isnan(p):
        return UNKNOWN
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def even_subset(rates: Sequence[float], most: int) -> tuple[float, ...]:
    """At most ``most`` of the rates, the first and the last among them, as evenly spread as they lie.

    >>> even_subset([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], 6)
    (0, 0.2, 0.4, 0.6, 0.8, 1)
    """
    if len(rates) <= most:
        return tuple(rates)
    if most == 1:
        return (rates[-1],)
    last = len(rates) - 1
    return tuple(rates[round(place * last / (most - 1))] for place in range(most))


def _pm(half_width: float) -> str:
    return f"±{percent(half_width)}"
