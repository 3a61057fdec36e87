"""Peak memory of preparing and reading a data set, and one twenty times as large.

    python benchmarks/prepare_memory.py ../shared/data/av-digits

Each step runs as its own command, whose peak resident memory is that reported by the operating system. The larger copy
has every pair of ``av-digits`` many times, with distinct ids. Exits with 1 if a ratio exceeds the limit.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

LIMIT = 1.2


def copy_source(source: Path, folder: Path, times: int) -> None:
    """``av-digits`` repeated ``times``, in its own layout and as a manifest. Recordings are referenced, not copied."""
    folder.mkdir()
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        shutil.copyfile(source / name, folder / name)
    with (source / "pairs.csv").open(encoding="utf-8", newline="") as lines:
        pairs = list(csv.DictReader(lines))
    with (
        (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as of_pairs,
        (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as of_manifest,
    ):
        writers = csv.DictWriter(of_pairs, list(pairs[0])), csv.DictWriter(of_manifest, list(pairs[0]))
        for writer in writers:
            writer.writeheader()
        for copy in range(times):
            for pair in pairs:
                changed = {"id": f"{pair['id']}-{copy}", "audio": (source / pair["audio"]).resolve()}
                for writer in writers:
                    writer.writerow(pair | changed)


def peak_mib(arguments: Iterable[str]) -> float:
    """Run ``mmrobust`` with these arguments, and return its peak resident memory in MiB."""
    command = [sys.executable, "-m", "mmrobust", *arguments, "--quiet"]
    child = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the folder av-digits")
    parser.add_argument("--times", type=int, default=20)
    chosen = parser.parse_args()
    steps = {  # the last two read the output of the first
        "prepare av-digits": "data prepare av-digits --source {folder} --out {folder}/out",
        "prepare manifest": "data prepare manifest --source {folder}/manifest.csv --out {folder}/table",
        "verify": "data verify {folder}/out",
        "info": "data info {folder}/out",
    }
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folders = Path(scratch) / "once", Path(scratch) / "many"
        copy_source(chosen.source, folders[0], 1)
        copy_source(chosen.source, folders[1], chosen.times)
        print(f"{'peak, MiB':<20}{'once':>10}{f'{chosen.times} times':>12}{'ratio':>8}")
        for name, command in steps.items():
            once, many = (peak_mib(part.format(folder=folder) for part in command.split()) for folder in folders)
            worst = max(worst, many / once)
            print(f"{name:<20}{once:>10.0f}{many:>12.0f}{many / once:>8.2f}", flush=True)
    if worst > LIMIT:
        sys.exit(f"{worst:.2f} times the memory, more than {LIMIT}")


if __name__ == "__main__":
    main()
