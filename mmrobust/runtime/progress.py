"""Progress: how long-running functions say how far they are, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Called with the number of units that were just finished."""

Progress = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Called with a description and the number of units in all (``None``: unknown); gives the :data:`Advance`."""

Say = Callable[[str], None]
"""Called with a line that a person should read: what was found amiss and is mended, what goes on elsewhere."""


def say_nothing(line: str) -> None:
    """The :data:`Say` that nobody hears: the default of every library function."""
    del line


@contextmanager
def no_progress(description: str, total: int | None) -> Iterator[Advance]:
    """The progress that shows nothing: the default of every library function."""
    del description, total
    yield lambda _: None
