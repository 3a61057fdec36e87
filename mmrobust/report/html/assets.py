"""Make what the page carries and nobody writes by hand: ``python -m mmrobust.report.html``.

- ``vega.min.js.gz``: Vega, Vega-Lite and Vega-Embed in one script, as vl-convert bundles them. Bundling takes three
  seconds, and a page must not wait that long: so it is kept here, and a test compares it with vl-convert's.
- ``charts.json``: the Vega-Lite specifications of :mod:`mmrobust.report.charts`. To import Altair and make them takes
  most of a second, and they are the same for every report: a test compares them with Altair's.

So a page is written in a moment, and without the extra ``report``.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

FOLDER = Path(__file__).parent
BUNDLE, CHARTS = "vega.min.js.gz", "charts.json"


def read(name: str) -> str:
    """The text of an asset of the page."""
    content = (files(__package__) / name).read_bytes()
    return (gzip.decompress(content) if name.endswith(".gz") else content).decode()


def make_charts() -> str:
    """``charts.json``, one specification to a line."""
    from mmrobust.report import charts

    specs = {name: charts.specification(chart()) for name, chart in charts.CHARTS.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(spec, ensure_ascii=False)}" for name, spec in specs.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def make_bundle() -> str:
    """The script that draws the charts, with the licences' names at its head."""
    import vl_convert

    head = f"/* Vega {vl_convert.get_vega_version()}, Vega-Lite and Vega-Embed, BSD-3-Clause, https://vega.github.io */"
    return f"{head}\n(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}}})();\n"
