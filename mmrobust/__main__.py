"""``python -m mmrobust``: the same as the ``mmrobust`` command."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line. If it cannot even be imported, end with one line, not with a traceback."""
    # Libraries make hundreds of thousands of objects while they are imported, and leave hardly any garbage: the
    # collections of everything that this sets off were a sixth of the start of eval.
    gc.set_threshold(*gc.get_threshold()[:2], 100)
    try:
        from mmrobust.cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("mmrobust: interrupted; run the same command again\n")
        sys.exit(130)
    except Exception as cause:  # a starved interpreter raises MemoryError, ImportError, SystemError or SyntaxError
        said = "this machine has too little memory" if isinstance(cause, MemoryError) else cause
        sys.stderr.write(f"mmrobust: cannot start ({said}); a broken installation, or too little memory\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
