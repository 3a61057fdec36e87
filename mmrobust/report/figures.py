"""The report as pictures: every chart as PNG, SVG and PDF, drawn by Altair and vl-convert, for papers and slides."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrobust.errors import UsageError
from mmrobust.report.chart_data import HEAT_MAPS, WITHOUT_CHART, section_points
from mmrobust.report.curve_table import Curve, is_composed
from mmrobust.report.numbers import UNKNOWN, Scale, samples, scale_of
from mmrobust.report.published import Published
from mmrobust.report.report import Report
from mmrobust.report.section import Section
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import atomic_file

try:
    import altair as alt
    import vl_convert  # noqa: F401  # Altair needs it to save pictures: better missed here than after the first chart

    from mmrobust.report import charts
except ImportError as cause:
    raise UsageError("figures need Altair and vl-convert: pip install 'mmrobust[report]'") from cause

FORMATS = ("png", "svg", "pdf")
PNG_SCALE = 2
"""Pixels of a PNG per point: 144 per inch."""
LONGEST_STEM = 120
"""Characters of a file name before its ending. Systems allow 255, but some limit the whole path."""
_PANEL_HEADER = alt.Header(title=None, labelFontSize=12, labelFontWeight="bold")
_UNITS = {"prompting": "points, situation − concat", "effective": "points", "reliability": "ECE in points"}
"""Kind of a section with a line chart → what its values are, for the title."""


def draw(report: Report, folder: Path, progress: Progress = no_progress) -> list[Path]:
    """Write every chart of ``report`` into ``folder``, in each of :data:`FORMATS`.

    Returns:
        The files: ``{data set}-{split}-{metric}-curves.png`` and so on, with names that every system allows.

    Raises:
        UsageError: ``folder`` is a file.
    """
    if folder.is_file():
        raise UsageError(f"--figures {folder}: is a file; name a folder")
    named_charts = list(_charts(report))
    written = []
    with progress("drawing", len(named_charts) * len(FORMATS)) as advance:
        for stem, (_, chart) in zip(file_stems([name for name, _ in named_charts]), named_charts, strict=True):
            for format in FORMATS:
                file = folder / f"{stem}.{format}"
                with atomic_file(file) as partial:
                    chart.save(str(partial), format=format, **({"scale_factor": PNG_SCALE} if format == "png" else {}))
                written.append(file)
                advance(1)
    return written


def file_stems(names: Sequence[str]) -> list[str]:
    """Turn each name into a file name without its ending that every system allows; all of them differ.

    Windows refuses colons, question marks, a trailing point and names such as ``CON.x``, and ignores case; shells and
    URLs give a meaning to more characters. So ASCII letters and digits, ``-`` and ``_`` stay, other letters lose their
    accents, everything else becomes ``-``, and names that are then equal are numbered.
    """
    stems: dict[str, None] = {}
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[-LONGEST_STEM:] or "chart"  # its end says what it shows
        number, taken = 1, {other.lower() for other in stems}
        while (numbered := stem if number == 1 else f"{stem}-{number}").lower() in taken:
            number += 1
        stems[numbered] = None
    return list(stems)


def _charts(report: Report) -> Iterator[tuple[str, Any]]:
    """(name, chart) of every picture."""
    for table in (each.folded for each in report.tables):
        name = f"{table.dataset}-{table.split}-{table.metric}"
        title = f"{table.dataset}, {table.split}: {table.metric}{table.scale.of}, {samples(table.n)}"
        lines = [point for row in table.rows for point in _curve_rows(row, table.scale)]
        yield f"{name}-curves", _panels(charts.curves(table.checkpoints), title, lines, height=190)
        bars = [_range_row(row, table.scale) for row in table.rows if not math.isnan(row.auc_eta)]
        yield f"{name}-ranges", _panels(charts.ranges(table.checkpoints), title, bars, height=alt.Step(18))
        for section in report.sections:
            same_table = (section.dataset, section.split, section.metric) == (table.dataset, table.split, table.metric)
            if same_table and section.kind not in WITHOUT_CHART and not section.frame.empty:
                yield f"{name}-{section.kind}", _section(section, table.checkpoints)
    if report.published is not None:
        yield from _published(report.published)


def _section(section: Section, checkpoints: Sequence[str]) -> Any:
    """The picture of a section; each of ``checkpoints`` has its colour from the other pictures of the table."""
    dataset = [] if section.title.endswith(section.dataset) else [section.dataset]
    title = ", ".join([section.title, *dataset, section.split])
    if section.kind == "standings":
        chart = charts.standings(checkpoints).properties(width=360, height=alt.Step(20))
        chart.data = alt.InlineData(values=[_standing_row(row) for row in section.frame.to_dict("records")])
        return _themed(chart.properties(title=f"{title}: % of comparisons won"))
    points, scale = list(section_points(section)), scale_of(section.metric)
    factor = scale.factor
    panels = [{"scenario": p.scenario, **({"prompting": p.prompting} if p.prompting else {})} for p in points]
    if section.kind in HEAT_MAPS:
        values = [factor * point.value for point in points]
        rows: list[dict[str, Any]] = [
            {**panel, "y": point.of, "x": point.at if isinstance(point.at, str) else f"{point.at:g}", "value": value}
            for panel, point, value in zip(panels, points, values, strict=True)
        ]
        heat_map = {"classes": charts.losses, "rates": charts.rates}[section.kind]
        chart = heat_map((max(0, min(values, default=0)), max(values, default=1)))
        unit = ": F1, points lost" if section.kind == "classes" else "," * scale.is_share + scale.of
        return _panels(chart, f"{title}{unit}", rows, height=alt.Step(22), width=alt.Step(34))
    rows = [
        {**panel, "checkpoint": point.of, "rate": point.at, "interval": UNKNOWN, "spread": None}
        | dict.fromkeys(("value", "low", "high"), factor * point.value)
        for panel, point in zip(panels, points, strict=True)
    ]
    unit = f": {_UNITS[section.kind]}" if scale.is_share else scale.of
    return _panels(charts.curves(checkpoints), f"{title}{unit}", rows, height=160)


def _standing_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The row that :func:`~mmrobust.report.charts.standings` draws of a checkpoint."""
    ends = [row.get(end, math.nan) for end in ("wins_low", "wins_high")]
    low, high = (100 * (row["wins"] if math.isnan(end) else end) for end in ends)
    known = {"wins": 100 * row["wins"], "low": low, "high": high}
    return {"checkpoint": row["checkpoint"], **known, "rank": row["mean_rank"], "interval": f"{low:.1f} to {high:.1f}"}


