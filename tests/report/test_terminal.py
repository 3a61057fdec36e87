"""The terminal's table: fits, says what it leaves out, and keeps everything when it is piped."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from mmrobust.report import terminal
from mmrobust.report.analyses import with_sections
from mmrobust.report.numbers import even_subset, percent, points
from mmrobust.report.report import build_report
from mmrobust.storage.results import Results


def shown(report, width=None, colour=False):
    text = io.StringIO()
    # A pipe is a console without a terminal; soft_wrap is what the command line sets there.
    console = Console(
        file=text,
        width=width,
        force_terminal=width is not None,
        color_system="256" if colour else None,
        soft_wrap=width is None,
        highlight=False,
    )
    terminal.show(report, console)
    return text.getvalue()


@pytest.fixture(autouse=True)
def no_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize("width", [50, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal(two, width):
    lines = shown(build_report(two), width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == "digits · test · 80 samples · accuracy in %"[:width]


def test_80_columns_show_an_even_subset_of_the_rates_and_say_so(two):
    text = shown(build_report(two, promptings=["situation"]), 80)
    assert text.splitlines()[1].split()[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert "6 of 11 rates: a wider terminal shows all" in " ".join(text.split())
    narrow = shown(build_report(two, promptings=["situation"]), 60)
    assert "5 of 11 rates, in uneven steps: a wider terminal shows all" in " ".join(narrow.split())


def test_140_columns_show_everything(two):
    text = shown(build_report(two), 140)
    assert text.splitlines()[1].split() == [
        *(f"{rate / 10:g}" for rate in range(11)),
        "AUC-η",
        "rel.",
        "worst",
        "drop",
    ]
    assert "wider terminal" not in text


def test_a_pipe_gets_every_rate_in_whole_lines_and_no_escape_codes(two):
    text = shown(build_report(two))
    assert "\x1b" not in text
    assert text.splitlines()[1].split()[:11] == [f"{rate / 10:g}" for rate in range(11)]
    rows = [line for line in text.splitlines() if line.startswith("  mmp")]
    assert all(len(line.split()) == 2 + 11 + 4 for line in rows)
    assert text.splitlines()[1:3][1] == "missing-image"  # nothing trails a scenario's name


def test_columns_rules_a_pipe_as_well(two, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, shown(build_report(two)).splitlines()[1:20])) <= 80


def test_scenarios_group_the_checkpoints(two):
    lines = shown(build_report(two, promptings=["situation"]), 140).splitlines()
    at = lines.index("missing-text")
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["none", "mmp"]


def test_values_are_coloured_by_their_drop_and_the_best_is_bold(two):
    text = shown(build_report(two), 140, colour=True)
    assert "\x1b[1;38;5;208m" in text or "\x1b[1;33m" in text or "\x1b[1;32m" in text  # bold and coloured
    assert "\x1b[31m" in text  # the weaker model's large drop
    alone = shown(build_report(two[:1]), 140, colour=True)
    assert "Bold" not in alone


def test_long_names_leave_room_for_numbers(make_results):
    name = "a-checkpoint-with-a-name-that-goes-on-and-on-and-on"
    text = shown(build_report([make_results(name)]), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "a-checkpoint-wit…on-and-on" in text


def test_what_is_not_known_is_a_dash(make_results):
    frame, provenance = make_results(rates=(0.5, 1.0), seeds=(0,))
    undefined = frame["value"].where(frame["missing_rate"] < 1)
    text = shown(build_report([Results(frame.assign(value=undefined), provenance)]), 140)
    row = next(line for line in text.splitlines() if line.startswith("  mmp"))
    assert row.split()[3:6] == ["–", "–", "–"]


def test_a_metric_that_is_defined_nowhere_has_its_reason(make_results):
    """The AUROC of one class was a dash without a reason."""
    frame, provenance = make_results(rates=(0.5, 1.0), seeds=(0,))
    for metric, reason in (
        ("auroc", "–: AUROC is not defined, as the samples are of one class."),
        ("map", "–: mAP is not defined, as no sample has a class."),
    ):
        undefined = frame.assign(value=np.nan, ci_low=np.nan, ci_high=np.nan, metric=metric, few=0.0)
        text = shown(build_report([Results(undefined, provenance)]), 140)
        assert reason in " ".join(text.split()) and "not reliable" not in text


def test_nothing_has_no_sign():
    """A drop of nothing was -0.0."""
    assert [percent(x) for x in (-0.0, -0.0004, 0.0004, -0.0006)] == ["0.0", "0.0", "0.0", "-0.1"]
    assert [points(x) for x in (-0.0, -0.0004, 0.0004, -0.0006)] == ["+0.0", "+0.0", "+0.0", "-0.1"]


def test_naturally_missing_samples_are_mentioned(make_results):
    frame, provenance = make_results(rates=(0.0,), seeds=(0,))
    text = shown(build_report([Results(frame.assign(n_naturally_missing=7), provenance)]), 140)
    assert "80 samples · 7 naturally incomplete" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_width_of_the_intervals_of_auc_is_told_below_the_table(two, old, width):
    report = build_report(two)
    halves = sorted(100 * (row.auc_eta_high - row.auc_eta_low) / 2 for row in report.tables[0].rows)
    text = shown(report, width)
    said = f", of AUC-η ±{halves[len(halves) // 2]:.1f} (at most ±{halves[-1]:.1f}), spread over seeds at most "
    assert said in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    before = " ".join(shown(build_report([old]), width).split())
    assert "95 % interval over samples ±" in before
    assert "of AUC-η" not in before


def test_even_subset_keeps_both_ends():
    rates = tuple(np.linspace(0, 1, 11).round(1).tolist())
    assert even_subset(rates, 3) == (0.0, 0.5, 1.0)
    assert even_subset(rates, 2) == (0.0, 1.0)
    assert even_subset(rates, 1) == (1.0,)
    assert even_subset(rates, 20) == rates


def test_a_sparkline_shows_the_curve_where_there_is_room(two):
    report = build_report(two, promptings=["situation"])
    row = next(line for line in shown(report, 100).splitlines() if line.startswith("  none"))
    line = row.split()[1]
    assert len(line) == 11
    heights = ["▁▂▃▄▅▆▇█".index(bar) for bar in line]
    assert heights[0] > heights[-1]
    assert not any(bar in shown(report) for bar in "▁▂▃▄▅▆▇█")  # a pipe gets numbers
    assert max(map(len, shown(report, 80).splitlines())) <= 80


def test_further_tables_give_up_their_last_columns_where_it_is_narrow(two):
    report = with_sections(build_report(two), baseline="none")
    for width in (60, 80, 120):
        assert max(map(len, shown(report, width).splitlines())) <= width
    assert "mean rank" in shown(report, 40)


@pytest.mark.parametrize("depends", [False, True])
def test_where_prompting_makes_no_difference_it_is_shown_once_and_said(evaluate_into, tmp_path, depends):
    results, _, _ = evaluate_into(tmp_path, depends=depends)
    report = build_report([results])
    text = shown(report)
    assert ("the same under situation and concat prompting" in " ".join(text.split())) is not depends
    assert text.count("mmp") == (6 if depends else 3)
    assert len(report.tables[0].rows) == 6  # for programs, all of them
