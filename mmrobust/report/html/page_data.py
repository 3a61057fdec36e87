"""The data that the page carries: the report as compact JSON, from which its scripts draw charts and tables.

Shares are whole hundred-thousandths (0.8812 is 88120, unknown is null), values of other metrics have six digits, and a
name is its index in a list of names, so that a hundred thousand rows of results fit into a page of three megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmrobust.report.chart_data import COLOURS, DASHES, LINE_CHARTS, section_points
from mmrobust.report.curve_table import Curve, CurveTable
from mmrobust.report.numbers import Scale, percent, scale_of
from mmrobust.report.published import Published
from mmrobust.report.report import Report
from mmrobust.report.section import Section

if TYPE_CHECKING:
    from mmrobust.report.worst_samples import WorstSample, WorstSamples

UNIT = 100_000
"""What a share of 1 is on the page."""
_PRINTED = UNIT // 1000
"""One printed digit, the first decimal of a percentage, in these units."""
MOST_POINTS = 40_000
"""Points of curves on a page, about 1.5 MB. The headline metrics come first."""
MOST_CELLS = 3_000
"""Single cells (one mask seed each) on a page."""
_CELLS = ("checkpoint", "dataset", "split", "scenario", "prompting", "missing_rate", "seed", "metric", "n_affected")
_FIGURES = {"auc": "auc_eta", "rel": "relative_robustness", "worst": "worst_value", "drop": "drop_per_10_points"}
"""Key of a figure on the page → its name in a curve."""
_FACTS = ("checkpoints", "command", "dataset", "versions", "git", "device", "dtype", "noise", "started", "finished")
"""What a reader asks for: which checkpoints, on what data, with what, when."""


def build_page_data(report: Report) -> dict[str, Any]:
    """``report`` as the page's scripts read it: see the top of ``state.js``."""
    names = _Names()
    tables, left_out, points = [], 0, 0
    for number, table in enumerate(each.folded for each in report.every_table):
        points += sum(len(row.points) for row in table.rows)
        if number and points > MOST_POINTS:
            left_out += 1
            continue
        tables.append(_table(table, names, headline=number < len(report.tables)))
    return {
        "tables": tables,
        "tables_left_out": left_out,
        "names": names.lists,
        "sections": [_section(section, names) for section in report.sections],
        "cells": _cells(report),
        "checkpoints": {name: report.facts(name) for name in report.checkpoints},
        "provenance": [
            {key: provenance[key] for key in _FACTS if provenance.get(key)}
            | {"checkpoints": list(provenance.get("checkpoints") or ())}
            for provenance in report.provenances
        ],
        "published": _published(report.published) if report.published else None,
        "samples": _samples(report.samples) if report.samples else None,
        "colours": COLOURS,
        "dashes": DASHES,
    }


class _Names:
    """A list of names of each kind, and the index of each name in it."""

    def __init__(self) -> None:
        self._indices: dict[str, dict[str, int]] = {"checkpoint": {}, "scenario": {}, "prompting": {}}

    @property
    def lists(self) -> dict[str, list[str]]:
        return {kind: list(names) for kind, names in self._indices.items()}

    def index(self, kind: str, name: str) -> int:
        """The index of ``name`` in the list of its kind; a new name is appended."""
        return self._indices[kind].setdefault(name, len(self._indices[kind]))


def _table(table: CurveTable, names: _Names, headline: bool) -> dict[str, Any]:
    return {
        **{name: getattr(table, name) for name in ("dataset", "split", "metric")},
        "headline": headline,
        "n": table.n,
        "natural": table.n_naturally_missing,
        "seeds": table.seeds,
        "uncertainty": table.uncertainty,
        "folds": table.folds,
        "rates": list(table.rates),
        "rows": [_row(row, table, names) for row in table.rows],
        **({} if table.scale.is_share else {"words": _words(table.scale)}),
    }


def _words(scale: Scale) -> dict[str, Any]:
    """How the page speaks of a metric that is no share."""
    return {"of": scale.of, "relative": scale.relative, "worst": scale.worst, "drop": scale.drop, "sign": scale.sign}


