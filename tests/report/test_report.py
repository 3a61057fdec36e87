"""The report behind every format."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from mmrobust.errors import DataError, NotComparableError, UsageError
from mmrobust.report.analyses import with_sections
from mmrobust.report.html.page_data import build_page_data
from mmrobust.report.numbers import percent
from mmrobust.report.report import build_report, read_distinct
from mmrobust.storage.results import INTERVALS, Results, write_results


def test_rows_are_scenario_by_prompting_by_checkpoint_with_missing_both_last(two):
    (table,) = build_report(two).tables
    keys = [(row.scenario, row.prompting, row.checkpoint) for row in table.rows]
    assert keys == [
        (scenario, prompting, checkpoint)
        for scenario in ("missing-image", "missing-text", "missing-both")
        for prompting in ("situation", "concat")
        for checkpoint in ("none", "mmp")
    ]
    assert (table.dataset, table.split, table.metric, table.n, table.seeds) == ("digits", "test", "accuracy", 80, 3)
    assert len(table.rates) == 11


def test_a_point_is_the_mean_over_seeds(two):
    (table,) = build_report(two).tables
    frame = two[0].frame
    row = table.rows[0]
    rows = frame[
        (frame.scenario == row.scenario)
        & (frame.prompting == row.prompting)
        & (frame.missing_rate == 0.3)
        & (frame.metric == "accuracy")
    ]
    assert row.points[0.3].value == pytest.approx(rows.value.mean())
    assert row.points[0.3].spread == pytest.approx(rows.value.std(ddof=1))


def test_the_best_is_marked_among_rivals_only(two):
    (table,) = build_report(two).tables
    weak, strong = table.rows[0], table.rows[1]
    assert table.place(strong, 1.0) == 1
    assert table.place(weak, 1.0) != 1
    assert table.place(strong, 0.0) is table.place(weak, 0.0) is None  # equal as printed: neither is surely the best
    (alone,) = build_report(two[:1]).tables
    assert not any(alone.place(row, rate) for row in alone.rows for rate in alone.rates)


def test_a_metric_and_promptings_may_be_chosen(two):
    report = build_report(two, metric="macro_f1", promptings=["concat"])
    assert report.tables[0].metric == "macro_f1"
    assert report.tables[0].promptings == ("concat",)
    assert set(report.results.metric) == {"macro_f1"}
    assert set(report.results.prompting) == {"concat"}


def test_what_the_results_do_not_hold_is_refused(two, make_results):
    with pytest.raises(UsageError, match="unknown metric of these results 'acuracy': did you mean 'accuracy'"):
        build_report(two, metric="acuracy")
    only = make_results(promptings=("situation",), rates=(0.0,), seeds=(0,))
    with pytest.raises(UsageError, match="unknown prompting of these results 'concat'"):
        build_report([only], promptings=["concat"])


def test_results_that_lack_a_prompting_which_others_have_are_left_out(make_results):
    results = [make_results("a", promptings=("situation",)), make_results("b")]
    (table,) = build_report(results, promptings=["concat"]).tables
    assert {row.checkpoint for row in table.rows} == {"b"}


def test_results_that_name_no_headline_metric_are_refused(two):
    with pytest.raises(DataError, match="do not name the headline metric"):
        build_report([Results(two[0].frame, {"dataset": {"name": "digits"}})])


def test_results_on_other_data_are_another_table(two):
    other = Results(
        two[1].frame.assign(dataset="emoji"),
        {**two[1].provenance, "dataset": {**two[1].provenance["dataset"], "name": "emoji", "fingerprint": "ff"}},
    )
    assert [table.dataset for table in build_report([two[0], other]).tables] == ["digits", "emoji"]


def test_data_sets_of_one_name_are_told_apart_by_their_fingerprints(two):
    dataset = {**two[1].provenance["dataset"], "fingerprint": "fedcba9876543210"}
    report = build_report([two[0], Results(two[1].frame, {**two[1].provenance, "dataset": dataset})])
    names = ["digits (0123abcd)", "digits (fedcba98)"]
    assert [table.dataset for table in report.tables] == names
    assert [{row.checkpoint for row in table.rows} for table in report.tables] == [{"none"}, {"mmp"}]
    assert with_sections(report).sections[0].dataset == names[0]  # what prompting is worth, of one alone
    said = build_page_data(report)
    assert {(table["dataset"], len(table["rows"])) for table in said["tables"]} == {(name, 6) for name in names}


def test_a_checkpoint_is_named_with_its_settings(make_results):
    frame, provenance = make_results(rates=(0.0,), seeds=(0,))
    settings = {"method": {"name": "mmp", "length": 16, "level": "input"}, "head": {"name": "linear"}}
    provenance["checkpoints"]["mmp"]["settings"] = settings  # as describe() says it
    facts = build_report([Results(frame, provenance)]).facts("mmp")
    assert (facts["method"], facts["head"]) == ("mmp (length 16, level input)", "linear")


def test_a_metric_and_a_prompting_that_never_meet_are_refused(make_results):
    frame, provenance = make_results(rates=(0.0,), seeds=(0,))
    apart = (frame["metric"] == "accuracy") == (frame["prompting"] == "situation")
    with pytest.raises(UsageError, match="have no accuracy under concat prompting"):
        build_report([Results(frame[apart], provenance)], metric="accuracy", promptings=["concat"])


def test_rates_that_only_one_checkpoint_has(make_results):
    results = [make_results("a", rates=(0.0, 0.5)), make_results("b", rates=(0.0, 1.0))]
    (table,) = build_report(results).tables
    assert table.rates == (0.0, 0.5, 1.0)
    assert 1.0 not in table.rows[0].points


def test_a_figure_of_a_curve_is_ranked_among_curves_over_the_same_rates_only(make_results):
    weak = make_results("a", rates=(0.0, 0.5, 0.6), strength=0.2)
    strong = make_results("b", rates=(0.0, 0.5, 1.0), strength=0.9)
    (table,) = build_report([weak, strong]).tables
    assert {table.place(row, "auc_eta") for row in table.rows} == {None}
    assert {table.place(row, 0.5) for row in table.rows} == {1, 2}  # both have this one
    (table,) = build_report([make_results("a", strength=2.0), make_results("b", strength=0.5)]).tables
    assert {table.place(row, "auc_eta") for row in table.rows} == {1, 2}


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"f1_absent": "skip"}, "the treatment of absent classes differs: 'b' skip, 'a' zero; score both in the same"),
        ({"threshold": 0.3}, "the threshold differs: 'b' 0.3, 'a' 0.5"),
    ],
)
def test_results_of_other_metric_settings_are_not_set_side_by_side(make_results, scoring, message):
    first, (frame, provenance) = make_results("a"), make_results("b")
    other = Results(frame, {**provenance, "scoring": scoring})
    with pytest.raises(NotComparableError, match=re.escape(message)):
        build_report([first, other])
    elsewhere = {**other.provenance, "dataset": {**provenance["dataset"], "fingerprint": "ffff"}}
    assert len(build_report([first, Results(frame, elsewhere)]).tables) == 2


def test_checkpoints_of_the_same_name_are_told_apart(tmp_path, make_results):
    for place in ("old", "new"):
        frame, provenance = make_results("mmp", rates=(0.0,), seeds=(0,))
        write_results(tmp_path / place / "eval" / "results.parquet", frame, provenance)
    read = read_distinct([tmp_path / "old" / "eval", tmp_path / "new" / "eval" / "results.parquet"])
    names = [set(frame.checkpoint) for frame, _ in read.values()]
    assert names == [{"mmp (old/eval)"}, {"mmp (new/eval/results.parquet)"}]
    read = read_distinct([tmp_path / "old" / "eval", tmp_path / "new" / "eval"])
    assert [set(frame.checkpoint) for frame, _ in read.values()] == [{"mmp (old)"}, {"mmp (new)"}]
    assert [list(provenance["checkpoints"]) for _, provenance in read.values()] == [["mmp (old)"], ["mmp (new)"]]
    assert len(build_report(read.values()).tables[0].rows) == 2 * 3 * 2
    assert list(read_distinct([tmp_path])) == [tmp_path / "new" / "eval", tmp_path / "old" / "eval"]  # as of a study


def test_a_path_named_twice_is_read_once(tmp_path, make_results):
    write_results(tmp_path / "results.parquet", *make_results("mmp", rates=(0.0,), seeds=(0,)))
    (read,) = read_distinct([tmp_path, tmp_path / ".." / tmp_path.name]).values()
    assert set(read.frame.checkpoint) == {"mmp"}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_distinct([tmp_path / "nowhere"])


def test_uncertainty_says_what_is_known(two, make_results):
    assert build_report(two).tables[0].uncertainty.startswith("mean of 3 mask seeds, 95 % interval over samples ±")
    frame, provenance = make_results(seeds=(0,), rates=(0.0, 1.0))
    areas = frame.assign(**dict.fromkeys(set(INTERVALS) - {"auc_eta_low", "auc_eta_high"}, np.nan))
    only = build_report([Results(areas, provenance)]).tables[0].uncertainty
    assert only.startswith("one mask seed, 95 % interval over samples of AUC-η ±")
    bare = Results(frame.assign(**dict.fromkeys(INTERVALS, np.nan)), provenance)
    assert build_report([bare]).tables[0].uncertainty == "one mask seed"
    rare = Results(frame.assign(few=3.0), provenance)
    assert "not reliable: the smallest class has only 3 samples" in build_report([rare]).tables[0].uncertainty


def test_percent():
    assert [percent(v) for v in (0.9333, 1.0, 0.0, float("nan"))] == ["93.3", "100.0", "0.0", "–"]


def test_the_table_is_plain_values(two):
    (table,) = build_report(two).tables
    assert dataclasses.asdict(table)["rows"][0]["scenario"] == "missing-image"
