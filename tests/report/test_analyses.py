"""What a report says beyond its curves, in the terminal and as Markdown."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from mmrobust.errors import DataError, UsageError
from mmrobust.report import markdown, terminal
from mmrobust.report.analyses import read_behind, with_sections
from mmrobust.report.markdown import escape_markdown
from mmrobust.report.report import build_report, read_distinct
from mmrobust.report.section import Section
from mmrobust.scenarios.grid import Grid


def printed(report, width=None):
    text = io.StringIO()
    terminal.show(report, Console(file=text, width=width or 200, color_system=None), width)
    return text.getvalue()


def kinds(report):
    return [section.kind for section in report.sections]


def test_one_checkpoint_under_one_prompting_has_nothing_more_to_say(make_results):
    assert with_sections(build_report([make_results(promptings=("situation",))])).sections == ()


def test_checkpoints_side_by_side_have_standings_and_prompting(two):
    report = with_sections(build_report(two))
    assert kinds(report) == ["standings", "prompting"]
    standing, gap = report.sections
    assert [row[0] for row in standing.rows] == ["mmp", "none"]
    assert standing.rows[0][1] < standing.rows[1][1]
    assert gap.columns[:3] == ("scenario", "checkpoint", "0")
    assert all(row[2] in ("+0.0", "-0.0") or row[2][0] in "+-" for row in gap.rows)


def test_effective_robustness_is_against_the_named_checkpoint(two):
    report = with_sections(build_report(two), baseline="none")
    (section,) = (s for s in report.sections if s.kind == "effective")
    assert {row[2] for row in section.rows} == {"mmp"}
    with pytest.raises(UsageError, match="unknown checkpoint of these results 'nane': did you mean 'none'"):
        with_sections(build_report(two), baseline="nane")


def test_train_rates_make_a_map(make_results):
    results = [make_results(f"m{rate}", strength=1 + rate) for rate in (0.0, 0.7)]
    for result, rate in zip(results, (0.0, 0.7), strict=True):
        (about,) = result.provenance["checkpoints"].values()
        about["training"] = {"scenario": "missing-both", "missing_rate": rate}
    (section,) = (s for s in with_sections(build_report(results)).sections if s.kind == "rates")
    assert [row[2:4] for row in section.rows[:2]] == [
        ("mmp + linear", "missing-both 0"),
        ("mmp + linear", "missing-both 0.7"),
    ]


def test_markdown_and_terminal_show_every_section(two):
    report = with_sections(build_report(two), baseline="none")
    for text, shown in ((markdown.render(report), escape_markdown), (printed(report), str)):
        for section in report.sections:
            assert section.title in text
            assert shown(section.note) in text
    assert "| mmp | **1." in markdown.render(report)


def test_sections_fit_into_80_columns(two):
    report = with_sections(build_report(two), baseline="none")
    assert max(map(len, printed(report, width=80).splitlines())) <= 80


def test_predictions_add_classes_and_reliability(tmp_path, evaluate_into):
    grid = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))
    for name, lost in (("a", 0.5), ("b", 3.0)):
        evaluate_into(tmp_path / name, name=name, lost={"missing-text": lost}, grid=grid)
    read = read_distinct([tmp_path / "a", tmp_path / "b"])
    report = with_sections(build_report(read.values()), stored=read_behind(read))
    assert kinds(report) == ["standings", "classes", "worth", "reliability"]
    standing, classes, worth, calibration = report.sections
    assert [row[1] for row in worth.rows] == ["image", "image", "text", "text"]
    assert worth.rows[0][3:] == ("–",) * 2 and float(worth.rows[3][3]) > 0
    assert standing.columns == ("checkpoint", "mean rank", "wins", "interval", "clear wins", "clear losses")
    assert [row[0] for row in standing.rows] == ["a", "b"]
    assert re.fullmatch(r"\[\d+\.\d, \d+\.\d\]", standing.rows[0][3])
    assert "in resamples that all checkpoints share" in standing.note
    assert [row[2] for row in classes.rows] == ["a", "b"]
    assert re.search(r" at 1 \(\d", classes.rows[1][3])
    assert [row[2] for row in calibration.rows] == ["a", "b"]
    assert max(map(len, printed(report, width=80).splitlines())) <= 80


def test_details_are_of_the_prompting_that_is_shown(tmp_path, evaluate_into):
    grid = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation", "concat"))
    for seed, name in enumerate("ab"):
        evaluate_into(tmp_path / name, name=name, seed=seed, grid=grid)
    read = read_distinct([tmp_path / "a", tmp_path / "b"])
    built = build_report(read.values(), promptings=["situation"])
    report = with_sections(built, stored=read_behind(read))
    standing, classes, worth, calibration = report.sections
    assert {row[0] for row in worth.rows} == {"situation"}
    assert "interval" in standing.columns, standing.note
    assert {row[1] for section in (classes, calibration) for row in section.rows} == {"situation"}


def test_standings_without_intervals_say_why(two, tmp_path, evaluate_into):
    assert "need the predictions: --details" in with_sections(build_report(two)).sections[0].note
    grid = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))
    for name, samples in (("a", 100), ("b", 90)):
        evaluate_into(tmp_path / name, name=name, n=samples, grid=grid)
    read = read_distinct([tmp_path / "a", tmp_path / "b"])
    report = with_sections(build_report(read.values()), stored=read_behind(read))
    standing = report.sections[0]
    assert "interval" not in standing.columns
    assert "No intervals of the wins: the predictions are of other samples" in standing.note


def test_cells_that_not_every_checkpoint_has_are_told(make_results):
    few = make_results("few")
    few = few._replace(frame=few.frame[few.frame["scenario"] == "missing-text"])
    standing = with_sections(build_report([make_results("all"), few])).sections[0]
    assert re.search(r"Ranked in each of \d+ cells .* The \d+ cells that not every checkpoint has are", standing.note)


def test_best_and_second_are_told_among_the_rows_that_compare(two):
    report = with_sections(build_report(two), baseline="none")
    standing = report.sections[0]
    assert [[standing.place(row, column) for column in range(5)] for row in (0, 1)] == [
        [None, 1, 1, 1, 1],
        [None, 2, 2, 2, 2],
    ]
    gap = report.sections[1]
    assert {gap.place(0, column) for column in range(len(gap.columns))} == {None}  # a gap is neither good nor bad


def test_without_predictions_details_say_so(tmp_path, evaluate_into):
    evaluate_into(tmp_path)
    for shard in (tmp_path / "predictions").iterdir():
        shard.unlink()
    with pytest.raises(DataError, match="holds no predictions of 'mmp'"):
        read_behind(read_distinct([tmp_path]))


def test_rows_that_are_the_same_under_both_promptings_are_shown_once() -> None:
    columns, figures = ("scenario", "prompting", "checkpoint", "0"), pd.DataFrame()
    rows = [("missing-text", prompting, name, "90.0") for prompting in ("situation", "concat") for name in "ab"]
    alike = Section("classes", "", "", columns, 3, tuple(rows), figures)
    assert alike.folded.rows == tuple(("missing-text", "both promptings", name, "90.0") for name in "ab")
    rows[-1] = (*rows[-1][:3], "80.0")  # one differs: its rivals must stand beside it
    assert replace(alike, rows=tuple(rows)).folded.rows == tuple(rows)
    assert replace(alike, rows=tuple(rows[:2])).folded.rows == tuple(rows[:2])  # one prompting
