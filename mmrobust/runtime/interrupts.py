"""Ctrl-C: the first lets a piece of work be finished, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmrobust.runtime.progress import Say


@contextmanager
def finishing(say: Say, what: str) -> Iterator[Callable[[], None]]:
    """A function to call between two pieces of work: it raises where Ctrl-C was pressed while the last was done.

    Only the main thread hears of Ctrl-C; elsewhere nothing changes.

    Args:
        say: told, on the first Ctrl-C, that ``what`` is finished first.
        what: the piece of work.

    Raises:
        KeyboardInterrupt: by the function, after the first Ctrl-C; at once, on the second.
    """
    asked = False

    def hear(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say(f"stopping after {what}; Ctrl-C again stops at once")

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not own or threading.current_thread() is not threading.main_thread():  # somebody else listens
        yield stop_if_asked
        return
    signal.signal(signal.SIGINT, hear)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
