"""Whole commands as the samples grow: processor time and peak memory of each, on features and small texts.

    python benchmarks/scale.py [--samples 100000 1000000] [--folder FOLDER] [--json FILE]

A Parquet manifest of simulated samples (a text of six words, 16 numbers) is prepared; a cheap model of one's own and a
worse one are evaluated on it at eleven rates, with one mask seed; the results are scored anew at other rates, reported
and checked. Every command is a process of its own. ``grown`` is the time per sample in that of the smallest size: 1
where time is proportional to the samples, less where start-up counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIMENSIONS, WORDS, CLASSES, ROWS_AT_ONCE = 16, 6, 5, 50_000
MODEL = '''
import numpy as np
from mmrobust import Model

def logits(samples, case, noise):
    """The class that most words and numbers speak for, as far as they are there."""
    found = np.zeros((len(samples), 5), np.float32)
    for row, sample in enumerate(samples):
        if sample["text"] is not None:
            for word in sample["text"].split():
                found[row, int(word[1:]) % 5] += 1
        if sample["readings"] is not None:
            found[row] += sample["readings"][:5]
    return found * (1 - noise) + noise * found[:, ::-1]

CLASSES = ("c0", "c1", "c2", "c3", "c4")
MODALITIES = ("text", "readings")


def model(name, noise):
    return Model(
        predict=lambda samples, case: logits(samples, case, noise),
        name=name, version="1", modalities=MODALITIES, classes=CLASSES, task="single-label",
    )

good, worse = model("good", 0.0), model("worse", 0.3)
'''


def make(file: Path, samples: int) -> None:
    """Write the manifest."""
    draws = np.random.default_rng(0)
    with pq.ParquetWriter(file, schema := _schema()) as writer:
        for start in range(0, samples, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, samples - start)
            labels = draws.integers(0, CLASSES, count)
            readings = draws.normal(size=(count, DIMENSIONS)).astype(np.float32)
            readings[np.arange(count), labels] += 1
            words = draws.integers(0, 1000, (count, WORDS)) * CLASSES + (
                np.where(
                    draws.random((count, WORDS)) < 0.3, labels[:, None], draws.integers(0, CLASSES, (count, WORDS))
                )
            )
            columns = {
                "id": [f"s{start + row:07d}" for row in range(count)],
                "text": [" ".join(f"w{word}" for word in row) for row in words.tolist()],
                "readings": pa.FixedSizeListArray.from_arrays(readings.reshape(-1), DIMENSIONS).cast(
                    pa.list_(pa.float32())
                ),
                "label": [f"c{label}" for label in labels.tolist()],
                "split": ["test"] * count,
            }
            writer.write_table(pa.table(columns, schema=schema))


def _schema() -> pa.Schema:
    texts = {name: pa.string() for name in ("id", "text", "label", "split")}
    return pa.schema({**texts, "readings": pa.list_(pa.float32())})


def run(folder: Path, arguments: str) -> tuple[float, float]:
    """Processor seconds and peak memory in MiB of a command; 1 is what ``check`` ends with where something is worse.

    Before a child runs the command it is a copy of this process, which must therefore be smaller: it imports no torch.
    """
    command = [sys.executable, "-m", "mmrobust", *arguments.split(), "--quiet"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"failed: {arguments}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


COLUMNS = ("command", "samples", "seconds", "microseconds a sample", "peak MiB", "grown")
COMMANDS = {
    "prepare": "data prepare manifest --source made.parquet --out data --modality readings=features:readings",
    "eval": "eval model.py:good --data data --out good --seeds 1",
    "eval again": "eval model.py:worse --data data --out worse --seeds 1",
    "score": "score good --missing-rate 0:1:0.05 --out scored",
    "report": "report good worse --details --html report.html",
    "check": "check worse --baseline good",
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where there is room for the files, which are removed")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows, of_samples = [], {}
    print(f"{'command':<12}{'samples':>10}{'seconds':>10}{'µs each':>10}{'peak, MiB':>10}{'grown':>8}")
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        for samples in given.samples:
            folder = Path(scratch) / str(samples)
            folder.mkdir()
            make(folder / "made.parquet", samples)
            (folder / "model.py").write_text(MODEL)
            for name, arguments in COMMANDS.items():
                seconds, peak = run(folder, arguments)
                of_samples[name, samples] = seconds / samples
                grown = of_samples[name, samples] / of_samples[name, given.samples[0]]
                rows.append((name, samples, seconds, 1e6 * seconds / samples, peak, grown))
                print(
                    f"{name:<12}{samples:>10}{seconds:>10.1f}{rows[-1][3]:>10.0f}{peak:>10.0f}{grown:>8.2f}", flush=True
                )
    if given.json:
        given.json.write_text(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=2))


if __name__ == "__main__":
    main()
