"""What a machine does to a run: full disks, folders that cannot be written, Ctrl-C, other processes, failing GPUs.

``docs/faults.md`` lists every fault with what happens; those that other tests cause are named there.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from mmrobust.data import Dataset
from mmrobust.evaluation import plan
from mmrobust.models.backbones.vilt import ViltBackbone
from mmrobust.models.prediction import predictor as run_module
from mmrobust.scoring import writer
from mmrobust.storage import locks
from mmrobust.storage.locks import hold
from mmrobust.storage.results import read_results
from mmrobust.training.trainer import Trainer

Cli = Callable[..., Any]
GRID = (
    "--missing-rate",
    "1",
    "--seeds",
    "1",
    "--scenario",
    "missing-text",
    "--prompting",
    "situation",
    "--device",
    "cpu",
)


TABLE = ("--scenario", "missing-text", "--missing-rate", 0.5, "--seed", 0)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five stretches of the sixty samples, each a shard of its own."""
    for module in (run_module, plan):
        monkeypatch.setattr(module, "STRETCH_SAMPLES", 12)
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.0)


def shards_of(out: Path) -> list[Path]:
    return sorted((out / "predictions").glob("*.parquet"))


def only_line(said: str) -> str:
    (line,) = said.splitlines()
    return line


# --- disks ------------------------------------------------------------------------------------------------------------


def mounted(folder: Path, *options: str) -> bool:
    """Whether a file system in memory could be mounted on ``folder``: only root may, and not in every container."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", *options, "none", str(folder)]
    return sys.platform == "linux" and not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], object]]]:
    """A folder on a disk with no room for a checkpoint or a page, and what makes room there."""
    folder = tmp_path / "disk"
    if mounted(folder, "-o", "size=12k"):
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        subprocess.run(["umount", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # no file may be larger: the same to whoever writes one
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**11, hard))
    yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NO_ROOM = f"({os.strerror(errno.ENOSPC)})", f"({os.strerror(errno.EFBIG)})"


def test_a_full_disk_in_training(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], full_disk: tuple[Path, Callable[[], object]]
) -> None:
    disk, make_room = full_disk
    out, teacher = disk / "mine", trained("full", "linear")
    command = (
        "train",
        "--data",
        digits.folder,
        "--backbone",
        teacher,
        "--method",
        "none",
        "--modalities",
        "image,text",
    )
    command = (*command, "--epochs", 2, "--device", "cpu", "--out", out)
    code, printed, said = cli(*command)
    line = said.splitlines()[-1]
    assert (code, printed) == (2, "")
    assert line.startswith(f"mmrobust: {out}: cannot be written (") and any(why in line for why in NO_ROOM)
    assert line.endswith("finished epochs are kept; run the same command with --resume to continue")
    make_room()
    assert cli(*command, "--resume").code == 0
    assert (out / "model.safetensors").is_file() and not (out / ".training").exists()


def test_a_full_disk_while_data_are_prepared(cli: Cli, full_disk: tuple[Path, Callable[[], object]]) -> None:
    disk, make_room = full_disk
    command = ("data", "prepare", "digits", "--limit", 20, "--out", disk / "digits")
    code, _, said = cli(*command)
    assert code == 2 and "digits: cannot be written (" in only_line(said) and "nothing of it is kept" in said
    assert not list(disk.iterdir())
    make_room()
    assert cli(*command).code == 0


def test_a_full_disk_under_a_report(
    cli: Cli, evaluate_into: Any, tmp_path: Path, full_disk: tuple[Path, Callable[[], object]]
) -> None:
    disk, make_room = full_disk
    make_room() if not os.path.ismount(disk) else None  # the results themselves lie elsewhere
    evaluate_into(tmp_path / "results")
    if not os.path.ismount(disk):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**11, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    code, _, said = cli("report", tmp_path / "results", "--html", disk / "page.html")
    assert code == 2 and "page.html" in only_line(said) and any(why.strip("()") in said for why in NO_ROOM)
    assert not list(disk.iterdir())


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody, root included, may write to."""
    folder = tmp_path / "read-only"
    if mounted(folder):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("root writes everywhere, and may mount nothing here")
    yield folder
    folder.chmod(0o755)


