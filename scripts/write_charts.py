"""Write the files of the report's page that are generated: ``python scripts/write_charts.py``.

- ``charts.json``: the Vega-Lite specifications of :mod:`mmrobust.report.charts`. They are the same for every report,
  and importing Altair to make them takes most of a second.
- ``vega.min.js.gz``: Vega, Vega-Lite and Vega-Embed in one script, as vl-convert bundles them, which takes three
  seconds.

Run it after a change to the charts, or with a newer vl-convert; tests compare both files with what it would write.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from mmrobust.report.html import BUNDLE, CHARTS

FOLDER = Path(__file__).resolve().parents[1] / "mmrobust" / "report" / "html"


def make_charts() -> str:
    """``charts.json``, one specification per line."""
    from mmrobust.report import charts

    specs = {name: charts.specification(chart()) for name, chart in charts.CHARTS.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(spec, ensure_ascii=False)}" for name, spec in specs.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def make_bundle() -> str:
    """The script that draws the charts, headed by the names and the licence of what it bundles."""
    import vl_convert

    head = f"/* Vega {vl_convert.get_vega_version()}, Vega-Lite and Vega-Embed, BSD-3-Clause, https://vega.github.io */"
    return f"{head}\n(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}}})();\n"


if __name__ == "__main__":
    (FOLDER / CHARTS).write_text(make_charts(), encoding="utf-8")
    (FOLDER / BUNDLE).write_bytes(gzip.compress(make_bundle().encode(), 9, mtime=0))
