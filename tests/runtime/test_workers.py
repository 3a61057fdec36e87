"""Worker processes: results by number, and a killed worker is noticed whatever it was at."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from mmrobust.runtime.workers import WorkerLost, Workers

MUCH = 10_000_000
"""Bytes: more than a pipe takes in."""


def test_results_come_by_number_and_what_nobody_wants_is_left_out() -> None:
    workers = Workers(bytes, 2, int)
    try:
        numbers = [workers.submit(size) for size in (3, MUCH, 1, 2, MUCH, 5)]
        workers.discard(numbers[2])
        assert [len(workers.result(numbers[i])) for i in (5, 0, 4, 3, 1)] == [5, 3, MUCH, 2, MUCH]
        workers.discard(workers.submit(7))
        assert workers.result(workers.submit(1)) == b"\0"
    finally:
        workers.close()
    assert not any(process.is_alive() for process in workers.processes)


def test_a_worker_that_is_killed_while_it_writes_is_noticed() -> None:
    workers = Workers(bytes, 2, int)
    lost, kept = workers.submit(MUCH), workers.submit(4)
    assert workers._pipes[0].poll(60)  # it has begun, and cannot end: nobody reads
    assert workers.processes[0].pid is not None
    os.kill(workers.processes[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        workers.result(lost)
    assert workers.result(kept) == bytes(4)
    workers.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list open files")
@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_of_the_memory_that_workers_share(killed: bool) -> None:
    places = [place for place in (Path("/proc/self/fd"), Path("/dev/shm")) if place.is_dir()]
    Workers(np.ones, 1, int).close()  # starts what all pools share
    before = [len(list(place.iterdir())) for place in places]
    workers = Workers(np.ones, 2, int)
    numbers = [workers.submit(MUCH // 8) for _ in range(6)]
    found = [workers.result(number) for number in numbers[:3]]
    if killed:
        for pid in [process.pid for process in workers.processes]:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            [workers.result(number) for number in numbers[3:]]
    workers.close()
    assert all((ones == 1).all() for ones in found)
    del workers, found
    gc.collect()  # the error holds what it was raised from
    assert [len(list(place.iterdir())) for place in places] == before
