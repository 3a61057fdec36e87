"""The report as one self-contained page: it works from disk, with no network, in light and dark, by mouse and keyboard.

- ``page.html`` is the frame, ``page.css`` the looks; ``state.js``, ``charts.js``, ``tables.js``, ``sections.js``
  and ``page.js`` the behaviour, in this order;
- ``content.py`` says what of the report goes into the page;
- ``assets.py`` makes the two files that nobody writes by hand.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from mmrobust.report.html import assets
from mmrobust.report.html.content import page_content
from mmrobust.report.tables import Report

SCRIPTS = ("state.js", "charts.js", "tables.js", "sections.js", "page.js")


def render(report: Report) -> str:
    """``report`` as a page of HTML that asks nothing of the network."""
    parts = {
        "TITLE": html.escape(_title(report)),
        "STYLE": assets.read("page.css"),
        "VEGA": assets.read(assets.BUNDLE),
        "CHARTS": _inline(json.loads(assets.read(assets.CHARTS))),
        "CONTENT": _inline(page_content(report)),
        "SCRIPT": "\n".join(assets.read(name) for name in SCRIPTS),
    }
    # At one go: what a part holds is no place for another.
    return re.sub("@@([A-Z]+)@@", lambda place: parts[place[1]], assets.read("page.html"))


def _title(report: Report) -> str:
    names = list(dict.fromkeys(table.dataset for table in report.tables))
    told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Robustness report: {told}"


def _inline(value: Any) -> str:
    """``value`` as JSON that cannot end the script element that it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
