"""Write what the documentation shows of the demo: ``python scripts/write_demo.py DEMO``.

DEMO is the folder that ``mmrobust demo`` made. The README's table is written from its results. Its page is opened in
headless Chromium for the pictures: the first screen on a desk (1,400 px) and on a phone (390 px), and the first page as
printed.
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

from mmrobust.scoring.robustness import curves, summarise
from mmrobust.storage.results import read_results
from mmrobust.studies.demo import OWN, STUDENTS, TEACHER

ORDER = (TEACHER, *STUDENTS, *OWN)
ROOT = Path(__file__).resolve().parents[1]
README, IMAGES = ROOT / "README.md", ROOT / "docs" / "images"
BEGIN, END = "<!-- from the demo, by scripts/write_demo.py -->\n", "<!-- to here -->"
SHOWN = {
    "complete": ("missing-image", 0.0),
    "without the image": ("missing-image", 1.0),
    "without the text": ("missing-text", 1.0),
    "without one of them": ("missing-both", 1.0),
    "AUC-η, one of them": ("missing-both", math.nan),
}
"""Column → scenario and missing rate; NaN: the mean height of the curve."""
DRAWN = "Number(document.body.dataset.drawn ?? 0) > 0"
SCREENS: dict[str, dict[str, Any]] = {
    "report.png": {"viewport": {"width": 1400, "height": 760}, "color_scheme": "light"},
    "report-phone.png": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def table(results: Path) -> str:
    """The README's table, as Markdown."""
    rows = [f"| | {' | '.join(SHOWN)} |", f"| --- |{' ---: |' * len(SHOWN)}"]
    for folder in sorted(results.iterdir(), key=lambda folder: ORDER.index(folder.name)):
        read = read_results(folder)
        frame = read.frame[read.frame["metric"] == read.headline_metric]
        points, areas = curves(frame), summarise(frame).set_index("scenario")["auc_eta"]
        means = points.set_index(["scenario", "missing_rate"])["value"]
        cells = []
        for scenario, rate in SHOWN.values():
            value = areas.get(scenario) if math.isnan(rate) else means.get((scenario, rate))
            cells.append("–" if value is None else f"{100 * value:.1f}")
        rows.append(f"| `{folder.name}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def write_table(results: Path) -> None:
    """Write the README's table in its place."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{table(results)}{END}{rest.partition(END)[2]}", encoding="utf-8")


def write_pictures(page: Path) -> None:
    """Open the report, and write each picture."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, settings in SCREENS.items():
            opened = browser.new_page(**settings)
            opened.goto(page.resolve().as_uri())
            opened.wait_for_function(DRAWN)
            opened.screenshot(path=IMAGES / name)
            opened.close()
        printed = browser.new_page(viewport={"width": 794, "height": 1123})
        printed.emulate_media(media="print")
        printed.goto(page.resolve().as_uri())
        printed.wait_for_function(DRAWN)
        printed.screenshot(path=IMAGES / "report-print.png")
        browser.close()


if __name__ == "__main__":
    write_table(Path(sys.argv[1]) / "results")
    write_pictures(Path(sys.argv[1]) / "report.html")
