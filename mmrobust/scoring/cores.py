"""Every core at work at once, on jobs that are mostly numpy, which lets other threads run meanwhile."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Job = TypeVar("Job")
Done = TypeVar("Done")


def on_every_core(work: Callable[[Job], Done], jobs: Iterable[Job]) -> Iterator[Done]:
    """What ``work`` makes of each job, in their order."""
    # Many small products: two cores do twice as many when none of them is split between the cores.
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(work, jobs)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
