"""Time the paired differences of `mmrobust check` and `mmrobust compare` in 165 cells.

    python benchmarks/paired.py [SAMPLES ...]

Synthetic predictions of two checkpoints, five mask seeds, no files. Drawing the tables and the differences are timed
separately, in processor seconds.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from mmrobust.cases import missing_cases
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.paired import differences, make_pair
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth

MODALITIES = ("image", "text")
RATES = tuple(step / 10 for step in range(11))
GRID = Grid(("missing-image", "missing-text", "missing-both"), RATES, range(5), ("situation",))
METRICS = (
    ("single-label", "accuracy", 101),
    ("single-label", "macro_f1", 101),
    ("multi-label", "macro_f1", 23),
    ("multi-label", "map", 23),
)


def made(task: str, samples: int, classes: int, seed: int) -> Predictions:
    """Predictions of a model that is right more often than not."""
    truth_draws, draws = np.random.default_rng(0), np.random.default_rng(seed)
    belongs = np.eye(classes, dtype=bool)[truth_draws.integers(0, classes, samples)]
    if task == "multi-label":
        belongs |= truth_draws.random((samples, classes)) < 2 / classes
    labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in belongs)
    logits = {
        (case.name, "situation"): (4 * belongs - 2 + draws.normal(size=belongs.shape)).astype(np.float32)
        for case in missing_cases(MODALITIES)
    }
    truth = SplitTruth(tuple(f"s{i}" for i in range(samples)), labels, MODALITIES, classes, task)
    return Predictions(truth, logits, tuple(GRID.cells()))


def main() -> None:
    """Print a line for each metric and number of samples."""
    for samples in map(int, sys.argv[1:] or ("300", "1000", "10000")):
        for task, metric, classes in METRICS:
            sides = [made(task, samples, classes, seed) for seed in (1, 2)]
            started = time.process_time()
            pair = make_pair(*sides)
            drawn = time.process_time()
            differences(pair, metric)
            done = time.process_time()
            said = f"tables {drawn - started:5.2f} s, differences {done - drawn:6.2f} s"
            print(f"{samples:6,} samples, {classes:3} classes, {metric:9} {said}")


if __name__ == "__main__":
    main()
