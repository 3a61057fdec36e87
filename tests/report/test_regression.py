"""Reports of numbers: the unit of the labels instead of per cent, less is better, and nothing that needs classes."""

from __future__ import annotations

import json
import re

import pytest

from mmrobust.report.html.page_data import build_page_data
from mmrobust.report.numbers import number, scale_of, signed_number
from mmrobust.report.report import build_report
from mmrobust.storage.results import read_results


@pytest.fixture(scope="module")
def folders(tmp_path_factory, evaluate_into):
    folder = tmp_path_factory.mktemp("report")
    evaluate_into(folder / "good", name="good", task="regression", skill=3.0)
    evaluate_into(folder / "bad", name="bad", task="regression", skill=1.5, seed=1)
    return folder / "good", folder / "bad"


def test_every_format_knows_the_unit_and_the_best(cli, folders, tmp_path):
    files = {name: tmp_path / f"report.{name}" for name in ("html", "markdown", "latex", "csv")}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    code, out, err = cli("report", *folders, "--details", *options)
    assert code == 0, err
    frame = read_results(folders[0]).frame
    told = frame[(frame.metric == "mae") & (frame.missing_rate == 0) & (frame.prompting == "situation")]
    complete = number(told.value.iloc[0])
    assert "made · test · 300 samples · mae, less is better" in out and "worst: highest cell" in out
    assert "drop: rise per 10 points of missing rate" in out and "complete in % of AUC-η" in out
    text = files["markdown"].read_text()
    assert re.search(rf"\| missing-text \| situation \| good \| \*\*{complete}\*\*", text)
    assert "Values in the unit of the labels, less is better, by missing rate" in text
    assert "What each modality is worth: mae" in text and "in the unit of the metric" in text
    assert "Classes that break first" not in text and "Reliability" not in text
    latex = files["latex"].read_text()
    assert rf"\textbf{{{complete}}}" in latex and "MAE, less is better on made" in latex
    best = next(line for line in text.splitlines() if line.startswith("| good") and "%" not in line)
    assert best.startswith("| good | **1.00** | **100.0** |")


def test_the_page_carries_numbers_as_they_are(folders):
    results = [read_results(folder) for folder in folders]
    page = build_page_data(build_report(results))
    for table in page["tables"]:
        less = table["metric"] != "pearson"
        assert table["words"]["sign"] == (-1 if less else 1)
        frame = results[0].frame
        row = next(row for row in table["rows"] if page["names"]["checkpoint"][row["c"]] == "good")
        prompting = page["names"]["prompting"][row["p"]]
        chosen = frame[(frame.metric == table["metric"]) & (frame.missing_rate == 0) & (frame.prompting == prompting)]
        assert row["v"][0] == pytest.approx(chosen.value.iloc[0], rel=1e-5)
        assert isinstance(row["rel"], int)  # a share, in the page's units
    shares = json.dumps(page["cells"]["columns"]["value"])
    assert "." in shares


def test_the_colour_is_that_of_the_relative_rise(folders):
    from mmrobust.report.curve_table import make_curve_table
    from mmrobust.report.terminal import _style

    frame = read_results(folders[0]).frame
    table = make_curve_table(frame[frame.metric == "mae"], "mae")
    row = table.rows[0]
    styles = [_style(table, row, row.complete * rise) for rise in (0.5, 1.0, 1.04, 1.1, 1.25, 2)]
    assert styles == ["green", "green", "default", "yellow", "dark_orange", "red"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--baseline", "good"), "effective robustness is defined for shares of 1; mae is none"),
        (("--metric", "accuracy"), "unknown metric of these results 'accuracy'"),
    ],
)
def test_what_needs_classes_is_one_line(cli, folders, arguments, message):
    code, _, err = cli("report", *folders, *arguments)
    assert code == 2 and message in err.replace("\n", " ")


def test_numbers_have_four_digits():
    assert [number(x) for x in (60.1824, 0.0, 1234567.0, 0.00012345)] == ["60.18", "0", "1234567", "0.0001234"]
    assert [signed_number(x) for x in (-0.5, 0.0, 3.0)] == ["-0.5000", "+0", "+3.000"]
    assert scale_of("accuracy").is_share and scale_of("relative_robustness.mae").is_share
    assert not scale_of("auc.mae").is_share and scale_of("worth.mae").sign == 1
