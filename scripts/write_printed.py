"""Run a page of the documentation as its reader would, and write what is printed into its ``text printed`` blocks.

    python scripts/write_printed.py docs/tutorial.md

Such a block shows the standard output of the last command above it. The tests run the same commands, and do not compare
these numbers, which training makes differ from machine to machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|console|python|text printed)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(language: str, text: str) -> list[str]:
    """The command lines of a block."""
    joined = text.replace("\\\n", " ").splitlines()
    if language == "console":
        return [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
    return joined if language == "bash" else []


def written(text: str, folder: Path) -> str:
    """The page with every printed block filled in, after its commands have run in ``folder``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    printed = ""

    def fill(found: re.Match[str]) -> str:
        nonlocal folder, printed
        language, inside = found.groups()
        if language == "text printed":
            return f"```text printed\n{printed.strip()}\n```"
        if language == "python" and (file := re.match(r"# ([\w/]+\.py)\n", inside)):
            (folder / file[1]).write_text(inside, encoding="utf-8")
        for command in commands(language, inside):
            if command.startswith("cd "):
                folder /= command.split()[1]
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
            )
            print(f"{done.returncode}  {command}")
            printed = done.stdout
        return found[0]

    return BLOCK.sub(fill, text)


def main() -> None:
    """Write the pages that are named."""
    for name in sys.argv[1:] or sys.exit(__doc__):
        page = ROOT / name
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "examples", Path(folder) / "examples")
            page.write_text(written(page.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
