"""Whole commands of this code against those of another tree of it, as 0.1's: processor time, by turns.

    git worktree add ../before 72f19d5
    python benchmarks/against.py ../before [--runs 5] [--json FILE]

Each tree prepares the digits and trains a head and prompts on its tiny ViLT; then its commands run on what it has made.
Medians, and the median of the ratios, of user and system time of whole processes, on one thread. *Work* is the time
without that of the command on a single sample.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
TRAIN = "train --data digits --backbone tiny-vilt --epochs 1"
GRID = "--data digits --split train --out OUT --limit"
SET_UP = (
    "data prepare digits --out digits",
    f"{TRAIN} --method mmp --out mmp",
    f"{TRAIN} --method none --out none",
    f"eval none {GRID} 200".replace("OUT", "results"),
)
COMMANDS = {
    "help": "--help",
    "report, small table": "report results",
    "score, small table": "score results --out OUT",
    "check, small table": "check results --baseline results",
    "prepare 1,797 digits": "data prepare digits --out OUT",
    "train mmp, an epoch": f"{TRAIN} --method mmp --out OUT",
    "train full, an epoch": f"{TRAIN} --method full --out OUT",
    "eval, one sample": f"eval none {GRID} 1",
    "eval none, 1,000 samples": f"eval none {GRID} 1000",
    "eval mmp, 1,000 samples": f"eval mmp {GRID} 1000",
}


def run(tree: Path, folder: Path, command: str) -> float:
    """Processor seconds of a command; 1 is what ``check`` may end with."""
    shutil.rmtree(folder / "OUT", ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "mmrobust", *command.split()]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"failed in {tree}: {command}: {(folder / 'said').read_text()}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {tree: Path(scratch) / name for tree, name in ((given.tree, "before"), (HERE, "now"))}
        for tree, folder in folders.items():
            folder.mkdir()
            for command in SET_UP:
                run(tree, folder, command)
        found = {name: [] for name in COMMANDS}
        for _ in range(given.runs):
            for name, command in COMMANDS.items():
                found[name].append([run(tree, folder, command) for tree, folder in folders.items()])
    for name in [name for name in found if name.endswith("1,000 samples")]:
        pairs = zip(found["eval, one sample"], found[name], strict=True)
        found[f"{name}, work"] = [[all_ - start for start, all_ in zip(*pair, strict=True)] for pair in pairs]
    rows = {}
    print(f"{'command':<32}{'before, s':>10}{'now, s':>10}{'ratio':>8}")
    for name, pairs in found.items():
        before, now = (statistics.median(side) for side in zip(*pairs, strict=True))
        rows[name] = {"before": before, "now": now, "ratio": statistics.median(b / a for a, b in pairs)}
        print(f"{name:<32}{before:>10.2f}{now:>10.2f}{rows[name]['ratio']:>8.2f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
