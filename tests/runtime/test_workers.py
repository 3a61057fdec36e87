"""Worker processes: results by number, and a killed worker is noticed whatever it was at."""

from __future__ import annotations

import os
import signal

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
