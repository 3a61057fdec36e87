"""What the charts are drawn from, and how they tell checkpoints apart: the same on the page and in pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from mmrobust.report.section import Section

COLOURS = (
    "#4269d0", "#e8850c", "#2f9e5b", "#d6457b", "#8b5cf6", "#12a5b8", "#b5651d", "#7a8b99", "#c2a511", "#5f7f2b",
)  # fmt: skip
"""Distinct on white and on black. From the eleventh checkpoint on they repeat, dashed."""
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 4, 1, 4))
MOST_CLASSES = 15
"""A chart of classes shows only this many: those that lose most."""
HEAT_MAPS = ("classes", "rates")
"""Kinds of sections whose chart is a heat map."""
WITHOUT_CHART = ("costs", "dependence", "worth")
"""Kinds of sections that are tables alone."""
LINE_CHARTS = {"prompting": "gap", "effective": "effective", "reliability": "ece"}
"""Kinds of sections whose chart has a line for each checkpoint over missing rates → the column of the values."""


def appearance(number: int) -> tuple[str, tuple[int, ...]]:
    """Colour and dash of a checkpoint, by its number in the order in which the report names the checkpoints."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


class SectionPoint(NamedTuple):
    """One point of a line, or one cell of a heat map."""

    scenario: str
    prompting: str | None
    """``None`` if it compares promptings."""
    of: str
    """The checkpoint of a line; the row of a heat map."""
    at: str | float
    """The missing rate; in a heat map of classes, the checkpoint."""
    value: float
    """A share."""


def section_points(section: Section) -> Iterator[SectionPoint]:
    """The points of a section's lines or heat map, in the order to draw them; none for a section of another kind."""
    frame, kind = section.frame, section.kind
    if kind == "classes":
        lost = frame.groupby("class", observed=True)["lost"].mean().sort_values(ascending=False)
        frame = frame[frame["class"].isin(lost.index[:MOST_CLASSES])]
        frame = frame.assign(place=frame["class"].map(lost)).sort_values("place", ascending=False, kind="stable")
        frame = frame.assign(of=frame["class"], at=frame["checkpoint"], value=frame["lost"])
    elif kind == "rates":
        frame = frame.assign(of=_training(frame), at=frame["missing_rate"])
    elif kind in LINE_CHARTS:
        frame = frame.assign(of=frame["checkpoint"], at=frame["missing_rate"], value=frame[LINE_CHARTS[kind]])
    else:
        return
    for row in frame.to_dict("records"):
        if not math.isnan(row["value"]):
            yield SectionPoint(row["scenario"], row.get("prompting"), row["of"], row["at"], row["value"])


def _training(frame: pd.DataFrame) -> pd.Series[str]:
    """How each row was trained, in as few words as tell the rows apart."""
    named = "η " + frame["train_rate"].map("{:g}".format)
    for more in (frame["train_scenario"], frame["method"] + " + " + frame["head"]):
        if more.nunique() > 1:
            named = more + ", " + named
    return named
