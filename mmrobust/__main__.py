"""``python -m mmrobust``: the same as the ``mmrobust`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. If it cannot even be imported, end with one line and exit code 2, not with a traceback."""
    try:
        from mmrobust.cli.app import main as run
    except (ImportError, MemoryError, OSError) as cause:
        said = "this machine has too little memory" if isinstance(cause, MemoryError) else cause
        sys.stderr.write(f"mmrobust: cannot start ({said}); a broken installation, or too little memory\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
