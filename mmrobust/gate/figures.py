"""Figures that a rule can name beside the metrics in the results table: they need the predictions of both sides.

A figure of a cell has a missing rate; one of a curve is over all rates of a scenario. Those of a metric are of the
headline metric unless the rule names another: ``auc@missing-any``, ``auc.macro_f1@missing-any``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd

from mmrobust.errors import unknown_name
from mmrobust.scoring.paired import (
    Pair,
    area_differences,
    differences,
    effective_differences,
    relative_differences,
    worst_differences,
)
from mmrobust.scoring.worth import equity_differences, shapley_differences, worth_differences
from mmrobust.storage.tasks import RANGES, is_share, sign_of


@dataclass(frozen=True)
class Figure:
    """One figure, and how it is compared."""

    meaning: str
    compare: Callable[[Pair, str], pd.DataFrame]
    """(pair, metric or name of the figure) → its values on both sides and the error of their difference: see
    :mod:`mmrobust.scoring.paired`."""
    of_metric: bool = False
    """Whether it is one of a metric of the task."""
    of_curve: bool = False
    """Whether it is one of a whole curve, without a missing rate."""
    in_unit: bool = False
    """Whether its values are in the unit of that metric; otherwise they are shares."""
    as_metric: bool = False
    """Whether less of it is better where less of that metric is."""
    of_scenarios: bool = False
    """Whether it is one of a curve, and rests on the cells of all scenarios."""
    less_is_better: bool = False
    worst: float = 0.0
    """The worst share there is."""


FIGURES = {
    "ece": Figure("expected calibration error", differences, less_is_better=True, worst=1.0),
    "worst_class": Figure("lowest F1 of a class", differences),
    "flip_rate": Figure(
        "share of predictions that change when the input goes", differences, less_is_better=True, worst=1.0
    ),
    "auc": Figure(
        "AUC-η, the mean height of the curve",
        area_differences,
        of_metric=True,
        of_curve=True,
        in_unit=True,
        as_metric=True,
    ),
    "relative_robustness": Figure("AUC-η over the complete value", relative_differences, of_metric=True, of_curve=True),
    "worst_cell": Figure(
        "worst value of the curve", worst_differences, of_metric=True, of_curve=True, in_unit=True, as_metric=True
    ),
    "worth": Figure(
        "the drop when the modality goes",
        worth_differences,
        of_metric=True,
        of_curve=True,
        in_unit=True,
        worst=-1.0,
    ),
    "shapley": Figure(
        "Shapley value of the modality over every combination",
        shapley_differences,
        of_metric=True,
        of_curve=True,
        in_unit=True,
        of_scenarios=True,
        worst=-1.0,
    ),
    "equity": Figure(
        "how evenly worth is spread over the modalities",
        equity_differences,
        of_metric=True,
        of_curve=True,
        of_scenarios=True,
    ),
    "effective_robustness": Figure(
        "what is kept beyond what the complete value predicts", effective_differences, of_metric=True, worst=-1.0
    ),
}


def figure_of(name: str) -> Figure | None:
    """The figure that a rule names as its metric; ``None``: it is a metric of the results table."""
    first, _, metric = name.partition(".")
    figure = FIGURES.get(first)
    return figure if figure is not None and (figure.of_metric or not metric) else None


def less_is_better(name: str) -> bool:
    """Whether a smaller value of what a rule names is a better one."""
    figure = figure_of(name)
    if figure is None or figure.as_metric:
        return sign_of(name if figure is None else name.partition(".")[2]) < 0
    return figure.less_is_better


def in_shares(name: str) -> bool:
    """Whether the values of what a rule names are shares of 1, not numbers in a unit of their own."""
    figure = figure_of(name)
    return is_share(name if figure is None else name.partition(".")[2] * figure.in_unit)


def worst_of(name: str) -> float:
    """The worst value of what a rule names; infinite where there is none."""
    figure = figure_of(name)
    if figure is not None and in_shares(name):
        return figure.worst
    if figure is not None and not figure.as_metric:
        return -math.inf
    ends = RANGES.get(name.rpartition(".")[2], (-math.inf, math.inf))
    return ends[less_is_better(name)]


def with_headline(name: str, headline: str) -> str:
    """A figure of the headline metric with that metric's name, unless it is a share, as values of others are."""
    figure = figure_of(name)
    bare = figure is not None and figure.of_metric and "." not in name
    return f"{name}.{headline}" if bare and not is_share(headline) else name


def metric_behind(name: str, headline: str, known: Collection[str]) -> str:
    """The metric of the table that a rule is about, one of the ``known``.

    Raises:
        UnknownNameError: there is no such metric.
    """
    figure = figure_of(name)
    metric = name if figure is None else name.partition(".")[2] or headline
    if metric not in known:
        raise unknown_name("metric", metric, [*known, *FIGURES] if figure is None else known)
    return metric
