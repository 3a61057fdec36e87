"""``mmrobust eval`` and ``audit`` of a model of one's own: what is understood, and what is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.storage.results import read_results

MODEL = """
import mmrobust

def predict(samples, case):
    if any(sample["image"] is None for sample in samples) and mode == "broken":
        return [sample["image"].size for sample in samples]
    return [[float(len(sample["text"] or "") % 10 == name) for name in range(10)] for sample in samples]

mode = "sound"
fields = dict(
    version="1", modalities=["image", "text"], classes=list("0123456789"), task="single-label", predict=predict
)
model = mmrobust.Model(name="lengths", **fields)
other = mmrobust.Model(name="others", **fields)
again = mmrobust.Model(name="lengths", **fields)

def on(device):
    return mmrobust.Model(name="on", device=device, **fields)

def broken():
    global mode
    mode = "broken"
    return mmrobust.Model(name="broken", **fields)
"""
GRID = ("--missing-rate", "0,1", "--seeds", 1, "--limit", 12)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a model in a file of its own."""
    (tmp_path / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_it_writes_what_a_checkpoint_writes(cli: Callable[..., Any], digits: Dataset) -> None:
    outcome = cli("eval", "my_model.py:model", "--data", digits.folder, *GRID, "--out", "results")
    assert outcome.code == 0, outcome.err
    assert "lengths" in outcome.out
    assert outcome.err == "results: results/results.parquet\n"
    assert list(Path("results/predictions").glob("*.parquet"))
    for command in (["score", "results", "--seeds", 2], ["report", "results", "--html", "report.html"]):
        assert cli(*command).code == 0
    assert "a model of your own" not in Path("report.html").read_text()
    frame = read_results(Path("results")).frame
    assert set(frame[["method", "head", "backbone"]].itertuples(index=False, name=None)) == {("own", "own", "own")}


def test_several_also_beside_checkpoints(
    cli: Callable[..., Any], digits: Dataset, trained: Callable[..., Path]
) -> None:
    checkpoint = trained("none", "linear")
    models = ("my_model:model", checkpoint, "my_model.py:other")
    outcome = cli("eval", *models, "--data", digits.folder, *GRID, "--dtype", "float32", "--out", "all")
    assert outcome.code == 0, outcome.err
    assert set(read_results(Path("all")).frame.checkpoint) == {"lengths", "others", checkpoint.name}
    # Alone they have the same values, and the two can be compared.
    for name, model in (("own", "my_model.py:model"), ("ours", checkpoint)):
        assert cli("eval", model, "--data", digits.folder, *GRID, "--out", name).code == 0
    alone = read_results(Path("own")).frame
    together = read_results(Path("all")).frame.query("checkpoint == 'lengths'").reset_index(drop=True)
    assert alone.equals(together)
    outcome = cli("compare", "own", "ours")
    assert outcome.code == 0, outcome.err
    assert cli("check", "own", "--baseline", "ours", "--informational").code == 0


def test_the_console_script_finds_modules_of_the_working_folder(digits: Dataset) -> None:
    script = Path(sys.executable).parent / "mmrobust"
    if not script.is_file():
        pytest.skip("the console script is not installed")
    root = str(Path(__file__).resolve().parents[2])
    command = [str(script), "eval", "my_model:model", "--data", digits.folder, *map(str, GRID), "--out", "results"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr


def test_a_function_that_takes_the_device_is_given_it(cli: Callable[..., Any], digits: Dataset) -> None:
    outcome = cli("eval", "my_model.py:on", "--data", digits.folder, *GRID, "--device", "cpu", "--out", "results")
    assert outcome.code == 0, outcome.err
    assert read_results(Path("results")).provenance["checkpoints"]["on"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my_model.py:model", "--dtype", "bfloat16"], "--dtype is for checkpoints; my_model.py:model decides this"),
        (["my_model.py:model", "--compile"], "--compile is for checkpoints; my_model.py:model decides this itself"),
        (["my_model:model", "--backbone", "x"], "--backbone is for checkpoints; my_model:model decides this itself"),
        (["my_model:model", "--cache", "kept"], "--cache is for checkpoints; my_model:model decides this itself"),
        (["my_model:model", "--device", "cpu"], "--device is for checkpoints, and for functions that make a model and "
         "take 'device'; my_model:model decides this itself"),
        (["my_model:model", "my_model:again"], "my_model:again: another model is called 'lengths', too; give each a"),
        (["my_model:model", "my_model:model"], "my_model:model: another model is called 'lengths', too"),
        (["my_model:modle"], "my_model:modle: my_model has no 'modle'; it has model, other, again"),
        (["my_model.py"], "my_model.py: say which object of the file is the model, as in my_model.py:model"),
        (["absent.py:model"], "absent.py:model: there is no file absent.py"),
        (["my_model:model", "--scenario", "missing-audio"], "unknown scenario for image and text 'missing-audio'"),
        (["my_model:model", "--batch-size", "0"], "batch size '0': give a positive whole number, or auto"),
        (["my_model:model", "--engine", "rya"], "unknown engine 'rya': did you mean 'ray'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(
    cli: Callable[..., Any], digits: Dataset, arguments: list[str], message: str
) -> None:
    code, out, err = cli("eval", *arguments, "--data", digits.folder, "--out", "results")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("results").exists()


def test_an_exception_of_its_own_is_one_line_and_a_traceback_with_debug(
    cli: Callable[..., Any], digits: Dataset
) -> None:
    command = ("eval", "my_model.py:broken", "--data", digits.folder, *GRID, "--out", "results")
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert err.startswith(
        "mmrobust: broken: predict raised AttributeError: 'NoneType' object has no attribute 'size' "
        "(in case 'missing-image', from sample 'digit-"
    )
    assert (
        err.endswith("; image may be None there, unless fill says otherwise; --debug shows the traceback\n")
        and len(err.splitlines()) == 1
    )
    shown = cli(*command, "--debug").err
    assert 'sample["image"].size for sample in samples' in shown  # the line of the user's own function


def test_flags_of_an_evaluation_mean_the_same(cli: Callable[..., Any], digits: Dataset) -> None:
    table = ("--scenario", "missing-both", "--missing-rate", 0.5, "--modalities", "image,text", "--out", "table.csv")
    assert cli("data", "missing-table", digits.folder, *table).code == 0
    grid = ("--missing-table", "table.csv", "--prompting", "situation", "--batch-size", 5, "--workers", 1)
    outcome = cli("eval", "my_model:model", "--data", digits.folder, *grid, "--json", "--out", "results")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    assert {row["n_affected"] for row in rows} == {30} and {row["prompting"] for row in rows} == {"situation"}
    for part, finished in (("2/2", False), ("1/2", True)):
        shard = ("--missing-table", "table.csv", "--shard", part, "--out", "shared")
        assert cli("eval", "my_model:model", "--data", digits.folder, *shard).code == 0
        assert Path("shared/results.parquet").exists() is finished
    never = (*GRID, "--overwrite", "never", "--out", "shared")
    assert cli("eval", "my_model:model", "--data", digits.folder, *never).code == 2


def test_an_audit(cli: Callable[..., Any], digits: Dataset) -> None:
    code, out, err = cli("audit", "my_model.py:model", "--data", digits.folder, "--limit", 6)
    assert (code, err) == (0, "")
    title, _, *rows, summary = out.splitlines()
    assert title.startswith("lengths: a model of your own, version 1; digits · test · 6 samples")
    verdicts = {row.split()[0]: row for row in rows}
    assert "not applicable" in verdicts["dtype-drift"] and "not applicable" in verdicts["frozen-backbone"]
    assert "this model is never told the case (knows_case=False)" in verdicts["case-sensitivity"]
    assert summary.endswith("informational; cannot be checked on a model of your own: dtype-drift, frozen-backbone")
    described = json.loads(cli("audit", "my_model:model", "--data", digits.folder, "--limit", 6, "--json").out)
    assert described["passed"] and described["method"] == "own"


def test_what_an_audit_of_it_cannot_take_is_one_line(cli: Callable[..., Any], digits: Dataset) -> None:
    for arguments, message in (
        (["--backbone", "x"], "--backbone is for checkpoints; my_model:model decides this itself"),
        (["--device", "cpu"], "--device is for checkpoints"),
        (["--limit", 1], "--limit 1: at least two samples are needed"),
    ):
        code, out, err = cli("audit", "my_model:model", "--data", digits.folder, *arguments)
        assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1
