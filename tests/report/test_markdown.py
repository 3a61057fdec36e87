"""The report as Markdown."""

from __future__ import annotations

import html
import re
from dataclasses import replace

from markdown_it import MarkdownIt

from mmrobust.gate.check import Outcome, Verdict
from mmrobust.report import FORMATS, verdict
from mmrobust.report.analyses import with_costs, with_sections
from mmrobust.report.costs import costs_markdown, training_costs
from mmrobust.report.report import build_report
from mmrobust.storage.results import Results


def test_every_rate_and_figure_is_in_the_table(two):
    text = FORMATS["markdown"](build_report(two))
    header = next(line for line in text.splitlines() if line.startswith("| scenario"))
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    assert cells[:3] == ["scenario", "prompting", "checkpoint"]
    assert cells[3:14] == [f"{rate / 10:g}" for rate in range(11)]
    assert cells[14:] == ["AUC-η", "relative", "worst cell", "drop / 10 pts"]
    rows = [line for line in text.splitlines() if line.startswith("| missing-")]
    assert len(rows) == 3 * 2 * 2
    assert all(line.count("|") == header.count("|") for line in rows)


def test_it_renders_as_tables(two):
    report = with_sections(build_report(two), baseline="none").with_published("ptm")
    text = FORMATS["markdown"](report)
    page = MarkdownIt("commonmark").enable("table").render(text)
    found = [re.findall(r"<tr>(.*?)</tr>", table, re.S) for table in re.findall(r"<table>.*?</table>", page, re.S)]
    assert len(found) == sum(line.startswith("| :---") for line in text.splitlines()) >= 6
    for rows in found:
        assert len({len(re.findall(r"<t[hd]", row)) for row in rows}) == 1
    assert "<strong>" in page
    assert "|" not in re.sub(r"<code>.*?</code>", "", page)  # no row was left as text


def test_the_best_is_bold_and_the_worst_cell_is_named(two):
    text = FORMATS["markdown"](build_report(two))
    row = next(line for line in text.splitlines() if line.startswith("| missing-image | situation | mmp"))
    assert "**" in row
    frame = two[1].frame
    chosen = (frame.scenario == "missing-image") & (frame.prompting == "situation") & (frame.metric == "accuracy")
    worst = frame[chosen].sort_values(["value", "missing_rate", "seed"]).iloc[0]
    within = f"[{100 * worst.worst_value_low:.1f}, {100 * worst.worst_value_high:.1f}]"
    assert f"{100 * worst.value:.1f} {within} (η {worst.missing_rate:g}, seed {worst.seed})" in row


def test_checkpoints_and_provenance_are_told(two):
    text = FORMATS["markdown"](build_report(two))
    assert "| mmp | mmp | linear | tiny-vilt | – | ones | of-mmp |" in text
    assert "- command: `mmrobust eval runs/mmp --data digits --out results`" in text
    assert "- data: digits, split test, fingerprint `0123abcd`" in text
    assert "- versions: mmrobust 0.1.0, torch 2.9" in text
    assert "- git: `abc123` (dirty)" in text
    assert "80 samples; mean of 3 mask seeds" in text


def test_a_name_cannot_break_the_table(make_results):
    text = FORMATS["markdown"](build_report([make_results("a|b<c>", rates=(0.0,), seeds=(0,))]))
    assert "a\\|b&lt;c>" in text


ODD = "a|b *c* `d` [e](f) _g_ <h> &lt; ~~i~~ \\ j_k"


def rendered(text):
    """The text of a page of Markdown, without its tags."""
    return html.unescape(
        re.sub(r"<[^>]*>", "", MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    )


def test_any_name_is_shown_as_it_is(make_results):
    frame, provenance = make_results(ODD, rates=(0.0, 1.0), seeds=(0,))
    provenance["command"] = f"mmrobust eval '{ODD}' `pwd`"
    provenance["checkpoints"][ODD]["training"] = {"efficiency": COST}
    built = build_report([Results(frame, provenance), make_results("none", rates=(0.0, 1.0), seeds=(0,))])
    report = with_costs(with_sections(built, baseline=ODD))
    assert ODD in next(section for section in report.sections if section.kind == "effective").note
    page = rendered(FORMATS["markdown"](report))
    assert page.count(ODD) == FORMATS["markdown"](report).count("b \\*c") + 1  # and once in the command
    assert f"command: mmrobust eval '{ODD}' `pwd`" in page


COST = {
    **{"trained_parameters": 10, "seconds_per_epoch": 2.0, "samples_per_epoch": 50, "cache_seconds": 0.0},
    **{"device": "cpu", "batch_size": 20},
}


def test_costs_and_verdicts_show_any_name(make_results):
    found = training_costs({ODD: {"method": "full", "training": {"efficiency": COST}}})
    assert rendered(costs_markdown(found)).count(ODD) == 2  # in its row, and in the note on ratios
    small = {"method": "mmp", "training": {"efficiency": {**COST, "batch_size": COST["batch_size"] + 1}}}
    both = training_costs({"whole": {"method": "full", "training": {"efficiency": COST}}, "mmp": small})
    assert "Without shares, since the device or the batch size is another: mmp." in costs_markdown(both)
    about = {"checkpoint": ODD, "scenario": "missing-text", "missing_rate": 1.0, "prompting": "situation", "seeds": 1}
    values = {"baseline": 0.9, "candidate": 0.8, "limit": 0.89, "verdict": "fail"}
    failed = Outcome(**about, metric="macro_f1", rule="macro_f1:-0.01", kind="drop", **values)
    text = verdict.markdown(Verdict((failed, replace(failed, checkpoint="b")), (f"about {ODD}",)))
    assert rendered(text).count(ODD) == 2
    assert "macro_f1@missing-text/1 situation" in text


def test_sparse_provenance_is_enough(make_results):
    frame, provenance = make_results(rates=(0.0,), seeds=(0,))
    text = FORMATS["markdown"](build_report([Results(frame, {"dataset": provenance["dataset"]})]))
    assert "## Provenance" in text
    assert "None" not in text
