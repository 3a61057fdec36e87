"""Kill −9 at random moments inside each command that writes: nothing is lost, and nothing is left behind.

``MMROBUST_TEST_KILLS=20`` kills each command twenty times; by default each is killed a few times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset

KILLS = int(os.environ.get("MMROBUST_TEST_KILLS", "2"))

# A process that imports everything, and then again and again has a child run a command until it is killed. ``looks``
# are commands that must succeed after each kill. Each round starts with ``fresh`` removed, if the last one finished.
DRIVER = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
plan = json.loads(sys.argv[1])
from mmrobust.cli import app
import mmrobust.training.loop, mmrobust.evaluation.evaluate, mmrobust.evaluation.imported, mmrobust.scoring.rescore
import mmrobust.gate.baseline, mmrobust.gate.check, mmrobust.report.html, mmrobust.report.analyses, pandas

def start(command):
    pid = os.fork()
    if not pid:
        code = 99
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            code = app.run(command)
        finally:
            os._exit(code)
    return pid

def finish(command):
    code = os.waitstatus_to_exitcode(os.waitpid(start(command), 0)[1])
    assert code == 0, (command, code)

began = time.monotonic()
finish(plan["first"])
lasts = time.monotonic() - began
draws, kills, tries = random.Random(plan["seed"]), 0, 0
while kills < plan["kills"] and tries < 20 * plan["kills"]:
    tries += 1
    pid = start(plan["again"])
    time.sleep(draws.uniform(0.0, lasts))
    os.kill(pid, signal.SIGKILL)
    killed = os.waitpid(pid, 0)[1] != 0
    kills += killed
    for look in plan["looks"]:
        finish(look)
    if not killed and plan["fresh"]:
        shutil.rmtree(plan["fresh"])
finish(plan["again"])
print(json.dumps({"kills": kills, "tries": tries, "seconds": lasts}))
"""


def killed(*, first: Any, again: Any, looks: Any = (), fresh: Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Run ``first`` to its end, ``again`` until it was killed often enough, and once more to its end."""
    plan = {"kills": KILLS, "seed": seed, "fresh": None if fresh is None else str(fresh)}
    plan |= {"first": words(first), "again": words(again), "looks": [words(look) for look in looks]}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(plan)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["kills"] == KILLS
    return found


def words(command: Any) -> list[str]:
    return [str(word) for word in command]


def contents(folder: Path) -> set[str]:
    """Everything in a folder, but for what may differ between two runs: the names of locks stay."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the command is forked")


def test_train(digits: Dataset, tmp_path: Path) -> None:
    command = ("train", "--data", digits.folder, "--backbone", "tiny", "--method", "full", "--modalities", "image,text")
    command = (*command, "--epochs", 2, "--device", "cpu", "--resume", "--quiet")
    whole, torn = tmp_path / "a" / "run", tmp_path / "b" / "run"
    killed(first=(*command, "--out", whole), again=(*command, "--out", torn), fresh=torn)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    files = ("model.safetensors", "backbone/model.safetensors")
    assert all((whole / name).read_bytes() == (torn / name).read_bytes() for name in files)


def test_score(evaluate_into: Callable[..., Any], tmp_path: Path) -> None:
    evaluate_into(tmp_path / "grid", n=2000)
    before = contents(tmp_path)
    score = ("score", tmp_path / "grid", "--missing-rate", "0:1:0.1", "--seeds", 5, "--quiet")
    killed(first=score, again=score, looks=[("report", tmp_path / "grid", "--quiet")])
    assert contents(tmp_path) - before <= {"grid/.run.lock"}


def test_report(evaluate_into: Callable[..., Any], tmp_path: Path) -> None:
    evaluate_into(tmp_path / "grid")
    page = tmp_path / "pages" / "page.html"
    report = ("report", tmp_path / "grid", "--html", page, "--csv", tmp_path / "pages" / "rows.csv", "--quiet")
    killed(first=report, again=report)
    assert contents(tmp_path / "pages") == {"page.html", "rows.csv"}
    assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_baseline(evaluate_into: Callable[..., Any], tmp_path: Path) -> None:
    evaluate_into(tmp_path / "grid")
    save = ("baseline", "save", tmp_path / "grid", tmp_path / "kept" / "main", "--replace", "--quiet")
    judged = ("check", tmp_path / "grid", "--baseline", tmp_path / "kept" / "main", "--quiet")
    killed(first=save, again=save, looks=[judged])
    kept = contents(tmp_path / "kept")
    assert {"main", "main/results.parquet"} <= kept and not {name for name in kept if name.startswith(".")}


def test_import(digits: Dataset, tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd

    split = digits.split("test")
    draws = np.random.default_rng(0)
    cases = ("complete", "missing-image", "missing-text")
    rows = pd.DataFrame([(sample, case) for case in cases for sample in split.ids], columns=["id", "case"])
    for name in digits.info.classes:
        rows[name] = draws.normal(size=len(rows))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    command = ("import", "predictions", tmp_path / "rows.csv", "--data", digits.folder, "--name", "it", "--quiet")
    command = (*command, "--modalities", "image,text")
    whole, torn = tmp_path / "a" / "run", tmp_path / "b" / "run"
    killed(first=(*command, "--out", whole), again=(*command, "--out", torn), fresh=torn)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


STUDY = """
backbone: tiny
modalities: [image, text]
methods: {none: {}}
heads: [linear]
under: [{scenario: missing-text, missing_rate: 0.7}]
seeds: [0]
recipe: {epochs: 1, batch_size: 16}
evaluate: {scenarios: [missing-text], missing_rates: "0,1", seeds: 1}
"""


def test_study(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    command = ("study", "run", tmp_path / "study.yaml", "--data", digits.folder, "--device", "cpu", "--quiet")
    whole, torn = tmp_path / "a" / "run", tmp_path / "b" / "run"
    killed(first=(*command, "--out", whole), again=(*command, "--out", torn), fresh=torn)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
