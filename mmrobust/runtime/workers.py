"""Worker processes, each with a pipe of its own.

With one pipe for all, as in :mod:`concurrent.futures`, a worker that is killed while it writes leaves half a message
and a lock that is never released: everyone waits forever. Here the end of its pipe shows that it is gone.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from mmrobust.runtime.slabs import Slab, Slabs, Span

Task = TypeVar("Task")
Result = TypeVar("Result")

KEPT_BYTES = 32 * 2**20
"""Freed memory that a worker keeps, and the smallest piece that it does not: the most that glibc allows."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class WorkerLost(Exception):
    """A worker process ended before its work was done: most likely it was killed."""


class Workers(Generic[Task, Result]):
    """Processes that carry out tasks, each in turn.

    Each is sent ``work`` once, and calls ``setup`` first. An exception ends it.
    """

    def __init__(self, work: Callable[[Task], Result], count: int, setup: Callable[[], object]) -> None:
        # Not forked: this process may hold threads, a GPU and open files that a copy must not touch.
        context = multiprocessing.get_context("spawn")
        self._pipes, self.processes = [], []
        self._slabs = Slabs.new()
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._slabs, work, setup), daemon=True)
            process.start()
            theirs.close()  # only the worker's copy keeps the pipe open
            self._pipes.append(ours)
            self.processes.append(process)
        self._submitted = 0
        self._lent: dict[int, Slab] = {}
        self._results: dict[int, Result] = {}
        self._discarded: set[int] = set()

    def submit(self, task: Task) -> int:
        """Send ``task`` to the worker whose turn it is; returns the number by which to ask for its :meth:`result`.

        Raises:
            WorkerLost: it is gone.
        """
        number = self._submitted
        slab = self._lent[number] = self._slabs.take()
        try:
            self._pipes[number % len(self._pipes)].send((number, slab.span, task))
        except OSError as cause:
            raise WorkerLost from cause
        self._submitted += 1
        return number

    def result(self, number: int) -> Result:
        """Wait for the result of the task with this number. Each can be asked for once.

        Raises:
            WorkerLost: the worker that had the task is gone.
        """
        while number not in self._results:
            pipe = self._pipes[number % len(self._pipes)]
            try:
                done, written = pipe.recv()
                result = self._lent.pop(done).read(pipe.recv_bytes(), written)
            except (EOFError, OSError) as cause:
                raise WorkerLost from cause
            if done in self._discarded:
                self._discarded.remove(done)
            else:
                self._results[done] = result
        return self._results.pop(number)

    def discard(self, number: int) -> None:
        """Drop the result of the task with this number, now or when it arrives."""
        if self._results.pop(number, None) is None:
            self._discarded.add(number)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for pipe, process in zip(self._pipes, self.processes, strict=True):
            pipe.close()
            process.terminate()
            process.join()
        self._slabs.close()


def _serve(pipe: Connection, slabs: Slabs, work: Callable[[Any], Any], setup: Callable[[], object]) -> None:
    """Carry out tasks until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the main one decides
    _keep_freed_memory()
    setup()
    # A thread sends, so that the next task can be received meanwhile: if both ends only sent, they would wait forever.
    with ThreadPoolExecutor(1) as sender:
        while True:
            try:
                number, slab, task = pipe.recv()
            except (EOFError, OSError):
                return
            sender.submit(_send, pipe, number, *slabs.write(slab, work(task)))


def _send(pipe: Connection, number: int, pickled: bytes, written: Sequence[Span]) -> None:
    pipe.send((number, written))
    pipe.send_bytes(pickled)


def _keep_freed_memory() -> None:
    """Keep the memory of one task for the next, where the library can; the system would clear new memory for each."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
