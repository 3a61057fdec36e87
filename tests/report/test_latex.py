"""The report as LaTeX."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import pandas as pd
import pytest

from mmrobust.report import FORMATS
from mmrobust.report.analyses import with_sections
from mmrobust.report.latex import MOST_ROWS, escape, render_sections
from mmrobust.report.report import build_report
from mmrobust.report.section import Section

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def compiled(folder, name):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


def test_the_best_is_bold_the_second_underlined_and_intervals_stand_beside(two, make_results):
    text = FORMATS["latex"](build_report([*two, make_results("dcp", strength=0.9)], promptings=["situation"]))
    (table,) = build_report([*two, make_results("dcp", strength=0.9)], promptings=["situation"]).tables
    at_one = {row.checkpoint: row for row in table.rows if row.scenario == "missing-image"}
    order = sorted(at_one, key=lambda name: -at_one[name].points[1.0].value)
    block = text[text.index("missing image") : text.index("missing text")]
    for name, mark in zip(order[:2], (r"\textbf{%.1f}", r"\underline{%.1f}"), strict=True):
        point = at_one[name].points[1.0]
        line = next(line for line in block.splitlines() if line.startswith(name))
        half = 100 * (point.ci_high - point.ci_low) / 2
        assert f"{mark % (100 * point.value)}\\,{{\\scriptsize$\\pm${half:.1f}}}" in line
    assert r"\toprule" in text
    assert r"\bottomrule" in text


def test_figures_of_a_curve_have_their_intervals_where_known(two, old):
    report = build_report(two, promptings=["situation"])
    lines = [line for line in FORMATS["latex"](report).splitlines() if line.startswith(("none &", "mmp &"))]
    for row, line in zip(report.tables[0].rows, lines, strict=True):
        area, relative = line.removesuffix(r" \\").split(" & ")[-2:]
        area_half = 100 * (row.auc_eta_high - row.auc_eta_low) / 2
        relative_half = 100 * (row.relative_robustness_high - row.relative_robustness_low) / 2
        assert area.endswith(rf"{{{100 * row.auc_eta:.1f}}}\,{{\scriptsize$\pm${area_half:.1f}}}")
        assert relative == rf"{100 * row.relative_robustness:.1f}\,{{\scriptsize$\pm${relative_half:.1f}}}"
    before = build_report([old])
    (first, *_) = before.tables[0].rows
    line = next(x for x in FORMATS["latex"](before).splitlines() if x.startswith(f"{first.checkpoint} &"))
    assert line.count(r"$\pm$") == 6  # its values alone
    assert line.endswith(f" & {100 * first.auc_eta:.1f} & {100 * first.relative_robustness:.1f} \\\\")


def test_sections_mark_the_best_where_something_is_better(two):
    report = with_sections(build_report(two), baseline="none")
    standing, gap, effective = (
        FORMATS["latex"](dataclasses.replace(report, tables=(), sections=(section,))) for section in report.sections
    )
    first, second = report.sections[0].rows
    assert f"mmp & \\textbf{{{first[1]}}} & \\textbf{{{first[2]}}} & " in standing
    assert f"none & \\underline{{{second[1]}}} & \\underline{{{second[2]}}} & " in standing
    assert r"\textbf{Best} and \underline{second} of what compares" in standing
    assert r"\texttt{mmrobust compare} tests two" in standing and "`" not in standing
    assert r"\textbf" not in gap
    assert "6 of 11 rates shown" in gap
    assert r"\textbf" not in effective.split(r"\midrule")[1]  # one checkpoint against the baseline has no rival
    assert "none" in effective


def test_a_single_checkpoint_is_marked_nowhere(two):
    text = FORMATS["latex"](build_report(two[:1]))
    assert r"\textbf" not in text
    assert r"\underline" not in text


def test_names_are_escaped():
    assert escape("50 % of a_b & c#d") == r"50 \% of a\_b \& c\#d"
    assert escape("x^2 ~ {y} \\ η é") == r"x\textasciicircum{}2 \textasciitilde{} \{y\} \textbackslash{} $\eta$ é"
    assert escape("名 🤖") == "? ?"
    assert escape("[1em] *") == "{[}1em] {*}"  # at the head of a row the line's end before it would take them


@needs_latex
def test_it_compiles_alone_and_within_a_paper(two, make_results, tmp_path):
    odd = ("a_b & 100% {of} 名 \\x", "[9em] x", "* y")
    report = build_report([*two, *map(make_results, odd)]).with_published("ptm")
    report = with_sections(report, baseline="none")
    assert [section.kind for section in report.sections] == ["standings", "prompting", "effective"]
    (tmp_path / "report.tex").write_text(FORMATS["latex"](report), encoding="utf-8")
    log = compiled(tmp_path, "report.tex")
    assert "Overfull" not in log
    packages = r"\usepackage{booktabs,longtable}"
    body = r"\begin{document}See:\input{report} After it.\end{document}"
    paper = rf"\documentclass[twocolumn]{{article}}{packages}" + body
    (tmp_path / "paper.tex").write_text(paper, encoding="utf-8")
    compiled(tmp_path, "paper.tex")
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, check=True).stdout
        assert "After it." in text.decode()  # the table did not end the paper


@needs_latex
def test_long_heads_of_columns_stand_in_two_lines(tmp_path):
    names = [
        f"noisy-{modality}, {prompting}" for modality in ("audio", "image", "both") for prompting in ("a", "concat")
    ]
    cells = ("prompt-the-missing", "linear", "noisy-both 0.7", *["98.4 ± 0.3"] * len(names))
    section = Section("study", "wide", "", ("method", "head", "trained under", *names), 3, (cells,), pd.DataFrame())
    text = render_sections([section])
    assert r"\shortstack[r]{noisy-audio,\\concat}" in text
    (tmp_path / "wide.tex").write_text(text, encoding="utf-8")
    assert "Overfull" not in compiled(tmp_path, "wide.tex")


@needs_latex
def test_fifty_checkpoints_run_over_several_pages(make_results, tmp_path):
    many = [make_results(f"model-{i:02d}", rates=(0.0, 1.0), seeds=(0,), promptings=("situation",)) for i in range(50)]
    text = FORMATS["latex"](build_report(many))
    assert text.count("model-") == 150 > MOST_ROWS
    assert r"\begin{longtable}" in text
    (tmp_path / "long.tex").write_text(text, encoding="utf-8")
    log = compiled(tmp_path, "long.tex")
    assert int(re.search(r"\((\d+) pages", log).group(1)) > 1
