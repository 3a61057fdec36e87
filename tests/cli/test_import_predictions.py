"""``mmrobust import predictions``: logits of any program become results like those of ``eval``."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrobust.cli import app
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.store import shard_headers
from mmrobust.storage.results import RESULTS_KEYS, read_results
from mmrobust.storage.tasks import TASK_METRICS

Cli = Callable[..., Any]
PAIR = ("image", "text")
MISSING = "missing-image,missing-text,missing-both"
FEW = ("--missing-rate", "0,0.5,1", "--seeds", "2")
FIGURES = ["n", "n_affected", "n_naturally_missing", "value", "ci_low", "ci_high"]
CELL = [key for key in RESULTS_KEYS if key != "checkpoint"]


def exported(folder: Path, classes: Sequence[str], *, columns: Iterable[str] = ("prompting", "noise_seed")) -> Any:
    """The predictions of a results folder as a table of one column per class."""
    shards = sorted((folder / "predictions").glob("*.parquet"))
    frame = pd.concat([pq.read_table(shard).to_pandas() for shard in shards], ignore_index=True)
    logits = pd.DataFrame(np.stack(frame["logits"]), columns=list(classes))
    return pd.concat([frame[["id", "case", *columns]], logits], axis=1)


def write(file: Path, rows: pd.DataFrame, **settings: Any) -> Path:
    rows.to_csv(file, index=False, **settings)
    return file


@pytest.fixture(scope="module")
def made(digits: Dataset) -> pd.DataFrame:
    """A plain prediction in every missing case: of a model that knows the label of two samples in three."""
    random = np.random.default_rng(3)
    split = digits.split("test")
    rows = []
    for case in ("complete", "missing-image", "missing-text"):
        for position, sample in enumerate(split.ids):
            logits = random.normal(size=10).round(3)
            if position % 3:
                logits[split.labels[position][0]] += 3
            rows.append([sample, case, *logits])
    return pd.DataFrame(rows, columns=["id", "case", *digits.info.classes])


LEFT_ASIDE = "digits has image, text, audio: only image and text used, audio left aside; --modalities chooses\n"


@pytest.fixture
def bring(cli: Cli, digits: Dataset, tmp_path: Path) -> Callable[..., Any]:
    """Import a table, as CSV, into the folder ``out``."""

    def run(
        rows: pd.DataFrame, *flags: object, data: Path = digits.folder, out: str = "out", name: str = "mine"
    ) -> Any:
        file = write(tmp_path / "mine.csv", rows)
        command = ("import", "predictions", file, "--data", data, "--name", name)
        outcome = cli(*command, *flags, "--out", tmp_path / out)
        return outcome._replace(err=outcome.err.replace(LEFT_ASIDE, ""))

    return run


def figures(folder: Path) -> pd.DataFrame:
    frame = read_results(folder).frame
    return frame[[*CELL, *FIGURES]].sort_values(CELL, ignore_index=True)


# The same figures as an evaluation


@pytest.fixture(scope="module")
def evaluated(
    trained: Callable[..., Path], digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The results folder of a checkpoint: noise of one seed where it takes any, and few cells."""
    folder = tmp_path_factory.mktemp("evaluated")

    def of(method: str) -> Path:
        if not (folder / method).is_dir():
            noisy = ["--scenario", f"{MISSING},noisy-image:shot@3", "--noise-seed", "5"] * (method == "none")
            data = ["--data", str(digits.folder), *FEW]
            words = ["eval", str(trained(method, "linear")), *data, *noisy, "--out", str(folder / method), "--quiet"]
            assert app.run(words) == 0
        return folder / method

    return of


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "commas": ("csv", {}),
    "semicolons": ("csv", {"sep": ";", "encoding": "utf-8-sig", "lineterminator": "\r\n"}),
    "tabs": ("csv", {"sep": "\t", "encoding": "utf-8-sig"}),
    "tsv": ("tsv", {"sep": "\t", "quoting": csv.QUOTE_ALL}),
    "parquet": ("parquet", {}),
}


