"""The report as one page, read without a browser; tests/report/test_page.py opens it in one."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmrobust.report import FORMATS
from mmrobust.report.html import BUNDLE, CHARTS, read_asset
from mmrobust.report.html.page_data import MOST_CELLS, UNIT, _unit, build_page_data
from mmrobust.report.numbers import percent
from mmrobust.report.report import build_report
from mmrobust.storage.results import Results, write_results

MEGABYTE = 10**6
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "write_charts.py"
spec = importlib.util.spec_from_file_location("write_charts", SCRIPT)
assert spec and spec.loader
write_charts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write_charts)


def embedded(page, name):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S).group(1))


def shown(whole):
    """What the page prints: JavaScript's toFixed rounds the exact value of a number, halves upwards; 0 has no sign."""
    rounded = Decimal(100 * whole / UNIT).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return str(rounded if rounded else abs(rounded))


@given(st.floats(0, 1) | st.integers(0, 2000).map(lambda count: count / 2000))
@example(0.88146)
@example(0.881496)
@example(0.8825)
@example(353 / 400)
def test_the_page_prints_what_the_terminal_prints(share):
    whole = _unit(share)
    assert shown(whole) == percent(share)
    assert abs(whole / UNIT - share) < 2 / UNIT


def test_every_value_is_in_the_page_in_hundred_thousandths(two):
    report = build_report(two)
    said = embedded(FORMATS["html"](report), "report")
    assert [(t["metric"], t["headline"]) for t in said["tables"]] == [("accuracy", True), ("macro_f1", False)]
    for table, own in zip(said["tables"], report.every_table, strict=True):
        assert table["rates"] == list(own.rates)
        for row, expected in zip(table["rows"], own.rows, strict=True):
            assert said["names"]["checkpoint"][row["c"]] == expected.checkpoint
            values = [expected.points[rate].value for rate in own.rates]
            assert row["v"] == pytest.approx([100_000 * value for value in values], abs=1.5)
            assert [shown(whole) for whole in row["v"]] == [percent(value) for value in values]
            assert shown(row["auc"]) == percent(expected.auc_eta)


def test_figures_have_both_ends_of_their_intervals_where_known(two, old):
    report = build_report(two)
    figures = {"auc": "auc_eta", "rel": "relative_robustness", "worst": "worst_value", "drop": "drop_per_10_points"}
    for table, own in zip(build_page_data(report)["tables"], report.every_table, strict=True):
        for row, expected in zip(table["rows"], own.rows, strict=True):
            assert set(row["ends"]) == set(figures)
            for key, name in figures.items():
                low, high = getattr(expected, f"{name}_low"), getattr(expected, f"{name}_high")
                assert low < getattr(expected, name) < high
                assert [shown(whole) for whole in row["ends"][key]] == [percent(low), percent(high)]
    for row in build_page_data(build_report([old]))["tables"][0]["rows"]:
        assert row["ends"] == dict.fromkeys(figures)
        assert None not in (*row["lo"], *row["hi"], row["auc"], row["rel"], row["worst"], row["drop"])


def test_nothing_is_fetched_from_anywhere(two):
    page = FORMATS["html"](build_report(two))
    assert "default-src 'none'" in page
    own = page[: page.index("/* Vega")] + page[page.index('<script type="application/json"') :]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", own)
    assert "@import" not in page[: page.index("</style>")]


def test_a_name_is_never_read_as_a_template(make_results):
    page = FORMATS["html"](build_report([make_results("{{ script }}", rates=(0.0, 1.0), seeds=(0,))]))
    assert embedded(page, "report")["names"]["checkpoint"] == ["{{ script }}"]
    assert page.count("const REPORT =") == 1


def test_single_cells_say_which_split_they_are_of(make_results):
    frame, provenance = make_results(rates=(0.0, 1.0), seeds=(0,))
    about = {**provenance, "dataset": {**provenance["dataset"], "split": "validation"}}
    said = build_page_data(build_report([Results(frame, provenance), Results(frame.assign(split="validation"), about)]))
    assert said["cells"]["columns"]["split"] == ["test"] * 12 + ["validation"] * 12


def test_a_name_cannot_leave_the_script(make_results):
    page = FORMATS["html"](build_report([make_results("</script><b>x", rates=(0.0, 1.0), seeds=(0,))]))
    assert "</script><b>" not in page
    assert embedded(page, "report")["names"]["checkpoint"] == ["</script><b>x"]


def test_what_is_not_known_is_null(make_results):
    frame, provenance = make_results(rates=(0.5, 1.0), seeds=(0,))
    undefined = frame["value"].where(frame["missing_rate"] < 1)
    said = build_page_data(build_report([Results(frame.assign(value=undefined), provenance)]))
    row = said["tables"][0]["rows"][0]
    assert row["v"][1] is row["complete"] is row["sd"][0] is None


def test_fifty_tables_fit(two):
    many = []
    for number in range(50):
        frame, provenance = two[number % 2]
        dataset = {**provenance["dataset"], "name": f"data-{number:02d}", "fingerprint": f"{number:04x}"}
        many.append(Results(frame.assign(dataset=dataset["name"]), {**provenance, "dataset": dataset}))
    page = FORMATS["html"](build_report(many))
    said = embedded(page, "report")
    assert len(said["tables"]) == 100
    assert len(page.encode()) < 3 * MEGABYTE
    assert said["cells"]["shown"] == MOST_CELLS < said["cells"]["of"] == 50 * 198


def test_of_very_many_curves_the_headline_metrics_come_first(two, monkeypatch):
    monkeypatch.setattr("mmrobust.report.html.page_data.MOST_POINTS", 150)
    said = build_page_data(build_report(two))
    assert [table["metric"] for table in said["tables"]] == ["accuracy"]
    assert said["tables_left_out"] == 1


def test_the_charts_are_those_of_altair():
    assert json.loads(read_asset(CHARTS)) == json.loads(write_charts.make_charts()), (
        "run: python scripts/write_charts.py"
    )


def test_the_bundle_is_that_of_vl_convert():
    bundle = read_asset(BUNDLE)
    made = write_charts.make_bundle()
    head, own_head = bundle.splitlines()[0], made.splitlines()[0]
    if head != own_head:
        pytest.skip(f"another vl-convert is installed: {own_head}; the page has {head}")
    assert bundle == made, "run: python scripts/write_charts.py"


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
