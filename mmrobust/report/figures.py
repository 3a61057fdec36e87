"""The report as pictures: PNG, SVG and PDF of every chart, drawn by Altair and vl-convert, for papers and slides."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrobust.errors import UsageError
from mmrobust.report import charts
from mmrobust.report.points import HEAT, section_points
from mmrobust.report.published import Published
from mmrobust.report.rows import UNKNOWN, Row, Section
from mmrobust.report.tables import Report
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import atomic_file

try:
    import altair as alt
    import vl_convert  # noqa: F401  # what Altair saves pictures with: better missed here than after the first chart
except ImportError as cause:
    raise UsageError("figures need Altair and vl-convert: pip install 'mmrobust[report]'") from cause

FORMATS = ("png", "svg", "pdf")
PNG_SCALE = 2
"""Pixels of a PNG per point: 144 per inch."""
LONGEST_STEM = 120
"""Characters of a file name before its ending; systems take 255, some paths in all no more."""


def draw(report: Report, folder: Path, progress: Progress = no_progress) -> list[Path]:
    """Write every chart of ``report`` into ``folder``, in each of :data:`FORMATS`.

    Returns:
        The files: ``{data set}-{split}-{metric}-curves.png`` and so on, under names that every system takes.

    Raises:
        UsageError: ``folder`` is a file.
    """
    if folder.is_file():
        raise UsageError(f"--figures {folder}: is a file; name a folder")
    made = list(_charts(report))
    written = []
    with progress("drawing", len(made) * len(FORMATS)) as advance:
        for stem, (_, chart) in zip(file_stems([name for name, _ in made]), made, strict=True):
            for format in FORMATS:
                file = folder / f"{stem}.{format}"
                with atomic_file(file) as partial:
                    chart.save(str(partial), format=format, **({"scale_factor": PNG_SCALE} if format == "png" else {}))
                written.append(file)
                advance(1)
    return written


def file_stems(names: Sequence[str]) -> list[str]:
    """For each of the names a file name without its ending, all different, that every system takes.

    Windows refuses colons, question marks, a point at the end, names such as ``CON.x`` …, and takes capitals for small
    letters; shells and URLs have a use for more. So letters and digits of ASCII, ``-`` and ``_`` stay, other letters
    lose their accents, and the rest becomes ``-``; what is the same then is numbered.
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
    """(Name, chart) of every picture."""
    for table in report.tables:
        name = f"{table.dataset}-{table.split}-{table.metric}"
        checkpoints = list(dict.fromkeys(row.checkpoint for row in table.rows))
        title = f"{table.dataset}, {table.split}: {table.metric} in %, {table.n:,} samples"
        lines = [point for row in table.rows for point in curve_rows(row)]
        yield f"{name}-curves", _panels(charts.curves(checkpoints), title, lines, height=190)
        bars = [range_row(row) for row in table.rows if not math.isnan(row.auc_eta)]
        yield f"{name}-ranges", _panels(charts.ranges(checkpoints), title, bars, height=alt.Step(18))
        of = (table.dataset, table.split, table.metric)
        for section in report.sections:
            own = (section.dataset, section.split, section.metric) == of
            if own and section.kind != "costs" and not section.frame.empty:
                yield f"{name}-{section.kind}", _section(section, checkpoints)
    if report.published is not None:
        yield from _published(report.published)


def _section(section: Section, checkpoints: Sequence[str]) -> Any:
    """The picture of a section, its ``checkpoints`` in the colours that they have in the others of the table."""
    named = [] if section.title.endswith(section.dataset) else [section.dataset]
    title = ", ".join([section.title, *named, section.split])
    if section.kind == "standings":
        rows = [_standing_row(row) for row in section.frame.to_dict("records")]
        chart = charts.standings(checkpoints).properties(width=360, height=alt.Step(20))
        chart.data = alt.InlineData(values=rows)
        return _looks(chart.properties(title=f"{title}: % of comparisons won"))
    points = list(section_points(section))
    keys = [
        {"scenario": point.scenario, **({"prompting": point.prompting} if point.prompting else {})} for point in points
    ]
    if section.kind in HEAT:
        values = [100 * point.value for point in points]
        rows = [
            {**key, "y": point.of, "x": point.at if isinstance(point.at, str) else f"{point.at:g}", "value": value}
            for key, point, value in zip(keys, points, values, strict=True)
        ]
        heat = {"classes": charts.losses, "rates": charts.rates}[section.kind]
        chart = heat((max(0, min(values, default=0)), max(values, default=1)))
        said = f"{title}: F1, points lost" if section.kind == "classes" else f"{title}, in %"
        return _panels(chart, said, rows, height=alt.Step(22), width=alt.Step(34))
    rows = [
        {**key, "checkpoint": point.of, "rate": point.at, "interval": UNKNOWN, "spread": None}
        | dict.fromkeys(("value", "low", "high"), 100 * point.value)
        for key, point in zip(keys, points, strict=True)
    ]
    unit = {"prompting": "points, situation − concat", "effective": "points", "reliability": "ECE in points"}
    return _panels(charts.curves(checkpoints), f"{title}: {unit[section.kind]}", rows, height=160)


def _standing_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    ends = [row.get(end, math.nan) for end in ("wins_low", "wins_high")]
    low, high = (100 * (row["wins"] if math.isnan(end) else end) for end in ends)
    known = {"wins": 100 * row["wins"], "low": low, "high": high}
    return {"checkpoint": row["checkpoint"], **known, "rank": row["mean_rank"], "interval": f"{low:.1f} to {high:.1f}"}


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


def _panels(chart: Any, title: str, rows: list[dict[str, Any]], height: Any, width: Any = 240) -> Any:
    """``chart`` once for each scenario (across) and prompting (down)."""
    chart = chart.properties(width=width, height=height)
    chart.data = alt.InlineData(values=rows)
    head = alt.Header(title=None, labelFontSize=12, labelFontWeight="bold")
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    promptings = list(dict.fromkeys(row.get("prompting", "") for row in rows))
    scenarios.sort(key=lambda name: name.endswith("-both"))  # after those that it is made of
    facets: dict[str, Any] = {"column": alt.Column("scenario:N", sort=scenarios, header=head)}
    if len(promptings) > 1:
        facets["row"] = alt.Row("prompting:N", sort=promptings, header=head)
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
