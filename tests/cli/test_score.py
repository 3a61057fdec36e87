"""``mmrobust score``: the table again from predictions alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmrobust.data import Dataset
from mmrobust.errors import DataError
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.scenarios.grid import Cell, Grid
from mmrobust.scoring.store import predictions_behind, read_predictions
from mmrobust.storage.results import RESULTS_KEYS, ROBUSTNESS_FIGURES, read_results
from mmrobust.storage.shards import PREDICTIONS_VERSION, read_shard

HISTORIC = Path(__file__).resolve().parents[1] / "historic"
GRID = Grid(("missing-text", "missing-both"), (0.0, 1.0), (0, 1))


@pytest.fixture(scope="module")
def evaluated(
    trained: Callable[..., Path], digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """A copy of a results folder with two checkpoints: one to which prompting makes a difference, and one not."""
    folder = tmp_path_factory.mktemp("evaluated") / "grid"
    loaded = {name: load_checkpoint(trained(name, "linear")) for name in ("mmp", "none")}
    evaluate_models(loaded, digits, GRID, folder)
    return lambda to: shutil.copytree(folder, to / "grid")


@pytest.fixture
def grid(evaluated: Callable[[Path], Path], tmp_path: Path) -> Path:
    return evaluated(tmp_path)


def test_without_flags_the_table_is_the_same(cli: Callable[..., object], grid: Path) -> None:
    before = read_results(grid)
    code, out, err = cli("score", grid)
    assert (code, "missing-both" in out) == (0, True)
    assert str(grid / "results.parquet") in err.replace("\n", "")
    after = read_results(grid)
    pd.testing.assert_frame_equal(after.frame, before.frame, check_exact=True)
    assert after.provenance["dataset"] == before.provenance["dataset"]


def test_a_killed_evaluation_leaves_enough(cli: Callable[..., object], grid: Path) -> None:
    before = read_results(grid).frame
    (grid / "results.parquet").unlink()
    assert (
        cli("score", grid, "--scenario", "missing-text,missing-both", "--missing-rate", "0,1", "--seeds", 2).code == 0
    )
    pd.testing.assert_frame_equal(read_results(grid).frame, before, check_exact=True)


def test_new_rates_seeds_and_metrics_cost_no_prediction(cli: Callable[..., object], grid: Path, tmp_path: Path) -> None:
    before = read_results(grid).frame
    there = {path: path.stat().st_mtime_ns for path in (grid / "predictions").iterdir()}
    flags = (
        "--scenario",
        "missing-text",
        "--missing-rate",
        "0:1:0.25",
        "--seeds",
        4,
        "--metric",
        "macro_f1",
        "--f1-absent",
        "skip",
    )
    code, out, _ = cli("score", grid, *flags, "--resamples", 50, "--out", tmp_path / "new", "--json")
    assert code == 0 and len(json.loads(out)) == 2 * 2 * 5 * 4
    after = read_results(tmp_path / "new")
    assert set(after.frame.metric) == {"macro_f1"} and set(after.frame.seed) == {0, 1, 2, 3}
    assert after.provenance["scoring"] == {
        **{"threshold": 0.5, "f1_absent": "skip", "resamples": 50, "bootstrap_seed": 0}
    }
    common = after.frame.merge(before, on=list(RESULTS_KEYS))
    assert len(common) == 2 * 2 * 2 * 2
    assert (common.value_x >= common.value_y).all()
    assert {path: path.stat().st_mtime_ns for path in (grid / "predictions").iterdir()} == there
    pd.testing.assert_frame_equal(read_results(grid).frame, before)


def test_results_without_the_headline_metric_are_reported(
    cli: Callable[..., object], grid: Path, tmp_path: Path
) -> None:
    code, out, err = cli("score", grid, "--metric", "macro_f1", "--resamples", 0)
    assert (code, "macro_f1 in %" in out) == (0, True), err
    code, out, err = cli("report", grid, "--html", tmp_path / "page.html")
    assert (code, "macro_f1 in %" in out) == (0, True), err
    assert '"metric":"macro_f1"' in (tmp_path / "page.html").read_text()


def test_a_table_that_grew_by_several_evaluations_stays_what_it_is(
    cli: Callable[..., object], grid: Path, trained: Callable[..., Path], digits: Dataset
) -> None:
    more = Grid(("missing-text",), (0.5,), (0,), ("situation",))
    evaluate_models({"mmp": load_checkpoint(trained("mmp", "linear"))}, digits, more, grid)
    before = read_results(grid)
    assert len(before.frame[before.frame["missing_rate"] == 0.5]) == 2
    assert cli("score", grid).code == 0
    after, before = read_results(grid).frame, before.frame
    # The intervals of a curve that grew are computed again, now of all its rates.
    of_curves = [f"{figure}_{end}" for figure in ROBUSTNESS_FIGURES for end in ("low", "high")]
    pd.testing.assert_frame_equal(after.drop(columns=of_curves), before.drop(columns=of_curves), check_exact=True)
    curve = ["checkpoint", "scenario", "prompting", "metric"]
    assert (after.groupby(curve)[of_curves].nunique() == 1).all(axis=None)
    assert (before.groupby(curve)[of_curves].nunique() == 2).any(axis=None)
    # On a new rate, each prompting is scored with the mask seeds that it has.
    assert cli("score", grid, "--missing-rate", 0.25, "--resamples", 0).code == 0
    after = read_results(grid).frame
    assert set(after["missing_rate"]) == {0.25} and set(after["seed"]) == {0, 1}
    assert set(after["prompting"]) == {"situation", "concat"}


def test_torch_is_never_imported(grid: Path) -> None:
    code = (
        "import sys; from mmrobust.cli.app import run; "
        f"assert run(['score', {str(grid)!r}, '--resamples', '10']) == 0; "
        "assert not {'torch', 'transformers', 'sklearn', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_naturally_missing_samples_stay_so(
    cli: Callable[..., object], trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    from mmrobust.data.prepare.digits import CLASSES
    from mmrobust.data.writing import SampleRow, write_dataset

    rows = [
        SampleRow("test", s.id, s.label, image=s.image, image_path="x", text=None if i < 5 else s.text)
        for i, s in zip(range(20), digits.split("test"), strict=False)
    ]
    common = {"name": "some", "classes": CLASSES, "task": "single-label", "headline_metric": "accuracy"}
    write_dataset(tmp_path / "data", rows, modalities=("image", "text"), licence="", source="", **common)
    loaded = {"it": load_checkpoint(trained("mmp", "linear"))}
    before = evaluate_models(loaded, Dataset(tmp_path / "data"), GRID, tmp_path / "grid").frame
    assert cli("score", tmp_path / "grid").code == 0
    after = read_results(tmp_path / "grid").frame
    assert set(after.n_naturally_missing) == {5}
    pd.testing.assert_frame_equal(after, before, check_exact=True)


def test_score_refuses(cli: Callable[..., object], grid: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = [
        ((tmp_path / "empty",), "holds no predictions; make them with: mmrobust eval CHECKPOINT"),
        ((grid, "--scenario", "missing-imag"), "did you mean 'missing-image'"),
        ((grid, "--scenario", "missing-image"), "in case 'missing-image' under prompting 'situation'; make it with: "),
        ((grid, "--scenario", "missing-image"), "--scenario missing-image --missing-rate 0,1 --seeds 2 --prompting "),
        ((grid, "--metric", "acuracy"), "unknown metric of a single-label task 'acuracy': did you mean 'accuracy'"),
        ((grid, "--threshold", "2"), "--threshold 2: give a probability between 0 and 1"),
        ((grid, "--f1-absent", "skipp"), "unknown --f1-absent 'skipp': did you mean 'skip'"),
        ((grid, "--resamples", "-1"), "--resamples -1: give a whole number from 0"),
        ((grid, "--seeds", "0"), "--seeds 0: give a number of mask seeds from 1 to 10,000"),
        ((grid, "--metric", ""), "--metric: its value is empty; give a value, or leave the flag out"),
        ((grid, "--scenario", " , "), "--scenario: its value is empty"),
        ((grid, "--missing-rate", "1.2"), "missing rate 1.2 is not a share"),
    ]
    before = read_results(grid).frame
    for arguments, message in cases:
        code, printed, err = cli("score", *arguments)
        assert (code, printed) == (2, ""), arguments
        assert message in err
        assert len(err.strip().splitlines()) == 1
    pd.testing.assert_frame_equal(read_results(grid).frame, before)


def test_what_lacks_is_said(cli: Callable[..., object], grid: Path) -> None:
    shards = sorted((grid / "predictions").glob("*.parquet"))
    shards[0].write_bytes(shards[0].read_bytes()[:-50])
    code, _, err = cli("score", grid)
    assert code == 2
    left_out, said = err.strip().splitlines()
    assert left_out.startswith(str(shards[0])) and left_out.endswith("it is left out")
    assert "holds no predictions of '" in said and said.endswith("run mmrobust eval again with it")


def test_eval_does_not_mix_ways_of_scoring(
    cli: Callable[..., object], grid: Path, trained: Callable[..., Path], digits: Dataset
) -> None:
    assert cli("score", grid, "--f1-absent", "skip", "--resamples", 20).code == 0
    code, _, err = cli("eval", trained("mmp", "linear"), "--data", digits.folder, "--out", grid)
    assert code == 2
    assert "holds results scored with f1-absent skip, these would be with zero; score them again" in err


def test_the_first_schema_is_read_and_told_what_it_lacks(tmp_path: Path) -> None:
    shard = read_shard(HISTORIC / "predictions-1.parquet")
    assert shard.logits.tolist() == [[1.5, -0.5], [0.25, 2.0], [-1.0, 0.0]]
    assert shard.case.tolist() == ["complete", "complete", "missing-text"]
    assert shard.position is None
    (tmp_path / "predictions").mkdir()
    shutil.copy(HISTORIC / "predictions-1.parquet", tmp_path / "predictions")
    with pytest.raises(DataError, match=r"predictions of schema 1 lack metadata .*to bring them up to date$"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(("version", "groups"), [(2, None), (3, ("x", "x", "y"))])
def test_the_present_schema_is_read_alone_and_beside_its_results(
    cli: Callable[..., object], tmp_path: Path, version: int, groups: tuple[str, ...] | None
) -> None:
    file = HISTORIC / f"predictions-{version}.parquet"
    (tmp_path / "predictions").mkdir()
    shutil.copy(file, tmp_path / "predictions")
    (alone,) = read_predictions(tmp_path)
    assert (alone.name, alone.noise) == ("mmp", None)
    assert alone.truth.ids == ("a", "b", "c")
    assert alone.truth.labels == ((0,), (1,), (0,))
    assert alone.truth.groups == groups
    assert [case.name for case in alone.truth.natural or ()] == ["complete", "complete", "missing-text"]
    logits = {key: np.nan_to_num(values, nan=9.0).tolist() for key, values in alone.logits.items()}
    assert logits == {
        ("complete", "situation"): [[1.5, -0.5], [0.25, 2.0], [9.0, 9.0]],
        ("missing-text", "situation"): [[0.5, 0.25], [9.0, 9.0], [-1.0, 0.0]],
    }
    assert cli("score", tmp_path, "--scenario", "missing-text", "--missing-rate", 0, "--seeds", 1).code == 0
    beside = predictions_behind(tmp_path, read_results(tmp_path), "mmp")
    assert beside.truth == alone.truth
    assert beside.cells == (Cell("missing-text", 0.0, 0, "situation"),)


def test_a_schema_of_numbers_is_read(cli: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    shutil.copy(HISTORIC / f"predictions-{PREDICTIONS_VERSION}.parquet", tmp_path / "predictions")
    (alone,) = read_predictions(tmp_path)
    assert (alone.truth.task, alone.truth.labels) == ("regression", ((0.5,), (1.0,), (-2.0,)))
    assert cli("score", tmp_path, "--scenario", "missing-text", "--missing-rate", 0, "--seeds", 1).code == 0
    frame = read_results(tmp_path).frame
    assert frame[frame.metric == "mae"].value.tolist() == pytest.approx([(1.0 + 0.75 + 1.0) / 3])


def test_given_missing_tables_are_scored_again_without_their_file(
    cli: Callable[..., object], trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    table, grid = tmp_path / "mine.csv", tmp_path / "grid"
    write_csv = "id,case\n" + "".join(
        f"{sample},{'missing-text' if i % 3 else 'complete'}\n" for i, sample in enumerate(digits.split("test").ids)
    )
    table.write_text(write_csv)
    flags = ("--missing-table", table, "--scenario", "missing-text", "--missing-rate", "0,1", "--seeds", 1)
    checkpoint = trained("mmp", "linear")
    assert cli("eval", checkpoint, "--data", digits.folder, *flags, "--device", "cpu", "--out", grid).code == 0
    table.unlink()
    before = read_results(grid).frame
    (given,) = (name for name in before.scenario.unique() if name.startswith("table:mine@"))
    assert cli("score", grid).code == 0
    pd.testing.assert_frame_equal(read_results(grid).frame, before, check_exact=True)

    # New rates and seeds are of what is drawn; a given table has its own.
    assert cli("score", grid, "--missing-rate", "0:1:0.5", "--seeds", 2, "--out", tmp_path / "more").code == 0
    more = read_results(tmp_path / "more").frame
    assert set(more[more.scenario == given].missing_rate) == {40 / 60}
    assert set(more[more.scenario == "missing-text"].missing_rate) == {0.0, 0.5, 1.0}
    shutil.copytree(grid / "predictions", tmp_path / "more" / "predictions")
    alone = ("--scenario", given, "--prompting", "situation", "--metric", "accuracy", "--resamples", 0)
    assert cli("score", tmp_path / "more", *alone).code == 0
    (row,) = read_results(tmp_path / "more").frame.to_dict("records")
    assert row["n_affected"] == 40
    was = before[(before.scenario == given) & (before.prompting == "situation") & (before.metric == "accuracy")]
    assert row["value"] == was.value.item()

    code, _, err = cli("score", grid, "--scenario", "table:other@00000000")
    assert code == 2
    assert "holds no missing table 'table:other@00000000'; give its file to: mmrobust eval CHECKPOINT" in err
    assert len(err.strip().splitlines()) == 1
    (tmp_path / "grid" / "results.parquet").unlink()
    assert cli("score", grid, "--scenario", given, "--prompting", "situation").code == 0  # a killed evaluation's
