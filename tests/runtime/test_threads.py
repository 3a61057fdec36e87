"""Items and errors from a background thread arrive in order, and the thread ends with its context."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mmrobust.runtime.threads import AHEAD, in_background


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
