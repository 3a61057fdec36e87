"""Work in threads: on every core at once, or ahead of whoever needs the results."""

from __future__ import annotations

import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from mmrobust.runtime.machine import available_cores

T = TypeVar("T")
Job = TypeVar("Job")
Done = TypeVar("Done")

AHEAD = 2
"""How many items are made ahead by each thread: one is used while the next is made."""


def on_every_core(work: Callable[[Job], Done], jobs: Iterable[Job]) -> Iterator[Done]:
    """Map ``work`` over ``jobs`` on every core, in order. It should be mostly NumPy, which lets other threads run."""
    # For many small matrix products, one product per core is twice as fast as each product split over the cores.
    with _libraries().limit(limits=1, user_api="blas"):
        yield from in_threads(work, jobs, available_cores())


def in_threads(work: Callable[[Job], Done], jobs: Iterable[Job], count: int) -> Iterator[Done]:
    """Map ``work`` over ``jobs`` in ``count`` threads, in order and a few jobs ahead; if there is one, in this one."""
    if count == 1:
        yield from map(work, jobs)
        return
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) == AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def in_background(items: Iterator[T], wanted: bool = True) -> Iterator[Iterator[T]]:
    """Yield an iterator over ``items`` that a thread fills a few items ahead; if not ``wanted``, ``items`` itself.

    An exception in the thread is raised where its item would have been returned. No more items are made once the
    context is left.
    """
    if not wanted:
        yield items
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(AHEAD)
    closed = threading.Event()

    def offer(kind: str, value: Any) -> None:
        while not closed.is_set():
            with suppress(queue.Full):
                ready.put((kind, value), timeout=0.1)
                return

    def make() -> None:
        try:
            for item in items:
                offer("item", item)
                if closed.is_set():
                    return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    def received() -> Iterator[T]:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    thread = threading.Thread(target=make, name="mmrobust-background", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        closed.set()
        thread.join()
