"""Standard output and error as people have them: other encodings, closed, pipes that nobody reads, hostile names."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from mmrobust.data import Dataset
from mmrobust.data.format import SPLITS
from mmrobust.runtime.machine import lacks_memory
from mmrobust.runtime.printable import one_line, printable, spreadsheet_cell
from mmrobust.storage.results import read_results, write_results

Cli = Callable[..., Any]
HOSTILE = "a\n::error::b\x1b[31m\u202ec"


@pytest.fixture(scope="module")
def grids(evaluate_into: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two models, the second of which is worse."""
    folder = tmp_path_factory.mktemp("grids")
    evaluate_into(folder / "good")
    evaluate_into(folder / "bad", skill=0.5, seed=1)
    return folder


# Several commands in one process, each as `mmrobust` itself runs it; what each prints, and its exit code, go to files.
SEVERAL = """
import json, os, sys
from mmrobust.cli.app import main
for number, arguments in enumerate(json.loads(sys.argv[1])):
    sys.argv = ["mmrobust", *arguments]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), descriptor)
    try:
        main()
    except SystemExit as end:
        open(f"{number}.code", "w").write(str(end.code))
"""
COMMANDS = (
    *(("--help",), ("train", "--help"), ("report", "good", "bad"), ("report", "good", "--json")),
    *(("check", "good", "--baseline", "good"), ("check", "good", "--baseline", "good", "--format", "junit")),
    *(("check", "good", "--baseline", "good", "--format", "md"), ("check", "good", "--baseline", "good", "--json")),
    *(("check", "bad", "--baseline", "good"), ("compare", "good", "bad"), ("compare", "good", "bad", "--json")),
    *(("doctor",), ("study", "list"), ("train", "--method-set"), ("report", "nowhere-ü→")),
)


