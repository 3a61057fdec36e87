"""Files and folders appear whole or not at all; what the system fails to read is not taken for damage."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmrobust.errors import CheckpointError, DataError, ReadError
from mmrobust.storage import files, partial
from mmrobust.storage.files import atomic_file, atomic_folder, files_in, is_there, read_json, remove_partial
from mmrobust.storage.parquet import read_parquet
from mmrobust.storage.weights import read_weights, write_weights


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """A function that sets the umask for the rest of the test."""
    before = os.umask(0o022)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(before)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """As many files are open as the process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    table, weights, text = tmp_path / "a.parquet", tmp_path / "a.safetensors", tmp_path / "a.json"
    pq.write_table(pa.table({"a": [1]}), table)
    write_weights(weights, {"w": torch.ones(3)})
    text.write_text("{}")
    readers: list[tuple[Path, Callable[[Path], Any]]] = [
        (table, lambda path: read_parquet(path, "table")),
        (weights, lambda path: read_weights(path, "weights")),
        (text, lambda path: read_json(path, "settings")),
        (tmp_path, lambda path: files_in(path, "*")),
    ]
    failures = []
    with no_descriptors():
        for path, read in readers:
            try:
                read(path)
            except Exception as error:
                failures.append((path, error))
    assert [path for path, _ in failures] == [path for path, _ in readers]
    for path, error in failures:
        assert type(error) is ReadError
        why = "it could not be opened" if path == weights else os.strerror(errno.EMFILE)
        assert str(error).startswith(f"{path}: the system could not read it ({why})")
    for path, read in readers:
        read(path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM])
def test_whatever_error_the_system_reports_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    table, text = tmp_path / "a.parquet", tmp_path / "a.json"
    pq.write_table(pa.table({"a": [1]}), table)
    text.write_text("{}")
    monkeypatch.setattr(pq, "ParquetFile", fails)
    monkeypatch.setattr(Path, "read_text", fails)
    monkeypatch.setattr(Path, "iterdir", fails)
    for read in (lambda: read_parquet(table, "table"), lambda: read_json(text, "s"), lambda: files_in(tmp_path, "*")):
        with pytest.raises(ReadError, match=os.strerror(number)):
            read()
    monkeypatch.setattr(Path, "stat", fails)
    with pytest.raises(ReadError, match=os.strerror(number)):
        is_there(table)


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    monkeypatch.setattr(pq, "ParquetFile", fails)
    with pytest.raises(ReadError, match="too little memory"):
        read_parquet(tmp_path / "a.parquet", "table")


def test_damage_is_still_damage(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_parquet(tmp_path / "a.parquet", "table")
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "a.safetensors", "weights")
    for name in ("\0", "n" * 300):
        with pytest.raises(DataError, match="cannot be opened"):
            read_json(tmp_path / name, "settings")
    assert files_in(tmp_path / "nowhere", "*") == []
    assert not is_there(tmp_path / "nowhere") and not is_there(tmp_path / "a.parquet" / "below")


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_follows_the_umask(tmp_path: Path, umask: Callable[[int], None], mask: int, mode: int) -> None:
    umask(mask)
    write_weights(tmp_path / "a.safetensors", {"w": torch.ones(3)})
    with atomic_file(tmp_path / "b.txt") as written:
        written.unlink()
        written.write_text("put in its place by a library")
        written.chmod(0o600)
    assert [mode_of(file) for file in sorted(tmp_path.iterdir())] == [mode, mode]


# --- what a killed process leaves -------------------------------------------------------------------------------------

KILLED = """
import sys, time
from pathlib import Path
from mmrobust.storage.files import atomic_file, atomic_folder
kind, path = sys.argv[1], Path(sys.argv[2])
with (atomic_folder(path, "thing", replace=True) if kind == "folder" else atomic_file(path)) as partial:
    (partial / "half" if kind == "folder" else partial).write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def half_written(kind: str, path: Path) -> subprocess.Popen[str]:
    """A process that has written half of ``path``."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, kind, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def write(kind: str, path: Path, text: str = "whole") -> None:
    if kind == "folder":
        with atomic_folder(path, "thing", replace=True) as written:
            (written / "whole").write_text(text)
    else:
        with atomic_file(path) as written:
            written.write_text(text)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_process_removes_what_a_killed_one_left_but_not_what_a_living_one_writes(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "data"
    dead = half_written(kind, path)
    kill(dead)
    left = {file.name for file in tmp_path.iterdir()}
    assert len(left) == 2 and all(name.startswith(".data.") for name in left)
    alive = half_written(kind, path)
    assert not left & {file.name for file in tmp_path.iterdir()}, "the second process removes what the first left"
    write(kind, tmp_path / "other")
    write(kind, path)
    assert len(list(tmp_path.iterdir())) == 4, "two that are whole, and what the living process writes, with its lock"
    remove_partial(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    kill(alive)
    write(kind, path)
    assert {file.name for file in tmp_path.iterdir()} == {"data", "other"}


def test_what_an_older_version_left_is_removed_by_whoever_holds_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".a.parquet.0123abcd.partial").write_text("half")
    (tmp_path / ".b.0123abcd.partial").mkdir()
    (tmp_path / ".hidden").write_text("the user's")
    write("file", tmp_path / "a.parquet")
    assert (tmp_path / ".a.parquet.0123abcd.partial").exists(), "its owner may be alive"
    remove_partial(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"a.parquet", ".hidden"}


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127, "日" * 85):
        for kind, folder in (("file", tmp_path / "files"), ("folder", tmp_path / "folders")):
            write(kind, folder / name)
            assert (folder / name).exists() and len(list(folder.iterdir())) == 1
            (folder / name).rename(tmp_path / kind) if kind == "file" else shutil.rmtree(folder / name)


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(partial, "flock", no_locks)
    for kind in ("file", "folder"):
        write(kind, tmp_path / kind)
        write(kind, tmp_path / kind)
    assert {file.name for file in tmp_path.iterdir()} == {"file", "folder"}


# --- replacing a folder -----------------------------------------------------------------------------------------------


def test_there_is_always_one_of_the_name_while_a_folder_is_replaced(tmp_path: Path) -> None:
    if not _can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange two folders in one step")
    folder, absent, stop = tmp_path / "baseline", [], threading.Event()
    write("folder", folder)

    def watch() -> None:
        while not stop.is_set():
            if not (folder / "whole").exists():
                absent.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for round in range(200):
        write("folder", folder, f"{round}")
    stop.set()
    watcher.join()
    assert not absent and (folder / "whole").read_text() == "199"
    assert list(tmp_path.iterdir()) == [folder]


def _can_exchange(folder: Path) -> bool:
    one, other = folder / "one", folder / "other"
    one.mkdir(), other.mkdir()
    able = files._exchange(one, other)
    one.rmdir(), other.rmdir()
    return able


def test_a_folder_is_replaced_where_two_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    folder = tmp_path / "baseline"
    write("folder", folder, "earlier")
    write("folder", folder, "later")
    assert (folder / "whole").read_text() == "later" and list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_was_moved_away_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "baseline"
    write("folder", folder, "earlier")
    dead = half_written("folder", folder)
    (half,) = tmp_path.glob(".baseline.*.partial")
    folder.rename(half.with_suffix(".earlier"))  # the first of the two steps
    kill(dead)
    partial.remove_abandoned(tmp_path, "baseline")
    assert list(tmp_path.iterdir()) == [folder] and (folder / "whole").read_text() == "earlier"


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write("folder", tmp_path / "a", "earlier")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a", "thing", replace=True) as written:
        (written / "half").write_text("half")
        raise RuntimeError
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
