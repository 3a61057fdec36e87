"""What fuzzing found (``scripts/fuzz.py``): each input, and the one line that it ends in. Rows stay for good."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from mmrobust.cli import console
from mmrobust.data import Dataset
from mmrobust.data.decoding import decode_audio
from mmrobust.errors import DataError

Cli = Callable[..., Any]


def refused(cli: Cli, *command: object) -> str:
    """The one line that a command ends in; no longer than a person reads, and none of the file's own escapes in it."""
    code, printed, said = cli(*command)
    assert (code, printed) == (2, ""), said
    (line,) = said.splitlines()
    assert len(line) < 1300 and "\x1b" not in line and "a bug in mmrobust" not in line
    return str(line)


# --- settings ---------------------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
RECIPES = [
    ("aliases of aliases", BOMB, "is not valid YAML (it holds more than 100,000 values, or itself)"),
    ("a list that holds itself", "betas: &x [*x]", "is not valid YAML (it holds more than 100,000 values, or itself)"),
    ("a day that there is not", "lr: 2020-99-99", "is not valid YAML (month must be in 1..12)"),
    ("a date", "lr: 2020-01-01", "is not valid YAML (2020-01-01 is read as a date; write it in quotes)"),
    ("a time that is none", "lr: !!timestamp x", "is not valid YAML ("),
    ("a truth that is none", "lr: !!bool x", "is not valid YAML ("),
    ("a number as a key", "1: 2", "is not valid YAML (its key 1 is not a string; write it in quotes)"),
    ("5,000 digits", "lr: " + "9" * 5000, "is not valid YAML (Exceeds the limit"),
    ("5,000 digits of 16", "epochs: 0x" + "f" * 5000, "is not valid YAML (it holds a number of more than 64 bits)"),
    ("brackets", "lr: " + "[" * 5000, "is not valid YAML (maximum recursion depth"),
    (
        "code",
        "lr: !!python/object/apply:os.system ['touch canary']",
        "is not valid YAML (could not determine a constructor",
    ),
    ("a number in place of a name", "method: 3", "recipe setting method = 3: must be a string"),
    ("words in place of numbers", "modalities: {a: 1}", "recipe setting modalities = {'a': 1}: must be a list"),
    ("a long value", "lr: " + "x" * 100_000, "must be a number"),
]
STUDIES = [
    ("a name that leads out", "methods: {../../outside: {use: none}}", "the study's method is called '../../outside'"),
    ("an empty name", "methods: ['']", "the study's method is called ''"),
    ("methods of no names", "methods: [{a: 1}]", "methods: [{'a': 1}] must be a list of names"),
    ("seeds that are a word", "{methods: [none], seeds: abc}", "study setting seeds = 'abc': must be a list"),
    ("a contrast of nothing", "{methods: [none], contrast: {}}", "study's contrast: axis is missing"),
    ("a rate that is a list", "{methods: [none], under: [{missing_rate: []}]}", "missing_rate = []: must be a number"),
    ("under of a word", "{methods: [none], under: abc}", "study setting under = 'abc': must be a list"),
]
RULES = [
    ("brackets", "fail = " + "[" * 3000 + "]" * 3000, "cannot be read as TOML ("),
    ("5,000 digits", "fail = " + "9" * 5000, "cannot be read as TOML ("),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in RECIPES], ids=[row[0] for row in RECIPES])
