"""Samples that cannot be read: refused, left out, or taken for what they still are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import CLASSES
from mmrobust.data.selection import screen
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import DataError, UsageError
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.storage.results import read_results

BAD_IMAGE, BAD_AUDIO = 2, 5
N = 12
ABOUT = {"classes": CLASSES, "task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}


def written(
    folder: Path, digits: Dataset, image: bytes | None, audio: bytes | None, splits: tuple[str, ...]
) -> Dataset:
    """Twelve samples of each split; of ``splits``, one picture and one sound are these."""
    rows = []
    for name in ("train", "validation", "test"):
        for i, s in enumerate(digits.split(name).read(range(N))):
            bad = name in splits
            media = {"image": image if bad and i == BAD_IMAGE else s.image}
            media["audio"] = audio if bad and i == BAD_AUDIO else s.audio
            rows.append(SampleRow(name, s.id, s.label, text=s.text, **media))
    write_dataset(folder, rows, name="digits", modalities=("image", "text", "audio"), **ABOUT)
    return Dataset(folder)


@pytest.fixture
def damaged(digits: Dataset, tmp_path: Path) -> Dataset:
    return written(tmp_path / "damaged", digits, b"no picture", b"no sound", ("test",))


def test_what_is_found_is_named_and_counted(damaged: Dataset) -> None:
    split = damaged.split("test")
    same, none = screen(split, ("image", "audio"), "error")
    assert same is split and not none.found
    fewer, bad = screen(split, ("image", "audio"), "skip")
    assert list(bad.found) == [split.ids[BAD_IMAGE], split.ids[BAD_AUDIO]] and len(fewer) == N - 2
    assert bad.summary == f"2 samples cannot be read and were left out, such as '{split.ids[BAD_IMAGE]}'"
    assert "is not a picture" in bad.found[split.ids[BAD_IMAGE]]["image"]
    fewer, bad = screen(split, ("image", "text"), "missing")
    assert len(fewer) == N and list(bad.found) == [split.ids[BAD_IMAGE]]
    assert bad.summary.startswith("1 samples cannot be read and count as missing what cannot be read")
    assert not screen(split, ("image",), "skip", limit=2)[1].found
    with pytest.raises(UsageError, match=r"unknown --on-bad-sample 'skipp': did you mean 'skip'"):
        screen(split, ("image",), "skipp")
    with pytest.raises(DataError, match=f"sample '{split.ids[BAD_IMAGE]}' has no image"):
        screen(split, ("image",), "missing")


def evaluated(cli: Any, checkpoint: Path, data: Path, out: Path, *arguments: object) -> Any:
    grid = ("--scenario", "missing-both,missing-audio", "--missing-rate", "0,0.5", "--seeds", 2)
    return cli("eval", checkpoint, "--data", data, *grid, "--out", out, *arguments)


def test_an_evaluation_is_the_one_of_data_that_never_had_them(
    damaged: Dataset, digits: Dataset, trained: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    checkpoint = trained("mmp", "linear", ("audio", "image"))
    ids = damaged.split("test").ids
    refused = evaluated(cli, checkpoint, damaged.folder, tmp_path / "error")
    assert refused.code == 2 and f"sample '{ids[BAD_IMAGE]}' of" in refused.err and refused.err.count("\n") == 1

    null = written(tmp_path / "null", digits, None, None, ("test",))
    missing = evaluated(cli, checkpoint, damaged.folder, tmp_path / "missing", "--on-bad-sample", "missing")
    assert missing.code == 0 and "2 samples cannot be read and count as missing" in missing.err
    assert evaluated(cli, checkpoint, null.folder, tmp_path / "null-out").code == 0
    ours, theirs = read_results(tmp_path / "missing"), read_results(tmp_path / "null-out")
    assert ours.frame.equals(theirs.frame) and set(ours.frame.n_naturally_missing) == {2}
    assert ours.provenance["bad_samples"]["number"] == 2 and not theirs.provenance["bad_samples"]["number"]

    table = tmp_path / "table.csv"
    drawn = (
        "--modalities",
        "audio,image",
        "--scenario",
        "missing-audio",
        "--missing-rate",
        0.5,
        "--seed",
        0,
        "--out",
        table,
    )
    assert cli("data", "missing-table", damaged.folder, *drawn).code == 0
    given = ("--missing-table", table, "--on-bad-sample", "missing")
    contradicted = evaluated(cli, checkpoint, damaged.folder, tmp_path / "given", *given)
    assert contradicted.code == 2 and "may have it as present; use --on-bad-sample skip" in contradicted.err

    assert evaluated(cli, checkpoint, damaged.folder, tmp_path / "skip", "--on-bad-sample", "skip").code == 0
    skipped = read_results(tmp_path / "skip")
    assert set(skipped.frame.n) == {N - 2} and skipped.provenance["dataset"]["n"] == N - 2
    shards = (tmp_path / "skip" / "predictions").glob("*.parquet")
    predicted = {i for shard in shards for i in pq.read_table(shard, columns=["id"])["id"].to_pylist()}
    assert len(predicted) == N - 2 and not {ids[BAD_IMAGE], ids[BAD_AUDIO]} & predicted


def test_a_training_goes_on_without_them(
    digits: Dataset, trained: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    data = written(tmp_path / "damaged", digits, b"no picture", b"no sound", ("train", "validation"))
    backbone = trained("full", "linear", ("audio", "image"))
    flags = ("--backbone", backbone, "--method", "none", "--modalities", "audio,image", "--epochs", 1)
    command = ("train", "--data", data.folder, *flags)
    refused = cli(*command, "--out", tmp_path / "error")
    assert refused.code == 2 and f"sample '{data.split('train').ids[BAD_IMAGE]}' of" in refused.err
    for policy in ("missing", "skip"):
        done = cli(*command, "--out", tmp_path / policy, "--on-bad-sample", policy)
        assert done.code == 0, done.err
        assert "train: 2 samples cannot be read" in done.err and "validation: 2 samples cannot be read" in done.err
        config = load_checkpoint(tmp_path / policy).config
        assert config.training["bad_samples_train"]["policy"] == policy
