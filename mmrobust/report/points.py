"""What the chart of a further table is drawn from: the same on the page and in pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from mmrobust.report.rows import Section

MOST_CLASSES = 15
"""Classes of a chart: those that lose most."""
HEAT = ("classes", "rates")
"""Kinds of sections whose chart is a heat map."""
LINES = {"prompting": "gap", "effective": "effective", "reliability": "ece"}
"""Kind of a section whose chart has a line for each checkpoint over missing rates → the column of its values."""


class SectionPoint(NamedTuple):
    """A point of a chart."""

    scenario: str
    prompting: str | None
    """``None`` where it is about both."""
    of: str
    """The checkpoint of a line; the row of a heat map."""
    at: str | float
    """The missing rate, or the checkpoint that is a heat map's column."""
    value: float
    """A share."""


def section_points(section: Section) -> Iterator[SectionPoint]:
    """The points of a section's lines or heat map, in the order in which they are to stand; none for another kind."""
    frame, kind = section.frame, section.kind
    if kind == "classes":
        lost = frame.groupby("class", observed=True)["lost"].mean().sort_values(ascending=False)
        frame = frame[frame["class"].isin(lost.index[:MOST_CLASSES])]
        frame = frame.assign(place=frame["class"].map(lost)).sort_values("place", ascending=False, kind="stable")
        frame = frame.assign(of=frame["class"], at=frame["checkpoint"], value=frame["lost"])
    elif kind == "rates":
        frame = frame.assign(of=_trained(frame), at=frame["missing_rate"])
    elif kind in LINES:
        frame = frame.assign(of=frame["checkpoint"], at=frame["missing_rate"], value=frame[LINES[kind]])
    else:
        return
    for row in frame.to_dict("records"):
        if not math.isnan(row["value"]):
            yield SectionPoint(row["scenario"], row.get("prompting"), row["of"], row["at"], row["value"])


def _trained(frame: pd.DataFrame) -> pd.Series[str]:
    """How each row was trained, in as few words as tell the rows apart."""
    named = "η " + frame["train_rate"].map("{:g}".format)
    several = [frame["method"] + " + " + frame["head"], frame["train_scenario"]]
    for what in several[::-1]:
        if what.nunique() > 1:
            named = what + ", " + named
    return named
