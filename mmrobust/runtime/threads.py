"""Every core at work at once, on jobs that are mostly numpy, which lets other threads run meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from mmrobust.runtime.machine import available_cores

Job = TypeVar("Job")
Done = TypeVar("Done")


def on_every_core(work: Callable[[Job], Done], jobs: Iterable[Job]) -> Iterator[Done]:
    """What ``work`` makes of each job, in their order."""
    # Many small products: two cores do twice as many when none of them is split between the cores.
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(available_cores()) as pool:
        yield from pool.map(work, jobs)


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
