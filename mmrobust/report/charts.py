"""The charts of the report, written with Altair: the same on the page and in pictures.

Each function gives a chart on an empty data set named :data:`ROWS`. The page carries their specifications, which
``scripts/write_charts.py`` writes to ``html/charts.json``, and fills in the rows that pass its filters;
:mod:`mmrobust.report.figures` fills in all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import altair as alt

from mmrobust.report.chart_data import COLOURS, appearance

ROWS = "rows"
FOCUS = "focus"
"""Parameter that the page sets to the name of a checkpoint, to fade all others."""
LOW, HIGH = "low_end", "high_end"
"""Parameters that hold both ends of the scale of values, so that all panels share one scale."""
LABEL_WIDTH = 100
"""Pixels of the longest name beside a curve."""
Ends = tuple[float | None, float | None]
"""Initial values of the two; ``None`` lets the values decide, until the page sets them."""
_FADED = f"{FOCUS} && datum.checkpoint !== {FOCUS}"
_SCALE = alt.Scale(zero=False, nice=True, domainMin=alt.expr(LOW), domainMax=alt.expr(HIGH))
"""The scale of values: between the ends that the page sets for all panels, else as the values are."""


def curves(checkpoints: Sequence[str] = ()) -> alt.LayerChart:
    """Chart of a metric by missing rate: for each checkpoint a line with points and its 95 % interval.

    Rows: ``checkpoint``, ``rate``, ``value``, ``low``, ``high``, ``spread`` (in %), ``interval`` (as text); and, if no
    ``checkpoints`` are given, ``colour``, ``dash``, and ``name`` (empty but at a curve's end) at the height ``label``.
    """
    base = alt.Chart(alt.NamedData(ROWS)).encode(
        x=alt.X("rate:Q", title="missing rate η", axis=alt.Axis(format="~g", tickCount=6)),
        detail="checkpoint:N",
        **_identity(checkpoints),
    )
    band = base.mark_area().encode(y=_height("low"), y2="high:Q", opacity=_opacity(0.1, 0.02))
    line = base.mark_line(strokeWidth=2).encode(y=_height("value"), opacity=_opacity(1, 0.12), **_dashes(checkpoints))
    dot = base.mark_point(filled=True, size=26).encode(y=_height("value"), opacity=_opacity(1, 0.1))
    if checkpoints:  # a picture needs no tooltips
        return _finish(alt.layer(band, line, dot), height=230)
    # A large invisible dot that catches the pointer.
    catch = base.mark_point(filled=True, size=260, opacity=0.001).encode(
        y=_height("value"),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("rate:Q", title="η", format="~g"),
            _percent("value", "value, %"),
            alt.Tooltip("interval:N", title="95 % interval"),
            _percent("spread", "spread over seeds"),
        ],
    )
    name = base.mark_text(align="left", dx=8, fontSize=11, limit=LABEL_WIDTH).encode(
        y=_height("label"), text="name:N", opacity=_opacity(1, 0.15)
    )
    return _finish(alt.layer(band, line, dot, name, catch), height=230)


def ranges(checkpoints: Sequence[str] = ()) -> alt.LayerChart:
    """Chart of what each checkpoint keeps: a bar from its worst cell to its complete value, and a dot at its AUC-η.

    Rows: ``checkpoint``, ``worst``, ``auc``, ``complete`` (in %), ``where`` (the worst cell, as text); and ``colour``
    if no ``checkpoints`` are given.
    """
    tooltip = [
        _percent("complete", "complete, %"),
        _percent("auc", "AUC-η, %"),
        _percent("worst", "worst cell, %"),
        alt.Tooltip("where:N", title="worst at"),
    ]
    base, bar, dot = _bars(checkpoints, "worst", "complete", "auc", tooltip)
    end = base.mark_point(filled=False, size=50).encode(x=_width("complete"), opacity=_opacity(1, 0.15))
    return _finish(alt.layer(bar, end, dot), height=120)


def standings(checkpoints: Sequence[str] = ()) -> alt.LayerChart:
    """Chart of how often each checkpoint wins: a dot, and a bar over its 95 % interval.

    Rows: ``checkpoint``, ``wins``, ``low``, ``high`` (in %; equal if no interval is known), ``rank`` (mean),
    ``interval`` (as text); and ``colour`` if no ``checkpoints`` are given.
    """
    tooltip = [
        _percent("wins", "wins, %"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("rank:Q", title="mean rank", format=".2f"),
    ]
    _, bar, dot = _bars(checkpoints, "low", "high", "wins", tooltip)
    return _finish(alt.layer(bar, dot), height=120, ends=(0, 100))


def published() -> alt.LayerChart:
    """Chart of a paper's figures beside ours: a dot for each method, ours filled, theirs hollow.

    Rows: ``case``, ``source`` (whose figure), ``value`` (in %), ``ours`` (a Boolean).
    """
    base = alt.Chart(alt.NamedData(ROWS)).encode(
        x=_width("value"),
        y=alt.Y("source:N", title=None, sort=None, axis=_names_axis(170)),
        tooltip=[alt.Tooltip("case:N"), alt.Tooltip("source:N"), _percent("value", "accuracy, %")],
    )
    dot = base.mark_point(size=80, strokeWidth=2).encode(
        stroke=alt.condition("datum.ours", alt.value(COLOURS[0]), alt.value(COLOURS[1])),
        fill=alt.condition("datum.ours", alt.value(COLOURS[0]), alt.value("transparent")),
    )
    return _finish(alt.layer(dot), height=120)


def losses(ends: Ends = (None, None)) -> alt.LayerChart:
    """Heat map of the points that each class (down) loses with each checkpoint (across)."""
    return _heat("reds", alt.Axis(labelAngle=-30, labelLimit=110, ticks=False, domain=False), "points lost", ends)


def rates(ends: Ends = (None, None)) -> alt.LayerChart:
    """Heat map of the value of checkpoints trained at one missing rate (down) and tested at another (across)."""
    return _heat("blues", alt.Axis(labelAngle=0, ticks=False, domain=False), "value, %", ends)


def _heat(scheme: Literal["reds", "blues"], axis: alt.Axis, unit: str, ends: Ends) -> alt.LayerChart:
    """Heat map with the number in each cell. Rows: ``x``, ``y``, ``value``, in the order to show them."""
    base = alt.Chart(alt.NamedData(ROWS)).encode(
        x=alt.X("x:N", title=None, sort=None, axis=axis),
        y=alt.Y("y:N", title=None, sort=None, axis=_names_axis(130)),
        tooltip=[alt.Tooltip("y:N", title="of"), alt.Tooltip("x:N", title="at"), _percent("value", unit)],
    )
    scale = alt.Scale(scheme=scheme, domainMin=alt.expr(LOW), domainMax=alt.expr(HIGH))
    cell = base.mark_rect(cornerRadius=3).encode(color=alt.Color("value:Q", scale=scale, legend=None))
    dark = f"datum.value > 0.4 * {LOW} + 0.6 * {HIGH}"
    number = base.mark_text(fontSize=11).encode(
        text=alt.Text("value:Q", format=".0f"),
        color=alt.condition(dark, alt.value("white"), alt.value("#1a1c1f")),
    )
    return _finish(alt.layer(cell, number), height=120, ends=ends)


_LEGEND = alt.Legend(title=None, orient="bottom", columns=5, labelLimit=240, symbolType="stroke", symbolOpacity=1)

CHARTS: dict[str, Callable[[], alt.LayerChart]]
CHARTS = {chart.__name__: chart for chart in (curves, ranges, standings, published, losses, rates)}
"""The charts of the page, by the names that its scripts use."""


def specification(chart: alt.LayerChart) -> dict[str, Any]:
    """``chart`` as Vega-Lite without Altair's theme, since page and pictures have their own."""
    with alt.theme.enable("none"):
        spec: dict[str, Any] = chart.to_dict()
    del spec["$schema"]
    return spec


def _identity(checkpoints: Sequence[str]) -> dict[str, Any]:
    """Colour by checkpoint, with a legend, or, if none are given, by the ``colour`` of each row."""
    if not checkpoints:
        return {"color": alt.Color("colour:N", scale=None)}
    colours = alt.Scale(domain=list(checkpoints), range=[appearance(i)[0] for i in range(len(checkpoints))])
    return {"color": alt.Color("checkpoint:N", scale=colours, legend=_LEGEND)}


def _dashes(checkpoints: Sequence[str]) -> dict[str, Any]:
    """Dash by checkpoint if there are more than colours, or, if none are given, by the ``dash`` of each row."""
    if not checkpoints:
        return {"strokeDash": alt.StrokeDash("dash:N", scale=None)}
    if len(checkpoints) <= len(COLOURS):
        return {}
    dashes = alt.Scale(domain=list(checkpoints), range=[appearance(i)[1] for i in range(len(checkpoints))])
    return {"strokeDash": alt.StrokeDash("checkpoint:N", scale=dashes, legend=_LEGEND)}


def _bars(
    checkpoints: Sequence[str], low: str, high: str, dot: str, tooltip: Sequence[alt.Tooltip]
) -> tuple[alt.Chart, alt.Chart, alt.Chart]:
    """A line for each checkpoint, the highest ``dot`` at the top: the empty chart, its bars and its dots."""
    order = alt.EncodingSortField(dot, order="descending")
    base = alt.Chart(alt.NamedData(ROWS)).encode(
        y=alt.Y("checkpoint:N", title=None, sort=order, axis=_names_axis(130)),
        tooltip=[alt.Tooltip("checkpoint:N"), *tooltip],
        **_identity(checkpoints),
    )
    bar = base.mark_rule(strokeWidth=6, strokeCap="round")
    bar = bar.encode(x=_width(low), x2=f"{high}:Q", opacity=_opacity(0.3, 0.06))
    return base, bar, base.mark_point(filled=True, size=90).encode(x=_width(dot), opacity=_opacity(1, 0.15))


def _names_axis(limit: int) -> alt.Axis:
    return alt.Axis(labelLimit=limit, ticks=False, domain=False)


def _height(field: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=None, scale=_SCALE)


def _width(field: str) -> alt.X:
    return alt.X(f"{field}:Q", title=None, scale=_SCALE)


def _percent(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=".1f")


def _opacity(normal: float, faded: float) -> Any:
    """Opacity of a mark: ``normal``, or ``faded`` while another checkpoint has the focus."""
    return alt.condition(_FADED, alt.value(faded), alt.value(normal))


def _finish(chart: Any, height: float, ends: Ends = (None, None)) -> alt.LayerChart:
    params = (alt.param(name=name, value=value) for name, value in ((FOCUS, None), (LOW, ends[0]), (HIGH, ends[1])))
    finished: alt.LayerChart = chart.add_params(*params).properties(width="container", height=height)
    return finished