def _curve_rows(row: Curve, scale: Scale) -> Iterator[dict[str, Any]]:
    """The rows that :func:`~mmrobust.report.charts.curves` draws of ``row``."""
    for rate, point in row.points.items():
        if not math.isnan(point.value):
            low, high = (point.value if math.isnan(end) else end for end in (point.ci_low, point.ci_high))
            values = {"value": point.value, "low": low, "high": high, "spread": point.spread}
            drawn = {key: None if math.isnan(value) else scale.factor * value for key, value in values.items()}
            yield {**_names(row), "rate": rate, **drawn, "interval": f"{scale.value(low)} to {scale.value(high)}"}


def _range_row(row: Curve, scale: Scale) -> dict[str, Any]:
    """The row that :func:`~mmrobust.report.charts.ranges` draws of ``row``."""
    factor = scale.factor
    complete = None if math.isnan(row.complete) else factor * row.complete
    values = {"auc": factor * row.auc_eta, "complete": complete, "worst": factor * row.worst_value}
    return {**_names(row), **values, "where": f"η {row.worst_rate:g}, seed {row.worst_seed:.0f}"}


def _names(row: Curve) -> dict[str, str]:
    return {"checkpoint": row.checkpoint, "scenario": row.scenario, "prompting": row.prompting}


def _panels(chart: Any, title: str, rows: list[dict[str, Any]], height: Any, width: Any = 240) -> Any:
    """Repeat ``chart`` for each scenario (across) and prompting (down)."""
    chart = chart.properties(width=width, height=height)
    scenarios = sorted(dict.fromkeys(row["scenario"] for row in rows), key=is_composed)
    promptings = list(dict.fromkeys(row.get("prompting", "") for row in rows))
    down = {"row": alt.Row("prompting:N", sort=promptings, header=_PANEL_HEADER)} if len(promptings) > 1 else {}
    return _across(chart, "scenario", scenarios, rows, title, **down)


def _published(published: Published) -> Iterator[tuple[str, Any]]:
    for comparison in published.comparisons:
        rows = [
            {"case": case, "source": line.source, "ours": line.ours, "value": 100 * value}
            for line in comparison.lines
            for case, value in zip(comparison.columns, line.values, strict=True)
            if not math.isnan(value) and case != "average"
        ]
        if not rows:
            continue
        chart = charts.published().properties(width=200, height=alt.Step(18))
        title = f"{comparison.dataset}, hollow: as published, {published.title}; filled: ours"
        yield f"published-{comparison.dataset}", _across(chart, "case", comparison.columns, rows, title)


def _across(
    chart: Any, field: str, order: Iterable[str], rows: list[dict[str, Any]], title: str, **down: alt.Row
) -> Any:
    """A panel of ``chart`` for each value of ``field``, filled with its ``rows``."""
    chart.data = alt.InlineData(values=rows)
    column = alt.Column(f"{field}:N", sort=list(order), header=_PANEL_HEADER)
    return _themed(chart.facet(column=column, **down).properties(title=title))


def _themed(chart: Any) -> Any:
    return (
        chart.configure(font="Helvetica, Arial, sans-serif", background="white")
        .configure_axis(gridColor="#ececee", domainColor="#c8cacd", tickColor="#c8cacd", titleFontWeight="normal")
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=13)
    )
