"""The examples for Slurm and Ray, run by bash as a scheduler or a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mmrobust.storage.results import read_results

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", EXAMPLES / script],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tasks_of_a_slurm_array_make_one_table(trained, digits, tmp_path) -> None:
    grid = {"MMROBUST_EVAL_MISSING_RATE": "0,1", "MMROBUST_EVAL_SEEDS": "1", "MMROBUST_EVAL_LIMIT": "12"}
    about = {"CHECKPOINT": str(trained("full", "linear")), "DATA": str(digits.folder), "OUT": "grid"}
    for task in ("1", "2"):
        done = run("slurm_array.sh", tmp_path, **grid, **about, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="2")
        assert done.returncode == 0, done.stderr
    assert set(read_results(tmp_path / "grid").frame["n"]) == {12}


def test_the_ray_example_asks_for_what_it_is_told(trained, digits, tmp_path) -> None:
    """Ray itself is tested in ``tests/prediction``; here, that the last word of the command gets where it belongs."""
    about = {"CHECKPOINT": str(trained("full", "linear")), "DATA": str(digits.folder), "OUT": "grid"}
    done = run("ray_cluster.sh", tmp_path, **about, RAY_ADDRESS="auto", RAY_WORKERS="0")
    assert done.returncode == 2
    assert "--ray-workers" in done.stderr
