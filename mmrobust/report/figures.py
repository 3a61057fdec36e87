"""The report as pictures: PNG, SVG and PDF of every chart, drawn by Altair and vl-convert, for papers and slides."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrobust.errors import UsageError
from mmrobust.files import atomic_file
from mmrobust.progress import Progress, no_progress
from mmrobust.report import charts
from mmrobust.report.published import Published
from mmrobust.report.rows import Row, Table
from mmrobust.report.tables import Report

try:
    import altair as alt
    import vl_convert  # noqa: F401  # what Altair saves pictures with: better missed here than after the first chart
except ImportError as cause:
    raise UsageError("figures need Altair and vl-convert: pip install 'mmrobust[report]'") from cause

FORMATS = ("png", "svg", "pdf")
PNG_SCALE = 2
"""Pixels of a PNG per point: 144 per inch."""


def draw(report: Report, folder: Path, progress: Progress = no_progress) -> list[Path]:
    """Write every chart of ``report`` into ``folder``, in each of :data:`FORMATS`.

    Returns:
        The files: ``{data set}-{split}-{metric}-curves.png`` and so on.

    Raises:
        UsageError: ``folder`` is a file.
    """
    if folder.is_file():
        raise UsageError(f"--figures {folder}: is a file; name a folder")
    made = list(_charts(report))
    written = []
    with progress("drawing", len(made) * len(FORMATS)) as advance:
        for name, chart in made:
            for format in FORMATS:
                file = folder / f"{_slug(name)}.{format}"
                with atomic_file(file) as partial:
                    chart.save(str(partial), format=format, **({"scale_factor": PNG_SCALE} if format == "png" else {}))
                written.append(file)
                advance(1)
    return written


def _charts(report: Report) -> Iterator[tuple[str, Any]]:
    """(Name, chart) of every picture."""
    for table in report.tables:
        name = f"{table.dataset}-{table.split}-{table.metric}"
        checkpoints = list(dict.fromkeys(row.checkpoint for row in table.rows))
        lines = [point for row in table.rows for point in curve_rows(row)]
        yield f"{name}-curves", _panels(charts.curves(checkpoints), table, lines, height=190)
        bars = [range_row(row) for row in table.rows if not math.isnan(row.auc_eta)]
        yield f"{name}-ranges", _panels(charts.ranges(checkpoints), table, bars, height=alt.Step(18))
    if report.published is not None:
        yield from _published(report.published)


def curve_rows(row: Row) -> Iterator[dict[str, Any]]:
    """The rows that :func:`~mmrobust.report.charts.curves` draws of ``row``."""
    for rate, point in row.points.items():
        if not math.isnan(point.value):
            low, high = (point.value if math.isnan(end) else end for end in (point.ci_low, point.ci_high))
            shares = {"value": point.value, "low": low, "high": high, "spread": point.spread}
            percents = {key: None if math.isnan(share) else 100 * share for key, share in shares.items()}
            yield {**_keys(row), "rate": rate, **percents, "interval": f"{100 * low:.1f} to {100 * high:.1f}"}


def range_row(row: Row) -> dict[str, Any]:
    """The row that :func:`~mmrobust.report.charts.ranges` draws of ``row``."""
    complete = None if math.isnan(row.complete) else 100 * row.complete
    where = f"η {row.worst_rate:g}, seed {row.worst_seed:.0f}"
    return {
        **_keys(row),
        "auc": 100 * row.auc_eta,
        "complete": complete,
        "worst": 100 * row.worst_value,
        "where": where,
    }


def _keys(row: Row) -> dict[str, str]:
    return {"checkpoint": row.checkpoint, "scenario": row.scenario, "prompting": row.prompting}


def _panels(chart: Any, table: Table, rows: list[dict[str, Any]], height: Any) -> Any:
    """``chart`` once for each scenario (across) and prompting (down)."""
    chart = chart.properties(width=240, height=height)
    chart.data = alt.InlineData(values=rows)
    head = alt.Header(title=None, labelFontSize=12, labelFontWeight="bold")
    facets: dict[str, Any] = {"column": alt.Column("scenario:N", sort=list(table.scenarios), header=head)}
    if len(table.promptings) > 1:
        facets["row"] = alt.Row("prompting:N", sort=list(table.promptings), header=head)
    title = f"{table.dataset}, {table.split}: {table.metric} in %, {table.n:,} samples"
    return _looks(chart.facet(**facets).properties(title=title))


def _published(published: Published) -> Iterator[tuple[str, Any]]:
    for comparison in published.comparisons:
        rows = [
            {"case": case, "source": line.source, "ours": line.ours, "value": 100 * value}
            for line in comparison.lines
            for case, value in zip(published.cases, line.values, strict=True)
            if not math.isnan(value)
        ]
        chart = charts.published().properties(width=200, height=alt.Step(18))
        chart.data = alt.InlineData(values=rows)
        head = alt.Header(title=None, labelFontSize=12, labelFontWeight="bold")
        panels = chart.facet(column=alt.Column("case:N", sort=list(published.cases), header=head))
        told = f"{comparison.dataset}, hollow: as published, {published.title}; filled: ours"
        yield f"published-{comparison.dataset}", _looks(panels.properties(title=told))


def _looks(chart: Any) -> Any:
    return (
        chart.configure(font="Helvetica, Arial, sans-serif", background="white")
        .configure_axis(gridColor="#ececee", domainColor="#c8cacd", tickColor="#c8cacd", titleFontWeight="normal")
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=13)
    )


def _slug(name: str) -> str:
    """``name`` as a file name that every system takes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "chart"
