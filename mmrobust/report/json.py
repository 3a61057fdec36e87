"""The report as JSON: tables, figures and provenance, for another program."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from mmrobust.report.curve_table import Curve
from mmrobust.report.report import Report
from mmrobust.report.section import Section
from mmrobust.storage.files import strict_json


def render(report: Report) -> str:
    """Write ``report`` with every row, point and robustness figure, unrounded; what is not known is null."""
    content = {
        "tables": [{**_fields(table), "rows": [_row(row) for row in table.rows]} for table in report.tables],
        "sections": [_section(section) for section in report.sections],
        "published": dataclasses.asdict(report.published) if report.published else None,
        "checkpoints": report.checkpoints,
        "provenance": list(report.provenances),
    }
    return json.dumps(strict_json(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _section(section: Section) -> dict[str, Any]:
    """The figures behind a further table, not its printed cells."""
    about = {name: getattr(section, name) for name in ("kind", "dataset", "split", "metric", "note")}
    return {**about, "figures": section.frame.to_dict("records")}


def _row(row: Curve) -> dict[str, Any]:
    points = [{"missing_rate": rate, **_fields(point)} for rate, point in sorted(row.points.items())]
    return {**_fields(row), "points": points}


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, without what is computed from them."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
