"""Worker processes, each at the end of a pipe of its own.

With a pipe that all share, as in :mod:`concurrent.futures`, a worker that is killed while it writes leaves half a
message and a lock that nobody opens: everyone waits for ever. Here the end of its pipe says that it is gone.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerLost(Exception):
    """A worker process ended before its work was done: most likely it was killed."""


class Workers(Generic[Task, Result]):
    """Processes that do one thing to whatever they are given, in turn.

    Args:
        work: what they do, importable by name; an exception of its ends the worker.
        count: how many processes.
        setup: called first in every worker.
    """

    def __init__(self, work: Callable[[Task], Result], count: int, setup: Callable[[], object]) -> None:
        # Not forked: this process may hold threads, a GPU and open files that a copy must not touch.
        context = multiprocessing.get_context("spawn")
        self._pipes, self.processes = [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work, setup), daemon=True)
            process.start()
            theirs.close()  # the worker's copy alone keeps the pipe open
            self._pipes.append(ours)
            self.processes.append(process)
        self._given = 0
        self._results: dict[int, Result] = {}
        self._unwanted: set[int] = set()

    def give(self, task: Task) -> int:
        """Hand ``task`` to the worker whose turn it is; returns the number to ask for its result with.

        Raises:
            WorkerLost: it is gone.
        """
        number = self._given
        try:
            self._pipes[number % len(self._pipes)].send((number, task))
        except OSError as cause:
            raise WorkerLost from cause
        self._given += 1
        return number

    def result(self, number: int) -> Result:
        """The result of the task of this number, waited for. Each can be asked for once.

        Raises:
            WorkerLost: the worker that had it is gone.
        """
        while number not in self._results:
            try:
                done, result = self._pipes[number % len(self._pipes)].recv()
            except (EOFError, OSError) as cause:
                raise WorkerLost from cause
            if done in self._unwanted:
                self._unwanted.remove(done)
            else:
                self._results[done] = result
        return self._results.pop(number)

    def forget(self, number: int) -> None:
        """Nobody will ask for the result of this number."""
        if self._results.pop(number, None) is None:
            self._unwanted.add(number)

    def close(self) -> None:
        """End the workers, whatever they are at."""
        for pipe, process in zip(self._pipes, self.processes, strict=True):
            pipe.close()
            process.terminate()
            process.join()


def _serve(pipe: Connection, work: Callable[[Any], Any], setup: Callable[[], object]) -> None:
    """The life of a worker: until nobody is at the other end of its pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one decides
    setup()
    # A thread sends, so that the next task is taken in meanwhile: two that both only send would wait for ever.
    with ThreadPoolExecutor(1) as sender:
        while True:
            try:
                number, task = pipe.recv()
            except (EOFError, OSError):
                return
            sender.submit(pipe.send_bytes, pickle.dumps((number, work(task)), pickle.HIGHEST_PROTOCOL))