@pytest.mark.parametrize("method", ["none", "mmp"])
@pytest.mark.parametrize("form", FORMS)
def test_predictions_of_an_evaluation_give_its_results_to_the_last_digit(
    cli: Cli, evaluated: Callable[[str], Path], digits: Dataset, tmp_path: Path, method: str, form: str
) -> None:
    rows = exported(evaluated(method), digits.info.classes)
    if method == "none":  # its predictions do not depend on prompting
        rows = rows.drop(columns="prompting")
    rows = rows.sample(frac=1, random_state=0)[sorted(rows, reverse=True)]  # in any order
    suffix, settings = FORMS[form]
    file = tmp_path / f"it.{suffix}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), file)
    else:
        write(file, rows, **settings)
    command = ("import", "predictions", file, "--data", digits.folder, "--name", "it", *FEW, "--out", tmp_path / "out")
    for new in (len(rows), 0):  # a second time, nothing is new and nothing changes
        code, out, err = cli(*command)
        assert code == 0, err
        assert out.startswith(f"it: {len(rows):,} predictions, {new:,} of them new: ") and err == LEFT_ASIDE
        pd.testing.assert_frame_equal(figures(tmp_path / "out"), figures(evaluated(method)), check_exact=True)
    noise = {"profile": "default", "seed": 5} if method == "none" else None
    assert read_results(tmp_path / "out").provenance["noise"] == noise


def test_every_command_reads_them(cli: Cli, evaluated: Callable[[str], Path], digits: Dataset, tmp_path: Path) -> None:
    theirs, ours = evaluated("mmp"), tmp_path / "ours"
    file = write(tmp_path / "it.csv", exported(theirs, digits.info.classes))
    code, _, err = cli("import", "predictions", file, "--data", digits.folder, "--name", "it", "--out", ours)
    assert code == 0, err
    assert len(read_results(ours).frame) == 3 * 11 * 3 * 2 * 2  # the default grid: both promptings, two metrics
    code, _, err = cli("score", ours, "--missing-rate", "0,0.5,1", "--seeds", 2)
    assert code == 0, err
    for command in (
        ("report", ours, "--details", "--html", tmp_path / "page.html"),
        ("check", ours, "--baseline", theirs, "--fail", "accuracy:-0.01", "--fail", "accuracy>=0.01"),
        ("check", theirs, "--baseline", ours, "--fail", "accuracy:-0.01"),
        ("compare", ours, theirs),
        ("baseline", "save", ours, tmp_path / "baseline", "--allow-dirty"),
        ("check", ours, "--baseline", tmp_path / "baseline"),
    ):
        code, out, err = cli(*command)
        assert code == 0, (command, out, err)
    for folder in (ours, theirs):
        again = ("score", folder, "--missing-rate", 0.25, "--seeds", 3, "--out", tmp_path / folder.name / "again")
        code, _, err = cli(*again)
        assert code == 0, err
    again = [figures(tmp_path / folder.name / "again") for folder in (ours, theirs)]
    pd.testing.assert_frame_equal(*again, check_exact=True)


# What lacks, and what is too many


def test_the_default_grid_is_scored_at_once(bring: Callable[..., Any], made: pd.DataFrame, tmp_path: Path) -> None:
    code, out, err = bring(made)
    assert (code, err) == (0, "")
    assert out == (
        "mine: 180 predictions, 180 of them new: complete 60, missing-image 60, missing-text 60; 198 cells scored   "
        f"{tmp_path / 'out'}\n"
    )
    results = read_results(tmp_path / "out")
    assert set(results.frame["prompting"]) == {"situation", "concat"}  # which make no difference
    accuracy = results.frame.query("metric == 'accuracy' and missing_rate == 0")["value"]
    assert set(accuracy) == {np.mean(made.iloc[:60, 2:].to_numpy().argmax(axis=1) == labels_of(made, tmp_path))}


def labels_of(made: pd.DataFrame, tmp_path: Path) -> list[int]:
    """The labels that the results folder holds, in the order of the samples."""
    (shard,) = (tmp_path / "out" / "predictions").iterdir()
    rows = pq.read_table(shard).to_pylist()
    label = {row["id"]: row["label"][0] for row in rows}
    return [label[sample] for sample in made["id"][:60]]


