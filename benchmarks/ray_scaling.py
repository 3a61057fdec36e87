"""`--engine ray` with one, two and four workers, against the local engine, for the same work.

    python benchmarks/ray_scaling.py CHECKPOINT --data DIR [--split test] [--json ray_scaling.json]

Every engine makes the same predictions into its own folder, on one core per copy of the model (including the local
engine), three times, in turn; the median is reported. The time that Ray needs to start a local cluster and to load the
model in its workers is measured by an evaluation of a single sample.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINES = {
    "local": ["--engine", "local"],
    "ray, 1 worker": ["--engine", "ray", "--ray-workers", "1"],
    "ray, 2 workers": ["--engine", "ray", "--ray-workers", "2"],
    "ray, 4 workers": ["--engine", "ray", "--ray-workers", "4"],
}


def evaluate(given: argparse.Namespace, engine: str, limit: int | None) -> tuple[float, bytes]:
    """Seconds of one evaluation, and the values of its table."""
    from mmrobust.storage.results import read_results

    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "mmrobust", "eval", given.checkpoint, "--data", given.data]
        command += ["--split", given.split, "--seeds", "1", "--quiet", "--out", out, *ENGINES[engine]]
        command += ["--limit", str(limit)] if limit else []
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        seconds = time.perf_counter() - started
        return seconds, read_results(Path(out)).frame.value.to_numpy().tobytes()


def main() -> None:
    """Measure every engine; print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", default="ray_scaling.json")
    given = parser.parse_args()
    runs: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    starts: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    tables = set()
    for _ in range(given.repeats):
        for engine in ENGINES:
            starts[engine].append(evaluate(given, engine, 1)[0])
            seconds, values = evaluate(given, engine, None)
            runs[engine].append(seconds)
            tables.add(values)
    assert len(tables) == 1, "the engines do not agree"
    whole = {engine: statistics.median(times) for engine, times in runs.items()}
    start = {engine: statistics.median(times) for engine, times in starts.items()}
    work = {engine: max(whole[engine] - start[engine], 1e-9) for engine in ENGINES}
    print("| engine | whole, s | start, s | work, s | of it against local | against 1 worker |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for engine in ENGINES:
        against = f"{work[engine] / work['local']:.2f} | {work['ray, 1 worker'] / work[engine]:.2f}"
        print(f"| {engine} | {whole[engine]:.1f} | {start[engine]:.1f} | {work[engine]:.1f} | {against} |")
    content = {"cores": os.cpu_count(), "whole": whole, "start": start, "work": work}
    Path(given.json).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
