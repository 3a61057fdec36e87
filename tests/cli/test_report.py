"""``mmrobust report`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from mmrobust.cases import missing_cases
from mmrobust.report import FORMATS
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import read_results, write_results

MODALITIES = ("image", "text")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with the results of three evaluations, two of a checkpoint of the same name."""
    monkeypatch.delenv("COLUMNS", raising=False)
    grid = Grid(("missing-image", "missing-text"), (0.0, 0.5, 1.0), (0, 1), ("situation", "concat"))
    labels = np.arange(50) % 2
    truth = SplitTruth(
        tuple(f"s{i}" for i in range(50)), tuple((int(c),) for c in labels), MODALITIES, 2, "single-label"
    )
    for folder, name, wrong in (("main", "mmp", 5), ("new", "mmp", 10), ("other", "none", 20)):
        logits = {
            (case.name, prompting): np.eye(2, dtype=np.float32)[labels]
            for case in missing_cases(MODALITIES)
            for prompting in ("situation", "concat")
        }
        logits["missing-image", "situation"][:wrong] *= -1
        about = {"method": name, "head": "linear", "backbone": "tiny-vilt"}
        frame = score(Predictions(truth, logits), truth.draw_grid(grid), ScoringSettings(resamples=50)).assign(
            checkpoint=name, dataset="digits", split="test", **about
        )
        dataset = {"name": "digits", "fingerprint": "0123", "split": "test", "task": "single-label"}
        provenance = {
            "dataset": {**dataset, "headline_metric": "accuracy", "classes": ["even", "odd"]},
            "checkpoints": {name: {"fill": "ones", **about}},
        }
        write_results(tmp_path / folder / "results.parquet", frame, provenance)
    return tmp_path


def test_the_table_is_on_standard_output(cli, runs):
    code, out, err = cli("report", runs / "main")
    assert (code, err) == (0, "")
    assert out.startswith("digits · test · 50 samples · accuracy in %\n")
    row = out.splitlines()[out.splitlines().index("missing-image") + 1].split()
    assert row[:3] == ["mmp", "situation", "100.0"]
    assert row[4] == "90.0"


def test_several_results_stand_side_by_side(cli, runs):
    code, out, _ = cli("report", runs / "main", runs / "new" / "results.parquet", runs / "other")
    assert code == 0
    assert "mmp (main)" in out
    assert "mmp (new/results.parquet)" in out
    assert "none" in out