@pytest.mark.parametrize(
    ("encoding", "environment"),
    [
        ("cp1252", {"PYTHONIOENCODING": "cp1252"}),
        ("latin-1", {"PYTHONIOENCODING": "latin-1"}),
        ("cp437", {"PYTHONIOENCODING": "cp437"}),
        ("ascii", {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_every_command_prints_in_every_encoding(
    grids: Path, tmp_path: Path, encoding: str, environment: dict[str, str]
) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).symlink_to(grids / name)
    command = [sys.executable, "-c", SEVERAL, json.dumps(COMMANDS)]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, **environment})
    printed = [(tmp_path / f"{number}.out").read_bytes() for number in range(len(COMMANDS))]
    said = [(tmp_path / f"{number}.err").read_bytes().decode(encoding) for number in range(len(COMMANDS))]
    codes = [int((tmp_path / f"{number}.code").read_text()) for number in range(len(COMMANDS))]
    failing = {command: 1 for command in COMMANDS if command[:2] == ("check", "bad")} | {COMMANDS[-1]: 2}
    expected = [failing.get(command, 0) for command in COMMANDS]
    assert codes == expected, said
    for command, output in zip(COMMANDS, printed, strict=True):
        text = output.decode(encoding)
        if command[-1] == "--json":
            assert output.isascii() and json.loads(output)
        elif command[-1] == "junit":
            assert ElementTree.fromstring(output).tag == "testsuites"
        elif command[0] != "doctor":  # which may quote the machine
            assert "\\u" not in text, "every sign that is printed has a word in ASCII"
    assert "->" in printed[0].decode(encoding)


def start(*arguments: object, **how: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mmrobust", *map(os.fsencode, map(str, arguments))]
    return subprocess.run(command, check=False, capture_output=not how.keys() & {"stdout", "stderr"}, **how)


def test_closed_streams(grids: Path) -> None:
    for redirection, code in ((">&-", 1), ("2>&-", 1), ("<&- >&- 2>&-", 1)):
        command = f"{sys.executable} -m mmrobust check {grids / 'bad'} --baseline {grids / 'good'} {redirection}"
        assert subprocess.run(command, shell=True, check=False, capture_output=True).returncode == code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 141),
        (("report", "good"), 141),
        (("check", "good", "--baseline", "good"), 0),
        (("check", "bad", "--baseline", "good"), 1),
    ],
)
def test_a_pipe_that_nobody_reads(grids: Path, arguments: tuple[str, ...], code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = start(*arguments, cwd=grids, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_standard_output(grids: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = start("report", grids / "good", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"No space left on device" in done.stderr


def test_a_path_that_is_no_text(grids: Path, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9"
    folder = os.fsdecode(raw)
    try:
        Path(folder).symlink_to(grids / "good")
    except OSError:
        pytest.skip("this file system takes no such names")
    for arguments in (("report", folder), ("report", folder, "--html", folder + ".html", "--markdown", folder + ".md")):
        done = start(*arguments)
        assert (done.returncode, b"caf\xe9" in done.stderr) == (0, False), done.stderr
    done = start("baseline", "save", folder, folder + "-kept", "--allow-dirty")
    assert done.returncode == 0 and done.stdout.endswith(b"caf\\xe9-kept\n"), done.stderr
    done = start("report", folder + "-gone")
    assert done.returncode == 2 and b"caf\\xe9-gone: no such file" in done.stderr


def test_data_at_a_path_that_is_no_text(cli: Cli, tmp_path: Path) -> None:
    """Data, plans, own models, predictions work there; weights, whose libraries open no such path, say so at once."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    rows = [f"{split}{i},red {i},{i % 9},{'ab'[i % 2]},{split}" for split in SPLITS for i in range(4)]
    (place / "m.csv").write_text("\n".join(["id,text,size,label,split", *rows]))
    (place / "own.py").write_text(
        "import mmrobust\nmodel = mmrobust.Model(name='own', version='1', modalities=['text', 'size'],"
        "\n  task='single-label', classes=['a', 'b'],"
        "\n  scale='logits', predict=lambda samples, case: [[0.0, 1.0]] * len(samples))\n"
    )
    data, kinds = place / "data", ("--modality", "text=text:text", "--modality", "size=text:size")
    done = cli("data", "prepare", "manifest", "--source", place / "m.csv", "--out", data, *kinds)
    assert done.code == 0, done.err
    assert json.loads((data / "dataset.json").read_text())["source"].endswith("caf\\xe9/m.csv")
    grid = ("--data", data, "--scenario", "missing-text", "--missing-rate", "0,1", "--seeds", "1")
    for works in (
        ("data", "verify", data),
        ("plan", *grid, "--inputs", "--out", place / "plan"),
        ("data", "missing-table", data, "--scenario", "missing-text", "--missing-rate", 1, "--out", place / "t.csv"),
        ("eval", f"{place}/own.py:model", *grid, "--out", place / "run"),
        ("score", place / "run", "--missing-table", place / "t.csv"),
    ):
        done = cli(*works)
        assert done.code == 0, (works, done.err)
    before = sorted(place.rglob("*"))
    out, refused = place / "out", "a path that is not UTF-8; rename it\n"
    for command in (
        ("train", "--data", data, "--backbone", "tiny", "--method", "full", "--out", out),
        ("eval", data, *grid, "--out", out),
        ("demo", "--out", out),
        ("import", "mmp", place / "m.csv", "--out", out),
        ("study", "run", "dpl-vs-linear", "--data", data, "--out", out),
    ):
        done = cli(*command)
        assert done.code == 2 and done.err.count("\n") == 1 and done.err.endswith(refused), done.err
    assert sorted(place.rglob("*")) == before


GREEDY = """
import resource
import mmrobust, numpy
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, resource.RLIM_INFINITY))
model = mmrobust.Model(
    name="greedy", version="1", modalities=["image", "text"], classes=[str(c) for c in range(10)], task="single-label",
    knows_case=False, scale="logits", predict=lambda samples, case: numpy.ones((2**31, 10))[: len(samples)],
)
"""


STARVED = """
import hashlib, resource, sys  # hashlib logs what it cannot import
from mmrobust.__main__ import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**20, resource.RLIM_INFINITY))
sys.argv = ["mmrobust", "check", "good", "--baseline", "good"]
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_too_little_memory_is_one_line(digits: Dataset, grids: Path, tmp_path: Path) -> None:
    """Of what fails cleanly: with less room than their own, libraries crash, or wait for ever, before we can speak."""
    (tmp_path / "greedy.py").write_text(GREEDY)
    command = ("eval", "greedy.py:model", "--data", str(digits.folder), "--limit", "2", "--out", "out")
    done = start(*command, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"Unable to allocate" in done.stderr
    done = subprocess.run([sys.executable, "-c", STARVED], check=False, cwd=grids, capture_output=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"memory" in done.stderr


def test_what_libraries_say_of_too_little_memory_is_understood() -> None:
    for error in (
        MemoryError(),
        OSError(12, os.strerror(12)),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ):
        assert lacks_memory(error)
    assert not lacks_memory(RuntimeError("shapes differ")) and not lacks_memory(None)


def test_a_current_folder_that_was_removed(grids: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && {sys.executable} -m mmrobust report {grids / 'good'}"
    done = subprocess.run(command, shell=True, check=False, capture_output=True)
    assert done.returncode == 2
    assert done.stderr == b"mmrobust: the current folder was removed; change to another one, and start again\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(("variable", "escape"), [("TERM=dumb", b"\x1b"), ("NO_COLOR=1", b"\x1b[3")])
def test_a_terminal_that_shows_no_colours(grids: Path, variable: str, escape: bytes) -> None:
    master, slave = os.openpty()
    name, _, value = variable.partition("=")
    environment = {key: text for key, text in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    done = start(
        "report", grids / "good", stdout=slave, stderr=slave, env={**environment, "TERM": "xterm", name: value}
    )
    os.close(slave)
    printed = os.read(master, 2**16)
    os.close(master)
    assert done.returncode == 0 and b"missing-text" in printed and escape not in printed


# --- hostile names ----------------------------------------------------------------------------------------------------


def test_what_is_not_seen_is_escaped() -> None:
    assert one_line(HOSTILE) == r"a\n::error::b\x1b[31m\u202ec"
    assert one_line("  ::error::x") == r"\  ::error::x" and one_line("x ##[error]y") == r"x ##\[error]y"
    assert printable("a\nb", keep="\n") == "a\nb" and printable("\udcff\x9b\u2028") == r"\xff\x9b\u2028"
    for name in ("Zürich", "日本", "👩\u200d🔬", "می\u200cخواهم", "a b", "f::x"):
        assert one_line(name) == name
    for text in ("=HYPERLINK(1)", "+1", "-1", "@x", "\t=1"):
        assert spreadsheet_cell(text) == f"'{text}"
    assert spreadsheet_cell("mmp=1") == "mmp=1"


@pytest.fixture
def renamed(grids: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The good results, with another name of the checkpoint, of the data and of a scenario."""

    def rename(name: str) -> Path:
        results = read_results(grids / "good")
        frame = results.frame.assign(checkpoint=name, dataset=name)
        frame["scenario"] = np.where(frame["scenario"] == "missing-text", name, frame["scenario"])
        provenance = {**results.provenance, "checkpoints": {name: results.provenance["checkpoints"]["mmp"]}}
        provenance["dataset"] = {**provenance["dataset"], "name": name}
        write_results(tmp_path / "results.parquet", frame, provenance)
        return tmp_path / "results.parquet"

    return rename


def test_names_reach_no_log_as_a_command_and_no_terminal_raw(renamed: Callable[[str], Path], cli: Cli) -> None:
    for name in (HOSTILE, "::error::a", "##[error]a"):
        file = renamed(name)
        for command in (
            ("report", file),
            ("check", file, "--baseline", file),
            ("check", file, "--baseline", file, "--format", "md"),
            ("check", file, "--baseline", file, "--format", "junit"),
            ("check", file, "--baseline", file, "--format", "github", "--fail", "accuracy>=0.99"),
            ("check", file, "--baseline", file, "--fail", "accuracy>=0.99"),
            ("compare", file, file),
            ("report", file, "--metric", name),
            ("report", f"{file}{name}"),
        ):
            _, printed, said = cli(*command)
            whole = printed + said
            assert "\x1b" not in whole and "\u202e" not in whole and "##[error]" not in whole
            ours = ("::error title=", "::warning title=", "::notice title=") if "github" in command else ()
            commands = [line for line in whole.splitlines() if line.lstrip().startswith("::")]
            assert all(line.startswith(ours) for line in commands), commands


def test_names_are_no_formulas_in_a_spreadsheet(renamed: Callable[[str], Path], cli: Cli, tmp_path: Path) -> None:
    assert cli("report", renamed("=HYPERLINK(1,2)"), "--csv", tmp_path / "rows.csv").code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text(encoding="utf-8"))))
    assert {row["checkpoint"] for row in rows} == {row["dataset"] for row in rows} == {"'=HYPERLINK(1,2)"}
    assert float(rows[0]["drop_per_10_points_low"] or 0) <= 1
