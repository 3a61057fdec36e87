"""``mmrobust plan``: exactly the pairs that ``eval`` predicts, and the inputs as each case has them."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.decoding import SplitRecordings, decode
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.degradations import Noise, degradation_of
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.scenario import Scenario, scenario_names

Cli = Callable[..., Any]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "plan.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predicted(folder: Path) -> list[tuple[str, str]]:
    shards = sorted((folder / "predictions").glob("*.parquet"))
    tables = [pq.read_table(shard, columns=["id", "case"]).to_pylist() for shard in shards]
    return sorted((row["id"], row["case"]) for table in tables for row in table)


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--scenario missing-both --missing-rate 0.3 --seeds 2",
        "--scenario missing-text,noisy-image:blur@3 --missing-rate 0.1,0.6 --seeds 1 --limit 23",
        "--scenario noisy-both --missing-rate 0.4 --noise-seed 3 --split validation",
        "--modalities audio,image --scenario missing-audio --missing-rate 0:0.5:0.25",
        "--missing-table half.csv",
    ],
)
def test_it_is_what_eval_predicts(
    cli: Cli, trained: Callable[..., Path], digits: Dataset, tmp_path: Path, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = ("--scenario", "missing-both", "--missing-rate", 0.5, "--seed", 1, "--out", "half.csv")
    assert cli("data", "missing-table", digits.folder, *table).code == 0
    words = flags.split()
    code, out, err = cli("plan", "--data", digits.folder, *words, "--out", "plan")
    assert code == 0, err
    pairs = [(row["id"], row["case"]) for row in rows_of(tmp_path / "plan")]
    assert len(set(pairs)) == len(pairs) and out.startswith(f"{len(pairs)} pairs: ")

    modalities: tuple[str, ...] = ("image", "text")
    if "--modalities" in words:
        modalities, words = ("audio", "image"), words[2:]
    code, _, err = cli(
        "eval", trained("none", "linear", modalities), "--data", digits.folder, *words, "--out", "results"
    )
    assert code == 0, err
    assert sorted(pairs) == predicted(tmp_path / "results")
    assert pq.read_table("plan/plan.parquet").to_pylist() == rows_of(tmp_path / "plan")


def test_it_says_what_it_is_of(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    code, out, err = cli("plan", "--data", digits.folder, "--missing-rate", 0.5, "--json", "--out", tmp_path / "plan")
    assert code == 0, err
    about = json.loads(out)
    pair, split = ("image", "text"), digits.split("test")
    drawn = [
        missing_table(split.ids, Scenario.parse(name, pair), 0.5, seed)
        for name in scenario_names(pair)
        for seed in range(3)
    ]
    pairs = {pair for table in drawn for pair in table.items()}
    assert about["pairs"] == len(pairs) and about["cases"] == Counter(case for _, case in pairs)
    assert about["dataset"]["fingerprint"] == digits.info.fingerprint
    assert about["dataset"]["classes"] == list(digits.info.classes)
    assert about["modalities"] == ["image", "text"] and about["noise"] is None
    written = json.loads((tmp_path / "plan" / "plan.json").read_text())
    metadata = json.loads(pq.read_schema(tmp_path / "plan" / "plan.parquet").metadata[b"mmrobust"])
    assert written == {"schema_version": 1, **about} and metadata == {"kind": "plan", **written}
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["plan.csv", "plan.json", "plan.parquet"]


def test_the_inputs_are_those_of_the_case(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    scenarios = "missing-audio,noisy-image:shot@2,noisy-audio:babble@2+noisy-image:shot@2"
    code, out, err = cli(
        *("plan", "--data", digits.folder, "--modalities", "audio,image", "--scenario", scenarios),
        *("--noise-seed", 4, "--inputs", "--limit", 9, "--out", tmp_path),
    )
    assert code == 0, err
    split = digits.split("test")
    recordings, place = SplitRecordings(split), {name: position for position, name in enumerate(split.ids)}
    rows = rows_of(tmp_path)
    assert len(rows) == 4 * 9
    for row in rows:
        (sample,) = split.read([place[row["id"]]])
        case = Case.parse(row["case"], ("audio", "image"))
        for modality in ("audio", "image"):
            if case.is_missing(modality):
                assert row[modality] == ""
                continue
            medium = decode(sample, modality)
            if modality in case.degraded:
                medium = degradation_of(case, modality, sample.id, Noise(seed=4), recordings).on_medium(medium)
            file = tmp_path / row[modality]
            if modality == "image":
                with Image.open(file) as picture:
                    assert picture.format == "PNG" and np.array_equal(np.asarray(picture), np.asarray(medium))
            else:
                waveform, rate = soundfile.read(file, dtype="float32")
                assert rate == medium[1] and np.array_equal(waveform, medium[0])
    named = {row[modality] for row in rows for modality in ("audio", "image")} - {""}
    there = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "inputs").rglob("*") if path.is_file()}
    assert named == there and len(there) == 4 * 9  # each once, however many cases share it
    assert "; 36 files of inputs" in out


def test_texts_are_utf_8_and_what_is_missing_by_nature_stays_so(cli: Cli, tmp_path: Path) -> None:
    texts = ["zwölf 十二\r\n", None, ""]
    with Image.new("RGB", (2, 2)) as picture:
        picture.save(tmp_path / "picture.png")
    image = (tmp_path / "picture.png").read_bytes()
    rows = [SampleRow("test", f"s{n}", (0,), image=image, text=text) for n, text in enumerate(texts)]
    write_dataset(
        tmp_path / "data",
        rows,
        name="made",
        modalities=("image", "text"),
        classes=("a", "b"),
        task="single-label",
        headline_metric="accuracy",
        licence="CC0",
        source="made",
    )
    code, _, err = cli("plan", "--data", tmp_path / "data", "--inputs", "--out", tmp_path / "plan")
    assert code == 0, err
    written = rows_of(tmp_path / "plan")
    by_nature = [row for row in written if row["id"] == "s1"]
    assert [row["case"] for row in by_nature] == ["missing-text"] and by_nature[0]["text"] == ""
    found = {row["id"]: (tmp_path / "plan" / row["text"]).read_bytes().decode() for row in written if row["text"]}
    assert found == {"s0": texts[0], "s2": ""}


def test_a_plan_is_not_written_over(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    command = ("plan", "--data", digits.folder, "--seeds", 1, "--out", tmp_path / "plan")
    assert cli(*command).code == 0
    before = (tmp_path / "plan" / "plan.csv").read_bytes()
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert "plan: already contains files; name another folder for the plan, or remove this one" in err
    assert (tmp_path / "plan" / "plan.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--scenario noisy-image --inputs", "for --inputs name a corruption, as in noisy-image:gaussian@3"),
        ("--scenario noisy-text --noise-profile released", "noise profile released has audio and image, but no noise"),
        ("--scenario missing-adio", "unknown scenario for image and text 'missing-adio'"),
        ("--modalities image,video", "unknown modality of digits 'video'"),
        ("--split tset", "did you mean 'test'?"),
        ("--limit 0", "--limit 0: at least one sample is needed"),
        ("--missing-rate 1.5", "missing rate 1.5 is not a share"),
    ],
)
def test_what_cannot_be_planned_is_a_line(cli: Cli, digits: Dataset, tmp_path: Path, flags: str, said: str) -> None:
    code, out, err = cli("plan", "--data", digits.folder, *flags.split(), "--out", tmp_path / "plan")
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sample_that_cannot_be_read_is_named_or_left_out(cli: Cli, tmp_path: Path) -> None:
    images = {f"s{n}": b"no picture" if n == 1 else None for n in range(3)}
    rows = [SampleRow("test", name, (0,), image=image, text="one") for name, image in images.items()]
    write_dataset(
        tmp_path / "data",
        rows,
        name="made",
        modalities=("image", "text"),
        classes=("a", "b"),
        task="single-label",
        headline_metric="accuracy",
        licence="CC0",
        source="made",
    )
    command = ("plan", "--data", tmp_path / "data", "--inputs", "--out", tmp_path / "plan")
    code, _, err = cli(*command)
    assert code == 2 and "sample 's1'" in err and not (tmp_path / "plan").exists()
    code, _, err = cli(*command, "--on-bad-sample", "skip")
    assert code == 0 and "1 samples cannot be read and were left out, such as 's1'" in err
    assert {row["id"] for row in rows_of(tmp_path / "plan")} == {"s0", "s2"}


def test_a_killed_plan_leaves_no_folder(tmp_path: Path) -> None:
    prepare_digits(tmp_path / "digits")
    command = [sys.executable, "-m", "mmrobust", "plan", "--data", tmp_path / "digits", "--inputs"]
    process = subprocess.Popen([*command, "--out", tmp_path / "plan"])
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".plan.*.partial/inputs/*/*/*")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "plan").exists()
    subprocess.run([*command, "--out", tmp_path / "plan"], check=True, capture_output=True)
    assert (tmp_path / "plan" / "plan.csv").is_file()


def test_it_needs_no_torch(digits: Dataset, tmp_path: Path) -> None:
    arguments = ["plan", "--data", str(digits.folder), "--scenario", "noisy-image:blur@3,noisy-text", "--inputs"]
    code = (
        f"import sys; from mmrobust.cli.app import run; code = run({[*arguments, '--out', str(tmp_path / 'plan')]!r}); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
