"""How a long-running function reports its progress, and how Ctrl-C stops it, without knowing who is watching."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Called with the number of units that were just finished."""

Progress = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Called with a description and the total number of units (``None``: unknown); its context gives an :data:`Advance`."""

Say = Callable[[str], None]
"""Called with a line for people to read: a problem that was found and fixed, or what another process does."""


def say_nothing(line: str) -> None:
    """Ignore the line: the default :data:`Say` of library functions."""
    del line


@contextmanager
def no_progress(description: str, total: int | None) -> Iterator[Advance]:
    """Show nothing: the default :data:`Progress` of library functions."""
    del description, total
    yield lambda _: None


@contextmanager
def deferred_interrupt(say: Say, what: str) -> Iterator[Callable[[], None]]:
    """Let a piece of work finish after the first Ctrl-C; a second one stops at once.

    Yields a function to call between two pieces of work, which raises ``KeyboardInterrupt`` if Ctrl-C was pressed; the
    line that is said on the first one calls such a piece ``what``. Outside the main thread, or where another handler is
    installed, Ctrl-C keeps its meaning.
    """
    pressed = False

    def handle(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        say(f"stopping after {what}; Ctrl-C again stops at once")

    def raise_if_pressed() -> None:
        if pressed:
            raise KeyboardInterrupt

    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not default or threading.current_thread() is not threading.main_thread():
        yield raise_if_pressed
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield raise_if_pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