def test_cells_that_lack_predictions_are_left_out_and_counted(
    bring: Callable[..., Any], cli: Cli, made: pd.DataFrame, tmp_path: Path
) -> None:
    first = made[
        (made["case"] != "missing-text") & ~((made["case"] == "missing-image") & (made["id"] == made["id"][5]))
    ]
    code, out, err = bring(first)
    assert code == 0 and "119 of them new" in out
    assert err.startswith(
        f"'mine' lacks 61 of the 180 predictions that these cells need: missing-image 1 (such as '{made['id'][5]}'), "
        f"missing-text 60 (such as '{made['id'][0]}'); "
    )
    few = figures(tmp_path / "out")
    assert f"{198 - len(few) // 2} of 198 cells are left out until they are imported too" in err
    assert set(few.query("scenario != 'missing-image'")["missing_rate"]) == {0.0}
    code, out, err = cli("report", tmp_path / "out")
    assert code == 0 and "missing-image" in out

    code, _, err = cli("score", tmp_path / "out", "--scenario", "missing-text", "--missing-rate", 1, "--seeds", 1)
    assert code == 2
    assert (
        "in case 'missing-text' under prompting 'situation'; list what is needed with: mmrobust plan --data DIR "
        "--scenario missing-text --missing-rate 1 --seeds 1 --out PLAN; then: mmrobust import predictions FILE "
        f"--data DIR --name mine --out {tmp_path / 'out'}"
    ) in err

    # The others come later, under the same name: the table is that of a single import.
    code, out, err = bring(made[~made.index.isin(first.index)])
    assert (code, err) == (0, "") and "61 predictions, 61 of them new" in out
    assert bring(made, out="whole").code == 0
    pd.testing.assert_frame_equal(figures(tmp_path / "out"), figures(tmp_path / "whole"), check_exact=True)
    about = read_results(tmp_path / "out").provenance["checkpoints"]["mine"]
    assert [entry["file"] for entry in about["imported"]] == ["mine.csv", "mine.csv"]
    assert about["method"] == "imported" and about["depends_on_prompting"] is False


def test_without_a_complete_cell_there_are_predictions_but_no_results(
    bring: Callable[..., Any], cli: Cli, made: pd.DataFrame, tmp_path: Path
) -> None:
    code, out, err = bring(made[:30], "--json")
    assert code == 0
    assert json.loads(out) == {
        "cases": {"complete": 30},
        "new": 30,
        "unneeded": 0,
        "lacking": {"complete": 30, "missing-image": 60, "missing-text": 60},
        "cells": 0,
        "incomplete_cells": 198,
    }
    assert "198 of 198 cells are left out" in err
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == ["predictions"]
    code, _, err = cli("score", tmp_path / "out")
    add = f"add the missing ones with: mmrobust import predictions FILE --data DIR --name mine --out {tmp_path / 'out'}"
    assert code == 2 and f"holds 30 predictions of 'mine', which is evaluated on 60 samples; {add}" in err
    assert bring(made[30:]).code == 0
    assert len(figures(tmp_path / "out")) == 396


def test_what_is_too_many_is_named_and_left_out(
    bring: Callable[..., Any], digits: Dataset, made: pd.DataFrame, tmp_path: Path
) -> None:
    strangers = made[:3].assign(id=["x1", "x2", "x1"])
    rows = pd.concat([made, made[10:12], strangers]).assign(note="ok", image="a.png")
    code, out, err = bring(rows)
    assert code == 0 and "180 predictions, 180 of them new" in out
    place = f"{tmp_path / 'mine.csv'}: "
    assert err.splitlines() == [
        f"{place}2 columns are no classes: 'note', 'image'",
        f"{place}2 samples (3 rows) are not in split 'test' of {digits.folder} and left out: 'x1', 'x2'",
        f"{place}2 rows repeated with the same values, such as sample '{made['id'][10]}' in case 'complete'",
    ]
    assert bring(rows, "--quiet", out="quiet").err == ""


def test_other_cases_are_kept_and_become_scenarios(
    bring: Callable[..., Any], cli: Cli, made: pd.DataFrame, tmp_path: Path
) -> None:
    more = made[:60].assign(case="noisy-text:word-drop@2 ")
    part = made[60:90].assign(case="noisy-both@1")
    swapped = made[:60].assign(case="noisy-text:ocr@1+noisy-image:blur@2")  # as a person might write it
    code, _, err = bring(pd.concat([made, more, part, swapped]), "--noise-seed", 7)
    assert code == 0, err
    assert "'mine' lacks 30 of the 360 predictions that these cells need: noisy-both@1 30" in err
    results = read_results(tmp_path / "out")
    scenarios = {*MISSING.split(","), "noisy-text:word-drop@2", "noisy-both@1", "noisy-image:blur@2+noisy-text:ocr@1"}
    assert set(results.frame["scenario"]) == scenarios
    assert set(results.frame.query("scenario == 'noisy-both@1'")["missing_rate"]) <= {0.0, 0.1, 0.2, 0.3, 0.4}
    assert results.provenance["noise"] == {"profile": "default", "seed": 7}

    # Only the grid that is asked for: the other predictions are kept, and scored later.
    code, _, err = bring(pd.concat([made, more]), "--scenario", "missing-text", "--missing-rate", "0.3", out="asked")
    tables = [
        missing_table(list(made["id"][:60]), Scenario.parse("missing-text", PAIR), 0.3, seed) for seed in range(3)
    ]
    unneeded = 240 - len({pair for table in tables for pair in table.items()})
    assert (code, err) == (0, f"'mine': {unneeded} predictions that no cell needs are kept\n")
    assert set(read_results(tmp_path / "asked").frame["scenario"]) == {"missing-text"}
    code, _, err = cli("score", tmp_path / "asked", "--scenario", "noisy-text:word-drop@2", "--missing-rate", "0,1")
    assert code == 0, err