def test_recipes(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    options = ("--recipe", tmp_path / "recipe.yaml", "--data", tmp_path, "--out", tmp_path / "out")
    assert message in refused(cli, "train", *options)
    assert not Path("canary").exists()


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in STUDIES], ids=[row[0] for row in STUDIES])
def test_studies(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    assert message in refused(cli, "study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--dry-run")


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_rules(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gates.toml").write_text(text)
    assert message in refused(cli, "check", tmp_path, "--baseline", tmp_path, "--rules", tmp_path / "gates.toml")


@pytest.mark.parametrize("name", ["recipe.yaml", "study.yaml", "gates.toml"])
def test_settings_that_are_no_files(cli: Cli, tmp_path: Path, name: str) -> None:
    """A pipe would hang, a device has no end, and no settings are of a gigabyte."""
    out = ("--out", tmp_path / "out")
    commands = {
        "recipe.yaml": ("train", "--data", tmp_path, *out, "--recipe", tmp_path / name),
        "study.yaml": ("study", "run", tmp_path / name, *out),
        "gates.toml": ("check", tmp_path, "--baseline", tmp_path, "--rules", tmp_path / name),
    }
    os.mkfifo(tmp_path / name)
    assert "is not a regular file" in refused(cli, *commands[name])
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    assert "is not a regular file" in refused(cli, *commands[name])
    (tmp_path / name).unlink()
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**30)
    assert "is 1,073,741,824 bytes, larger than any" in refused(cli, *commands[name])


# --- tables -----------------------------------------------------------------------------------------------------------

Change = Callable[[Any], Any]


def column(name: str, change: Callable[[list[Any]], list[Any]], kind: Any = None) -> Change:
    """Other values of a column."""

    def changed(table: Any) -> Any:
        index = table.schema.get_field_index(name)
        values = pa.array(change(table[name].to_pylist()), kind or table.schema.field(index).type)
        return table.set_column(index, pa.field(name, values.type), values)

    return changed


def no_text(name: str) -> Change:
    """Bytes in a column of texts that are none."""

    def changed(table: Any) -> Any:
        index = table.schema.get_field_index(name)
        values = pa.array([b"\xff"] * table.num_rows, pa.binary()).view(pa.string())
        return table.set_column(index, pa.field(name, pa.string()), values)

    return changed


def says(change: Callable[[dict[str, Any]], object]) -> Change:
    """Something else in what the file says of itself."""

    def changed(table: Any) -> Any:
        said = json.loads(table.schema.metadata[b"mmrobust"])
        change(said)
        return table.replace_schema_metadata({b"mmrobust": json.dumps(said).encode()})

    return changed


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


RESULTS: list[tuple[str, Change, str]] = [
    ("no checkpoint", column("checkpoint", first(None)), "a row has no checkpoint"),
    ("a rate of 7", column("missing_rate", first(7.0)), "a row has a missing_rate of 0.0 or 7.0"),
    ("a rate of NaN", column("missing_rate", lambda v: [float("nan")] * len(v)), "missing_rate"),
    ("−1 samples", column("n", first(-1)), "a row has a n of -1"),
    ("a text that is none", no_text("scenario"), "Invalid UTF8"),
    ("a column twice", lambda t: t.append_column("n", t["n"]), "two columns of one name"),
    ("another checkpoint", column("checkpoint", first("x")), "has results of 'x', but its metadata does not describe"),
    (
        "classes of numbers",
        says(lambda s: s["dataset"].update(classes=[1])),
        "damaged (dataset/classes/0 = 1: must be a string",
    ),
    ("no data", says(lambda s: s.pop("dataset")), "damaged (dataset is missing)"),
    ("data that are a word", says(lambda s: s.update(dataset="x")), "damaged (dataset = 'x': must be a mapping"),
    (
        "checkpoints that are a list",
        says(lambda s: s.update(checkpoints=[])),
        "damaged (checkpoints = []: must be a mapping",
    ),
    (
        "a training that is a word",
        says(lambda s: s["checkpoints"]["mmp"].update(training="x")),
        "mmp/training = 'x': must be a mapping",
    ),
    ("noise of a word", says(lambda s: s.update(noise="x")), "damaged (noise = 'x': must be a mapping"),
    ("schema true", says(lambda s: s.update(schema_version=-1)), "results of schema -1, which does not exist"),
    ("brackets", lambda t: t.replace_schema_metadata({b"mmrobust": b'{"a":' * 100_000}), "was not written by mmrobust"),
]
PREDICTIONS: list[tuple[str, Change, str]] = [
    ("no logits", column("logits", first(None)), "a prediction has no value in column logits"),
    ("a logit that is none", column("logits", first([None, 1, 2, 3])), "has no value in column logits"),
    ("the sample before the first", column("position", first(-1)), "a prediction has a negative position"),
    ("no position", column("position", first(None)), "has no value in column position"),
    (
        "positions that are words",
        column("position", lambda v: ["x"] * len(v), pa.string()),
        "cannot be read as predictions",
    ),
    ("a text that is none", no_text("case"), "Invalid UTF8"),
    ("class 99", column("label", lambda v: [[99]] * len(v)), "has class 99, but there are 4 classes"),
    ("an identity of numbers", says(lambda s: s.update(identity=3)), "damaged (identity = 3: must be a string)"),
]


def change_table(file: Path, change: Change) -> None:
    pq.write_table(change(pq.read_table(file)), file)


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in RESULTS], ids=[row[0] for row in RESULTS])
def test_results(cli: Cli, evaluate_into: Any, tmp_path: Path, change: Change, message: str) -> None:
    evaluate_into(tmp_path, n=20)
    change_table(tmp_path / "results.parquet", change)
    line = refused(cli, "report", tmp_path)
    assert message in line and str(tmp_path / "results.parquet") in line


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in PREDICTIONS], ids=[row[0] for row in PREDICTIONS])
def test_predictions(cli: Cli, evaluate_into: Any, tmp_path: Path, change: Change, message: str) -> None:
    for name in ("a", "b"):
        evaluate_into(tmp_path / name, n=20)
    shard = sorted((tmp_path / "a" / "predictions").glob("*.parquet"))[0]
    change_table(shard, change)
    line = refused(cli, "compare", tmp_path / "a", tmp_path / "b")
    assert message in line and str(shard) in line


