"""One name never means two models, and no model's rows are dropped for another's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmrobust
from mmrobust.data import Dataset
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.storage.results import read_results

Cli = Callable[..., Any]
GRID = ("--missing-rate", "0,1", "--seeds", "1", "--scenario", "missing-text", "--prompting", "situation")


@pytest.fixture
def seeds(trained: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Three checkpoints of one folder name, which differ in a weight."""
    trained_once = trained("none", "linear")
    folders = [tmp_path / "runs" / f"seed{seed}" / "mmp" for seed in range(3)]
    for seed, folder in enumerate(folders):
        shutil.copytree(trained_once, folder)
        alter(folder, float(seed))
    return folders


def alter(folder: Path, by: float) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor + by * torch.ones_like(tensor) for name, tensor in tensors.items()}, file)


@pytest.fixture
def evaluate(cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    def run(*checkpoints: Path, out: Path = tmp_path / "out", flags: tuple[str, ...] = ()) -> str:
        where = ("--backbone", trained("full", "linear"), "--device", "cpu", "--out", out)
        code, _, said = cli("eval", *checkpoints, "--data", digits.folder, *GRID, *where, *flags)
        assert code == 0, said
        return str(said)

    return run


def rows_of(out: Path, name: str) -> pd.DataFrame:
    frame = read_results(out).frame
    return frame[frame["checkpoint"] == name].drop(columns="checkpoint").reset_index(drop=True)


def test_checkpoints_of_one_folder_name_keep_their_rows(
    seeds: list[Path], evaluate: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    evaluate(seeds[0])
    first = rows_of(out, "mmp")
    said = evaluate(seeds[1])
    assert f"{out}: holds another model called 'mmp' already; this one is called 'seed1/mmp' there" in said
    assert "dropped" not in said
    evaluate(seeds[2], seeds[1], seeds[0])
    found = read_results(out)
    assert set(found.frame["checkpoint"]) == set(found.provenance["checkpoints"]) == {"mmp", "seed1/mmp", "seed2/mmp"}
    pd.testing.assert_frame_equal(rows_of(out, "mmp"), first)
    for seed in (1, 2):
        alone = tmp_path / f"alone-{seed}"
        evaluate(seeds[seed], out=alone)
        pd.testing.assert_frame_equal(rows_of(out, f"seed{seed}/mmp"), rows_of(alone, "mmp"))


def test_a_checkpoint_that_was_trained_again_replaces_itself_alone(
    seeds: list[Path], evaluate: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    evaluate(seeds[0])
    evaluate(seeds[1])
    first = rows_of(out, "mmp")
    alter(seeds[1], 5.0)
    said = evaluate(seeds[1])
    assert "'seed1/mmp' has changed since the results there were made; its earlier rows are dropped" in said
    pd.testing.assert_frame_equal(rows_of(out, "mmp"), first)
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "runs").rename(moved / "runs")
    out.rename(moved / "out")
    alter(moved / "runs" / "seed0" / "mmp", 5.0)
    said = evaluate(moved / "runs" / "seed0" / "mmp", out=moved / "out")
    assert "'mmp' has changed" in said, "the places are kept relative to each other"


def test_results_of_before_places_were_kept_are_not_dropped(
    seeds: list[Path], evaluate: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    evaluate(seeds[0])
    for file in (out / "results.parquet", *(out / "predictions").glob("*.parquet")):
        table = pq.read_table(file)
        metadata = {key: value.replace(b'"folder"', b'"place"') for key, value in table.schema.metadata.items()}
        pq.write_table(table.replace_schema_metadata(metadata), file)
    before = rows_of(out, "mmp")
    evaluate(seeds[1])
    evaluate(seeds[0])
    assert set(read_results(out).frame["checkpoint"]) == {"mmp", "seed1/mmp"}
    pd.testing.assert_frame_equal(rows_of(out, "mmp"), before)


def test_predictions_without_results_are_told_apart_too(
    seeds: list[Path], evaluate: Callable[..., str], tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "out"
    for seed in (0, 1):
        evaluate(seeds[seed], flags=("--shard", "1/2"))
    names = {read["name"] for read in map(_provenance, (out / "predictions").glob("*.parquet"))}
    assert names == {"mmp", "seed1/mmp"}
    evaluate(seeds[0], out=tmp_path / "a")
    evaluate(seeds[1], out=tmp_path / "a-1")
    for file in (tmp_path / "a-1" / "predictions").glob("*.parquet"):
        shutil.copy(file, tmp_path / "a" / "predictions")
    (tmp_path / "a" / "results.parquet").unlink()
    assert cli("score", tmp_path / "a", *GRID).code == 0
    frame = read_results(tmp_path / "a").frame
    names = set(frame["checkpoint"])
    assert len(names) == 2 and all(name.startswith("mmp@") for name in names)
    assert not frame.duplicated(["checkpoint", "scenario", "missing_rate", "seed", "prompting", "metric"]).any()


def _provenance(file: Path) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(pq.read_schema(file).metadata[b"mmrobust"])
    return found


def test_the_library_tells_them_apart_as_well(
    seeds: list[Path], digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    frames = [
        mmrobust.evaluate(
            load_checkpoint(seed, backbone=str(trained("full", "linear"))),
            digits,
            scenarios=("missing-text",),
            rates=(0.0, 1.0),
            seeds=1,
            out=tmp_path / "out",
        )
        for seed in seeds[:2]
    ]
    assert [set(frame["checkpoint"]) for frame in frames] == [{"mmp"}, {"seed1/mmp"}]
    assert set(read_results(tmp_path / "out").frame["checkpoint"]) == {"mmp", "seed1/mmp"}