def _row(row: Curve, table: CurveTable, names: _Names) -> dict[str, Any]:
    points, value = [row.at(rate) for rate in table.rates], _value_of(table.metric)
    return {
        "c": names.index("checkpoint", row.checkpoint),
        "s": names.index("scenario", row.scenario),
        "p": names.index("prompting", row.prompting),
        "v": [value(point.value) for point in points],
        "lo": [value(point.ci_low) for point in points],
        "hi": [value(point.ci_high) for point in points],
        "sd": [value(point.spread) for point in points],
        "auc": value(row.auc_eta),
        "complete": value(row.complete),
        "rel": _unit(row.relative_robustness),
        "worst": value(row.worst_value),
        "at": [_known(row.worst_rate), _known(row.worst_seed)],
        "drop": value(row.drop_per_10_points),
        "ends": {key: _ends(row, figure, _unit if key == "rel" else value) for key, figure in _FIGURES.items()},
    }


def _ends(row: Curve, figure: str, value: Callable[[float], float | None]) -> list[float | None] | None:
    """Both ends of the interval of a figure, or nothing if it is not known."""
    low, high = (getattr(row, f"{figure}_{end}") for end in ("low", "high"))
    return None if math.isnan(low) or math.isnan(high) else [value(low), value(high)]


def _cells(report: Report) -> dict[str, Any]:
    """The first cells of the headline metrics, column by column."""
    rows = pd.concat(list(report.groups.values())[: len(report.tables)], ignore_index=True)
    shown = rows.head(MOST_CELLS)
    columns: dict[str, list[Any]] = {name: shown[name].tolist() for name in _CELLS}
    printed = [_value_of(metric) for metric in columns["metric"]]
    for name in ("value", "ci_low", "ci_high"):
        columns[name] = [value(number) for value, number in zip(printed, shown[name], strict=True)]
    return {"columns": columns, "shown": len(shown), "of": len(rows)}


def _section(section: Section, names: _Names) -> dict[str, Any]:
    """A further table as it is printed, and the points of its chart, if it has one."""
    printed = ("kind", "dataset", "split", "title", "note", "columns", "labels", "rows")
    return {**{name: getattr(section, name) for name in printed}, "points": _points(section, names)}


def _points(section: Section, names: _Names) -> list[list[Any]]:
    """The points of a section's chart.

    Standings: (checkpoint, wins, both ends of their interval, mean rank). Other kinds: the fields of
    :class:`~mmrobust.report.chart_data.SectionPoint`.
    """
    if section.kind == "standings":
        found = []
        for row in section.frame.to_dict("records"):
            shares = (_unit(row.get(name, math.nan)) for name in ("wins", "wins_low", "wins_high"))
            found.append([names.index("checkpoint", row["checkpoint"]), *shares, row["mean_rank"]])
        return found
    return [
        [
            names.index("scenario", point.scenario),
            None if point.prompting is None else names.index("prompting", point.prompting),
            names.index("checkpoint", point.of) if section.kind in LINE_CHARTS else point.of,
            names.index("checkpoint", str(point.at)) if section.kind == "classes" else point.at,
            _value_of(section.metric)(point.value),
        ]
        for point in section_points(section)
    ]


def _published(published: Published) -> dict[str, Any]:
    return {
        **{name: getattr(published, name) for name in ("title", "source")},
        "comparisons": [
            {
                "dataset": comparison.dataset,
                "metric": comparison.metric,
                "columns": comparison.columns,
                "remark": comparison.remark,
                "promptings": {name: _unit(value) for name, value in comparison.promptings.items()},
                "lines": [{**vars(line), "values": _units(line.values)} for line in comparison.lines],
            }
            for comparison in published.comparisons
        ],
    }


def _samples(worst: WorstSamples) -> dict[str, Any]:
    def sample_data(sample: WorstSample) -> dict[str, Any]:
        failures = [{**vars(failure), "probability": _known(failure.probability)} for failure in sample.failures]
        return {**vars(sample), "failures": failures}

    cases = [
        {"case": case, "lost": worst.lost[case], "samples": list(map(sample_data, samples))}
        for case, samples in worst.cases.items()
    ]
    return {"checkpoints": worst.checkpoints, "prompting": worst.prompting, "cases": cases}


def _units(shares: Iterable[float]) -> list[int | None]:
    return [_unit(share) for share in shares]


def _value_of(metric: str) -> Callable[[float], float | None]:
    """How the page carries values of a metric: in units, or, of one that is no share, to six digits."""
    return _unit if scale_of(metric).is_share else lambda value: None if math.isnan(value) else float(f"{value:.6g}")


def _unit(share: float) -> int | None:
    """``share`` in units of the page, so that the page prints the digits that every other format prints."""
    if math.isnan(share):
        return None
    whole = round(share * UNIT)
    if whole % _PRINTED == _PRINTED // 2:  # halfway: the page would round again, perhaps the other way
        whole += 1 if float(percent(share)) / 100 * UNIT > whole else -1
    return whole


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