DATA: list[tuple[str, Change, str]] = [
    ("an id twice", column("id", lambda ids: [*ids[:-1], ids[0]]), "appears twice; prepare the data set again"),
    ("no id", column("id", first(None)), "a sample has no id"),
    ("class 99", column("label", first(99)), "row 0): label [99]; classes count from 0 to 9"),
    ("no class", column("label", first(None)), "row 0): label [None]; classes count from 0 to 9"),
    ("a text that is none", no_text("text"), "Invalid UTF8"),
    ("a column twice", lambda t: t.append_column("id", t["id"]), "more than one column 'id'"),
]


@pytest.fixture
def own(digits: Dataset, tmp_path: Path) -> Path:
    """A copy of a data set."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for file in digits.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in DATA], ids=[row[0] for row in DATA])
def test_data_sets(cli: Cli, own: Path, tmp_path: Path, change: Change, message: str) -> None:
    (file,) = own.glob("test-*.parquet")
    change_table(file, change)
    preview = ("data", "preview", own, "--scenario", "missing-text", "--out", tmp_path / "page.html")
    assert message in refused(cli, *(("data", "info", own) if "label" in message else preview))


DESCRIPTIONS = [
    ("a split that leads out", {"splits": {"../x": 1}}, "splits '../x' are not among train, validation, test"),
    ("an absolute split", {"splits": {"/x": 1}}, "splits '/x' are not among"),
    ("sizes that are words", {"splits": {"test": "x"}}, "splits/test = 'x': must be a whole number"),
    ("classes that are numbers", {"classes": [1, 2]}, "classes/0 = 1: must be a string"),
    ("a name that is none", {"name": None}, "name is missing"),
    ("a name that is a list", {"name": []}, "name = []: must be a string"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in DESCRIPTIONS], ids=[row[0] for row in DESCRIPTIONS])
def test_descriptions_of_data_sets(cli: Cli, own: Path, change: dict[str, Any], message: str) -> None:
    said = json.loads((own / "dataset.json").read_text())
    (own / "dataset.json").write_text(json.dumps({**said, **change}))
    assert message in refused(cli, "data", "info", own)


def test_a_pipe_among_the_tables(cli: Cli, own: Path, evaluate_into: Any, tmp_path: Path) -> None:
    (file,) = own.glob("test-*.parquet")
    file.unlink()
    os.mkfifo(file)
    assert "is not a regular file" in refused(cli, "data", "info", own)
    evaluate_into(tmp_path / "a", n=20)
    shard = sorted((tmp_path / "a" / "predictions").glob("*.parquet"))[0]
    shard.unlink()
    os.mkfifo(shard)
    assert "is not a regular file" in refused(cli, "compare", tmp_path / "a", tmp_path / "a")


# --- manifests and media ----------------------------------------------------------------------------------------------


def prepared(cli: Cli, folder: Path, name: str) -> str:
    return refused(cli, "data", "prepare", "manifest", "--quiet", "--source", folder / name, "--out", folder / "out")


def test_manifests(cli: Cli, tmp_path: Path) -> None:
    pq.write_table(no_text("text")(pa.table({"text": ["a", "b"], "label": ["x", "y"]})), tmp_path / "no-text.parquet")
    assert "cannot be read as Parquet (" in prepared(cli, tmp_path, "no-text.parquet")
    long = "[" * 5000  # the name of a class that only the test split has, which a remark quotes
    (tmp_path / "long.csv").write_text(f"text,label,split\na,x,train\nb,y,train\nc,{long},test\n")
    code, _, said = cli("data", "prepare", "manifest", "--source", tmp_path / "long.csv", "--out", tmp_path / "long")
    assert code == 0 and "in no training sample" in said and max(map(len, said.splitlines())) < 2000
    with (tmp_path / "endless.csv").open("wb") as file:
        file.truncate(2**31)
    assert "line 1: is longer than 67,108,864 characters" in prepared(cli, tmp_path, "endless.csv")
    for place, said in (("/dev/zero", "it is no regular file"), ("pipe", "it is no regular file")):
        (tmp_path / "rows.csv").write_text(f"image,text,label\n{place},a,x\n{place},b,y\n")
        if not (tmp_path / "pipe").exists():
            os.mkfifo(tmp_path / "pipe")
        assert said in prepared(cli, tmp_path, "rows.csv")


def test_an_odd_pickle_is_refused_without_a_warning_before(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "odd.pt").write_bytes(pickle.dumps({"a": [1]}, protocol=4))
    assert "odd.pt" in refused(cli, "import", "mmp", tmp_path / "odd.pt", "--out", tmp_path / "out")


def wav(rate: int) -> bytes:
    """A tenth of a second, or of a year."""
    head = struct.pack("<HHIIHH", 1, 1, rate, rate * 2 % 2**32, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", 2000) + bytes(2000)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flac(claimed: int) -> bytes:
    """A FLAC of 4,000 samples that claims to have others."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(4000), 8000, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[21] = (data[21] & 0xF0) | claimed >> 32
    data[22:26] = struct.pack(">I", claimed & 0xFFFFFFFF)
    return bytes(data)


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_recordings_of_an_absurd_rate(rate: int) -> None:
    """Resampled to 16 kHz, a few kilobytes would fill the memory."""
    with pytest.raises(DataError, match=r"rate is [\d,]+ Hz, not from 1,000 to 1,000,000|cannot be read"):
        decode_audio(wav(rate), "it")


