"""Studies: what they are made of, what they refuse, and that one which is killed is finished by the same command."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import TrainingError, UsageError
from mmrobust.models.methods import METHODS
from mmrobust.runtime.ray_cluster import connected
from mmrobust.storage.results import read_results
from mmrobust.studies.estimate import estimate
from mmrobust.studies.jobs import jobs_of
from mmrobust.studies.runner import claim_folder, run_study
from mmrobust.studies.study import Contrast, Study, builtin_studies, parse_study, read_study, rehearsal
from mmrobust.studies.summary import contrasts, figures
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import set_up

SMALL: dict[str, Any] = {
    "methods": ["none"],
    "heads": ["linear", "prototype"],
    "seeds": [0, 1],
    "recipe": {"epochs": 1, "share": 0.3},
    "evaluate": {"scenarios": ["missing-both"], "missing_rates": "0:1:1", "seeds": 1},
    "contrast": {"axis": "head", "of": "prototype", "against": "linear"},
}


def test_jobs_are_the_product_and_teachers_come_first(digits: Dataset, tmp_path: Path) -> None:
    methods = {
        "none": None,
        "mmp": {"settings": {"length": 2}},
        "full": {"complete": True, "heads": ["linear"]},
        "full-missing": {"use": "full", "from_teacher": False, "heads": ["linear"]},
    }
    under = [{"missing_rate": 0.5}, {"scenario": "missing-text", "missing_rate": 0.7}]
    study = parse_study({**SMALL, "methods": methods, "under": under, "teacher": {"recipe": {"epochs": 3}}})
    jobs = jobs_of(study, [digits.folder], tmp_path)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == 2 + 2 * (2 * 2 * 2 + 1 + 2)
    assert names[:2] == ["digits/teacher-linear-complete-s0", "digits/teacher-linear-complete-s1"]
    mmp = next(job for job in jobs if job.name == "digits/mmp-prototype-missing-text-0.7-s1")
    assert mmp.needs_teacher
    assert mmp.settings.backbone == str(tmp_path / "checkpoints/digits/teacher-linear-complete-s1")
    assert (mmp.settings.method_settings, mmp.settings.recipe.epochs) == ({"length": 2}, 1)
    full = next(job for job in jobs if job.method == "full")
    assert not full.needs_teacher and full.settings.backbone == "tiny" and full.settings.missing_rate == 0
    missing = next(job for job in jobs if job.method == "full-missing")
    assert not missing.needs_teacher and missing.settings.backbone == "tiny" and missing.settings.missing_rate == 0.5


def test_a_head_has_settings_and_a_recipe_of_its_own(digits: Dataset, tmp_path: Path) -> None:
    tuned = {"use": "prototype", "settings": {"scale": 8.0}, "recipe": {"lr": 0.03, "batching": "case-wise"}}
    methods = {"none": {"recipe": {"lr": 0.5, "clip": 2.0}}}
    heads = {"prototype": None, "prototype-tuned": tuned}
    study = parse_study({**SMALL, "methods": methods, "heads": heads, "contrast": None, "seeds": [0]})
    plain, own = (job.settings for job in jobs_of(study, [digits.folder], tmp_path))
    assert (plain.recipe.lr, plain.recipe.batching, plain.head_settings) == (0.5, "mixed", {})
    assert (own.head, own.recipe.lr, own.recipe.clip, own.recipe.batching) == ("prototype", 0.03, 2.0, "case-wise")
    assert own.head_settings == {"scale": 8.0}


ASKED: list[dict[str, Any]] = [
    {},
    {"scenario": "missing-text", "missing_rate": 0.3, "fill": "mean", "recipe": {"lr": 0.25}},
    {"modalities": ["audio", "image"], "noise_profile": "released", "backbone_settings": {"missing_path": "average"}},
]


@pytest.mark.parametrize("asked", ASKED, ids=["defaults", "missing", "audio"])
@pytest.mark.parametrize("method", METHODS)
def test_a_study_trains_a_method_as_train_does(
    cli: Callable[..., Any],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    asked: dict[str, Any],
) -> None:
    study = parse_study({"methods": {method: asked}, "backbone": "tiny-vilt"})
    (job,) = jobs_of(study, [digits.folder], tmp_path)
    values = {key: value for key, value in asked.items() if key != "recipe"} | asked.get("recipe", {})
    (tmp_path / "same.yaml").write_text(json.dumps({"method": method, "backbone": "tiny-vilt", **values}))
    trained: list[TrainSettings] = []

    def capture(settings: TrainSettings, *_: Any, **__: Any) -> None:
        trained.append(settings)
        raise UsageError("captured")

    monkeypatch.setattr("mmrobust.training.loop.train", capture)
    assert (
        cli("train", "--data", digits.folder, "--recipe", tmp_path / "same.yaml", "--out", tmp_path / "out").code == 2
    )
    assert dataclasses.replace(trained[0], recipe_name="default") == job.settings


def test_what_a_study_says_of_its_training_wins_over_the_methods_defaults(digits: Dataset, tmp_path: Path) -> None:
    methods = {"ptm": None, "full": {"from_teacher": False}, "done": {"use": "full", "complete": True}}
    study = {"methods": methods, "teacher": {}, "modalities": ["audio", "image"], "backbone": "tiny-cavmae"}
    found = {}
    for name, under in (("default", None), ("named", [{"scenario": "missing-audio", "missing_rate": 0.5}])):
        jobs = jobs_of(parse_study(study | ({"under": under} if under else {})), [digits.folder], tmp_path)
        assert all(job.settings.modalities == ("audio", "image") for job in jobs)
        found[name] = {job.method: (job.settings.scenario, job.settings.missing_rate) for job in jobs}
    clean, named, named_clean = ("missing-both", 0.0), ("missing-audio", 0.5), ("missing-audio", 0.0)
    assert found["default"] == {"teacher": clean, "ptm": ("noisy-both", 0.7), "full": clean, "done": clean}
    assert found["named"] == {"teacher": named_clean, "ptm": named, "full": named, "done": named_clean}


def test_a_teacher_has_the_modalities_of_its_students(digits: Dataset, tmp_path: Path) -> None:
    methods = {"none": None, "heard": {"use": "none", "modalities": ["audio", "image"]}}
    jobs = jobs_of(parse_study({"methods": methods, "teacher": {}}), [digits.folder], tmp_path)
    assert [(job.method, job.settings.modalities) for job in jobs[:2]] == [
        ("teacher", None),
        ("teacher-audio-image", ("audio", "image")),
    ]


@pytest.fixture(scope="module")
def tones(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``digits`` without its texts: sounds and images alone."""
    folder = tmp_path_factory.mktemp("tones")
    info = dataclasses.replace(digits.info, name="tones", modalities=("audio", "image"))
    (folder / "dataset.json").write_text(json.dumps(dataclasses.asdict(info)))
    for file in digits.folder.glob("*.parquet"):
        table = pq.read_table(file).drop_columns(["text"])
        pq.write_table(table.replace_schema_metadata(None), folder / file.name)
    return folder


