"""What the page knows: the report as compact JSON, from which its scripts draw charts and tables.

Shares travel as whole hundred-thousandths (0.8812 is 88120, unknown is null) and names as their place in a list: a
hundred thousand rows of results must fit into a page of three megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from mmrobust.report.looks import COLOURS, DASHES
from mmrobust.report.points import LINES, section_points
from mmrobust.report.published import Published
from mmrobust.report.rows import Row, Section, Table, percent
from mmrobust.report.samples import Worst, WorstSample
from mmrobust.report.tables import Report

UNIT = 100_000
"""How many parts a share has on the page."""
_PRINTED = UNIT // 1000
"""How many of them are one printed digit, the first decimal of a percentage."""
MOST_POINTS = 40_000
"""Points of curves on a page: some 1.5 MB. The headline metrics come first."""
MOST_CELLS = 3_000
"""Single cells (one mask seed each) on a page."""


def page_content(report: Report) -> dict[str, Any]:
    """``report`` as the page's scripts read it; see the type comments in ``page.js``."""
    names = _Names()
    tables, left_out, points = [], 0, 0
    for number, table in enumerate(report.every_table):
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
        "provenance": [_provenance(p) for p in report.provenances],
        "published": _published(report.published) if report.published else None,
        "samples": _samples(report.samples) if report.samples else None,
        "colours": COLOURS,
        "dashes": DASHES,
    }


class _Names:
    """Lists of names, and the place of each in its list."""

    def __init__(self) -> None:
        self.lists: dict[str, list[str]] = {"checkpoint": [], "scenario": [], "prompting": []}
        self._places: dict[tuple[str, str], int] = {}

    def place(self, kind: str, name: str) -> int:
        """The place of ``name`` in the list of its kind, at whose end it is put where it is new."""
        names = self.lists[kind]
        place = self._places.setdefault((kind, name), len(names))
        if place == len(names):
            names.append(name)
        return place


def _table(table: Table, names: _Names, headline: bool) -> dict[str, Any]:
    return {
        "dataset": table.dataset,
        "split": table.split,
        "metric": table.metric,
        "headline": headline,
        "n": table.n,
        "natural": table.n_naturally_missing,
        "seeds": table.seeds,
        "uncertainty": table.uncertainty,
        "rates": list(table.rates),
        "rows": [_row(row, table.rates, names) for row in table.rows],
    }


def _row(row: Row, rates: Sequence[float], names: _Names) -> dict[str, Any]:
    points = [row.points.get(rate) for rate in rates]
    return {
        "c": names.place("checkpoint", row.checkpoint),
        "s": names.place("scenario", row.scenario),
        "p": names.place("prompting", row.prompting),
        "v": _whole(point.value if point else math.nan for point in points),
        "lo": _whole(point.ci_low if point else math.nan for point in points),
        "hi": _whole(point.ci_high if point else math.nan for point in points),
        "sd": _whole(point.spread if point else math.nan for point in points),
        "auc": _one(row.auc_eta),
        "complete": _one(row.complete),
        "rel": _one(row.relative_robustness),
        "worst": _one(row.worst_value),
        "at": [_known(row.worst_rate), _known(row.worst_seed)],
        "drop": _one(row.drop_per_10_points),
    }


def _cells(report: Report) -> dict[str, Any]:
    """The first cells of the headline metrics, column by column."""
    frames = list(report.groups.values())[: len(report.tables)]
    rows = pd.concat(frames, ignore_index=True)
    shown = rows.head(MOST_CELLS)
    columns: dict[str, list[Any]] = {
        name: shown[name].tolist()
        for name in (
            "checkpoint",
            "dataset",
            "split",
            "scenario",
            "prompting",
            "missing_rate",
            "seed",
            "metric",
            "n_affected",
        )
    }
    columns |= {name: _whole(shown[name]) for name in ("value", "ci_low", "ci_high")}
    return {"columns": columns, "shown": len(shown), "of": len(rows)}


def _section(section: Section, names: _Names) -> dict[str, Any]:
    """One more table as it is printed, and the points of its chart, where it has one."""
    return {
        "kind": section.kind,
        "dataset": section.dataset,
        "split": section.split,
        "title": section.title,
        "note": section.note,
        "columns": section.columns,
        "labels": section.labels,
        "rows": section.rows,
        "points": _points(section, names),
    }


def _points(section: Section, names: _Names) -> list[list[Any]]:
    """What a section's chart is drawn from.

    Of standings: (checkpoint, wins, ends of its interval, mean rank). Else: (scenario, prompting or null, what it is
    of, at what, value).
    """
    if section.kind == "standings":
        return [
            [
                names.place("checkpoint", row["checkpoint"]),
                *(_one(row.get(name, math.nan)) for name in ("wins", "wins_low", "wins_high")),
                row["mean_rank"],
            ]
            for row in section.frame.to_dict("records")
        ]
    return [
        [
            names.place("scenario", point.scenario),
            None if point.prompting is None else names.place("prompting", point.prompting),
            names.place("checkpoint", point.of) if section.kind in LINES else point.of,
            names.place("checkpoint", str(point.at)) if section.kind == "classes" else point.at,
            _one(point.value),
        ]
        for point in section_points(section)
    ]


def _provenance(provenance: dict[str, Any]) -> dict[str, Any]:
    """What a reader asks for: who, on what, with what, when."""
    keys = ("checkpoints", "command", "dataset", "versions", "git", "device", "dtype", "noise", "started", "finished")
    told = {key: provenance[key] for key in keys if provenance.get(key)}
    told["checkpoints"] = list(told.get("checkpoints", ()))
    return told


def _published(published: Published) -> dict[str, Any]:
    return {
        "title": published.title,
        "source": published.source,
        "metric": published.metric,
        "cases": published.cases,
        "comparisons": [
            {
                "dataset": comparison.dataset,
                "remark": comparison.remark,
                "promptings": {name: _one(value) for name, value in comparison.promptings.items()},
                "lines": [
                    {**vars(line), "values": _whole(line.values), "average": _one(line.average)}
                    for line in comparison.lines
                ],
            }
            for comparison in published.comparisons
        ],
    }


def _samples(worst: Worst) -> dict[str, Any]:
    def told(sample: WorstSample) -> dict[str, Any]:
        failures = [{**vars(failure), "probability": _known(failure.probability)} for failure in sample.failures]
        return {**vars(sample), "failures": failures}

    return {
        "checkpoints": worst.checkpoints,
        "prompting": worst.prompting,
        "cases": [
            {"case": case, "lost": worst.lost[case], "samples": [told(sample) for sample in samples]}
            for case, samples in worst.cases.items()
        ],
    }


def _whole(shares: Iterable[float]) -> list[int | None]:
    return [_one(share) for share in shares]


def _one(share: float) -> int | None:
    """``share`` in parts, such that the page prints the digits that every other format prints."""
    if math.isnan(share):
        return None
    whole = round(share * UNIT)
    if whole % _PRINTED == _PRINTED // 2:  # midway: the page would round once more, maybe the other way
        whole += 1 if float(percent(share)) / 100 * UNIT > whole else -1
    return whole


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