def test_recordings_that_are_long_or_claim_to_be() -> None:
    try:
        waveform, _ = decode_audio(flac(2**36 - 1), "it")
        assert len(waveform) <= 4000  # what is there is read, and no more is made room for
    except DataError as refusal:
        assert "the recording cannot be read" in str(refusal)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(3601 * 1000, np.float32), 1000, format="FLAC")
    with pytest.raises(DataError, match="the recording is longer than an hour, or than 100,000,000 samples"):
        decode_audio(buffer.getvalue(), "it")


# --- what is written --------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_written_to_and_not_replaced(
    cli: Cli, digits: Dataset, evaluate_into: Any, tmp_path: Path
) -> None:
    """As root, ``--csv /dev/null`` put a file in the place of the device."""
    evaluate_into(tmp_path / "a", n=20)
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert cli("report", tmp_path / "a", "--csv", pipe).code == 0
    reader.join()
    assert read[0].startswith("checkpoint,") and stat.S_ISFIFO(pipe.stat().st_mode)
    os.mkfifo(tmp_path / "table.csv")
    table = ("data", "missing-table", digits.folder, "--scenario", "missing-text", "--missing-rate", 1)
    line = refused(cli, *table, "--out", tmp_path / "table.csv")
    assert "table.csv: already exists and is not a regular file; choose another name" in line


def test_a_defect_of_ours_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A traceback's exit code 1 would tell a pipeline that the gate has found a regression."""
    for error, message in (
        (
            KeyError("n"),
            "mmrobust: unexpected KeyError: 'n'; a bug in mmrobust: please report it with the output of --debug",
        ),
        (MemoryError(), "mmrobust: this machine has too little memory for this command"),
    ):
        monkeypatch.setattr(
            "mmrobust.data.dataset.Dataset.__init__", lambda *_, error=error: (_ for _ in ()).throw(error)
        )
        code, _, said = cli("data", "info", tmp_path)
        assert (code, said) == (2, f"{message}\n")
    assert console.LONGEST_LINE < 2000 and not console.settings.debug