def test_built_in_studies_are_whole(digits: Dataset, tones: Path, tmp_path: Path) -> None:
    tables = {"dpl-table", "mmp-table"}  # their backbones come from the Hub, which naming the jobs does not ask
    assert set(builtin_studies()) == {"dpl-vs-linear", "ptm-table", "mmp-rates", "ptm-ablation"} | tables
    for name in builtin_studies():
        data = tones if name.startswith("ptm") else digits.folder
        assert jobs_of(read_study(name), [data], tmp_path) and read_study(name).about
    ablation = jobs_of(read_study("ptm-ablation"), [tones], tmp_path)
    assert {job.settings.backbone for job in ablation if not job.needs_teacher} == {"tiny-cavmae", "tiny-cavmae-fusion"}


def named(digits: Dataset, folder: Path, name: str) -> Path:
    """``digits`` under another name."""
    shutil.copytree(digits.folder, folder)
    info = dataclasses.replace(digits.info, name=name)
    (folder / "dataset.json").write_text(json.dumps(dataclasses.asdict(info)))
    return folder


def test_dpls_table_has_the_settings_of_each_data_set_scenario_and_rate(digits: Dataset, tmp_path: Path) -> None:
    jobs = jobs_of(read_study("dpl-table"), [named(digits, tmp_path / "data", "hateful-memes")], tmp_path / "out")
    found = {(job.method, job.head, job.trained_under, job.seed): job.settings for job in jobs}
    assert len(found) == len(jobs) == 4 * 2 * 9 * 3
    text = found["dcp", "prototype", "missing-text 0.9", 1]
    assert (text.head_settings["margin"], text.head_settings["prototype_loss"]) == (0.25, 8.0)
    assert (text.recipe_name, text.recipe.batch_size, text.recipe.clip) == ("dpl-hateful-memes", 256, 0.0)
    maple = found["maple", "prototype", "missing-both 0.7", 0]
    assert (maple.method_settings, maple.head_settings["margin"], maple.recipe.batch_size) == ({}, 0.3, 256)
    bare = found["none", "prototype", "missing-both 0.7", 0]
    assert (bare.recipe_name, bare.method_settings) == ("dpl-hateful-memes-noprompt", {"train_pooling": True})
    assert bare.head_settings["prototype_loss"] == 0.0
    linear = found["dcp", "linear", "missing-both 0.7", 0]
    assert (linear.head_settings, linear.method_settings) == ({}, {"length": 36, "depth": 6})


