"""False alarms and power of `mmrobust check`: whole gates over equally good models, and over one that got worse.

    python benchmarks/null_comparisons.py [--comparisons 1000] [--samples 300] [--cells 66] [--metrics accuracy]
        [--skewed] [--classes 5] [--lost 0.2]

Two models whose logits share the difficulty of each sample and differ by independent noise are compared under the rule
`METRIC:-0`, so that only the test decides, over 33 cells (three scenarios, eleven rates), or 66 with both promptings,
with Holm's correction. A comparison is a false alarm if any cell fails: at most α = 5 % of them should be. The share is
printed with its 95 % interval (Wilson). Classes are balanced; with ``--skewed`` each has 0.6 times as many samples as
the one before, and one of two has a tenth. Comparisons with a class of too few samples, in which the test of a macro
mean does not decide (that of macro F1 gives way to McNemar's), are counted beside. With ``--lost 0.2`` a second
candidate has the logits of that share of the samples negated where the text is missing: the power is how often a cell
fails then.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmrobust.cases import PROMPTINGS, missing_cases
from mmrobust.gate.drops import BY_DECISIONS, Shown, drop_p_values
from mmrobust.gate.evidence import columns_of, corrected
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.paired import Pair, differences
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth

MODALITIES = ("image", "text")
SCENARIOS = ("missing-image", "missing-text", "missing-both")
ALPHA = 0.05
RATES = tuple(round(0.1 * step, 1) for step in range(11))
# metric → (task, classes)
METRICS = {
    "accuracy": ("single-label", 10),
    "macro_f1": ("single-label", 10),
    "auroc": ("binary", 2),
    "map": ("multi-label", 8),
}
Floats = npt.NDArray[np.float64]


def truth_of(random: np.random.Generator, samples: int, task: str, classes: int, skewed: bool) -> SplitTruth:
    """Samples with labels drawn at random."""
    ids = tuple(f"s{i}" for i in range(samples))
    falling = 0.6 ** np.arange(classes)
    if task == "multi-label":
        belongs = random.random((samples, classes)) < (0.4 * falling if skewed else 0.25)
        labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in belongs)
    else:
        shares = np.asarray([0.9, 0.1]) if classes == 2 else falling / falling.sum()
        labels = tuple((int(c),) for c in random.choice(classes, samples, p=shares if skewed else None))
    return SplitTruth(ids, labels, MODALITIES, classes, task)


def predicted(
    random: np.random.Generator, truth: SplitTruth, hard: dict[str, Floats], grid: Grid, lost: float = 0.0
) -> Predictions:
    """A model: the shared difficulty of the samples, and independent noise. Without its text it loses some samples."""
    belongs, logits = truth.targets, {}
    for prompting in grid.promptings:
        for case, noise in hard.items():
            own = 2.0 * belongs - 1 + noise + 0.7 * random.normal(size=noise.shape)
            if case == "missing-text":
                own[random.random(len(own)) < lost] *= -1
            logits[case, prompting] = own.astype(np.float32)
    return Predictions(truth, logits, tuple(grid.cells()))


def gate(pair: Pair, metric: str) -> tuple[bool, bool]:
    """Whether `check METRIC:-0` fails, and whether a class is too small for its test."""
    found = differences(pair, metric)
    columns = columns_of(pair, "model", ())
    shown = []
    for row in found.to_dict("records"):
        key = row["scenario"], row["missing_rate"], row["prompting"]
        lost, gained, one_table = columns.flips[key]
        few = None if np.isnan(row["few"]) else int(row["few"])
        exact = metric == "accuracy" or (few is not None and metric in BY_DECISIONS)
        flips = (lost, gained) if exact and one_table else None
        column = columns.of(metric, metric, key)
        shown.append(Shown(row["error"], row["degrees"], row["size"], few, key in columns.identical, column, flips))
    difference = found["difference"].to_numpy()
    adjusted, _ = corrected(drop_p_values(difference, shown), [of.column for of in shown], "holm")
    holds = np.asarray([of.few is None or of.flips is not None for of in shown])
    return bool(((adjusted <= ALPHA) & (difference < 0) & holds).any()), any(of.few is not None for of in shown)


class Counts(NamedTuple):
    """What came of some comparisons."""

    alarms: int
    """Nothing got worse, but a cell failed."""
    found: int
    """The candidate lost samples without its text, and a cell failed."""
    few: int
    """Nothing got worse, and a class was too small for the test: the gate was inconclusive by itself."""


def compare(metric: str, asked: argparse.Namespace) -> Counts:
    """Compare equally good models, and then one with another that is worse."""
    random, counts = np.random.default_rng(7), Counts(0, 0, 0)
    grid = Grid(SCENARIOS, RATES, (0,), PROMPTINGS[: asked.cells // 33])
    task, classes = METRICS[metric]
    tables = None
    for _ in range(asked.comparisons):
        truth = truth_of(random, asked.samples, task, asked.classes or classes, asked.skewed)
        tables = tables or truth.draw(sorted(grid.cells()))  # of the ids alone, which are the same
        hard = {
            case.name: 1.2 * random.normal(size=(asked.samples, truth.classes)) for case in missing_cases(MODALITIES)
        }
        before, after = (predicted(random, truth, hard, grid) for _ in range(2))
        alarm, few = gate(Pair(before, after, tables), metric)
        found = False
        if asked.lost:
            worse = predicted(random, truth, hard, grid, asked.lost)
            found, _ = gate(Pair(before, worse, tables), metric)
        counts = Counts(counts.alarms + alarm, counts.found + found, counts.few + few)
    return counts


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    middle, half = (hits + z**2 / 2) / (of + z**2), z * np.sqrt(hits * (of - hits) / of + z**2 / 4) / (of + z**2)
    return middle - half, middle + half


def main() -> None:
    """Print the shares of false alarms and of regressions found, for every metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--cells", type=int, choices=(33, 66), default=33)
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--classes", type=int, default=0)
    parser.add_argument("--skewed", action="store_true")
    parser.add_argument("--lost", type=float, default=0.0)
    asked = parser.parse_args()
    print("metric     false alarms   share, %   95 % interval   too few, %   power, %")
    for metric in asked.metrics.split(","):
        counts = compare(metric, asked)
        low, high = wilson(counts.alarms, asked.comparisons)
        share, few, power = (100 * count / asked.comparisons for count in (counts.alarms, counts.few, counts.found))
        print(
            f"{metric:9} {counts.alarms:5} of {asked.comparisons:4} {share:10.1f}   {100 * low:.1f} to {100 * high:.1f}"
            f"{few:15.1f}" + (f"{power:11.1f}" if asked.lost else f"{'–':>11}"),
            flush=True,
        )


if __name__ == "__main__":
    main()
