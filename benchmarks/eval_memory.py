"""Peak memory of an evaluation as its samples grow 1× → 16×: predictions are on disk, not in memory.

    python benchmarks/eval_memory.py [--samples 100] [--json eval_memory.json]

A small ViLT with random weights on synthetic pictures and texts, the default grid. Each size runs in its own process,
whose peak resident memory is measured.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FACTORS = (1, 2, 4, 8, 16)


def make_data(folder: Path, samples: int) -> None:
    """A data set of noise and words; the pictures are as large as downscaled photographs."""
    from PIL import Image

    from mmrobust.data.writing import SampleRow, write_dataset

    draws = np.random.default_rng(0)
    words = [f"word{i}" for i in range(500)]

    def rows() -> object:
        for split, count in (("train", 20), ("validation", 20), ("test", samples)):
            for i in range(count):
                picture = io.BytesIO()
                Image.fromarray(draws.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(picture, "jpeg")
                text = " ".join(draws.choice(words, 30))
                label = (int(draws.integers(0, 23)),)
                yield SampleRow(split, f"{split}-{i}", label, image=picture.getvalue(), image_path="x.jpg", text=text)

    write_dataset(
        folder,
        rows(),  # type: ignore[arg-type]  # a generator of rows
        name="made",
        modalities=("image", "text"),
        classes=[f"class-{i}" for i in range(23)],
        task="single-label",
        headline_metric="accuracy",
        licence="none",
        source="made",
    )


def measure(samples: int) -> dict[str, float]:
    """Evaluate this many samples in a new process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_data(folder / "data", samples)
        train = ["train", "--data", folder / "data", "--backbone", "tiny", "--method", "none", "--head", "linear"]
        quiet = ["--quiet", "--epochs", 1, "--out", folder / "checkpoint"]
        _run([*train, *quiet])
        started = time.perf_counter()
        peak = _run(["eval", folder / "checkpoint", "--data", folder / "data", "--quiet", "--out", folder / "grid"])
        return {"samples": samples, "peak_mib": peak, "seconds": time.perf_counter() - started}


def _run(arguments: list[object]) -> float:
    """Peak resident memory, in MiB, of mmrobust with these arguments."""
    code = (
        "import resource, sys; from mmrobust.cli.app import run; code = run(sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = int(done.stderr.rpartition("peak ")[2])
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure every size; print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--json", default="eval_memory.json")
    given = parser.parse_args()
    print("| samples | peak, MiB | × the first | seconds |\n| ---: | ---: | ---: | ---: |")
    rows: list[dict[str, float]] = []
    for factor in FACTORS:
        rows.append(measure(given.samples * factor))
        row = rows[-1]
        ratio = row["peak_mib"] / rows[0]["peak_mib"]
        print(f"| {row['samples']:,} | {row['peak_mib']:.0f} | {ratio:.2f} | {row['seconds']:.1f} |", flush=True)
    Path(given.json).write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    assert resource  # used in the child process
    main()