def test_mmps_table_is_of_its_own_recipe_and_metric(digits: Dataset, tmp_path: Path) -> None:
    study = read_study("mmp-table")
    assert study.evaluate.f1_absent == "skip"
    jobs = jobs_of(study, [named(digits, tmp_path / "data", "mmimdb"), digits.folder], tmp_path / "out")
    found = {(job.dataset, job.method): job.settings for job in jobs if job.seed == 0}
    theirs, ours = found["mmimdb", "mmp-attention"], found["digits", "mmp-attention"]
    assert theirs.method_settings == {"level": "attention", "length": 16, "layers": [0, 1, 2, 3, 4, 5]}
    assert theirs.backbone_settings == {"max_text_length": 1024, "dropout": True}
    assert (theirs.recipe.batch_size, theirs.head, theirs.recipe_name) == (256, "mlp", "mmp-mmimdb")
    assert found["mmimdb", "none"].method_settings == {"train_pooling": True}
    assert (ours.method_settings, ours.recipe.batch_size) == ({"level": "attention"}, 64)


def test_a_rehearsal_is_of_every_method_and_head_in_little(digits: Dataset, tones: Path, tmp_path: Path) -> None:
    films = named(digits, tmp_path / "data", "mmimdb")  # which has recipes, for larger backbones
    for name, number, data in (("mmp-table", 3, films), ("dpl-table", 8, films), ("ptm-table", 9, tones)):
        study = rehearsal(read_study(name))
        jobs = jobs_of(study, [data], tmp_path)
        assert len(jobs) == number
        assert {job.base_backbone for job in jobs} == {study.rehearse_on} and study.rehearse_on.startswith("tiny-")
        assert {job.settings.recipe.epochs for job in jobs} == {1} and {job.seed for job in jobs} == {0}


