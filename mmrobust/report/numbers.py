"""How a report prints numbers, the same in every format: percentages, points, intervals and p-values.

Shares are printed in per cent. Errors and correlations (:func:`scale_of`) are printed as they are, to four digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmrobust.gate.figures import in_shares, less_is_better

UNKNOWN = "–"
"""Printed for a value that is not known or not defined."""
BOTH = "both promptings"
"""Printed for the prompting where it makes no difference."""


def percent(share: float) -> str:
    """A share in percent: 0.9333 is ``93.3``; NaN is a dash."""
    return UNKNOWN if math.isnan(share) else f"{_rounded(share):.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: -0.021 is ``-2.1``; NaN is a dash."""
    return UNKNOWN if math.isnan(difference) else f"{_rounded(difference):+.1f}"


def _rounded(share: float) -> float:
    """``share`` in percent with one decimal; what rounds to nothing has no sign, as in -0.0."""
    return round(100 * share, 1) + 0.0


def number(value: float) -> str:
    """A number to four digits: 60.1824 is ``60.18``; NaN is a dash.

    >>> number(60.1824), number(1234567.0), number(0.000012345), number(-0.0)
    ('60.18', '1234567', '1.234e-05', '0')
    """
    if math.isnan(value):
        return UNKNOWN
    size = abs(value)
    if not size:
        return "0"
    if not 1e-4 <= size < 1e9:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}"


def signed_number(difference: float) -> str:
    """A difference of numbers, with its sign; NaN is a dash."""
    text = number(difference)
    return f"+{text}" if difference >= 0 else text


METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "weighted_f1": "Weighted F1",
    "samples_f1": "Samples F1",
    "map": "mAP",
    "auroc": "AUROC",
    "mae": "MAE",
    "rmse": "RMSE",
    "pearson": "Pearson's r",
}
"""Metric → its name in a paper."""


@dataclass(frozen=True)
class Scale:
    """How the values of a metric are printed and spoken of."""

    value: Callable[[float], str]
    difference: Callable[[float], str]
    of: str
    """What follows the metric's name in a title."""
    values: str
    """What values are in, for a sentence; empty for plain numbers."""
    differences: str
    """What follows a difference."""
    relative: str
    """What relative robustness is."""
    worst: str
    """What the worst cell is."""
    drop: str
    """What the drop per 10 points is."""
    sign: int = 1
    """−1 where less is better."""
    factor: float = 100
    """What values are multiplied with in charts."""
    span: float = 1
    """The largest difference of two values."""

    @property
    def is_share(self) -> bool:
        """Whether values are shares of 1, printed in per cent."""
        return self.value is percent

    def amount(self, difference: float) -> str:
        """A difference without its sign, as a sentence has it."""
        return f"{100 * difference:.1f}" if self.is_share else number(difference)


_SHARE = Scale(
    percent,
    points,
    of=" in %",
    values="in %",
    differences=" points",
    relative="AUC-η in % of complete",
    worst="lowest",
    drop="points lost per 10 points of missing rate",
)
_ERROR = Scale(
    number,
    signed_number,
    of=", less is better",
    values="in the unit of the labels, less is better",
    differences="",
    relative="complete in % of AUC-η",
    worst="highest",
    drop="rise per 10 points of missing rate",
    sign=-1,
    factor=1,
    span=math.inf,
)
_NUMBER = Scale(
    number,
    signed_number,
    of="",
    values="as they are",
    differences="",
    relative="AUC-η in % of complete",
    worst="lowest",
    drop="loss per 10 points of missing rate",
    factor=1,
    span=2,
)


def scale_of(metric: str) -> Scale:
    """How a metric, or a figure of one as a rule names it (``auc.mae``), is printed."""
    if in_shares(metric):
        return _SHARE
    return _ERROR if less_is_better(metric) else _NUMBER


def samples(count: int) -> str:
    """``1 sample``, ``12,345 samples``."""
    return f"{count:,} sample{'s' * (count != 1)}"


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
