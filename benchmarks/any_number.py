"""Every combination of many modalities against one case: processor time and memory of an own model on features.

    python benchmarks/any_number.py [--samples 10000] [--modalities 4] [--dimensions 64] [--json FILE]

The model is one matrix product per batch, so nearly all of the time is reading, filling, storing and scoring. The first
row is one case (complete), the second all combinations, each as a scenario of its own at missing rate 1 and
``missing-any`` at eleven rates, with three mask seeds. Times are processor time, peaks are of a process each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmrobust
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.scenarios.grid import DEFAULT_RATES

CLASSES = ("no", "yes")


def names(count: int) -> tuple[str, ...]:
    """The names of so many modalities."""
    return tuple(f"m{number}" for number in range(count))


def make(folder: Path, samples: int, modalities: int, dimensions: int) -> None:
    """Write the data set."""
    draws = np.random.default_rng(0)

    def rows() -> Iterator[SampleRow]:
        for number in range(samples):
            label = number % 2
            media: dict[str, Any] = {
                name: (draws.normal(size=dimensions) + label / 2).astype(np.float32) for name in names(modalities)
            }
            yield SampleRow("test", f"s{number}", (label,), others=media)

    write_dataset(
        folder,
        rows(),
        name="made",
        modalities=names(modalities),
        classes=CLASSES,
        task="single-label",
        headline_metric="accuracy",
        licence="none",
        source="made",
        kinds=dict.fromkeys(names(modalities), "features"),
    )


def evaluate(folder: Path, modalities: int, everything: bool) -> dict[str, float]:
    """Evaluate one case or all combinations; returns seconds of processor time, MiB and predictions."""
    taken, counted = names(modalities), [0]

    def predict(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        counted[0] += len(samples)
        there = [[0.0 if value is None else float(value.mean()) for value in sample.values()] for sample in samples]
        score = np.asarray(there).sum(axis=1)
        return np.stack([0 * score, score - modalities / 4], axis=1)

    model = mmrobust.Model(
        name="mean", version="1", modalities=taken, classes=CLASSES, task="single-label", predict=predict
    )
    lost = itertools.chain.from_iterable(itertools.combinations(taken, count) for count in range(1, modalities))
    cases = ["+".join(f"missing-{name}" for name in some) for some in lost]
    rates = DEFAULT_RATES if everything else (0.0,)
    started = time.process_time()
    mmrobust.evaluate(model, folder, scenarios=["missing-any", *cases] if everything else cases[:1], rates=rates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.process_time() - started, "mib": peak, "predictions": counted[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--modalities", type=int, default=4)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=2, metavar=("FOLDER", "one|all"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        folder, which = options.only
        print(json.dumps(evaluate(Path(folder), options.modalities, which == "all")))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "made"
        make(folder, options.samples, options.modalities, options.dimensions)
        found = {}
        for which in ("one", "all"):
            count = str(options.modalities)
            command = [sys.executable, __file__, "--modalities", count, "--only", str(folder), which]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found[which] = json.loads(run.stdout)
    one = found["one"]
    combinations = 2**options.modalities - 1
    print(
        f"| {options.samples:,} samples, {options.modalities} modalities | predictions | seconds | ÷ one case | MiB |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for what, row in (("one case", one), (f"all {combinations} cases", found["all"])):
        ratio = row["seconds"] / one["seconds"]
        print(f"| {what} | {row['predictions']:,.0f} | {row['seconds']:.1f} | {ratio:.2f} | {row['mib']:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
