"""Names and texts of files that anybody may have made, as they may stand in a terminal, a log or a spreadsheet."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = (
    "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # Persian, Indic scripts and many emoji are written with them
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_COMMAND = re.compile(r"(?<=##)(?=\[)|(?<=^)(?=\s*::)")
"""Where a line of a log would become a command to GitHub's runner: ``::error::…`` at its start, ``##[error]…``."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets would compute (OWASP, CSV injection)."""


def printable(text: str, keep: str = "") -> str:
    r"""Escape every character of ``text``, except those to ``keep``, that is not seen but does something.

    Terminal escapes, control characters, marks that reverse the direction of what follows, and bytes that are no text.

    >>> print(printable("a\x1b[31m\u202eb\udcff"))
    a\x1b[31m\u202eb\xff
    """
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) or char in keep else _escaped(char) for char in text)


def one_line(text: str) -> str:
    r"""Return ``text`` as :func:`printable`, in one line that no log takes for a command.

    >>> print(one_line("a\n::error::b"), one_line("::error::b"))
    a\n::error::b \::error::b
    """
    return _COMMAND.sub(r"\\", printable(text))


def spreadsheet_cell(text: str) -> str:
    """Return ``text`` with an apostrophe in front if a spreadsheet would take it for a formula.

    >>> spreadsheet_cell("=HYPERLINK(1)"), spreadsheet_cell("mmp")
    ("'=HYPERLINK(1)", 'mmp')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) in ("Zs", "Co", "Cn")


def _escaped(char: str) -> str:
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a path that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    short = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    return _SHORT.get(char) or (short if number < 0x10000 else f"\\U{number:08x}")