def test_a_rehearsal_is_marked_and_no_study_goes_on_in_its_folder(
    cli: Callable[..., Any], digits: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text(json.dumps({**ONE, "rehearse_on": "tiny-vilt"}))
    command = ("study", "run", tmp_path / "one.yaml", "--data", digits.folder, "--out", tmp_path / "out")
    code, out, err = cli(*command, "--rehearse")
    assert code == 0, err
    for text in (out, (tmp_path / "out" / "study.md").read_text()):
        assert text.count("REHEARSAL on tiny-vilt, one epoch: the numbers mean nothing\n") == 1
    latex = (tmp_path / "out" / "study.tex").read_text()
    captions = re.findall(r"\\caption\{(.*)\}\\", latex)
    assert captions and all("REHEARSAL on tiny-vilt, one epoch: the numbers" in caption for caption in captions)
    assert cli(*command, "--rehearse").err.splitlines()[0] == "all 1 jobs were done already"
    results = cli("report", tmp_path / "out").out
    assert "/rehearsal-" in results and results.count("/rehearsal-") == results.count("digits/")
    code, out, err = cli(*command)
    assert (code, out) == (2, "") and "out: holds a rehearsal: say --rehearse, or name another --out" in err
    assert not parse_study(ONE).mark


def test_a_rehearsal_leaves_a_study_as_it_is(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    study, out = parse_study(ONE), tmp_path / "out"
    jobs = jobs_of(study, [digits.folder], out)
    claim_folder(study, jobs, out)
    (out / "results" / jobs[0].name).mkdir(parents=True)
    before = (out / "study.json").read_bytes()
    (tmp_path / "one.yaml").write_text(json.dumps(ONE))
    command = ("study", "run", tmp_path / "one.yaml", "--data", digits.folder, "--out", out, "--rehearse")
    code, _, err = cli(*command)
    assert code == 2 and "out: holds a study: say no --rehearse, or name another --out" in err
    assert (out / "study.json").read_bytes() == before


def test_data_without_validation_are_refused_before_the_first_job(
    cli: Callable[..., Any], digits: Dataset, tmp_path: Path
) -> None:
    rows = [SampleRow("train", s.id, s.label, image=s.image, text=s.text) for s in digits.split("train").read(range(4))]
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    write_dataset(
        tmp_path / "few", rows, name="few", modalities=("image", "text"), classes=digits.info.classes, **about
    )
    (tmp_path / "one.yaml").write_text(json.dumps(ONE))
    data = f"{digits.folder},{tmp_path / 'few'}"
    code, _, err = cli("study", "run", tmp_path / "one.yaml", "--data", data, "--out", tmp_path / "out")
    assert code == 2 and "few: has no split 'validation' (train only), and training needs train and validation" in err
    assert not (tmp_path / "out").exists()


def test_a_table_names_what_is_available_and_the_papers_f1(digits: Dataset, tmp_path: Path) -> None:
    asked = {
        **ONE,
        "under": [{"scenario": "missing-text", "missing_rate": 0.5}],
        "evaluate": {"scenarios": ["missing-text"], "missing_rates": "0:1:0.5", "seeds": 1, "f1_absent": "skip"},
        "availability": True,
    }
    study = parse_study(asked)
    jobs = jobs_of(study, [digits.folder], tmp_path / "out")
    kept = tmp_path / "out" / "cache"  # where a study's own cache would be, which is removed
    text = run_study(study, jobs, tmp_path / "out", cache=kept)
    assert len({file.parent for file in kept.glob("inputs/*/*.safetensors")}) >= 4  # of two modalities, in three splits
    assert "Macro F1 leaves out classes that neither occur nor are predicted (`f1_absent: skip`)." in text
    (head, _, row) = text.partition("evaluated as trained, situation prompting")[2].split("\n\n")[2].splitlines()
    assert head == "| method | head | missing-text 0.5 (100/50) |"
    table = pd.read_parquet(tmp_path / "out" / "study.parquet")
    (value,) = table.loc[table["missing_rate"] == 0.5, "value"]
    assert row == f"| none | linear | {100 * value:.1f} |"
    latex = (tmp_path / "out" / "study.tex").read_text()
    assert r"method & head & 100/50 \\" in latex and rf"none & linear & {100 * value:.1f} \\" in latex
    assert r"Accuracy in \%, one training seed." in latex
    assert "missing-text" not in latex  # evaluated as trained alone, as the papers print it
    (results,) = (tmp_path / "out" / "results").rglob("results.parquet")
    assert read_results(results).provenance["scoring"]["f1_absent"] == "skip"


def test_a_folder_of_an_earlier_version_is_continued(digits: Dataset, tmp_path: Path) -> None:
    study = parse_study(ONE)
    jobs = jobs_of(study, [digits.folder], tmp_path / "out")
    claim_folder(study, jobs, tmp_path / "out")
    (tmp_path / "out" / "results" / jobs[0].name).mkdir(parents=True)
    file = tmp_path / "out" / "study.json"
    held = json.loads(file.read_text())
    del held["evaluate"]["f1_absent"]  # which 0.1 did not have
    file.write_text(json.dumps(held))
    claim_folder(study, jobs, tmp_path / "out")
    other = dataclasses.replace(study, evaluate=dataclasses.replace(study.evaluate, f1_absent="skip"))
    with pytest.raises(UsageError, match="holds another study \\(another grid\\)"):
        claim_folder(other, jobs, tmp_path / "out")


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
        (
            {"heads": {"linear": {"from_teacher": False}}, "contrast": None},
            "head linear has a key that is for methods: use,",
        ),
        (
            {"methods": {"none": {"missing_rate": 0.3}}, "under": [{"missing_rate": 0.7}]},
            "method none names a missing_rate, and so does under; name it in one place",
        ),
        ({"methods": {"none": {"fill": "one"}}}, "unknown fill 'one': did you mean 'ones'"),
        ({"methods": {"none": {"noise_profile": "realeased"}}}, "unknown noise profile 'realeased': did you mean"),
        ({"recipe": {"epoch": 3}}, "unknown recipe setting 'epoch': did you mean 'epochs'"),
        # What a job alone would find, hours later:
        ({"methods": ["mpm"]}, "unknown method 'mpm': did you mean 'mmp'"),
        (
            {"methods": {"mmp": {"settings": {"lenght": 2}}}},
            "unknown mmp method setting 'lenght': did you mean 'length'",
        ),
        ({"methods": {"mmp": {"settings": {"length": 0}}}}, "--prompt-length 0: must be 1 or more"),
        ({"heads": {"linear": None, "prototype": {"settings": {"scal": 2}}}}, "unknown prototype head setting 'scal'"),
        ({"recipes": {"digits": "dpl-mmimbd"}}, "unknown recipe 'dpl-mmimbd': did you mean 'dpl-mmimdb'"),
        (
            {"recipes": {"digit": "dpl-mmimdb"}},
            "unknown data set of the study's recipes 'digit': did you mean 'digits'",
        ),
        (
            {"methods": {"none": {"recipes": {"mmimd": "dpl-mmimdb"}}}},
            "unknown data set of the study's recipes 'mmimd': did you mean 'mmimdb'",
        ),
        (
            {"availability": True, "under": [{"scenario": "missing-both", "missing_rate": 0.7}]},
            "and evaluate has no cell at 0.7: add it to missing_rates, or missing-both to scenarios",
        ),
        ({"evaluate": {"f1_absent": "none"}}, "unknown --f1-absent 'none'"),
        ({"contrast": [{"axis": "head", "of": "prototype"}]}, "study's contrast: against is missing"),
        ({"heads": ["liner"], "contrast": None}, "unknown head 'liner': did you mean 'linear'"),
        ({"teacher": {"head": "liner"}}, "unknown head 'liner': did you mean 'linear'"),
        ({"under": [{"scenario": "missing-txt"}]}, "unknown scenario for image and text 'missing-txt'"),
        ({"under": [{"missing_rate": 7}]}, "missing rate 7 is not a share"),
        ({"evaluate": {"scenarios": ["missing-audio"]}}, "for data with audio: of .* it takes image and text"),
        ({"evaluate": {"seeds": 0}}, "--seeds 0: "),
        ({"evaluate": {"promptings": []}}, "the grid has no promptings"),
        ({"evaluate": None}, "study setting evaluate = None: must be a mapping"),
        # What would share a folder:
        ({"seeds": [0, 0]}, "2 trainings would be called digits/none-linear-missing-both-0.7-s0"),
        ({"under": [{}, {}]}, "2 trainings would be called digits/none-linear-missing-both-0.7-s0"),
        (
            {"under": [{"missing_rate": 0.7}, {"missing_rate": 0.70000001}]},
            "2 trainings would be called digits/none-linear-missing-both-0.7-s0",
        ),
        (
            {
                "methods": {"a": {"use": "none"}, "a-linear": {"use": "none"}},
                "heads": {"linear": None, "linear-linear": {"use": "linear"}},
                "contrast": None,
            },
            "2 trainings would be called digits/a-linear-linear-missing-both-0.7-s0",
        ),
        (
            {
                "teacher": {},
                "methods": {
                    "a": {"use": "none", "backbone": "openai/vit"},
                    "b": {"use": "none", "backbone": "laion/vit"},
                },
            },
            "the teachers of openai/vit and laion/vit would both be called digits/teacher-vit-linear-complete-s0",
        ),
    ],
)
def test_what_is_refused(digits: Dataset, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        jobs_of(parse_study({**SMALL, **change}), [digits.folder], tmp_path)


def test_a_built_in_study_is_printed_to_be_changed(cli: Callable[..., Any], tmp_path: Path) -> None:
    code, out, _ = cli("study", "list", "mmp-table")
    assert (code, out) == (0, builtin_studies()["mmp-table"].read_text())
    assert json.loads(cli("study", "list", "mmp-table", "--json").out)["seeds"] == [0, 1, 2]
    code, out, err = cli("study", "list", "mmp-tabel")
    assert (code, out) == (2, "") and "unknown study 'mmp-tabel': did you mean 'mmp-table'" in err


def test_what_the_command_refuses(cli: Callable[..., Any], digits: Dataset, tones: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("methods: [none]\nheadz: [linear]\n")
    for arguments, message in (
        (("mmp-rate", "--data", digits.folder), "unknown study 'mmp-rate': did you mean 'mmp-rates'"),
        ((tmp_path / "bad.yaml", "--data", digits.folder), "unknown study setting 'headz': did you mean 'heads'"),
        (("mmp-rates",), "the study names no data: say --data FOLDER"),
        (("mmp-table", "--data", tones), f"the study is for data with text: of {tones} it takes audio and image"),
        (("mmp-rates", "--data", digits.folder, "--engine", "rya"), "unknown engine 'rya': did you mean 'ray'"),
        (
            ("mmp-table", "--data", digits.folder, "--backbone", "nowhere", "--dry-run"),
            "backbone nowhere: is no folder",
        ),
    ):
        code, out, err = cli("study", "run", *arguments, "--out", tmp_path / "out")
        assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


def test_another_study_is_not_mixed_in(digits: Dataset, tmp_path: Path) -> None:
    study = parse_study({**SMALL, "methods": []} | {"methods": ["none"]})
    jobs = jobs_of(study, [digits.folder], tmp_path / "out")
    claim_folder(study, jobs, tmp_path / "out")
    (tmp_path / "out" / "results" / jobs[0].name).mkdir(parents=True)
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


def test_a_study_shows_complete_data_and_curves_first_and_each_prompting_apart() -> None:
    cells = [(scenario, prompting) for scenario in ("s", "t") for prompting in ("concat", "situation")]
    rows = [
        {"scenario": scenario, "prompting": prompting, "missing_rate": rate, "value": place}
        for place, ((scenario, prompting), rate) in enumerate(itertools.product(cells, (0.0, 1.0, math.nan)))
    ]
    shown = figures(pd.DataFrame(rows))
    found = list(zip(shown["figure"], shown["value"], strict=True))
    assert found == [("complete", 3), ("s", 5), ("t", 11), ("s, concat", 2), ("t, concat", 8)]
    alone = figures(pd.DataFrame([{"scenario": "s", "prompting": "concat", "missing_rate": 0.7, "value": 1}]))
    assert list(alone["figure"]) == ["s"]


def test_a_study_that_is_killed_is_finished_by_the_same_command(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps({**SMALL, "seeds": [0]}))
    command = [sys.executable, "-m", "mmrobust", "study", "run", str(tmp_path / "small.yaml")]
    command += ["--data", str(digits.folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stderr is not None
        for line in running.stderr:  # as soon as a job is done, in the midst of the next
            if line.rstrip().endswith(" done"):
                running.kill()
                break
        running.stderr.read()  # which ends when no process of it is left
    (done,) = (tmp_path / "out" / "results").rglob("done.json")  # none goes on without the study
    assert not (tmp_path / "out" / "study.md").exists()
    stamp = done.stat().st_mtime_ns
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert done.stat().st_mtime_ns == stamp
    assert "Points of Accuracy; under a scenario the mean height of the curve from 0 to 1 (AUC-η)." in finished.stdout
    assert "| prototype − linear | none |" in finished.stdout and "what the trainings cost" in finished.stdout
    table = pd.read_parquet(tmp_path / "out" / "study.parquet")
    assert len(table) == 2 * 3 and set(table["head"]) == {"linear", "prototype"} and table["value"].between(0, 1).all()
    assert not (tmp_path / "out" / "cache").exists()


ONE: dict[str, Any] = {**SMALL, "heads": ["linear"], "seeds": [0], "contrast": None}
JOB = "digits/none-linear-missing-both-0.7-s0"


def test_a_job_that_fails_names_the_recipe_of_its_settings(
    cli: Callable[..., Any], digits: Dataset, tmp_path: Path
) -> None:
    of_vilt = {**ONE, "backbone": "tiny-clip", "recipes": {"digits": "mmp-mmimdb"}}
    (tmp_path / "vilt.yaml").write_text(json.dumps(of_vilt))
    for dry in ((), ("--dry-run",)):
        command = ("study", "run", tmp_path / "vilt.yaml", "--data", digits.folder, "--out", tmp_path / "out", *dry)
        code, _, err = cli(*command)
        said = f"job {JOB}, with settings from recipe mmp-mmimdb: unknown clip backbone setting 'max_text_length'"
        assert "; name a recipe for this backbone under recipes, or none" in err
        assert code == 2 and said in err


def test_a_study_of_which_nothing_was_begun_does_not_hold_its_folder(digits: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for backbone in ("tiny-clip", "tiny-vilt"):
        study = parse_study({**ONE, "backbone": backbone})
        jobs = jobs_of(study, [digits.folder], out)
        claim_folder(study, jobs, out)
    (out / "checkpoints" / jobs[-1].name).mkdir(parents=True)
    study = parse_study({**ONE, "backbone": "tiny-clip"})
    with pytest.raises(UsageError, match="holds another study"):
        claim_folder(study, jobs_of(study, [digits.folder], out), out)


def test_an_error_in_a_job_is_told_as_what_it_is(digits: Dataset, tmp_path: Path) -> None:
    study = parse_study(ONE)
    claim_folder(study, [], tmp_path / "out")
    (tmp_path / "out" / "checkpoints").write_text("no folder")
    with pytest.raises(TrainingError, match=rf"^job {JOB}: unexpected (FileExists|NotADirectory)Error: .*checkpoints"):
        run_study(study, jobs_of(study, [digits.folder], tmp_path / "out"), tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts by signal")
def test_ctrl_c_stops_a_study_at_once_in_a_line(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps({**SMALL, "seeds": [0]}))
    command = [sys.executable, "-m", "mmrobust", "study", "run", str(tmp_path / "small.yaml")]
    command += ["--data", str(digits.folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    lines = ["2 jobs, 0 of them done already", f"{JOB} done"]
    for done in (0, 1):
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        ) as running:
            assert running.stderr is not None
            said = []
            for line in running.stderr:
                if not line.startswith("jobs: "):  # how far it is
                    said.append(line.rstrip())
                if line.rstrip() == lines[done]:
                    time.sleep(0.5)  # the process of the next job begins
                    os.killpg(running.pid, signal.SIGINT)  # as a terminal does, to every process of the study
        assert running.returncode == 130
        assert said == [
            *lines[: 1 + done],
            f"mmrobust: study stopped after {done} of 2 jobs; the same command continues",
        ]


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_job_that_is_killed_may_have_lacked_memory(digits: Dataset, tmp_path: Path) -> None:
    study = parse_study(ONE)

    def kill() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.05)
        children[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError, match=rf"^job {JOB}: its process was killed \(signal 9\); too little memory"):
        run_study(study, jobs_of(study, [digits.folder], tmp_path / "out"), tmp_path / "out")
    killer.join()


def test_on_ray_relative_paths_are_those_of_whoever_asks(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    (tmp_path / "asks").mkdir()
    shutil.copytree(digits.folder, tmp_path / "asks" / "data")
    study = parse_study({**ONE, "teacher": {"recipe": {"epochs": 1, "share": 0.3}}})
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # of Ray's workers
    monkeypatch.chdir(tmp_path)
    with connected(None, 1):  # its workers begin in another folder
        monkeypatch.chdir(tmp_path / "asks")
        jobs = jobs_of(study, [Path("data")], Path("out"))
        run_study(study, jobs, Path("out"), engine="ray")
    assert len(list((tmp_path / "asks" / "out" / "results").rglob("done.json"))) == len(jobs) == 2


def test_a_ray_cluster_that_is_not_there_is_said(digits: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    study = parse_study(ONE)
    jobs = jobs_of(study, [digits.folder], tmp_path / "out")
    with pytest.raises(UsageError, match=r"--ray-address 127\.0\.0\.1:1: no Ray cluster answers"):
        run_study(study, jobs, tmp_path / "out", engine="ray", address="127.0.0.1:1")


def test_a_dry_run_is_of_the_device_that_is_asked_for(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(json.dumps(ONE))
    command = ("study", "run", tmp_path / "one.yaml", "--data", digits.folder, "--out", tmp_path / "out", "--dry-run")
    code, out, err = cli(*command, "--device", "cuda:99")
    assert (code, out) == (2, "") and "device cuda:99: PyTorch sees" in err
    code, out, err = cli(*command, "--device", "cpu", "--dtype", "bfloat16")
    assert code == 0, err
    assert "1 jobs, a seed each: about" in out


def test_a_job_loads_its_model_twice_and_the_dry_run_counts_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> Any:
        time.sleep(2)
        return set_up(*arguments)

    monkeypatch.setattr("mmrobust.studies.estimate.set_up", slow)
    study = parse_study(ONE)
    (found,) = estimate(study, jobs_of(study, [digits.folder], tmp_path), tmp_path).values()
    assert found.seconds > 4


def test_a_dry_run_lists_the_jobs(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    command = ("study", "run", tmp_path / "small.yaml", "--data", digits.folder, "--out", tmp_path / "out", "--dry-run")
    code, out, err = cli(*command)
    assert code == 0, err
    assert re.search(r"^digits/none-prototype-missing-both-0.7 +× 2 ", out, re.MULTILINE) and "4 jobs, a seed" in out
    assert out.count("  recipe default\n") == 2
    assert "starting each job and scoring it are not counted" in err
    assert not (tmp_path / "out").exists()


def test_the_page_says_what_the_papers_tables_train(digits: Dataset, tones: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    listed = page.partition("| study | methods |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in listed.splitlines()[2:]]
    films = named(digits, tmp_path / "data", "mmimdb")
    told: dict[str, set[str]] = {}
    for study, methods, heads, under, number, *recipe, prompts in rows:
        jobs = jobs_of(read_study(study.strip("`")), [tones if "ptm" in study else films], tmp_path)
        names = re.findall(r"`([\w-]+)`", methods)
        chosen = [job for job in jobs if job.method in names]
        assert {job.method for job in chosen} == set(names) and len(chosen) == int(number), (study, methods)
        assert {job.head for job in chosen} == set(re.findall(r"`([\w-]+)`", heads))
        if under != "the same":
            scenarios, rates = re.findall(r"`([\w-]+)`", under), re.findall(r"[\d.]+", under)
            told[study] = {f"{s} {r}" for s in scenarios for r in rates} or {under}
        assert {job.trained_under for job in chosen} == told[study]
        for job in chosen:
            own = job.settings.recipe
            assert [f"{value:g}" for value in (own.batch_size, own.epochs, own.lr)] == recipe, job.name
            assert str(getattr(job.settings.method_config(), "length", "–")) == prompts, job.name
    for study in ("mmp-table", "dpl-table", "ptm-table"):
        jobs = jobs_of(read_study(study), [tones if "ptm" in study else films], tmp_path)
        assert len(jobs) == sum(int(row[4]) for row in rows if row[0] == f"`{study}`")


def test_the_page_lists_the_keys_of_a_study() -> None:
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", page.partition("| key | what it says |")[2].partition("\n\n")[0], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {each.name for each in dataclasses.fields(Study)}
