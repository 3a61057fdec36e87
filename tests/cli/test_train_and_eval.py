"""``mmrobust train`` and ``mmrobust eval`` as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmrobust.data import Dataset


def test_train_then_eval(cli: Callable[..., object], digits: Dataset, tmp_path: Path) -> None:
    full = tmp_path / "full"
    code, out, err = cli(
        "train", "--data", digits.folder, "--backbone", "tiny", "--method", "full", "--epochs", 1, "--out", full
    )
    assert code == 0
    assert "full + linear on vilt" in out
    assert "epoch 1/1" in err
    mmp = tmp_path / "mmp"
    code, out, _ = cli(
        *("train", "--data", digits.folder, "--backbone", full, "--method", "mmp", "--head", "prototype"),
        *("--prompt-length", 2, "--epochs", 1, "--batch-size", 20, "--quiet", "--out", mmp),
    )
    assert code == 0
    assert "mmp + prototype on vilt, unchanged" in out
    code, out, err = cli(
        *("eval", full, mmp, "--data", digits.folder, "--missing-rate", "0,0.5", "--missing-rate", "1"),
        *("--seeds", 2, "--prompting", "situation", "--out", tmp_path / "grid"),
    )
    assert code == 0
    assert "missing-both" in out
    assert str(tmp_path / "grid" / "results.parquet") in err.replace("\n", "")
    code, out, _ = cli("eval", mmp, "--data", digits.folder, "--out", tmp_path / "grid", "--json", "--missing-rate", 0)
    assert code == 0
    assert {row["checkpoint"] for row in json.loads(out)} == {"full", "mmp"}


BAD = [
    (["--data", "nowhere"], "nowhere: no such folder; make a data set with: mmrobust data prepare"),
    (["--method", "mmpp"], "unknown method 'mmpp': did you mean 'mmp'? Known: none, full, mmp, dcp, maple, msp"),
    (["--missing-rate", "1.2"], "missing rate 1.2 is not a share of the samples"),
    (["--recipe", "fast"], "unknown recipe 'fast'"),
    (["--batch-size", "0"], "batch size '0': give a positive whole number, or auto"),
    (["--device", "gpu"], "unknown device 'gpu'"),
    (["--dtype", "float16"], "unknown dtype 'float16': did you mean 'bfloat16'"),
    (["--lr", "-1"], "recipe setting lr = -1.0 is out of range"),
    (["--cache", "on"], "unknown cache 'on': Known: auto, off, FOLDER/"),
    (["--cache-memory", "-1"], "--cache-memory -1: give gigabytes, 0 or more"),
    (["--epochs", "many"], "Invalid value for '--epochs': 'many' must be a whole number"),
    (["--missing-rate", "70%"], "missing rate '70%' is neither a number nor start:stop:step; is 0.7 meant?"),
    (["--missing-rate", "0,7"], "(in '0,7'; is 0.7 meant? Decimals are written with a point)"),
    (["--recipe", "mmp-mmimdb"], "prompt layers [0, 1, 2, 3, 4, 5]: vilt has 4 layers; name others with --method-set"),
    (["--recipe", "mmp-mmimdb"], "with --prompt-depth 4; in a study, its method's settings: {depth: 4}"),
    (["--metod", "full"], "No such option: --metod"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[" ".join(change) for change, _ in BAD])
def test_train_refuses(
    cli: Callable[..., object], digits: Dataset, tmp_path: Path, change: list[str], message: str
) -> None:
    command = {"--data": str(digits.folder), "--backbone": "tiny", "--method": "none", "--out": str(tmp_path / "out")}
    if change[0] == "--recipe":
        command |= {"--method": "mmp", "--modalities": "image,text"}
    command.update({change[0]: change[1]})
    code, out, err = cli("train", *(word for pair in command.items() for word in pair))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_eval_refuses(
    cli: Callable[..., object], digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    vilt, cavmae = trained("none", "linear"), trained("none", "linear", ("audio", "image"))
    from mmrobust.data.prepare.digits import CLASSES
    from mmrobust.data.writing import SampleRow, write_dataset

    other = {"classes": CLASSES, "task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    rows = [SampleRow("test", s.id, s.label, image=s.image, image_path="x", text=s.text) for s in digits.split("test")]
    write_dataset(tmp_path / "it", rows, name="it", modalities=("image", "text"), **other)
    cut = [SampleRow("test", s.id, s.label, image=(s.image or b"")[:60], text=s.text) for s in digits.split("test")]
    write_dataset(tmp_path / "cut", cut, name="cut", modalities=("image", "text"), **other)
    cases = [
        ((tmp_path / "none", "--data", digits.folder), "no such checkpoint folder"),
        ((vilt, "--data", tmp_path / "nowhere"), "no such folder; make a data set"),
        ((vilt, "--data", digits.folder, "--missing-rate", "1.2"), "missing rate 1.2 is not a share"),
        ((vilt, "--data", digits.folder, "--scenario", "missing-audio"), "unknown scenario for image and text"),
        ((vilt, "--data", digits.folder, "--split", "tset"), "did you mean 'test'"),
        ((vilt, "--data", tmp_path / "it", "--split", "train"), "unknown split"),
        ((cavmae, "--data", tmp_path / "it"), "takes audio + image, but"),
        ((vilt, vilt, "--data", digits.folder), "one is given twice"),
        ((vilt, "--data", digits.folder, "--limit", "0"), "--limit 0"),
        ((vilt, "--data", digits.folder, "--seeds", "0"), "--seeds 0"),
        ((vilt, "--data", tmp_path / "cut"), f"sample '{rows[0].id}' of"),
    ]
    for arguments, message in cases:
        code, printed, err = cli("eval", *arguments, "--out", out)
        assert (code, printed) == (2, ""), arguments
        assert message in err
        assert len(err.strip().splitlines()) == 1
        assert not (out / "results.parquet").exists()


def test_flags_may_come_from_the_environment(
    cli: Callable[..., object], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMROBUST_TRAIN_METHOD", "mmpp")
    code, _, err = cli("train", "--data", digits.folder, "--backbone", "tiny", "--out", tmp_path / "out")
    assert code == 2
    assert "unknown method 'mmpp'" in err
