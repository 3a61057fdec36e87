from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.cli import prepare as command
from mmrobust.data import Dataset
from mmrobust.data.prepare import PREPARERS

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def emoji(shared: Path, tmp_path: Path) -> Path:
    """The first twenty emoji, to damage."""
    lines = (shared / "data" / "emoji" / "manifest.csv").read_text(encoding="utf-8").splitlines()[:21]
    folder = tmp_path / "emoji"
    (folder / "png").mkdir(parents=True)
    for line in lines[1:]:
        shutil.copyfile(shared / "data" / "emoji" / line.split(",")[1], folder / line.split(",")[1])
    lines[1] = lines[1].rpartition(",")[0].replace("Smileys & Emotion", "People & Body") + ",train"  # a second class
    file = folder / "manifest.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_prepare_and_info(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    code, printed, remarks = cli("data", "prepare", "digits", "--out", out, "--limit", 5)
    assert code == 0
    assert remarks == ""
    lines = printed.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [split, "5", "samples"] for split in ("train", "validation", "test")
    ]
    assert all(str(out) in line for line in lines)
    assert Dataset(out).info.splits == {"train": 5, "validation": 5, "test": 5}

    code, printed, _ = cli("data", "info", out)
    assert code == 0
    for words in ("digits", "image, text, audio", "naturally missing text", "class 9", "accuracy", "CC BY 4.0"):
        assert words in printed


def test_info_as_json(cli: Cli, digits: Dataset) -> None:
    code, printed, _ = cli("data", "info", digits.folder, "--json")
    description = json.loads(printed)
    assert code == 0
    assert description["splits"]["test"]["samples"] == 60
    assert description["fingerprint"] == digits.info.fingerprint
    assert sum(description["splits"]["test"]["class_balance"].values()) == 60


