"""Two runs on one folder: the second is told who the first is, and a dead one holds nothing."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mmrobust.errors import UsageError
from mmrobust.storage import locks
from mmrobust.storage.locks import hold, hold_part, hold_whole


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)


def test_the_holder_is_named(tmp_path: Path) -> None:
    held = rf"process {os.getpid()} on {platform.node()} \(since 20.*: .*\) is using this folder; wait for it"
    with hold_whole(tmp_path), pytest.raises(UsageError, match=held), hold_whole(tmp_path):
        pass
    with hold_whole(tmp_path):
        pass


def test_parts_go_beside_each_other_but_not_beside_the_whole(tmp_path: Path) -> None:
    with hold_part(tmp_path, 1, 2), hold_part(tmp_path, 2, 2):
        with pytest.raises(UsageError, match="is using this folder"), hold_part(tmp_path, 1, 2):
            pass
        with pytest.raises(UsageError, match="is using this folder"), hold_whole(tmp_path):
            pass
    with hold_whole(tmp_path), pytest.raises(UsageError, match="is using this folder"), hold_part(tmp_path, 1, 2):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from mmrobust.storage.locks import hold\n"
        "with hold(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    note = tmp_path / ".run.holder.json"
    assert json.loads(note.read_text())["pid"] != os.getpid()
    with hold(tmp_path):
        assert json.loads(note.read_text())["pid"] == os.getpid()
    assert not note.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.FileLock, "acquire", no_locks)
    with pytest.raises(UsageError, match=r"its disk has no file locks .*name an --out on another disk"), hold(tmp_path):
        pass
