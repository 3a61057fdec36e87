"""The curves of one metric on one split, and which checkpoint is best at each missing rate."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar

import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.report.numbers import Scale, samples, scale_of
from mmrobust.scoring.robustness import CURVE_KEYS, curves, summarise
from mmrobust.storage.results import RESULTS_KEYS

_Rival = TypeVar("_Rival", bound=Hashable)


@dataclass(frozen=True)
class Point:
    """A metric at one missing rate, in its own unit (a share in [0, 1], or an error); NaN where not known."""

    value: float
    """Mean over mask seeds."""
    ci_low: float
    ci_high: float
    """Ends of the 95 % interval of the mean, over samples."""
    spread: float
    """Standard deviation over mask seeds."""
    few: float = math.nan
    """Samples of the smallest class, where too few for the interval to hold."""


_NOT_EVALUATED = Point(math.nan, math.nan, math.nan, math.nan)

UNDEFINED = {
    "auroc": "AUROC is not defined, as the samples are of one class",
    "map": "mAP is not defined, as no sample has a class",
    "pearson": "Pearson's r is not defined, as all labels are equal",
}
"""Metric → why it is not defined in any cell."""


@dataclass(frozen=True)
class Curve:
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
    auc_eta_low: float
    auc_eta_high: float
    relative_robustness_low: float
    relative_robustness_high: float
    worst_value_low: float
    worst_value_high: float
    drop_per_10_points_low: float
    drop_per_10_points_high: float
    auc_eta_spread: float

    @property
    def key(self) -> tuple[str, str]:
        """Its scenario and checkpoint."""
        return self.scenario, self.checkpoint

    def at(self, rate: float) -> Point:
        """The point at a missing rate; all NaN if the checkpoint was not evaluated there."""
        return self.points.get(rate, _NOT_EVALUATED)


@dataclass(frozen=True)
class CurveTable:
    """The curves of one metric on one split of one data set."""

    dataset: str
    split: str
    metric: str
    n: int
    """Samples of the split that were scored."""
    n_naturally_missing: int
    seeds: int
    """Mask seeds behind each value."""
    rates: tuple[float, ...]
    rows: tuple[Curve, ...]
    """By scenario, prompting and checkpoint."""
    folds: ClassVar[bool] = False
    """Whether the rows stand for every prompting: see :attr:`folded`."""

    @functools.cached_property
    def folded(self) -> CurveTable:
        """This table for people: where prompting makes no difference to any checkpoint, under one prompting alone."""
        first, *others = self.promptings
        curves_of = {name: {r.key: r.points for r in self.rows if r.prompting == name} for name in self.promptings}
        # NaN is not equal to itself, but two unknown points print alike.
        if not others or any(repr(curves_of[name]) != repr(curves_of[first]) for name in others):
            return self
        rows = tuple(row for row in self.rows if row.prompting == first)
        return _Folded(**{field.name: getattr(self, field.name) for field in fields(self)} | {"rows": rows})

    @property
    def scale(self) -> Scale:
        """How values of the metric are printed."""
        return scale_of(self.metric)

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios, in the order of the rows."""
        return tuple(dict.fromkeys(row.scenario for row in self.rows))

    @property
    def promptings(self) -> tuple[str, ...]:
        """The promptings, in the order of the rows."""
        return tuple(dict.fromkeys(row.prompting for row in self.rows))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints, in the order of the rows."""
        return tuple(dict.fromkeys(row.checkpoint for row in self.rows))

    def place(self, row: Curve, column: float | str) -> int | None:
        """The place of ``row`` in a column, among the checkpoints of the same scenario and prompting.

        The column is a missing rate, or a field of :class:`Curve` in the unit of the metric. The best has place 1.
        ``None`` if the value is not known, has no rival, or prints like another (one decimal of a percentage, four
        digits of a number).
        """
        if column not in self._places:
            rivals: dict[tuple[str, str], dict[str, float]] = {}
            grids: dict[tuple[str, str], set[tuple[float, ...]]] = {}
            for own in self.rows:
                value = getattr(own, column) if isinstance(column, str) else own.at(column).value
                if not math.isnan(value):
                    quality = self.scale.sign * float(self.scale.value(value))
                    rivals.setdefault((own.scenario, own.prompting), {})[own.checkpoint] = quality
                    grids.setdefault((own.scenario, own.prompting), set()).add(tuple(own.points))
            # A figure of a curve compares with no figure of a curve over other rates.
            self._places[column] = {
                key: {} if isinstance(column, str) and len(grids[key]) > 1 else places(values)
                for key, values in rivals.items()
            }
        return self._places[column].get((row.scenario, row.prompting), {}).get(row.checkpoint)

    @functools.cached_property
    def _places(self) -> dict[float | str, dict[tuple[str, str], dict[str, int]]]:
        """Column → (scenario, prompting) → checkpoint → place, filled as columns are asked for."""
        return {}

    @functools.cached_property
    def extent(self) -> tuple[float, float]:
        """The lowest and the highest value of any row at any rate; NaN where none is known."""
        values = [p.value for row in self.rows for p in row.points.values() if not math.isnan(p.value)]
        return (min(values), max(values)) if values else (math.nan, math.nan)

    @property
    def uncertainty(self) -> str:
        """The noise in the numbers, in one sentence: mask seeds, width of the intervals, spread over seeds.

        Widths of intervals are half widths: the median over the table, and the largest.
        """
        points = [point for row in self.rows for point in row.points.values()]
        widths = _half_widths((point.ci_low, point.ci_high) for point in points)
        areas = _half_widths((row.auc_eta_low, row.auc_eta_high) for row in self.rows)
        spreads = [p.spread for p in points if not math.isnan(p.spread)]
        facts = [f"mean of {self.seeds} mask seeds" if self.seeds > 1 else "one mask seed"]
        if widths:
            facts.append(f"95 % interval over samples {_typical(widths, self.scale)}")
        if areas:
            facts.append(f"{'of' if widths else '95 % interval over samples of'} AUC-η {_typical(areas, self.scale)}")
        if points and all(math.isnan(point.value) for point in points):
            facts.append(f"–: {UNDEFINED.get(self.metric, 'the metric is not defined on these samples')}")
        elif smallest := [point.few for point in points if not math.isnan(point.few)]:
            least = min(smallest)
            of = "only" if least == self.n else "the smallest class has only"
            facts.append(f"not reliable: {of} {samples(int(least))}")
        if spreads:
            facts.append(f"spread over seeds at most {self.scale.value(max(spreads))}")
        if self.folds:
            facts.append("the same under situation and concat prompting")
        return ", ".join(facts)


class _Folded(CurveTable):
    folds = True


def _half_widths(intervals: Iterable[tuple[float, float]]) -> list[float]:
    """Half the width of every known interval, ascending."""
    return sorted(half for low, high in intervals if not math.isnan(half := (high - low) / 2))


def _typical(widths: Sequence[float], scale: Scale) -> str:
    """The median and the largest of ascending half widths."""
    return f"±{scale.value(widths[len(widths) // 2])} (at most ±{scale.value(widths[-1])})"


def make_curve_table(results: pd.DataFrame, metric: str) -> CurveTable:
    """Make the table of results that hold one metric on one split."""
    # Few names on many rows: as categories they are grouped in a fraction of the time.
    frame = results.astype(dict.fromkeys(CURVE_KEYS, "category")).drop_duplicates(list(RESULTS_KEYS))
    means = curves(frame)
    points: dict[tuple[str, str, str], dict[float, Point]] = {}
    columns = ("checkpoint", "scenario", "prompting", "missing_rate", "value", "ci_low", "ci_high", "spread", "few")
    for checkpoint, scenario, prompting, rate, *point in zip(*(means[name].tolist() for name in columns), strict=True):
        points.setdefault((checkpoint, scenario, prompting), {})[rate] = Point(*point)
    order = {name: i for i, name in enumerate(frame["checkpoint"].unique())}
    figures = [name for name in Curve.__dataclass_fields__ if name != "points"]
    rows = [
        Curve(
            points=points[row["checkpoint"], row["scenario"], row["prompting"]], **{name: row[name] for name in figures}
        )
        for row in summarise(frame, means).to_dict("records")
    ]

    def reading_order(row: Curve) -> tuple[bool, str, int, int]:
        prompting = PROMPTINGS.index(row.prompting) if row.prompting in PROMPTINGS else len(PROMPTINGS)
        return is_composed(row.scenario), row.scenario, prompting, order[row.checkpoint]

    return CurveTable(
        dataset=str(frame["dataset"].iloc[0]),
        split=str(frame["split"].iloc[0]),
        metric=metric,
        n=int(frame["n"].max()),
        n_naturally_missing=int(frame["n_naturally_missing"].max()),
        seeds=int(frame["seed"].nunique()),
        rates=tuple(sorted(frame["missing_rate"].unique().tolist())),
        rows=tuple(sorted(rows, key=reading_order)),
    )


def is_composed(scenario: str) -> bool:
    """Whether a scenario is made of others, and so stands after them: ``missing-both``, ``missing-any``."""
    return scenario.endswith(("-both", "-any")) or scenario.startswith(("missing-both:", "missing-each:"))


def places(values: Mapping[_Rival, float]) -> dict[_Rival, int]:
    """The place of each rival, 1 for the highest value. Rivals that tie have none, nor has one without a rival."""
    order = sorted(values.values(), reverse=True)
    alone = {rival: value for rival, value in values.items() if order.count(value) == 1}
    return {rival: 1 + order.index(value) for rival, value in alone.items()} if len(values) > 1 else {}
