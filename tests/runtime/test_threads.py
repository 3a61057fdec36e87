"""Items and errors from background threads arrive in order, and the threads end with their context."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mmrobust.runtime.threads import AHEAD, in_background, in_threads


@pytest.mark.parametrize("wanted", [True, False])
def test_items_and_errors_come_in_order(wanted: bool) -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise ValueError("eleven")

    seen = []
    with pytest.raises(ValueError, match="eleven"), in_background(items(), wanted) as made:
        seen.extend(made)
    assert seen == list(range(10)) or seen == []
    with in_background(iter(range(5)), wanted) as made:
        assert list(made) == [0, 1, 2, 3, 4]


def test_it_is_only_a_little_ahead_and_ends_with_its_context() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    before = threading.active_count()
    with in_background(items()) as ready:
        assert next(ready) == 0
    assert len(made) <= AHEAD + 3 and threading.active_count() == before


@pytest.mark.parametrize("count", [1, 3])
def test_many_threads_keep_the_order_and_take_only_a_few_jobs_ahead(count: int) -> None:
    taken: list[int] = []
    workers: set[int] = set()

    def jobs() -> Iterator[int]:
        for job in range(1000):
            taken.append(job)
            yield job

    def work(job: int) -> int:
        workers.add(threading.get_ident())
        time.sleep(0.002 * (job % 3))
        if job == 40:
            raise ValueError("forty")
        return -job

    before = threading.active_count()
    done = []
    with pytest.raises(ValueError, match="forty"):
        for result in in_threads(work, jobs(), count):
            done.append(result)
            assert len(taken) <= len(done) + AHEAD * count
    assert done == [-job for job in range(40)]
    assert threading.active_count() == before and len(workers) == count