def test_files_are_written_and_named_on_standard_error(cli, runs):
    code, out, err = cli("report", runs / "main", "--markdown", runs / "r" / "a.md", "--csv", runs / "r" / "a.csv")
    assert code == 0
    assert "wrote" not in out
    assert err.count("wrote") == 2
    assert (runs / "r" / "a.md").read_text(encoding="utf-8").startswith("# Robustness report")
    assert len((runs / "r" / "a.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 3 * 2 * 2 * 2


def test_every_format_has_a_flag(cli, runs):
    files = {name: runs / f"report.{name}" for name in FORMATS}
    code, _, err = cli("report", runs / "main", *(part for name, file in files.items() for part in (f"--{name}", file)))
    assert code == 0
    assert err.count("wrote") == len(FORMATS)
    for name, beginning in {"html": "<!DOCTYPE html>", "latex": "% By mmrobust", "markdown": "# Robust"}.items():
        assert files[name].read_text(encoding="utf-8").startswith(beginning)


def test_pictures_are_drawn_into_a_folder(cli, runs):
    code, _, err = cli("report", runs / "main", "--figures", runs / "pictures", "--prompting", "situation")
    assert code == 0
    assert "wrote 6 pictures into" in err
    assert len(list((runs / "pictures").iterdir())) == 6


COST = {
    **{"trained_parameters": 1290, "all_parameters": 2000, "peak_memory": None, "seconds_per_epoch": 2.0},
    **{"samples_per_epoch": 50, "cache_seconds": 0.0, "energy_joules": 12.5, "device": "cpu", "batch_size": 20},
}


def test_costs_are_in_every_format(cli, runs, monkeypatch):
    for place, faster in (("main", 4), ("other", 1)):
        frame, provenance = read_results(runs / place)
        (about,) = provenance["checkpoints"].values()
        about["training"] = {"efficiency": {**COST, "seconds_per_epoch": 2.0 / faster}, "validation": 0.5}
        write_results(runs / place / "results.parquet", frame, provenance)
    files = {name: runs / f"report.{name}" for name in FORMATS if name != "csv"}
    flags = [part for name, file in files.items() for part in (f"--{name}", file)]
    code, out, err = cli("report", runs / "main", runs / "other", "--efficiency", *flags)
    assert code == 0, err
    for text in (out, *(file.read_text(encoding="utf-8") for file in files.values())):
        assert "What the trainings cost" in text
        assert "1,290" in text
    (section,) = (
        section
        for section in json.loads(cli("report", runs / "main", runs / "other", "--efficiency", "--json").out)[
            "sections"
        ]
        if section["kind"] == "costs"
    )
    assert {row["name"]: row["seconds_per_epoch"] for row in section["figures"]} == {"mmp": 0.5, "none": 2.0}
    monkeypatch.setenv("COLUMNS", "50")
    narrow = " ".join(cli("report", runs / "main", runs / "other", "--efficiency").out.split())
    assert "3 more columns: a wider terminal shows all." in narrow and "energy" not in narrow
    assert "costs" not in {s["kind"] for s in json.loads(cli("report", runs / "main", "--json").out)["sections"]}


def test_costs_are_drawn_nowhere(cli, runs):
    frame, provenance = read_results(runs / "main")
    provenance["checkpoints"]["mmp"]["training"] = {"efficiency": COST}
    write_results(runs / "main" / "results.parquet", frame, provenance)
    flags = ("--efficiency", "--figures", runs / "pictures", "--prompting", "situation", "--quiet")
    assert cli("report", runs / "main", *flags).code == 0
    assert not list((runs / "pictures").glob("*costs*"))


def test_json_is_all_that_standard_output_holds(cli, runs):
    code, out, _ = cli("report", runs / "main", runs / "other", "--json")
    assert code == 0
    assert {row["checkpoint"] for row in json.loads(out)["tables"][0]["rows"]} == {"mmp", "none"}


@pytest.mark.parametrize("flag", ["--html", "--figures", "--every-eval-ever"])
def test_a_place_that_cannot_be_is_named(cli, runs, tmp_path, flag):
    (tmp_path / "file").touch()
    code, _, err = cli("report", runs / "main", flag, tmp_path / "file" / "x")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"mmrobust: {tmp_path / 'file'}")


def test_published_figures_are_named_as_the_papers(cli, runs):
    code, out, _ = cli("report", runs / "main", "--published", "ptm")
    assert code == 0
    assert "UrbanSound8K-AV as published · Prompt the Missing (Park, CVPRW 2025) · accuracy in %" in out
    row = next(line for line in out.splitlines() if line.startswith("paper: PTM")).split()
    assert row == ["paper:", "PTM", "99.0", "94.0", "83.0", "88.0", "91.0"]


def test_published_figures_fit_into_a_narrow_terminal(cli, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = cli("report", runs / "main", "--published", "ptm")
    assert max(map(len, out.splitlines())) <= 80


def test_metric_and_prompting(cli, runs):
    _, out, _ = cli("report", runs / "main", "--metric", "macro_f1", "--prompting", "situation")
    assert "macro_f1 in %" in out
    assert "concat" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder; make results with: mmrobust eval"),
        (["main", "--metric", "acuracy"], "unknown metric of these results 'acuracy': did you mean 'accuracy'"),
        (["main", "--metric", ""], "unknown metric of these results ''"),
        (["main", "--prompting", "situation,conct"], "'conct': did you mean 'concat'"),
        (["main", "--prompting", ""], "--prompting: its value is empty; give a value, or leave the flag out"),
        (["main", "--efficiency"], "--efficiency: none of these checkpoints records what its training cost"),
        (
            ["main", "--published", "pmt"],
            "unknown published figures 'pmt': did you mean 'ptm'? Known: ptm, dpl, dcp, mmp",
        ),
        (["main", "--data", "digits"], "--data adds samples to the page: give --html FILE as well"),
        (["main", "--html", "a.html", "--data", "nowhere"], "nowhere: no such folder; make a data set with"),
        (["main", "--figures", "main/results.parquet"], "--figures main/results.parquet: is a file; name a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli, runs, monkeypatch, arguments, message):
    monkeypatch.chdir(runs)
    code, out, err = cli("report", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", [["report", "main"], ["check", "main", "--baseline", "main"]])
def test_neither_report_nor_check_imports_a_framework(runs, command):
    code = (
        "import sys; from mmrobust.cli.app import run\n"
        f"assert run({command!r}) == 0\n"
        "found = {'torch', 'transformers', 'sklearn'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=runs, stdout=subprocess.DEVNULL)


def test_help_has_a_runnable_example(cli):
    for command in ("report", "check"):
        code, out, _ = cli(command, "--help")
        assert code == 0
        assert f"Example: mmrobust {command}" in " ".join(out.split())
