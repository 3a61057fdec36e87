"""Work that goes on in a thread while something else is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

AHEAD = 2
"""How many items lie ready: one is used while the next is made."""


@contextmanager
def in_background(items: Iterator[T], wanted: bool = True) -> Iterator[Iterator[T]]:
    """``items``, made in a thread, a few ahead of whoever takes them; not ``wanted``: made when they are taken.

    What goes wrong while an item is made is raised where it would have been taken. Once the context is left no item is
    made any more.
    """
    if not wanted:
        yield items
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(AHEAD)
    left = threading.Event()

    def offer(kind: str, value: Any) -> None:
        while not left.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                break
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                offer("item", item)
                if left.is_set():
                    return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    def taken() -> Iterator[T]:
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
        yield taken()
    finally:
        left.set()
        thread.join()
