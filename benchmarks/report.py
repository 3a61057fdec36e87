"""Time `mmrobust report` on 99,000 rows: the whole command, in its own process, the best of several runs.

    python benchmarks/report.py [RUNS]

Synthetic results: 50 checkpoints, 3 scenarios, 11 rates, 15 mask seeds, 2 promptings, 2 metrics.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from mmrobust.storage.results import RESULTS_KEYS, write_results

RATES = tuple(step / 10 for step in range(11))
SCENARIOS = {"missing-image": 0.5, "missing-text": 1.0, "missing-both": 0.75}


def made(folder: Path) -> None:
    """Results with falling curves, each checkpoint's with another slope."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(50):
        slope = random.uniform(0.2, 0.6)
        for scenario, weight in SCENARIOS.items():
            for rate in RATES:
                for seed in range(15):
                    for prompting, loss in (("situation", 0.0), ("concat", 0.03)):
                        for metric in ("accuracy", "macro_f1"):
                            value = 0.9 - (weight * slope + loss) * rate + random.normal(0, 0.004) * (0 < rate < 1)
                            key = (f"model-{number:02d}", "digits", "test", scenario, rate, seed, prompting, metric)
                            about = ("mmp", "linear", "tiny-vilt", 360, int(360 * rate), 0)
                            rows.append((*key, *about, value, value - 0.04, value + 0.04))
    dataset = {"name": "digits", "fingerprint": "0", "split": "test", "task": "single-label", "classes": ["a", "b"]}
    checkpoints = {f"model-{number:02d}": {"method": {"name": "mmp"}} for number in range(50)}
    provenance = {"dataset": {**dataset, "headline_metric": "accuracy"}, "checkpoints": checkpoints}
    counts = ("method", "head", "backbone", "n", "n_affected", "n_naturally_missing")
    frame = pd.DataFrame(rows, columns=[*RESULTS_KEYS, *counts, "value", "ci_low", "ci_high"])
    frame = frame.assign(mean_low=frame["ci_low"], mean_high=frame["ci_high"])
    write_results(folder / "results.parquet", frame, provenance)


def cpu() -> float:
    """Processor seconds of the child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Time the command with each format."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made(folder)
        for flags in ((), ("--csv", "r.csv"), ("--html", "r.html"), ("--html", "r.html", "--csv", "r.csv")):
            command = [sys.executable, "-m", "mmrobust", "report", ".", *flags]
            seconds, worked = [], []
            for _ in range(runs):
                start, before = time.perf_counter(), cpu()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
                worked.append(cpu() - before)
            print(
                f"report {' '.join(flags):30} {min(seconds):.2f} s, of which the processor worked {min(worked):.2f} s"
            )
        print(f"the page: {(folder / 'r.html').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
