"""Studies: what they are made of, what they refuse, and that one which is killed is finished by the same command."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmrobust.data import Dataset
from mmrobust.errors import UsageError
from mmrobust.studies.jobs import jobs_of
from mmrobust.studies.run import run_study
from mmrobust.studies.study import Contrast, builtin_studies, parse_study, read_study
from mmrobust.studies.table import contrasts

SMALL: dict[str, Any] = {
    "methods": ["none"],
    "heads": ["linear", "prototype"],
    "seeds": [0, 1],
    "recipe": {"epochs": 1, "share": 0.3},
    "evaluate": {"scenarios": ["missing-both"], "missing_rates": "0:1:1", "seeds": 1},
    "contrast": {"axis": "head", "of": "prototype", "against": "linear"},
}


def test_jobs_are_the_product_and_teachers_come_first(digits: Dataset, tmp_path: Path) -> None:
    methods = {"none": None, "mmp": {"settings": {"length": 2}}, "full": {"complete": True, "heads": ["linear"]}}
    under = [{"missing_rate": 0.5}, {"scenario": "missing-text", "missing_rate": 0.7}]
    study = parse_study({**SMALL, "methods": methods, "under": under, "teacher": {"recipe": {"epochs": 3}}})
    jobs = jobs_of(study, [digits.folder], tmp_path)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == 2 + 2 * (2 * 2 * 2 + 1)
    assert names[:2] == ["digits/teacher-linear-complete-s0", "digits/teacher-linear-complete-s1"]
    mmp = next(job for job in jobs if job.name == "digits/mmp-prototype-missing-text-0.7-s1")
    assert mmp.waits and mmp.settings.backbone == str(tmp_path / "checkpoints/digits/teacher-linear-complete-s1")
    assert (mmp.settings.method_settings, mmp.settings.recipe.epochs) == ({"length": 2}, 1)
    full = next(job for job in jobs if job.method == "full")
    assert not full.waits and full.settings.backbone == "tiny" and full.settings.missing_rate == 0


def test_a_head_has_settings_and_a_recipe_of_its_own(digits: Dataset, tmp_path: Path) -> None:
    tuned = {"use": "prototype", "settings": {"scale": 8.0}, "recipe": {"lr": 0.03, "batching": "case-wise"}}
    methods = {"none": {"recipe": {"lr": 0.5, "clip": 2.0}}}
    heads = {"prototype": None, "prototype-tuned": tuned}
    study = parse_study({**SMALL, "methods": methods, "heads": heads, "contrast": None, "seeds": [0]})
    plain, own = (job.settings for job in jobs_of(study, [digits.folder], tmp_path))
    assert (plain.recipe.lr, plain.recipe.batching, plain.head_settings) == (0.5, "mixed", {})
    assert (own.head, own.recipe.lr, own.recipe.clip, own.recipe.batching) == ("prototype", 0.03, 2.0, "case-wise")
    assert own.head_settings == {"scale": 8.0}


def test_built_in_studies_are_whole(digits: Dataset, tmp_path: Path) -> None:
    assert set(builtin_studies()) == {"dpl-vs-linear", "dpl-tuned", "ptm-table", "mmp-rates", "ptm-ablation"}
    for name in builtin_studies():
        assert jobs_of(read_study(name), [digits.folder], tmp_path) and read_study(name).about
    ablation = jobs_of(read_study("ptm-ablation"), [digits.folder], tmp_path)
    assert {job.settings.backbone for job in ablation if not job.waits} == {"tiny-cavmae", "tiny-cavmae-fusion"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metods": []}, "unknown study setting 'metods': did you mean 'methods'"),
        ({"methods": {"mmp": {"setings": {}}}}, "unknown study's methods setting 'setings': did you mean 'settings'"),
        ({"methods": "mmp"}, "methods: 'mmp' must be a list of names"),
        ({"seeds": []}, "study: no seeds; name at least one"),
        ({"seeds": [0, -1]}, "seed -1: give a whole number of 0 or more"),
        ({"evaluate": {"rates": "0"}}, "unknown study's evaluate setting 'rates'"),
        ({"evaluate": {"missing_rates": "2"}}, "missing rate 2 is not a share"),
        (
            {"contrast": {"axis": "head", "of": "mlp", "against": "linear"}},
            "unknown head of the study's contrast 'mlp'",
        ),
        (
            {"heads": {"linear": {"complete": True}}, "contrast": None},
            "head linear has a key that is for methods: use,",
        ),
        ({"recipe": {"epoch": 3}}, "unknown recipe setting 'epoch': did you mean 'epochs'"),
    ],
)
def test_what_is_refused(digits: Dataset, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        jobs_of(parse_study({**SMALL, **change}), [digits.folder], tmp_path)


def test_what_the_command_refuses(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("methods: [none]\nheadz: [linear]\n")
    for arguments, message in (
        (("mmp-rate", "--data", digits.folder), "unknown study 'mmp-rate': did you mean 'mmp-rates'"),
        ((tmp_path / "bad.yaml", "--data", digits.folder), "unknown study setting 'headz': did you mean 'heads'"),
        (("mmp-rates",), "the study names no data: say --data FOLDER"),
        (("mmp-rates", "--data", digits.folder, "--engine", "rya"), "unknown engine 'rya': did you mean 'ray'"),
    ):
        code, out, err = cli("study", "run", *arguments, "--out", tmp_path / "out")
        assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


def test_another_study_is_not_mixed_in(digits: Dataset, tmp_path: Path) -> None:
    study = parse_study({**SMALL, "methods": []} | {"methods": ["none"]})
    run_study(study, [], tmp_path / "out")
    jobs = jobs_of(study, [digits.folder], tmp_path / "out")
    other = dataclasses.replace(study, evaluate=dataclasses.replace(study.evaluate, seeds=2))
    with pytest.raises(UsageError, match="holds another study \\(another grid\\); name another --out"):
        run_study(other, jobs, tmp_path / "out")


def test_contrasts_are_paired_by_seed() -> None:
    rows = [
        {"dataset": "d", "method": "m", "head": head, "under": "u", "train_seed": seed, "scenario": "s"}
        | {"prompting": "p", "missing_rate": 0.5, "value": 0.5 + 0.1 * seed + gain * (head == "prototype")}
        for seed, gain in enumerate((0.01, 0.02, 0.03))
        for head in ("linear", "prototype")
    ]
    (row,) = contrasts(pd.DataFrame(rows), Contrast("head", "prototype", "linear")).to_dict("records")
    assert row["difference"] == pytest.approx(0.02) and row["seeds"] == 3
    half = 4.302653 * 0.01 / np.sqrt(3)  # t of two degrees of freedom
    assert (row["low"], row["high"]) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))


def test_a_study_that_is_killed_twice_is_finished_by_the_same_command(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "mmrobust", "study", "run", str(tmp_path / "small.yaml")]
    command += ["--data", str(digits.folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done: list[Path] = []
    for _ in range(2):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
            assert running.stderr is not None
            for line in running.stderr:  # as soon as one more job is done, in the midst of the next
                if line.rstrip().endswith(" done"):
                    running.kill()
                    break
        done.append(max((tmp_path / "out" / "results").rglob("done.json"), key=lambda file: file.stat().st_mtime))
    assert not (tmp_path / "out" / "study.md").exists()
    stamps = [file.stat().st_mtime_ns for file in done]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert [file.stat().st_mtime_ns for file in done] == stamps
    assert "prototype minus linear" in finished.stdout and "what the trainings cost" in finished.stdout
    table = pd.read_parquet(tmp_path / "out" / "study.parquet")
    assert len(table) == 4 * 3 and set(table["head"]) == {"linear", "prototype"} and table["value"].between(0, 1).all()
    assert not (tmp_path / "out" / "cache").exists()


def test_a_dry_run_lists_the_jobs(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    command = ("study", "run", tmp_path / "small.yaml", "--data", digits.folder, "--out", tmp_path / "out", "--dry-run")
    code, out, err = cli(*command)
    assert code == 0, err
    assert "digits/none-prototype-missing-both-0.7-s1" in out and "4 jobs: about" in out
    assert not (tmp_path / "out").exists()