def test_a_read_only_folder(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], evaluate_into: Any, tmp_path: Path, read_only: Path
) -> None:
    evaluate_into(tmp_path / "results")
    teacher, data = trained("full", "linear"), ("--data", digits.folder)
    train = ("train", *data, "--backbone", teacher, "--method", "none", "--modalities", "image,text", "--epochs", 1)
    for command in (
        (*train, "--device", "cpu", "--out", read_only / "mine"),
        ("eval", teacher, *data, *GRID, "--limit", 2, "--out", read_only / "results"),
        ("data", "prepare", "digits", "--limit", 2, "--out", read_only / "digits"),
        ("data", "missing-table", digits.folder, *GRID[:2], *GRID[4:6], "--out", read_only / "table.csv"),
        ("report", tmp_path / "results", "--markdown", read_only / "report.md"),
        ("baseline", "save", tmp_path / "results", read_only / "baseline"),
    ):
        code, _, said = cli(*command)
        assert code == 2, command
        assert "read-only" in only_line(said), command
        assert os.strerror(errno.EROFS) in said or os.strerror(errno.EACCES) in said, command


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def presses(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that has Ctrl-C pressed, so many times, while the model next computes."""
    fuse, left = ViltBackbone.fuse, [0]

    def pressed(self: ViltBackbone, *arguments: Any) -> Any:
        while left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # Python hears of it between two steps of its own
        return fuse(self, *arguments)

    monkeypatch.setattr(ViltBackbone, "fuse", pressed)

    def press(times: int) -> None:
        left[0] = times

    return press


@pytest.mark.usefixtures("small_shards")
def test_ctrl_c_once_finishes_the_shard_and_twice_stops_at_once(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path, presses: Callable[[int], None]
) -> None:
    out = tmp_path / "results"
    command = ("eval", trained("none", "linear"), "--data", digits.folder, *GRID, "--out", out)
    presses(2)
    code, printed, said = cli(*command)
    assert (code, printed) == (130, "")
    assert said.splitlines()[0] == "stopping after this batch; Ctrl-C again stops at once"
    assert said.splitlines()[-1].startswith(f"mmrobust: evaluation stopped; predictions so far are kept in {out}")
    assert not shards_of(out)
    presses(1)
    assert cli(*command).code == 130
    assert len(shards_of(out)) == 1
    kept = shards_of(out)[0].stat().st_mtime_ns
    assert cli(*command).code == 0
    assert len(shards_of(out)) == 5 and shards_of(out)[0].stat().st_mtime_ns == kept
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_training(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epochs before are kept: ``tests/training/test_loop.py`` shows that resuming changes no bit."""
    epoch = Trainer._epoch

    def pressed(self: Trainer, optimizer: Any, number: int, advance: Any) -> Any:
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return epoch(self, optimizer, number, advance)

    command = ("train", "--data", digits.folder, "--backbone", trained("full", "linear"), "--method", "none")
    command = (*command, "--modalities", "image,text", "--epochs", 2, "--device", "cpu", "--out", tmp_path / "mine")
    monkeypatch.setattr(Trainer, "_epoch", pressed)
    code, printed, said = cli(*command)
    assert (code, printed) == (130, "")
    assert said.splitlines()[-1] == (
        "mmrobust: training stopped after epoch 1 of 2; run the same command with --resume to continue"
    )
    monkeypatch.setattr(Trainer, "_epoch", epoch)
    assert cli(*command, "--resume").code == 0


# --- other processes, and clocks --------------------------------------------------------------------------------------


def test_two_processes_on_one_folder(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    teacher, data = trained("full", "linear"), ("--data", digits.folder)
    train = ("train", *data, "--backbone", teacher, "--method", "none", "--modalities", "image,text", "--epochs", 1)
    for folder, command in (
        (tmp_path / "results", ("eval", teacher, *data, *GRID, "--limit", 2, "--out", tmp_path / "results")),
        (tmp_path / "mine" / ".training", (*train, "--device", "cpu", "--resume", "--out", tmp_path / "mine")),
    ):
        with hold(folder):
            code, _, said = cli(*command)
            assert code == 2 and f"process {os.getpid()} on" in only_line(said) and "is using this folder" in said
        assert cli(*command).code == 0


@pytest.mark.parametrize("moment", [0, 4_000_000_000], ids=["1970", "2096"])
def test_clock_jumps(cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path, moment: int) -> None:
    """Files of another time wedge nothing: the system knows who holds a lock, and nobody asks which file is newer."""
    out = tmp_path / "results"
    command = ("eval", trained("none", "linear"), "--data", digits.folder, *GRID, "--limit", 8, "--out", out)
    assert cli(*command).code == 0
    note = {"pid": 1, "host": "elsewhere", "since": "2096-10-02T07:06:40+00:00", "command": "mmrobust eval"}
    (out / ".run.holder.json").write_text(json.dumps(note))
    (out / "predictions" / ".torn.1a2b3c4d.partial").write_bytes(b"PAR1")
    for path in out.rglob("*"):
        os.utime(path, (moment, moment))
    assert cli(*command).code == 0
    assert [int(path.stat().st_mtime) for path in shards_of(out)] == [moment]  # nothing is predicted again
    assert int((out / "results.parquet").stat().st_mtime) != moment
    assert not list(out.rglob("*.partial")) and not (out / ".run.holder.json").exists()


# --- file formats -----------------------------------------------------------------------------------------------------


def in_json(file: Path, version: int) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": version}))


def in_parquet(file: Path, version: int) -> None:
    table = pq.read_table(file)
    said = json.loads(table.schema.metadata[b"mmrobust"])
    pq.write_table(table.replace_schema_metadata({b"mmrobust": json.dumps({**said, "schema_version": version})}), file)


def test_what_a_newer_version_wrote_is_refused_and_left_alone(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    """Older ones are read: ``data/test_dataset.py``, ``test_historic_results.py``, ``test_resume.py``."""
    data = Path(shutil.copytree(digits.folder, tmp_path / "digits"))
    mine = Path(shutil.copytree(trained("full", "linear"), tmp_path / "mine"))
    out, saved = tmp_path / "results", tmp_path / "baseline"
    evaluate = ("eval", mine, "--data", data, *GRID, "--limit", 8, "--out", out)
    assert cli(*evaluate).code == 0
    assert cli("baseline", "save", out, saved, "--allow-dirty").code == 0
    study = tmp_path / "study.yaml"
    study.write_text("methods: [none]\nbackbone: tiny\n")
    studied = tmp_path / "studied"
    studied.mkdir()
    (studied / "study.json").write_text('{"study": {}, "evaluate": {}, "jobs": {}}')
    (shard,) = shards_of(out)
    for file, change, command, message in (
        (data / "dataset.json", in_json, evaluate, "data set format 99 is newer than this mmrobust reads (4)"),
        (mine / "config.json", in_json, evaluate, "checkpoint format 99 is newer than this mmrobust reads (2)"),
        (shard, in_parquet, evaluate, "predictions of schema 99, newer than this mmrobust reads (4)"),
        (
            out / "results.parquet",
            in_parquet,
            ("report", out),
            "results of schema 99, newer than this mmrobust reads (2)",
        ),
        (saved / "results.parquet", in_parquet, ("check", out, "--baseline", saved), "results of schema 99, newer"),
        (
            studied / "study.json",
            in_json,
            ("study", "run", study, "--data", data, "--out", studied),
            "study format 99, and this mmrobust reads 1",
        ),
    ):
        sound = file.read_bytes()
        change(file, 99)
        newer = file.read_bytes()
        code, _, said = cli(*command)
        assert code == 2 and message in only_line(said) and str(file) in said
        assert file.read_bytes() == newer
        file.write_bytes(sound)


# --- GPUs -------------------------------------------------------------------------------------------------------------


def vanished() -> RuntimeError:
    """What PyTorch raises where a GPU is gone."""
    said = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
    return getattr(torch, "AcceleratorError", RuntimeError)(said)


def raising(monkeypatch: pytest.MonkeyPatch, error: Callable[[int, int], Exception | None]) -> list[int]:
    """Have a real model's forward raise: ``error`` is asked with how many batches ran, and the samples of the next."""
    ran: list[int] = []
    fuse = ViltBackbone.fuse

    def failing(self: ViltBackbone, alone: Any, *further: Any) -> Any:
        size = len(alone["text"].tokens_BLD)
        if (raised := error(len(ran), size)) is not None:
            raise raised
        ran.append(size)
        return fuse(self, alone, *further)

    monkeypatch.setattr(ViltBackbone, "fuse", failing)
    return ran


@pytest.mark.usefixtures("small_shards")
def test_a_gpu_out_of_memory_and_one_that_vanishes(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    command = ("eval", trained("none", "linear"), "--data", digits.folder, *GRID, "--batch-size", 8, "--out")
    assert cli(*command, tmp_path / "whole").code == 0
    whole = read_results(tmp_path / "whole").frame

    with pytest.MonkeyPatch.context() as patch:  # three samples fit
        too_large = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        ran = raising(patch, lambda batches, size: too_large if size > 3 else None)
        assert cli(*command, tmp_path / "cramped").code == 0
        assert max(ran) <= 3 and sum(ran) == 60  # every sample once
    assert read_results(tmp_path / "cramped").frame.value.tolist() == whole.value.tolist()

    out = tmp_path / "vanished"
    with pytest.MonkeyPatch.context() as patch:
        raising(patch, lambda batches, size: vanished() if batches >= 8 else None)
        code, printed, said = cli(*command, out)
    assert (code, printed) == (2, "")
    assert only_line(said).startswith("mmrobust: device cpu failed (CUDA error: unspecified launch failure")
    assert said.rstrip().endswith(f"predictions so far are kept in {out}; the same command continues")
    kept = {path: path.stat().st_mtime_ns for path in shards_of(out)}
    assert 0 < len(kept) < 5
    assert cli(*command, out).code == 0
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in shards_of(out)}.items()
    assert read_results(out).frame.value.tolist() == whole.value.tolist()


def test_a_gpu_that_fails_in_training(cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path) -> None:
    command = ("train", "--data", digits.folder, "--backbone", trained("full", "linear"), "--method", "mmp")
    command = (*command, "--prompt-length", 2, "--method-set", "init=normal", "--modalities", "image,text")
    command = (*command, "--epochs", 2, "--batch-size", 32, "--device", "cpu", "--out", tmp_path / "mine")
    for error, message in (
        (torch.OutOfMemoryError("CUDA out of memory"), "device cpu has too little memory (CUDA out of memory); take a"),
        (vanished(), "device cpu failed (CUDA error: unspecified launch failure"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_step", lambda *_, error=error: (_ for _ in ()).throw(error))
            code, printed, said = cli(*command)
        assert (code, printed) == (2, "") and message in said.splitlines()[-1]
        assert not (tmp_path / "mine").exists()  # no epoch was finished: the same command begins again
    assert cli(*command).code == 0
    assert load_file(tmp_path / "mine" / "model.safetensors")


# --- home, network, and what is written where -------------------------------------------------------------------------

THREE_COMMANDS = """
import os, sys
from pathlib import Path
written = set()
def look(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.add(os.path.abspath(os.fsdecode(arguments[0])) if not isinstance(arguments[0], int) else "")
    elif event in ("os.mkdir", "os.rename"):
        written.add(os.path.abspath(os.fsdecode(arguments[event == "os.rename"])))
sys.addaudithook(look)
from mmrobust.cli.app import run
teacher, data = sys.argv[1:]
place = ["--data", data, "--device", "cpu"]
assert run(["train", *place, "--backbone", teacher, "--method", "none", "--modalities", "image,text", "--epochs", "1",
    "--out", "mine"]) == 0
assert run(["eval", "mine", *place, "--limit", "4", "--missing-rate", "1", "--seeds", "1", "--out", "results"]) == 0
assert run(["report", "results", "--markdown", "report.md", "--html", "report.html"]) == 0
print("\\n".join(["WRITTEN", *sorted(written)]))
"""
USUAL = (".cache", "huggingface", "torch", "__pycache__")
"""What the usual caches are called."""


@pytest.mark.parametrize("home", ["fresh", "unset", "unwritable"])
def test_nothing_is_written_elsewhere_whatever_home_is(
    digits: Dataset, trained: Callable[..., Path], tmp_path: Path, home: str
) -> None:
    folders = {name: tmp_path / name for name in ("home", "work", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    place = {name: value for name, value in os.environ.items() if name not in ("HOME", "HF_HOME", "XDG_CACHE_HOME")}
    place |= {"TMPDIR": str(folders["temporary"]), "PYTHONPATH": str(Path(__file__).parents[2])}
    place |= {} if home == "unset" else {"HOME": str(folders["home"]) if home == "fresh" else "/proc/none"}
    command = [sys.executable, "-B", "-c", THREE_COMMANDS, str(trained("full", "linear")), str(digits.folder)]
    done = subprocess.run(command, cwd=folders["work"], env=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr.count("Traceback")
    assert {path.name for path in folders["work"].iterdir()} == {"mine", "results", "report.md", "report.html"}
    named = tuple(
        str(folders["work"] / name) for name in ("mine", "results", "report.", ".mine", ".results", ".report.")
    )
    _, _, written = done.stdout.partition("WRITTEN\n")
    for path in filter(None, written.splitlines()):
        if path == str(folders["work"]):  # made where it was not there
            continue
        usual = any(name in path for name in USUAL) or path.startswith((str(folders["temporary"]), "/dev/", "/proc/"))
        assert path.startswith(named) or usual, path
    left = [path for path in folders["home"].rglob("*") if path.is_file()]
    assert all(path.is_relative_to(folders["home"] / ".cache") for path in left), left


def test_no_network_with_a_hub_id(digits: Dataset, tmp_path: Path) -> None:
    """The Hub's place answers nobody: one line that says what to do, and no minutes of trying again."""
    place = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    place |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    place |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "mmrobust", "train", "--data", str(digits.folder), "--method", "none"]
    command += ["--backbone", "dandelin/vilt-b32-mlm", "--modalities", "image,text", "--out", str(tmp_path / "mine")]
    began = time.monotonic()
    done = subprocess.run(command, env=place, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    line = only_line(done.stderr)
    assert "dandelin/vilt-b32-mlm: is no folder here and no model in reach on the Hub" in line and "hf download" in line
    assert time.monotonic() - began < 120  # most of it imports
    assert not (tmp_path / "mine").exists()


def test_every_file_follows_the_umask(cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path) -> None:
    folder, teacher = tmp_path / "work", trained("full", "linear")
    data = ("--data", digits.folder)
    before = os.umask(0o027)
    try:
        commands: tuple[tuple[object, ...], ...] = (
            ("data", "prepare", "digits", "--limit", 8, "--out", folder / "data"),
            ("train", *data, "--backbone", "tiny", "--method", "full", "--epochs", 1, "--out", folder / "full"),
            ("eval", teacher, *data, *GRID, "--out", folder / "grid"),
            ("report", folder / "grid", "--html", folder / "page.html", "--csv", folder / "rows.csv"),
            ("baseline", "save", folder / "grid", folder / "baseline", "--allow-dirty"),
            ("data", "missing-table", digits.folder, *TABLE, "--out", folder / "table.pt"),
        )
        for command in commands:
            assert cli(*command).code == 0
    finally:
        os.umask(before)
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {name: 0o750 if (folder / name).is_dir() else 0o640 for name in modes}
    assert {"full/model.safetensors", "full/backbone/model.safetensors", "grid/results.parquet"} <= modes.keys()
