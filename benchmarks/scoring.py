"""Time and peak memory of scoring as the cells of a grid grow from 1 to 1,000, with intervals.

    python benchmarks/scoring.py [--samples 10000] [--classes 23] [--resamples 1000] [--json scoring.json]

Synthetic predictions of a multi-label model with as many classes per sample as MM-IMDb (2.5), scored with all metrics
of the task. Cells that share a missing table are counted separately. Each size runs in its own process, whose peak
resident memory is measured. The last column compares one value of each metric with scikit-learn's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np

from mmrobust.cases import missing_cases
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth

MODALITIES = ("image", "text")
SCENARIOS = ("missing-image", "missing-text", "missing-both")
# (scenarios, rates, seeds, promptings): 1, 11, 99, 330 and 1,056 cells
GRIDS = ((1, 1, 1, 1), (1, 11, 1, 1), (3, 11, 3, 1), (3, 11, 5, 2), (3, 11, 16, 2))


def made(samples: int, classes: int) -> tuple[SplitTruth, dict[tuple[str, str], np.ndarray]]:
    """A model that is worse with a modality missing, and worse still under concat prompting."""
    draws = np.random.default_rng(0)
    belongs = draws.random((samples, classes)) < 2.5 / classes
    logits = {}
    for worse, case in enumerate(missing_cases(MODALITIES)):
        for less, prompting in enumerate(("situation", "concat")):
            noise = draws.normal(size=belongs.shape)
            logits[case.name, prompting] = ((4 - worse - less) * belongs - 2 + noise).astype(np.float32)
    labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in belongs)
    ids = tuple(f"sample-{i}" for i in range(samples))
    return SplitTruth(ids, labels, MODALITIES, classes, "multi-label"), logits


def grid_of(shape: tuple[int, int, int, int]) -> Grid:
    """A grid with that many scenarios, rates, seeds and promptings."""
    scenarios, rates, seeds, promptings = shape
    steps = {1: (0.7,), 11: tuple(i / 10 for i in range(11))}
    return Grid(SCENARIOS[:scenarios], steps[rates], tuple(range(seeds)), ("situation", "concat")[:promptings])


def measure(shape: tuple[int, int, int, int], samples: int, classes: int, resamples: int) -> dict[str, float]:
    """Score one grid in this process."""
    truth, logits = made(samples, classes)
    grid = grid_of(shape)
    before = os.times()
    started = time.perf_counter()
    frame = score(Predictions(truth, logits), truth.draw_grid(grid), ScoringSettings(resamples=resamples))
    seconds, after = time.perf_counter() - started, os.times()
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cells": len(list(grid.cells())),
        "metrics": frame.metric.nunique(),
        "seconds": seconds,
        "cpu_seconds": after.user + after.system - before.user - before.system,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30,
        "difference": difference(truth, logits, grid, frame),
    }


def difference(truth: SplitTruth, logits: dict[tuple[str, str], np.ndarray], grid: Grid, frame: object) -> float:
    """The largest difference between the last cell's values and scikit-learn's."""
    from sklearn.metrics import average_precision_score, f1_score

    cell = max(grid.cells())
    rows = frame.set_index(["scenario", "missing_rate", "seed", "prompting", "metric"])["value"]  # type: ignore[attr-defined]
    table = missing_table(truth.ids, Scenario.parse(cell.scenario, MODALITIES), cell.missing_rate, cell.seed)
    chosen = np.stack([logits[table[name], cell.prompting][i] for i, name in enumerate(truth.ids)])
    targets = np.asarray([[c in label for c in range(truth.classes)] for label in truth.labels])
    theirs = {
        f"{average}_f1": f1_score(targets, chosen >= 0, average=average, zero_division=0)
        for average in ("macro", "micro", "weighted", "samples")
    } | {"map": average_precision_score(targets, chosen, average="macro")}
    key = (cell.scenario, cell.missing_rate, cell.seed, cell.prompting)
    return max(abs(float(rows[(*key, metric)]) - value) for metric, value in theirs.items())


def main() -> None:
    """Measure every size in a process of its own; print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=23)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", default="scoring.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measure(GRIDS[given.one], given.samples, given.classes, given.resamples)))
        return
    print(f"{given.samples:,} samples × {given.classes} classes, {given.resamples:,} resamples, {os.cpu_count()} cores")
    print("| cells | seconds | CPU seconds | per cell, ms | peak, GiB | from scikit-learn |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for index in range(len(GRIDS)):
        sizes = [f"--{name}={getattr(given, name)}" for name in ("samples", "classes", "resamples")]
        command = [sys.executable, __file__, f"--one={index}", *sizes]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        print(
            f"| {row['cells']:,} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} "
            f"| {1000 * row['seconds'] / row['cells']:.0f} | {row['peak_gib']:.2f} | {row['difference']:.1e} |",
            flush=True,
        )
    with open(given.json, "w", encoding="utf-8") as file:  # noqa: PTH123  # a standalone script
        json.dump({"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "rows": rows}, file)


if __name__ == "__main__":
    main()
