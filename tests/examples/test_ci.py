"""The CI workflows that users copy: parsed, and their steps executed as a runner would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mmrobust.gate.baseline import save_baseline

CI = Path(__file__).resolve().parents[2] / "examples" / "ci"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A fresh clone in which the workflow's steps have run, with the model's own results as its baseline."""
    folder = tmp_path_factory.mktemp("project")
    short = {"MMROBUST_DATA_PREPARE_LIMIT": "60", "MMROBUST_TRAIN_EPOCHS": "1"}
    done = run(folder, steps_of_github("Data and checkpoint"), {**github_env(), **short})
    assert done.returncode == 0, done.stderr
    gates = (CI / "gates.toml").read_text()
    (folder / "gates.toml").write_text(gates.replace(">=0.1", ">=0.01"))  # a model of one epoch is no better
    shutil.copy(CI / "test_robustness.py", folder)
    run(folder, steps_of_github("Evaluate"), github_env())
    save_baseline(folder / "results", folder / "baselines" / "main", allow_dirty=True)
    return folder


def github():
    return yaml.safe_load((CI / "github.yml").read_text())["jobs"]["gate"]


def github_env():
    return github()["env"]


def run(folder, steps, env):
    """Run shell steps as a runner does, each in bash, and stop at the first that fails: the result of the last."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for step in steps:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step],
            cwd=folder,
            env={**os.environ, **env, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            break
    return done


def worse(folder):
    """Plant a regression in the results that the steps have made: without its text, every sample is wrong."""
    for shard in (folder / "results" / "predictions").iterdir():
        table = pq.read_table(shard)
        logits = np.asarray(table["logits"].to_pylist(), dtype=np.float32)
        rows = np.flatnonzero(np.asarray(table["case"].to_pylist()) == "missing-text")
        logits[rows, [table["label"][row].as_py()[0] for row in rows]] = -100
        at, column = table.schema.get_field_index("logits"), pa.array(logits.tolist(), pa.list_(pa.float32()))
        pq.write_table(table.set_column(at, "logits", column).replace_schema_metadata(table.schema.metadata), shard)
    assert run(folder, ["mmrobust score results"], {}).returncode == 0


def steps_of_github(name):
    return [step["run"] for step in github()["steps"] if step.get("name") == name]


def test_installing_is_the_only_step_that_is_not_run_here():
    named = [step.get("name") for step in github()["steps"] if "run" in step]
    assert named == ["Install", "Data and checkpoint", "Evaluate", "Gate"]
    assert steps_of_github("Install") == ['python -m pip install "$MMROBUST"']


def test_data_edited_in_place_stop_the_workflow(project, tmp_path):
    shutil.copytree(project / "data", tmp_path / "data")
    about = tmp_path / "data" / "digits" / "dataset.json"
    about.write_text(re.sub('"fingerprint": ".*"', '"fingerprint": "0123"', about.read_text()))
    done = run(tmp_path, steps_of_github("Data and checkpoint"), github_env())
    assert done.returncode == 1 and "does not match the fingerprint" in done.stdout
    assert not (tmp_path / "checkpoints").exists()


def test_githubs_gate_passes_and_then_catches_a_regression(project, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("What an earlier command of the step said.\n")
    env = {**github_env(), "GITHUB_STEP_SUMMARY": str(summary)}
    done = run(project, steps_of_github("Gate"), env)
    assert done.returncode == 0, done.stderr
    assert "::notice title=mmrobust check::PASS" in done.stdout
    said = summary.read_text()
    assert said.startswith("What an earlier command")
    assert "### ✅ PASS" in said

    shutil.copytree(project / "results", tmp_path / "kept")
    worse(project)
    try:
        done = run(project, steps_of_github("Gate"), env)
    finally:
        shutil.rmtree(project / "results")
        shutil.copytree(tmp_path / "kept", project / "results")
    assert done.returncode == 1
    assert "::error title=accuracy@missing-text/1 both promptings (mmp)::" in done.stdout
    failed = ElementTree.parse(project / "robustness.xml").getroot().findall(".//failure")
    assert any("accuracy@missing-text/1" in failure.get("message") for failure in failed)


def test_gitlabs_jobs(project):
    workflow = yaml.safe_load((CI / "gitlab.yml").read_text())
    env = workflow["variables"]
    evaluate, *gate = workflow["gate"]["script"]
    install, *prepare = workflow["gate"]["before_script"]
    assert [[install], prepare] == [
        step.splitlines() for name in ("Install", "Data and checkpoint") for step in steps_of_github(name)
    ]
    assert [evaluate] == [step.strip() for step in steps_of_github("Evaluate")]  # which has made the results here
    assert env == github_env()
    done = run(project, gate, env)
    assert done.returncode == 0, done.stderr
    for file in (*workflow["gate"]["artifacts"]["paths"], workflow["gate"]["artifacts"]["reports"]["junit"]):
        assert (project / file).exists()
    assert run(project, workflow["save"]["script"], env).returncode == 0
    assert workflow["gate"]["stage"] in workflow["stages"]


def test_the_test_suite_of_the_example(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    code = pytest.main(["-q", "-W", "default", "-p", "no:cacheprovider", "--rootdir", ".", "test_robustness.py"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "1 passed" in said