def test_a_missing_table_from_a_file_is_scored(
    bring: Callable[..., Any], cli: Cli, digits: Dataset, made: pd.DataFrame, tmp_path: Path
) -> None:
    table = ("--scenario", "missing-both", "--missing-rate", 0.5, "--seed", 1, "--out", tmp_path / "half.csv")
    assert cli("data", "missing-table", digits.folder, *table).code == 0
    code, out, err = bring(made, "--missing-table", tmp_path / "half.csv")
    assert code == 0 and "2 cells scored" in out, err
    (tmp_path / "half.csv").unlink()
    assert bring(made).code == 0  # extended, the table stays
    scenarios = read_results(tmp_path / "out").frame.groupby("scenario")["value"].count()
    (given,) = [name for name in scenarios.index if name.startswith("table:half@")]
    assert scenarios[given] == 4 and scenarios["missing-both"] == 132
    assert cli("score", tmp_path / "out").code == 0


# Extending, contradicting, replacing


def test_a_prediction_that_contradicts_one_that_is_there_is_refused(
    bring: Callable[..., Any], made: pd.DataFrame, tmp_path: Path
) -> None:
    assert bring(made).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")}
    other = made.copy()
    other.loc[[61, 70], "3"] += 0.001
    code, out, err = bring(other)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert (
        f"its prediction of sample '{made['id'][61]}' in case 'missing-image' is not the one that {tmp_path / 'out'} "
        "holds of 'mine' (2 differ in this case); give another --name, or --replace to drop the earlier ones"
    ) in err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")} == before

    code, out, err = bring(other, name="other")
    assert code == 0, err
    assert set(read_results(tmp_path / "out").frame["checkpoint"]) == {"mine", "other"}
    code, out, err = bring(other[:120], "--replace")
    assert code == 0 and "120 of them new" in out, err
    assert bring(other[:120], out="fresh").code == 0
    frame = read_results(tmp_path / "out").frame.query("checkpoint == 'mine'")
    pd.testing.assert_frame_equal(
        frame[[*CELL, *FIGURES]].sort_values(CELL, ignore_index=True), figures(tmp_path / "fresh"), check_exact=True
    )
    assert len(list((tmp_path / "out" / "predictions").iterdir())) == 2  # one file for each name


def test_replacing_all_with_what_completes_no_cell_leaves_no_results(
    bring: Callable[..., Any], made: pd.DataFrame, tmp_path: Path
) -> None:
    assert bring(made).code == 0
    assert bring(made[:40], "--replace").code == 0
    assert not (tmp_path / "out" / "results.parquet").exists()
    assert bring(made, name="other").code == 0
    assert bring(made[:50], "--replace").code == 0
    assert set(read_results(tmp_path / "out").frame["checkpoint"]) == {"other"}


