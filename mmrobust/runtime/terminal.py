"""Standard output and error, closed, a pipe that nobody reads, or of an encoding that lacks signs."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mmrobust.runtime.printable import printable

PIPE_CLOSED = 141
"""The exit code where the reader of a pipe has gone: that of a program which SIGPIPE ends."""
_PLAIN = {
    **{"→": "->", "−": "-", "–": "-", "—": "-", "─": "-", "…": "...", "×": "x", "·": "|", "≥": ">=", "≤": "<="},
    **{"±": "+-", "≠": "!=", "½": "1/2", "η": "eta", "α": "alpha", "²": "2", "³": "3", "├": "|", "└": "|", "│": "|"},
    **{"✅": "[ok]", "❌": "[fail]", "⚠": "[!]", "\ufe0f": "", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*"},
    **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True)),
}
"""Signs that mmrobust and its libraries print, in ASCII."""
_HANDLER = "mmrobust.plain"


class SafeConsole(Console):
    """A console that shows what is not seen but does something (see :func:`printable`) as an escape."""

    def on_broken_pipe(self) -> None:
        """Let the error through: rich would end the process with the exit code of a failed check."""
        raise  # noqa: PLE0704

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, and escape the text."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)


def prepare_streams() -> None:
    """Make standard output and error usable: open what is closed, and replace signs that their encoding lacks.

    A descriptor that is closed would be given to the next file that is opened, into which a library might then print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    codecs.register_error(_HANDLER, _plain)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        stream: Any = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def speaks_utf_8() -> bool:
    """Whether standard output is UTF-8."""
    return codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name == "utf-8"


def close_output() -> None:
    """Write what is still held back to standard output.

    Raises:
        OSError: it cannot be written, and is dropped, as Python would complain about it a second time at its end.
    """
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What is written in place of characters that an encoding lacks: ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = "".join(_PLAIN[char] if char in _PLAIN else printable(char) for char in lacking)
    return written.encode("ascii", "backslashreplace").decode(), error.end
