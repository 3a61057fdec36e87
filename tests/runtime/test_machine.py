from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.runtime import machine


def test_the_share_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine.available_cores()
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.available_cores() == whole  # no container
    for said, cores in (("max 100000", whole), ("100000 100000", 1), ("50000 100000", 1), ("1 0", whole)):
        (tmp_path / "cpu.max").write_text(f"{said}\n")
        assert machine.available_cores() == cores
    free = machine.free_memory()
    assert free
    (tmp_path / "memory.max").write_text(f"{2**20}\n")
    (tmp_path / "memory.current").write_text(f"{2**20 - 5}\n")
    assert (machine.total_memory(), machine.free_memory()) == (2**20, 5)
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 1000\nactive_file 9\n")
    assert machine.free_memory() == 1005
    (tmp_path / "memory.current").write_text(f"{2**21}\n")
    assert machine.free_memory() == 0


def test_threads_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, threads in (("3", 3), ("", machine.available_cores()), ("0", machine.available_cores()), ("2,1", None)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert machine.own_threads() == (threads or machine.available_cores())