@pytest.mark.parametrize("call", ["write_results", "write_shard"])
def test_an_import_that_is_killed_goes_on(
    bring: Callable[..., Any],
    digits: Dataset,
    made: pd.DataFrame,
    tmp_path: Path,
    call: str,
) -> None:
    """Killed as it writes the table, or its second shard: the same command makes the table of an import at once."""
    rows = pd.concat([made, made[:60].assign(case="noisy-text:ocr@2")])
    place = {"write_results": "mmrobust.evaluation.imported", "write_shard": "mmrobust.scoring.writer"}[call]
    file = write(tmp_path / "killed.csv", rows)
    words = ["import", "predictions", str(file), "--data", str(digits.folder), "--name", "mine", "--out"]
    code = f"""
import os, {place} as place
from mmrobust.cli.app import run
calls, before = [], place.{call}
def killed(*args):
    calls.append(args)
    if len(calls) == {1 if call == "write_results" else 2}:
        os.kill(os.getpid(), 9)
    before(*args)
place.{call} = killed
run({[*words, str(tmp_path / "out")]!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not (tmp_path / "out" / "results.parquet").exists()
    assert len(list((tmp_path / "out" / "predictions").glob("*.parquet"))) == (2 if call == "write_results" else 1)
    for out in ("out", "whole"):
        exit_code, _, err = bring(rows, out=out)
        assert exit_code == 0, err
    pd.testing.assert_frame_equal(figures(tmp_path / "out"), figures(tmp_path / "whole"), check_exact=True)


def test_more_cases_keep_how_the_results_were_scored(
    bring: Callable[..., Any], cli: Cli, made: pd.DataFrame, tmp_path: Path
) -> None:
    assert bring(made[:120]).code == 0
    rates = ("--missing-rate", "0,0.35", "--seeds", 2)
    settings = ("--scenario", "missing-image", "--f1-absent", "skip", "--resamples", 50)
    code, _, err = cli("score", tmp_path / "out", *settings, *rates)
    assert code == 0, err
    before = read_results(tmp_path / "out")
    assert bring(made).code == 0
    after = read_results(tmp_path / "out")
    assert (
        after.provenance["scoring"] == before.provenance["scoring"] and after.provenance["scoring"]["resamples"] == 50
    )
    both = before.frame.merge(after.frame, on=list(RESULTS_KEYS))
    assert len(both) == len(before.frame)  # the cells of before are still there, and the same
    assert (both["value_x"] == both["value_y"]).all() and (both["ci_low_x"] == both["ci_low_y"]).all()


def test_they_share_a_folder_with_a_checkpoint_but_not_its_name(
    bring: Callable[..., Any],
    cli: Cli,
    trained: Callable[..., Path],
    digits: Dataset,
    made: pd.DataFrame,
    tmp_path: Path,
) -> None:
    checkpoint = trained("none", "linear")
    assert cli("eval", checkpoint, "--data", digits.folder, *FEW, "--out", tmp_path / "out").code == 0
    code, _, err = bring(made, name=checkpoint.name)
    assert code == 2
    assert f"'{checkpoint.name}' is a model that mmrobust eval evaluated; give another --name or --out" in err
    assert bring(made, *FEW).code == 0
    code, out, err = cli("report", tmp_path / "out")
    assert code == 0 and "mine" in out and checkpoint.name in out
    code, _, err = cli("score", tmp_path / "out", "--missing-rate", "0.2")
    assert code == 0, err
    assert cli("eval", checkpoint, "--data", digits.folder, *FEW, "--out", tmp_path / "out").code == 0
    assert set(read_results(tmp_path / "out").frame["checkpoint"]) == {"mine", checkpoint.name}


def test_an_extension_is_of_the_same_model_and_data(
    bring: Callable[..., Any], made: pd.DataFrame, tmp_path: Path
) -> None:
    assert bring(made[:90]).code == 0
    prepare_digits(tmp_path / "fewer", limit=30)
    way_out = "; give another --name or --out, or --replace to drop the earlier ones"
    told = made.assign(prompting="situation")
    for rows, flags, said in (
        (told, {}, f"with another column 'prompting' (not there, these: there){way_out}"),
        (made, {"--modalities": "text,image"}, f"with another modalities (image + text, these: text + image){way_out}"),
        (made, {"data": tmp_path / "fewer"}, "holds results on digits (test, 60 samples"),
    ):
        data = {"data": flags.pop("data")} if "data" in flags else {}
        code, _, err = bring(rows, *(word for pair in flags.items() for word in pair), **data)
        assert code == 2 and said in err.splitlines()[-1], err
    noisy = made[:60].assign(case="noisy-text:ocr@2", noise_seed=1)
    assert bring(noisy).code == 0
    code, _, err = bring(noisy.assign(case="noisy-text:ocr@3", noise_seed=2))
    assert (
        code == 2 and "holds results under noise profile default, seed 1, these would be under default, seed 2" in err
    )
    assert bring(made[90:]).code == 0  # of no noisy case: the noise stays
    assert read_results(tmp_path / "out").provenance["noise"] == {"profile": "default", "seed": 1}


def test_promptings_that_are_told_apart(bring: Callable[..., Any], made: pd.DataFrame, tmp_path: Path) -> None:
    situation = made.assign(prompting="situation")
    assert bring(situation).code == 0
    assert set(read_results(tmp_path / "out").frame["prompting"]) == {"situation"}
    concat = made.assign(prompting=" concat ")
    concat["0"] += 1
    code, out, err = bring(concat)
    assert (code, err) == (0, "") and "198 cells scored" in out
    frame = read_results(tmp_path / "out").frame
    assert set(frame["prompting"]) == {"situation", "concat"}
    values = {
        prompting: frame[frame["prompting"] == prompting]["value"].to_numpy() for prompting in set(frame.prompting)
    }
    assert (values["situation"] != values["concat"]).any()


# Scales and tasks


def data_set(folder: Path, task: str, classes: Sequence[str], labels: Sequence[tuple[int, ...]]) -> Path:
    """A data set whose media nobody looks at."""
    write_dataset(
        folder,
        [SampleRow("test", f"s{n}", label, image=b"-", text="x") for n, label in enumerate(labels)],
        name="made",
        modalities=PAIR,
        classes=classes,
        task=task,
        headline_metric=TASK_METRICS[task][0],
        licence="CC0",
        source="made",
    )
    return folder


@pytest.mark.parametrize("task", ["single-label", "multi-label", "binary"])
def test_probabilities_give_the_figures_of_their_logits(cli: Cli, tmp_path: Path, task: str) -> None:
    random = np.random.default_rng(5)
    classes = ["no", "yes"] if task == "binary" else ["a", "b", "c"]
    members = random.random((40, len(classes))) < 0.4
    labels = [tuple(np.flatnonzero(row).tolist()) for row in members]
    if task != "multi-label":
        labels = [(int(random.integers(len(classes))),) for _ in range(40)]
    data = data_set(tmp_path / "data", task, classes, labels)
    logits = random.normal(size=(120, len(classes))) * 3
    logits[0] = (40, -40, 40)[: len(classes)]  # probabilities of 1 and 0, as printed
    cases = np.repeat(["complete", "missing-image", "missing-text"], 40)
    about = pd.DataFrame({"id": [f"s{n}" for n in range(40)] * 3, "case": cases})
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shares / shares.sum(axis=1, keepdims=True) if task != "multi-label" else 1 / (1 + np.exp(-logits))
    for name, values in (("logits", logits), ("probabilities", probabilities)):
        file = write(tmp_path / f"{name}.csv", pd.concat([about, pd.DataFrame(values, columns=classes)], axis=1))
        words = ("--data", data, "--name", "it", "--scale", name, *FEW, "--out", tmp_path / name)
        code, _, err = cli("import", "predictions", file, *words)
        assert (code, err) == (0, "")
    pd.testing.assert_frame_equal(figures(tmp_path / "logits"), figures(tmp_path / "probabilities"), check_exact=True)

    code, _, err = cli("import", "predictions", file, "--data", data, "--name", "it", *FEW, "--out", tmp_path / "wrong")
    assert code == 0 and "all values lie between 0 and 1: if they are probabilities, give --scale probabilities" in err


# What cannot be imported


def changed(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.astype(object)
        rows.loc[row, column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        (
            lambda rows: rows.drop(columns="id"),
            "",
            "no column 'id'; predictions have id, case, and one column per class",
        ),
        (lambda rows: rows.drop(columns="case"), "", "no column 'case'"),
        (lambda rows: rows.drop(columns=["3", "7"]), "", "no column for 2 of the 10 classes of split 'test' of "),
        (lambda rows: rows.rename(columns={"0": "0.0"}), "", "'0' (is '0.0' meant for '0'?); columns and classes are"),
        (lambda rows: rows[:0], "", "has no rows"),
        (
            lambda rows: rows.assign(id=range(180)),
            "",
            "none of its 180 samples ('0', '1', '2' …) is in split 'test' of ",
        ),
        (changed(4, "id", ""), "", "row 5 (line 6): has no id"),
        (changed(4, "case", ""), "", "row 5 (line 6): has no case"),
        (
            changed(4, "case", "missing-txt"),
            "",
            "row 5 (line 6): unknown case 'missing-txt': did you mean 'missing-text'?",
        ),
        (changed(4, "case", "missing-audio"), "", "--modalities names those of the model"),
        (changed(4, "case", "missing-image+missing-text"), "", "a case with nothing present"),
        (changed(4, "case", "noisy-image:blurr@3"), "", "unknown corruption of image 'blurr': did you mean 'blur'?"),
        (
            changed(4, "case", "noisy-text"),
            "--noise-profile released",
            "no noise for text, as case 'noisy-text' needs it",
        ),
        (
            lambda rows: rows.assign(prompting="situatoin"),
            "",
            "unknown prompting 'situatoin': did you mean 'situation'?",
        ),
        (changed(4, "3", "nan"), "", "in case 'complete': its value nan for class '3' is not a finite number"),
        (changed(4, "3", "-inf"), "", "its value -inf for class '3' is not a finite number"),
        (changed(4, "3", "1e39"), "", "its value 1e+39 for class '3' is not a finite number (of 32 bits)"),
        (lambda rows: rows.assign(**{"3": "nan"}), "", "is not a finite number (of 32 bits) (179 more rows like it)"),
        (changed(4, "3", ""), "", "row 5 (line 6): class '3': has no value"),
        (changed(4, "3", "high"), "", "row 5 (line 6): class '3': 'high' is not a number"),
        (changed(4, "3", "0,5"), "", "class '3': '0,5' is not a number; write decimals with a point"),
        (changed(4, "3", "1_000"), "", "'1_000' is not a number"),
        (
            lambda rows: pd.concat([rows, changed(2, "3", 9)(rows)[2:3]]),
            "",
            "in case 'complete' has two rows with diff",
        ),
        (lambda rows: rows, "--scale probabilities", "is not a probability; --scale says what it is (17"),
        (lambda rows: rows.assign(**{str(n): 0.2 for n in range(10)}), "--scale probabilities", "add up to 2, not 1"),
        (lambda rows: rows, "--scale logit", "unknown --scale 'logit': did you mean 'logits'?"),
        (lambda rows: rows, "--split tset", "did you mean 'test'?"),
        (lambda rows: rows, "--modalities image,vidio", "unknown modality of digits 'vidio'"),
        (lambda rows: rows, "--scenario missing-txt", "did you mean 'missing-text'?"),
        (
            lambda rows: rows.assign(case="noisy-text:ocr@1", noise_seed=-1),
            "",
            "noise_seed: '-1' is not a whole number",
        ),
        (
            lambda rows: rows.assign(case="noisy-text:ocr@1", noise_seed=[1, 2] * 90),
            "",
            "rows under noise seeds 1 and 2",
        ),
    ],
)
def test_what_is_wrong_is_a_line(
    bring: Callable[..., Any], made: pd.DataFrame, tmp_path: Path, change: Any, flags: str, said: str
) -> None:
    code, out, err = bring(change(made), *flags.split())
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "out" / "predictions").exists()


def test_files_that_are_none(cli: Cli, digits: Dataset, made: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes("id,case,é\n".encode("latin-1"))
    (tmp_path / "short.csv").write_text("id,case,0\nx,complete\n")
    (tmp_path / "twice.csv").write_text("id,case,id\n")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    (tmp_path / "name.txt").write_text("id,case\n")
    twice = pa.table([["x"], ["complete"], [0.1], [0.2]], names=["id", "case", "0", "0"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    for name, said in {
        "nowhere.csv": "no such file; name the predictions",
        "empty.csv": "is empty; the first line must name the columns",
        "latin.csv": "is not UTF-8 text",
        "short.csv": "no column for 9 of the 10 classes",
        "twice.csv": "column 'id' appears twice",
        "torn.parquet": "cannot be read as Parquet",
        "twice.parquet": "column '0' appears twice",
        "name.txt": "its format is unknown; the name must end in .csv, .tsv, .jsonl, .parquet",
        ".": "is a folder; name the predictions itself",
    }.items():
        words = ("--data", digits.folder, "--name", "it", "--out", tmp_path / "out")
        code, out, err = cli("import", "predictions", tmp_path / name, *words)
        assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err
    code, _, err = cli("import", "predictions", write(tmp_path / "it.csv", made), *words[:2], "--name", " ", *words[4:])
    assert code == 2 and "--name is empty" in err


def test_a_class_that_is_called_like_a_column(cli: Cli, tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", "single-label", ["case", "b"], [(0,), (1,)])
    (tmp_path / "it.csv").write_text("id,case,b\n")
    command = ("import", "predictions", tmp_path / "it.csv", "--data", data, "--name", "it", "--out", tmp_path / "out")
    code, _, err = cli(*command)
    assert code == 2 and "class 'case' of split 'test' of" in err and "has the name of a column" in err


def test_it_needs_no_torch(digits: Dataset, made: pd.DataFrame, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", made)
    arguments = [
        "import",
        "predictions",
        str(file),
        "--data",
        str(digits.folder),
        "--name",
        "it",
        "--out",
        str(tmp_path),
    ]
    code = (
        f"import sys; from mmrobust.cli.app import run; code = run({arguments!r}); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


TOKENS = (
    *(b"", b"nan", b"inf", b"-1e400", b"0x1", b"1,5", b'"', b"\x00", b"\xff\xfe", b";", b"\t", b"\r", b"\n", b"\n\n"),
    *(b"complete", b"missing-image", b"noisy-text", b"noisy-both@9", b"noisy-image:blur@3", b"missing-", b"concat"),
    *(b"id", b"case", b"prompting", b"noise_seed", b"99999999999999999999", b"digit-0001", "é\u2028😀".encode()),
)


def damage(content: bytes, wounds: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, token in wounds:
        at = place % (len(content) + 1)
        content = content[:at] + token + content[at + length :]
    return content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wounds=st.lists(
        st.tuples(st.integers(0, 2**16), st.integers(0, 60), st.sampled_from(TOKENS) | st.binary(max_size=4)),
        min_size=1,
        max_size=6,
    ),
    header=st.sampled_from(["", ",prompting", ",noise_seed"]),
    flags=st.sampled_from(["", "--scale probabilities", "--replace", "--name other"]),
)
def test_damaged_files_end_in_a_line(
    cli: Cli,
    digits: Dataset,
    made: pd.DataFrame,
    tmp_path: Path,
    wounds: list[tuple[int, int, bytes]],
    header: str,
    flags: str,
) -> None:
    """Whatever the damage: imported, or one line and exit code 2. All into one folder, which stays readable."""
    first, *lines = made.iloc[::15].to_csv(index=False).splitlines()
    text = "\n".join(
        [first + header, *(line + header.replace("prompting", "concat").replace("noise_seed", "1") for line in lines)]
    )
    file = tmp_path / "damaged.csv"
    file.write_bytes(damage(text.encode(), wounds))
    command = ("import", "predictions", file, "--data", digits.folder, "--name", "it", "--limit", 46)
    few = ("--scenario", "missing-image", "--missing-rate", 0, "--seeds", 1)
    code, out, err = cli(*command, *few, *flags.split(), "--out", tmp_path / "out")
    assert code in (0, 2), err
    assert "a bug in mmrobust" not in err and "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("mmrobust: ")]
    assert (code == 0) is bool(out) and (code == 0 or errors == err.splitlines()[-1:]), err  # remarks may stand before
    assert all(header.rows for header in shard_headers(tmp_path / "out"))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("id", pa.array([["digit"]] * 180), "none of its 1 sample ('['digit']') is in split"),
        ("id", pa.nulls(180), "row 1: has no id (179 more rows like it)"),
        ("case", pa.array(range(180)), "unknown case '0'"),
        ("3", pa.array([True] * 180), "class '3': 'True' is not a number"),
        ("3", pa.array([{"x": 1.0}] * 180), "class '3': '{'x': 1.0}' is not a number"),
        ("3", pa.nulls(180), "class '3': has no value (179 more rows like it)"),
        ("3", pa.array([10**30] * 180, pa.decimal128(38, 0)), ""),
        ("3", pa.array([10**60] * 180, pa.decimal256(76, 0)), "is not a finite number (of 32 bits)"),
        ("3", pa.array(["0.5"] * 180).dictionary_encode(), ""),
        ("3", pa.array(np.zeros(180, dtype=np.float16)), ""),
        ("prompting", pa.array(["concat"] * 180, pa.large_string()), ""),
        ("noise_seed", pa.array([2.0] * 180), ""),
    ],
)
def test_types_of_parquet(
    cli: Cli, digits: Dataset, made: pd.DataFrame, tmp_path: Path, column: str, values: pa.Array, said: str
) -> None:
    table = pa.Table.from_pandas(made, preserve_index=False)
    place = table.column_names.index(column) if column in table.column_names else table.num_columns
    table = (table.drop_columns([column]) if column in table.column_names else table).add_column(place, column, values)
    pq.write_table(table, tmp_path / "it.parquet")
    words = ("--data", digits.folder, "--name", "it", *FEW, "--out", tmp_path / "out")
    code, out, err = cli("import", "predictions", tmp_path / "it.parquet", *words)
    assert (code, said in err) == (2 if said else 0, True), err
    assert bool(out) is not bool(said) and "a bug in mmrobust" not in err


def test_lines_of_json(cli: Cli, digits: Dataset, made: pd.DataFrame, tmp_path: Path) -> None:
    lines = made.to_json(orient="records", lines=True).splitlines()
    (tmp_path / "it.jsonl").write_text("\n".join(lines))
    words = ("--data", digits.folder, "--name", "it", *FEW, "--out", tmp_path / "out")
    code, _, err = cli("import", "predictions", tmp_path / "it.jsonl", *words)
    assert (code, err) == (0, LEFT_ASIDE)
    (tmp_path / "it.jsonl").write_text("\n".join([*lines[:3], '{"id": "digit-0001"}', '{"case": [1]}']))
    code, _, err = cli("import", "predictions", tmp_path / "it.jsonl", *words)
    assert code == 2 and "row 4 (line 4): has no case" in err
