"""Peak memory of evaluating and training on av-digits, and on a copy that is 20 times as large.

    python benchmarks/read_memory.py PATH/TO/av-digits [--times 20]

``PATH/TO/av-digits`` is the source that ``mmrobust data prepare av-digits`` takes. Each command runs in its
own process, whose peak resident memory is reported. The training runs for one epoch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import measuring

from mmrobust.data.dataset import Dataset
from mmrobust.data.format import SPLITS
from mmrobust.data.writing import SampleRow, write_dataset


def copied(data: Dataset, folder: Path, times: int) -> Path:
    """The data set with every sample repeated, with distinct ids."""

    def rows() -> Iterator[SampleRow]:
        for name in SPLITS:
            for index in range(times):
                for sample in data.split(name):
                    media = {"image": sample.image, "audio": sample.audio}
                    yield SampleRow(name, f"{sample.id}-{index}", sample.label, **media)

    info = data.info
    about = {"task": info.task, "headline_metric": info.headline_metric, "licence": info.licence, "source": info.source}
    write_dataset(folder, rows(), name=info.name, modalities=info.modalities, classes=info.classes, **about)
    return folder


def peak_mib(*arguments: object) -> float:
    """Peak resident memory of an mmrobust command, in MiB."""
    command = [sys.executable, "-m", "mmrobust", *map(str, arguments), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mmrobust {arguments[0]} failed")
    return usage.ru_maxrss / 2**10


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--workers", default="0")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        peak_mib("data", "prepare", "av-digits", "--source", asked.source, "--out", folder / "one")
        copied(Dataset(folder / "one"), folder / "many", asked.times)
        train = ("--backbone", "tiny", "--method", "full", "--epochs", 1, "--workers", asked.workers)
        grid = ("--missing-rate", "0,1", "--seeds", 1, "--workers", asked.workers)
        peaks: dict[str, list[float]] = {"train": [], "eval": []}
        for name in ("one", "many"):
            peaks["train"].append(peak_mib("train", "--data", folder / name, *train, "--out", folder / f"{name}-model"))
            out = folder / f"{name}-results"
            peaks["eval"].append(peak_mib("eval", folder / "one-model", "--data", folder / name, *grid, "--out", out))
    for what, (one, many) in peaks.items():
        rows.append((what, one, many, many / one))
    columns = ("command", "av-digits, MiB", f"{asked.times} times as much, MiB", "ratio")
    measuring.report("Peak memory", columns, rows, asked.json)


if __name__ == "__main__":
    main()