def test_info_shows_the_most_frequent_of_many_classes(cli: Cli, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    rows = [f"t,c{i},train" for i in range(30)] + ["t,c29,train"]
    manifest.write_text("\n".join(["text,label,split", *rows]))
    assert cli("data", "prepare", "manifest", "--source", manifest, "--out", tmp_path / "d")[0] == 0
    _, printed, _ = cli("data", "info", tmp_path / "d")
    assert "10 rarer classes: --json" in printed
    assert printed.index("class c29") < printed.index("class c0 ")


def test_a_manifest_with_its_options(cli: Cli, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("words,kind\n" + "\n".join(f"text {i},{i % 2}" for i in range(20)))
    arguments = ["data", "prepare", "manifest", "--source", manifest, "--name", "mine", "--task", "binary"]
    arguments += ["--metric", "accuracy", "--licence", "CC0", "--text-column", "words", "--label-column", "kind"]
    code, printed, remarks = cli(*arguments, "--out", tmp_path / "d")
    assert (code, len(printed.splitlines())) == (0, 3)
    assert "split 80/10/10" in remarks
    info = Dataset(tmp_path / "d").info
    assert (info.name, info.task, info.headline_metric, info.licence) == ("mine", "binary", "accuracy", "CC0")

    code, _, remarks = cli(*arguments, "--out", tmp_path / "quiet", "--quiet")
    assert (code, remarks) == (0, "")


def test_environment_variables_set_flags(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("text,label\na,0\nb,1\n")
    monkeypatch.setenv("MMROBUST_DATA_PREPARE_NAME", "from-the-environment")
    monkeypatch.setenv("MMROBUST_DATA_PREPARE_OUT", str(tmp_path / "d"))
    assert cli("data", "prepare", "manifest", "--source", manifest)[0] == 0
    assert Dataset(tmp_path / "d").info.name == "from-the-environment"
    monkeypatch.setenv("MMROBUST_DATA_INFO_JSON", "1")
    assert json.loads(cli("data", "info", tmp_path / "d")[1])["name"] == "from-the-environment"


def test_the_real_data(cli: Cli, shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "av-digits"
    assert cli("data", "prepare", "av-digits", "--source", source, "--out", tmp_path / "d", "--limit", 3)[0] == 0
    assert Dataset(tmp_path / "d").info.splits == {"train": 3, "validation": 3, "test": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("digit", "--out", "OUT"),
            "unknown data set 'digit': did you mean 'digits'? Known: digits, av-digits, mmimdb",
        ),
        (("digits", "--out", "OUT", "--source", "."), "digits takes no --source; it takes only --out and --limit"),
        (("av-digits", "--out", "OUT"), "av-digits needs --source: the folder with pairs.csv"),
        (("manifest", "--out", "OUT"), "manifest needs --source: a CSV, JSONL or Parquet file"),
        (("av-digits", "--out", "OUT", "--source", "nowhere"), "nowhere: no such folder; --source names the folder"),
        (
            ("av-digits", "--out", "OUT", "--source", ".", "--task", "binary"),
            "av-digits takes no --task; it takes --source",
        ),
        (("manifest", "--out", "OUT", "--source", "nowhere.csv"), "nowhere.csv: no such file; name the manifest"),
        (("digits", "--out", "OUT", "--limit", "0"), "--limit"),
        (("digits", "--out", "OUT", "--text-column", "t"), "digits takes no --text-column"),
        (
            ("food101", "--out", "OUT", "--source", ".", "--single-plot"),
            "food101 takes no --single-plot; it takes --source",
        ),
        (("mmimdb", "--out", "OUT", "--source", ".", "--single-plot", "--each-plot"), "exclude each other"),
        (("mmimdb", "--out", "OUT", "--source", "."), "holds no split.json"),
        (("digits",), "--out"),
        ((), "NAME"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    code, printed, said = cli("data", "prepare", *(str(out) if a == "OUT" else a for a in arguments))
    assert (code, printed) == (2, "")
    assert len(said.splitlines()) == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_first_samples_and_writes_nothing(cli: Cli, tmp_path: Path, emoji: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, printed, said = cli("data", "prepare", "manifest", "--source", emoji, "--dry-run", "--name", "faces")
    assert code == 0
    assert said == f"{emoji}: CSV delimited by commas; labels are names: single-label, 2 classes\n"
    lines = printed.splitlines()
    assert lines[0] == "faces: 20 samples of image + text"
    assert lines[1] == "single-label, 2 classes (People & Body, Smileys & Emotion), accuracy"
    assert len([line for line in lines if line.startswith("sample ")]) == 3
    assert lines[2] == "sample '1f600', train"
    assert lines[3] == "    label: People & Body"
    assert lines[4] == "    image: png/emoji_u1f600.png, 128×128, transparency over white"
    assert lines[5].startswith("    text: grinning face")
    assert sorted(tmp_path.rglob("*")) == before

    table = emoji.parent / "labels.csv"
    table.write_text("text;label\nten;[]\nmore;a|b\nthan;b\nthree;a\n", encoding="utf-8")
    code, printed, said = cli("data", "prepare", "manifest", "--source", table, "--dry-run")
    assert "labels: 4 samples of text" in printed and "label: no class" in printed and "label: a, b" in printed
    assert "CSV delimited by semicolons; labels are names joined by '|': multi-label, 2 classes" in said
    assert cli("data", "prepare", "digits", "--dry-run")[1].count("sample '") == 3


def test_a_dry_run_names_what_cannot_be_used(cli: Cli, emoji: Path) -> None:
    picture = emoji.parent / "png" / "emoji_u1f600.png"
    picture.write_bytes(b"<!DOCTYPE html><html>404</html>")
    code, printed, said = cli("data", "prepare", "manifest", "--source", emoji, "--dry-run")
    assert (code, printed.count("sample '")) == (0, 3)
    assert "cannot be used: " in said and "(it is an HTML page: the download failed, or wanted a login)" in said
    for file in picture.parent.iterdir():
        file.write_bytes(b"")
    code, printed, said = cli("data", "prepare", "manifest", "--source", emoji, "--dry-run")
    assert (code, printed, len(said.splitlines())) == (2, "", 1)
    assert "3 samples cannot be used: " in said and "the picture is empty (0 bytes)" in said


def test_a_folder_that_is_taken(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    code, _, said = cli("data", "prepare", "digits", "--out", tmp_path)
    assert code == 2
    assert "already contains files; name another folder" in said
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_truncated_png_is_named_and_nothing_is_written(cli: Cli, emoji: Path, tmp_path: Path) -> None:
    picture = emoji.parent / "png" / "emoji_u1f606.png"
    picture.write_bytes(picture.read_bytes()[:-400])
    code, printed, said = cli("data", "prepare", "manifest", "--source", emoji, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert len(said.splitlines()) == 1
    assert str(picture) in said
    assert "the picture cannot be read" in said
    assert "row " in said
    assert [file.name for file in tmp_path.iterdir()] == ["emoji"]


def test_what_is_left_out_is_named_counted_and_kept(cli: Cli, emoji: Path, tmp_path: Path) -> None:
    (emoji.parent / "png" / "emoji_u1f606.png").unlink()
    out = tmp_path / "out"
    arguments = ("data", "prepare", "manifest", "--source", emoji, "--out", out)
    code, _, said = cli(*arguments)
    assert (code, len(said.splitlines())) == (2, 1)
    assert "emoji_u1f606.png cannot be read (No such file or directory)" in said
    code, printed, remarks = cli(*arguments, "--allow-incomplete")
    assert code == 0
    assert printed.splitlines()[-1].split() == ["left", "out", "1", "sample", "image", "not", "there"]
    assert "left out: " in remarks and "emoji_u1f606.png" in remarks
    assert json.loads(cli("data", "info", out, "--json")[1])["left_out"] == {"image not there": 1}
    assert "1: image not there" in cli("data", "info", out)[1]


def test_verify(cli: Cli, emoji: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("data", "prepare", "manifest", "--source", emoji, "--out", out)[0] == 0
    code, printed, _ = cli("data", "verify", out)
    assert (code, printed.split()[:4]) == (0, ["20", "samples,", "0", "faults"])

    file = out / "train-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["image"]["bytes"] = rows[1]["image"]["bytes"][:-400]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    code, printed, said = cli("data", "verify", out)
    assert (code, said) == (1, "")
    assert printed.splitlines()[0].startswith(f"sample '{rows[1]['id']}' of {out} (train, row 1): the picture cannot")
    code, printed, _ = cli("data", "verify", out, "--json")
    found = json.loads(printed)
    assert (code, found["ok"], found["samples"]) == (1, False, 20)
    assert [fault["part"] for fault in found["faults"]] == ["image", "fingerprint"]
    assert found["faults"][0]["id"] == rows[1]["id"]


def test_a_folder_that_is_no_data_set(cli: Cli, tmp_path: Path) -> None:
    for folder, message in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "holds no dataset.json")):
        for command_name in ("info", "verify"):
            code, printed, said = cli("data", command_name, folder)
            assert (code, printed, len(said.splitlines())) == (2, "", 1)
            assert message in said


def test_help_names_every_preparer_and_has_an_example(cli: Cli) -> None:
    for name in ("prepare", "info", "verify"):
        code, printed, _ = cli("data", name, "--help")
        assert code == 0
        assert f"mmrobust data {name} " in printed
    for preparer in PREPARERS:
        assert f"[bold]{preparer}[/]" in (command.prepare.__doc__ or "")


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = "{'numpy', 'pyarrow', 'pandas', 'sklearn', 'scipy', 'PIL', 'soundfile', 'torch'}"
    program = f"import sys, mmrobust.cli.data; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
