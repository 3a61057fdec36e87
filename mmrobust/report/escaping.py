"""Names as text of Markdown, whatever they hold: what would be taken for markup is made plain."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKUP = re.compile(r"[\\|*`\[\]~]|(?<![^\W_])_|_(?![^\W_])")
"""An underscore within a word is no markup: ``macro_f1`` stays as it is."""


def plain(text: str) -> str:
    r"""``text`` as Markdown shows it, in one line, within a table's cell too.

    >>> plain("a|b<c> *d* macro_f1 _e_")
    'a\\|b&lt;c> \\*d\\* macro_f1 \\_e\\_'
    """
    whole = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\g<0>", whole)


def code(text: str, *, in_table: bool = False) -> str:
    """``text`` as a code span, in one line.

    >>> code("a`b")
    '``a`b``'
    """
    line = re.sub(r"\s+", " ", text)
    line = line.replace("|", "\\|") if in_table else line  # a column ends within a code span too
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def pipes(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A pipe table of Markdown whose first ``left`` columns are aligned left, the others right."""
    rule = [":---" if i < left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))
