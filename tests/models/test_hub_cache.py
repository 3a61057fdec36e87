"""A checkpoint that names a Hub id asks the network for nothing that lies in the cache."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ID, REVISION = "someone/tiny-vilt", "0" * 40
LOAD = """
import sys
from mmrobust.models.checkpoint import load_checkpoint
print(load_checkpoint(sys.argv[1]).fingerprint)
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[object]]]:
    """The address of a Hub that has nothing, and who has called there."""
    callers: list[object] = []
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            callers.append(address)
            with connection:
                connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.fixture
def named(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint whose frozen backbone is a Hub id, which lies in the cache in ``hub``."""
    cached = tmp_path / "hub" / "hub" / f"models--{ID.replace('/', '--')}"
    shutil.copytree(trained("full", "linear") / "backbone", cached / "snapshots" / REVISION)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(REVISION)
    folder = Path(shutil.copytree(trained("mmp", "linear"), tmp_path / "mmp"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["backbone"] |= {"id": ID, "path": None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def load(folder: Path, tmp_path: Path, address: str) -> subprocess.CompletedProcess[str]:
    place = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    place |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", LOAD, str(folder)]
    return subprocess.run(command, env=place, capture_output=True, text=True, check=False)


def test_nothing_is_asked_for_that_the_cache_holds(
    named: Path, tmp_path: Path, hub: tuple[str, list[object]], trained: Callable[..., Path]
) -> None:
    address, callers = hub
    done = load(named, tmp_path, address)
    assert done.returncode == 0, done.stderr
    assert not callers
    assert done.stdout == load(trained("mmp", "linear"), tmp_path, address).stdout


def test_the_hub_is_asked_where_the_cache_holds_another_version(
    named: Path, tmp_path: Path, hub: tuple[str, list[object]]
) -> None:
    address, callers = hub
    config = json.loads((named / "config.json").read_text(encoding="utf-8"))
    config["backbone"]["fingerprint"] = "f" * 32
    (named / "config.json").write_text(json.dumps(config), encoding="utf-8")
    done = load(named, tmp_path, address)
    assert callers and done.returncode == 1 and "CheckpointError" in done.stderr
