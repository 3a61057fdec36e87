"""How a report prints numbers, the same in every format: percentages, points, intervals and p-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

UNKNOWN = "–"
"""Printed for a value that is not known or not defined."""


def percent(share: float) -> str:
    """A share in percent: 0.9333 is ``93.3``; NaN is a dash."""
    return UNKNOWN if math.isnan(share) else f"{_rounded(share):.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: -0.021 is ``-2.1``; NaN is a dash."""
    return UNKNOWN if math.isnan(difference) else f"{_rounded(difference):+.1f}"


def _rounded(share: float) -> float:
    """``share`` in percent with one decimal; what rounds to nothing has no sign, as in -0.0."""
    return round(100 * share, 1) + 0.0


def interval(low: float, high: float, number: Callable[[float], str] = percent) -> str:
    """Both ends in brackets, each printed by ``number``: ``[88.1, 93.3]``."""
    return f"[{number(low)}, {number(high)}]"


def p_value(p: float | None) -> str:
    """A p-value with three decimals, ``<0.001`` below that; a dash for ``None`` and NaN."""
    if p is None or math.isnan(p):
        return UNKNOWN
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def even_subset(rates: Sequence[float], most: int) -> tuple[float, ...]:
    """Choose at most ``most`` of the missing rates, spread evenly, with the first and the last among them.

    >>> even_subset([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], 6)
    (0, 0.2, 0.4, 0.6, 0.8, 1)
    """
    if len(rates) <= most:
        return tuple(rates)
    if most == 1:
        return (rates[-1],)
    last = len(rates) - 1
    return tuple(rates[round(place * last / (most - 1))] for place in range(most))
