"""The report as one page, read without a browser; tests/report/test_page.py opens it in one."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from mmrobust.report import FORMATS, tables
from mmrobust.report.html import assets
from mmrobust.report.html.content import MOST_CELLS, page_content
from mmrobust.results import Results, write_results

MEGABYTE = 10**6


def embedded(page, name):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S).group(1))


def test_every_value_is_in_the_page_in_ten_thousandths(two):
    report = tables.build(two)
    said = embedded(FORMATS["html"](report), "report")
    assert [(t["metric"], t["headline"]) for t in said["tables"]] == [("accuracy", True), ("macro_f1", False)]
    for table, own in zip(said["tables"], report.every_table, strict=True):
        assert table["rates"] == list(own.rates)
        for row, expected in zip(table["rows"], own.rows, strict=True):
            assert said["names"]["checkpoint"][row["c"]] == expected.checkpoint
            assert row["v"] == [round(10_000 * expected.points[rate].value) for rate in own.rates]
            assert row["auc"] == round(10_000 * expected.auc_eta)


def test_nothing_is_fetched_from_anywhere(two):
    page = FORMATS["html"](tables.build(two))
    assert "default-src 'none'" in page
    own = page[: page.index("/* Vega")] + page[page.index('<script type="application/json"') :]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", own)
    assert "@import" not in page[: page.index("</style>")]
    assert not re.search(r"@@[A-Z]+@@", page)


def test_a_name_cannot_leave_the_script(make_results):
    page = FORMATS["html"](tables.build([make_results("</script><b>x", rates=(0.0, 1.0), seeds=(0,))]))
    assert "</script><b>" not in page
    assert embedded(page, "report")["names"]["checkpoint"] == ["</script><b>x"]


def test_what_is_not_known_is_null(make_results):
    frame, provenance = make_results(rates=(0.5, 1.0), seeds=(0,))
    undefined = frame["value"].where(frame["missing_rate"] < 1)
    said = page_content(tables.build([Results(frame.assign(value=undefined), provenance)]))
    row = said["tables"][0]["rows"][0]
    assert row["v"][1] is row["complete"] is row["sd"][0] is None


def test_fifty_tables_fit(two):
    many = []
    for number in range(50):
        frame, provenance = two[number % 2]
        dataset = {**provenance["dataset"], "name": f"data-{number:02d}", "fingerprint": f"{number:04x}"}
        many.append(Results(frame.assign(dataset=dataset["name"]), {**provenance, "dataset": dataset}))
    page = FORMATS["html"](tables.build(many))
    said = embedded(page, "report")
    assert len(said["tables"]) == 100
    assert len(page.encode()) < 3 * MEGABYTE
    assert said["cells"]["shown"] == MOST_CELLS < said["cells"]["of"] == 50 * 198


def test_of_very_many_curves_the_headline_metrics_come_first(two, monkeypatch):
    monkeypatch.setattr("mmrobust.report.html.content.MOST_POINTS", 150)
    said = page_content(tables.build(two))
    assert [table["metric"] for table in said["tables"]] == ["accuracy"]
    assert said["tables_left_out"] == 1


def test_the_charts_are_those_of_altair():
    assert json.loads(assets.read(assets.CHARTS)) == json.loads(assets.make_charts()), "python -m mmrobust.report.html"


def test_the_bundle_is_that_of_vl_convert():
    bundle = assets.read(assets.BUNDLE)
    made = assets.make_bundle()
    head, own_head = bundle.splitlines()[0], made.splitlines()[0]
    if head != own_head:
        pytest.skip(f"another vl-convert is installed: {own_head}; kept is {head}")
    assert bundle == made, "python -m mmrobust.report.html"


def test_it_needs_neither_altair_nor_a_framework(two, tmp_path):
    for number, (frame, provenance) in enumerate(two):
        write_results(tmp_path / str(number) / "results.parquet", frame, provenance)
    code = (
        "import sys; from mmrobust.cli.app import run\n"
        "assert run(['report', '0', '1', '--html', 'page.html', '--latex', 'page.tex', '--published', 'ptm']) == 0\n"
        "found = {'altair', 'vl_convert', 'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
