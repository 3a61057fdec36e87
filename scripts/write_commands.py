"""Write docs/commands.md from the commands; ``--check`` only reports whether it would change.

python scripts/write_commands.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mmrobust.cli.reference import render

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"


def main() -> int:
    """Write the page or compare it. Returns the exit code."""
    page = render()
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        print("docs/commands.md is up to date" if same else "docs/commands.md is out of date: run this without --check")
        return 0 if same else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
