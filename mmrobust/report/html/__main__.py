"""``python -m mmrobust.report.html``: make again what the page carries and nobody writes by hand."""

from __future__ import annotations

import gzip

from mmrobust.report.html import assets

(assets.FOLDER / assets.CHARTS).write_text(assets.make_charts(), encoding="utf-8")
(assets.FOLDER / assets.BUNDLE).write_bytes(gzip.compress(assets.make_bundle().encode(), 9, mtime=0))
