"""Processor time of whole commands on small tables, most of which is start-up.

    mmrobust demo --limit 300 --out DEMO
    python benchmarks/start_up.py DEMO [--json FILE]

Medians of seven runs each, by turns, of user and system time. Python's compiled files must be there, as they are after
the first run of an installed package: unset ``PYTHONDONTWRITEBYTECODE``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring

REPEATS = 7


def seconds(command: list[str]) -> float:
    """Processor seconds of a process that must not fail; 1 is what ``check`` ends with where something got worse."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"failed: {' '.join(command)}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that mmrobust demo has made")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results, checkpoint, data = (given.demo / name for name in ("results", "checkpoints/head", "data/digits"))
    with tempfile.TemporaryDirectory() as place:
        commands = {
            "--help": ["--help"],
            "report": ["report", results / "full", results / "prompts"],
            "check": ["check", results / "prompts", "--baseline", results / "head"],
            "score": ["score", results / "full", "--out", f"{place}/scored"],
            "eval, one sample": ["eval", checkpoint, "--data", data, "--limit", 1, "--missing-rate", 0, "--seeds", 1],
        }
        lines = {name: ["-m", "mmrobust", *map(str, command)] for name, command in commands.items()}
        lines["import torch"] = ["-c", "import torch"]
        lines["import transformers' ViltModel"] = ["-c", "from transformers import ViltModel"]
        taken: dict[str, list[float]] = {name: [] for name in lines}
        for repeat in range(REPEATS + 1):
            for name, line in lines.items():
                out = ["--out", f"{place}/{repeat}"] if name.startswith("eval") else []
                taken[name].append(seconds([*line, *out]))
    rows = [(name, statistics.median(times[1:])) for name, times in taken.items()]  # the first may compile
    measuring.report("Whole commands, processor time", ("what", "seconds"), rows, given.json)


if __name__ == "__main__":
    main()
