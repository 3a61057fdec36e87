"""Where a file comes from: versions, git commit, command line, times."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmrobust.version import __version__

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "pyarrow", "Pillow", "soundfile", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of Python, of mmrobust and of the libraries that can change a number."""
    found = {"python": platform.python_version(), "mmrobust": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of the working folder and whether it is dirty; ``None`` outside a repository or without git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> str:
    """The command as it was typed."""
    name = Path(sys.argv[0]).name
    return " ".join(["mmrobust" if name == "__main__.py" else name, *sys.argv[1:]])


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
