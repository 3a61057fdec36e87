"""The report as JSON."""

from __future__ import annotations

import json

import pytest

from mmrobust.report import json as as_json
from mmrobust.report.analyses import with_sections
from mmrobust.report.report import build_report
from mmrobust.storage.results import Results


def test_tables_points_and_figures_are_there_in_full_precision(two):
    report = build_report(two)
    said = json.loads(as_json.render(report))
    (table,), (own,) = said["tables"], report.tables
    assert (table["dataset"], table["metric"], table["n"], table["rates"]) == (
        "digits",
        "accuracy",
        80,
        list(own.rates),
    )
    for row, expected in zip(table["rows"], own.rows, strict=True):
        assert row["auc_eta"] == expected.auc_eta
        assert [point["value"] for point in row["points"]] == [expected.points[rate].value for rate in own.rates]
    assert set(said["checkpoints"]) == {"none", "mmp"}


def test_what_is_not_known_is_null(make_results):
    frame, provenance = make_results(rates=(0.5, 1.0), seeds=(0,))
    said = json.loads(as_json.render(build_report([Results(frame, provenance)])))
    row = said["tables"][0]["rows"][0]
    assert row["complete"] is None
    assert row["points"][0]["spread"] is None


def test_further_tables_give_the_figures_behind_them(two):
    said = json.loads(as_json.render(with_sections(build_report(two), baseline="none")))
    by_kind = {section["kind"]: section["figures"] for section in said["sections"]}
    assert set(by_kind) == {"standings", "prompting", "effective"}
    assert [row["checkpoint"] for row in by_kind["standings"]] == ["mmp", "none"]


def test_published_figures_are_named_as_such(two):
    said = json.loads(as_json.render(build_report(two).with_published("ptm")))
    sources = {line["source"].split(":")[0] for table in said["published"]["comparisons"] for line in table["lines"]}
    assert sources == {"paper", "ours"}
    assert said["published"]["comparisons"][0]["lines"][3]["values"][-1] == pytest.approx(0.91)
