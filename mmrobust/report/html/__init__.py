"""The report as one self-contained page: it works from disk, without network, in light and dark, by mouse and keyboard.

- ``page.html`` is the template, ``page.css`` the style; ``state.js``, ``charts.js``, ``tables.js``, ``sections.js`` and
  ``page.js``, in this order, are the behaviour;
- ``page_data.py`` chooses what of the report the page carries;
- ``charts.json`` and ``vega.min.js.gz`` are written by ``scripts/write_charts.py``, so that making a page takes neither
  Altair nor the seconds that it needs;
- ``comparison.html`` is the template of :mod:`mmrobust.report.comparison`.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mmrobust.report.html.page_data import build_page_data
from mmrobust.report.report import Report

BUNDLE, CHARTS = "vega.min.js.gz", "charts.json"
SCRIPTS = ("state.js", "charts.js", "tables.js", "sections.js", "page.js")


def render(report: Report) -> str:
    """Write ``report`` as a page of HTML that fetches nothing."""
    names = list(dict.fromkeys(table.dataset for table in report.tables))
    return fill_template(
        "page.html",
        datasets=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        style=Markup(read_asset("page.css")),
        vega=Markup(read_asset(BUNDLE)),
        charts=_script_json(json.loads(read_asset(CHARTS))),
        report=_script_json(build_page_data(report)),
        script=Markup("\n".join(read_asset(name) for name in SCRIPTS)),
    )


def fill_template(name: str, **values: Any) -> str:
    """Fill a Jinja template of this folder; every value that is not ``Markup`` is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(read_asset(name)).render(values)


def read_asset(name: str) -> str:
    """Read a text file of this folder, decompressed if its name ends with ``.gz``."""
    content = (files(__package__) / name).read_bytes()
    return (gzip.decompress(content) if name.endswith(".gz") else content).decode()


def _script_json(value: Any) -> Markup:
    """``value`` as JSON that cannot end the script element around it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
