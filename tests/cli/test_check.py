"""``mmrobust check`` as a user and a CI job meet it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmrobust.cases import missing_cases
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import write_results

MODALITIES = ("image", "text")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A working folder with three results: ``main``, ``worse`` where the image is missing, and ``elsewhere``."""
    grid = Grid(("missing-image", "missing-text"), (0.0, 0.7, 1.0), (0, 1), ("situation",))
    labels = np.arange(100) % 2
    ids = tuple(f"s{i}" for i in range(100))
    truth = SplitTruth(ids, tuple((int(c),) for c in labels), MODALITIES, 2, "single-label")
    for folder, wrong in (("main", 20), ("worse", 23), ("elsewhere", 20)):
        right = np.eye(2, dtype=np.float32)[labels]
        logits = {(case.name, "situation"): right.copy() for case in missing_cases(MODALITIES)}
        logits["missing-image", "situation"][:wrong] *= -1
        about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
        frame = score(Predictions(truth, logits), truth.draw_grid(grid), ScoringSettings(resamples=0))
        dataset = {"name": "digits", "fingerprint": folder if folder == "elsewhere" else "0123", "split": "test"}
        provenance = {
            "dataset": {**dataset, "task": "single-label", "headline_metric": "accuracy", "classes": ["even", "odd"]},
            "checkpoints": {"mmp": {"fill": "ones", **about}},
        }
        rows = frame.assign(checkpoint="mmp", dataset="digits", split="test", **about)
        write_results(tmp_path / folder / "results.parquet", rows, provenance)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_same_passes(cli, runs):
    code, out, err = cli("check", "main", "--baseline", "main")
    assert (code, err) == (0, "")
    assert "PASS: 6 cells compared, none below its limit" in out
    assert "limit alone: no paired interval" in out


def test_a_regression_is_exit_code_1_and_named(cli, runs):
    code, out, _ = cli("check", "worse", "--baseline", "main/results.parquet")
    assert code == 1
    assert "FAIL: 2 of 6 cells compared; worst: accuracy@missing-image/1 situation, -3.0 points" in out
    assert "accuracy:-0.01" in out
    assert "\x1b" not in out


def test_informational_prints_the_failure_and_exits_with_0(cli, runs):
    code, out, _ = cli("check", "worse", "--baseline", "main", "--informational")
    assert code == 0
    assert "FAIL" in out


def test_rules_from_the_command_line(cli, runs):
    allowed = "accuracy@missing-image:-0.05"
    assert cli("check", "worse", "--baseline", "main", "--fail", f"accuracy:-0.01,{allowed}").code == 0
    assert cli("check", "worse", "--baseline", "main", "--fail", "accuracy:-0.01", "--fail", allowed).code == 0
    assert cli("check", "worse", "--baseline", "main", "--fail", "accuracy>=0.9").code == 1


def test_rules_from_a_file_and_the_command_line_before_it(cli, runs):
    (runs / "gates.toml").write_text('fail = ["accuracy:-0.1"]')
    assert cli("check", "worse", "--baseline", "main", "--rules", "gates.toml").code == 0
    assert cli("check", "worse", "--baseline", "main", "--rules", "gates.toml", "--fail", "accuracy:-1%").code == 1


def test_json(cli, runs):
    code, out, _ = cli("check", "worse", "--baseline", "main", "--json")
    verdict = json.loads(out)
    assert (code, verdict["passed"], verdict["failed"]) == (1, False, 2)
    assert cli("check", "worse", "--baseline", "main", "--format", "json").out == out


def test_formats_to_files_leave_the_table_on_standard_output(cli, runs):
    code, out, err = cli("check", "worse", "--baseline", "main", "--format", "json=o/v.json", "--format", "md=v.md")
    assert code == 1
    assert "FAIL" in out
    assert err.splitlines() == ["wrote o/v.json", "wrote v.md"]
    assert json.loads((runs / "o" / "v.json").read_text())["compared"] == 6
    assert "| **fail** | mmp | accuracy@missing-image/1 situation | 80.0 | 77.0 | -3.0 |" in (runs / "v.md").read_text()


@pytest.mark.parametrize(
    "arguments", [["elsewhere", "--baseline", "main"], ["main", "--baseline", "main", "--fail", "accuracy"]]
)
def test_an_error_takes_the_place_of_an_earlier_verdict(cli, runs, monkeypatch, arguments):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    formats = "--format", "github", "--format", "json=v.json,md=v.md,junit=v.xml,table=v.txt"
    assert cli("check", "main", "--baseline", "main", *formats).code == 0
    code, out, err = cli("check", *arguments, *formats)
    assert (code, len(err.splitlines())) == (2, 1)
    message = err.strip().removeprefix("mmrobust: ")
    assert out.replace("%25", "%") == f"::error title=mmrobust check::ERROR: {message}\n"
    assert json.loads((runs / "v.json").read_text()) == {"verdict": "error", "passed": False, "message": message}
    assert 'errors="1"' in (runs / "v.xml").read_text()
    assert (runs / "v.txt").read_text() == f"ERROR: {message}\n"
    for file in ("v.md", "summary.md"):
        assert "ERROR" in (runs / file).read_text() and "PASS" not in (runs / "v.md").read_text()
    assert json.loads(cli("check", *arguments, "--json").out)["message"] == message


def test_flags_come_from_the_environment(cli, runs, monkeypatch):
    monkeypatch.setenv("MMROBUST_CHECK_BASELINE", "main")
    monkeypatch.setenv("MMROBUST_CHECK_JSON", "1")
    assert json.loads(cli("check", "main").out)["passed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["main", "--baseline", "elsewhere"],
            "the data differs (digits and digits): candidate 0123, baseline elsewhere",
        ),
        (["main", "--baseline", "nowhere"], "nowhere: no such file or folder"),
        (["main"], "Missing option '--baseline'"),
        (["main", "--baseline", "main", "--fail", "accuracy"], "rule 'accuracy' is not understood"),
        (["main", "--baseline", "main", "--fail", ""], "--fail: its value is empty; give a value, or leave the"),
        (["main", "--baseline", "main", "--fail", "accuracy:-0.1", "--fail", ""], "--fail: its value is empty"),
        (["main", "--baseline", "main", "--fail", "accuracy@missing-image/0.5:-0.01"], "applies to no cell"),
        (["main", "--baseline", "main", "--rules", "gates.toml"], "gates.toml: no such file"),
        (["main", "--baseline", "main", "--format", "jsn"], "unknown format 'jsn': did you mean 'json'"),
        (["main", "--baseline", "main", "--format", "md,json"], "md and json are both for standard output"),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_exit_code_2(cli, runs, arguments, message):
    code, out, err = cli("check", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
