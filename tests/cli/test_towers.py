"""Three modalities from raw files to a report: pictures, spoken and written names, on ``--backbone towers``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.storage.results import read_results

MODALITIES = ["image", "text", "audio"]
CASES = ("image", "text", "audio", "image+missing-audio", "image+missing-text", "text+missing-audio")


@pytest.fixture
def tux(shared: Path, cli: Callable[..., Any], tmp_path: Path) -> Path:
    """Every ninth sample of the data set ``tux``."""
    source = shared / "data" / "tux"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    with (source / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::9]
    for row in rows:
        row |= {name: str(source / row[name]) for name in ("image", "audio")}
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, _, err = cli("data", "prepare", "manifest", "--source", tmp_path / "manifest.csv", "--out", tmp_path / "tux")
    assert code == 0, err
    return tmp_path / "tux"


def test_three_modalities_end_to_end(cli: Callable[..., Any], tux: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    code, out, err = cli(
        *("train", "--data", tux, "--backbone", "towers", "--encoder", "text=tiny", "--method", "full"),
        *("--epochs", 2, "--backbone-set", "joint_width=64", "--out", full),
    )
    assert code == 0, err
    assert "full + linear on towers (image, text, audio by small encoders, trained with it)" in out
    folders = [full]
    for method, head in (("none", "prototype"), ("mmp", "linear")):
        folders.append(tmp_path / method)
        code, out, err = cli(
            *("train", "--data", tux, "--backbone", full, "--method", method, "--head", head, "--epochs", 1),
            *("--batch-size", 64, "--out", folders[-1], "--quiet"),
        )
        assert code == 0, err
        assert f"{method} + {head} on towers, unchanged" in out
        assert json.loads((folders[-1] / "config.json").read_text())["modalities"] == MODALITIES
    scenarios = ["missing-any", *(f"missing-{lost}" for lost in CASES)]
    code, out, err = cli(
        *("eval", *folders, "--data", tux, "--missing-rate", "0,1", "--seeds", 1, "--out", tmp_path / "results"),
        *("--scenario", ",".join(scenarios)),
    )
    assert code == 0, err
    frame, provenance = read_results(tmp_path / "results")
    assert set(frame.scenario) == set(scenarios) and set(frame.checkpoint) == {"full", "none", "mmp"}
    assert provenance["checkpoints"]["mmp"]["modalities"] == MODALITIES
    complete = frame[frame.missing_rate == 0].groupby(["checkpoint", "prompting", "metric"])
    assert (complete.value.nunique() == 1).all()  # nothing is missing in any scenario
    code, out, err = cli("report", tmp_path / "results", "--markdown", tmp_path / "report.md")
    assert code == 0, err
    assert "missing-image+missing-audio" in (tmp_path / "report.md").read_text()


def test_another_data_set_is_standardised_as_the_checkpoints_was(cli: Callable[..., Any], tmp_path: Path) -> None:
    """By the statistics of the split that it was trained on, which it holds, not by those of the data set at hand."""
    draws = np.random.default_rng(0).normal(size=(60, 2))

    def prepared(name: str, scale: float) -> Path:
        rows = [
            {
                "id": str(i),
                "imu": (row * scale + scale if i < 40 else row).tolist(),
                "text": f"word {i % 3}",
                "label": "ab"[int(row[0] > 0)],
                "split": "train" if i < 30 else "validation" if i < 40 else "test",
            }
            for i, row in enumerate(draws)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        made = ("--modality", "imu=features:imu", "--modality", "text=text:text", "--out", tmp_path / name)
        assert cli("data", "prepare", "manifest", "--source", tmp_path / f"{name}.jsonl", *made).code == 0
        return tmp_path / name

    own, other = prepared("own", 1.0), prepared("other", 50.0)
    means = [json.loads((folder / "dataset.json").read_text())["features"]["imu"]["mean"] for folder in (own, other)]
    assert abs(means[1][0] - means[0][0]) > 10
    outcome = cli(
        "train", "--data", own, "--backbone", "tiny", "--method", "full", "--epochs", 1, "--out", tmp_path / "c"
    )
    assert outcome.code == 0, outcome.err
    for name, data in (("a", own), ("b", other)):
        grid = ("--scenario", "missing-text", "--missing-rate", "0,1", "--seeds", 1)
        outcome = cli("eval", tmp_path / "c", "--data", data, *grid, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
    frames = [read_results(tmp_path / name).frame for name in "ab"]
    assert frames[0]["value"].equals(frames[1]["value"])
    tables = [pq.read_table(next((tmp_path / name / "predictions").glob("*.parquet"))) for name in "ab"]
    assert tables[0].select(["id", "case", "logits"]) == tables[1].select(["id", "case", "logits"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--backbone", "towers", "--encoder", "text"], "--encoder text: give NAME=ID, NAME=FOLDER or NAME=tiny"),
        (["--backbone", "towers", "--encoder", "sound=tiny"], "unknown modality in --encoder 'sound'"),
        (["--backbone", "tiny", "--encoder", "text=tiny"], "--encoder: backbone tiny has its own encoders"),
        (["--backbone", "towers", "--backbone-set", "joint_layers=0"], "joint_layers 0 must be from 1 to 64"),
        (
            ["--backbone", "tiny-towers", "--method", "dcp"],
            "method dcp needs one tower per modality, as clip has",
        ),
        (["--backbone", "tiny-vilt", "--train-encoders"], "unknown vilt backbone setting 'train_encoders'"),
    ],
    ids=lambda change: " ".join(change) if isinstance(change, list) else "",
)
def test_what_does_not_fit_is_one_line(
    cli: Callable[..., Any], digits: Dataset, tmp_path: Path, change: list[str], message: str
) -> None:
    code, _, err = cli("train", "--data", digits.folder, "--method", "full", *change, "--out", tmp_path / "out")
    assert code == 2 and message in err.replace("\n", " ") and not (tmp_path / "out").exists()


def test_the_settings_of_towers_are_listed(cli: Callable[..., Any]) -> None:
    code, out, _ = cli("train", "--backbone", "towers", "--backbone-set")
    assert code == 0 and "backbone towers: --backbone-set NAME=VALUE" in out
    assert "  missing_path=omit" in out and "  joint_layers=null" in out
