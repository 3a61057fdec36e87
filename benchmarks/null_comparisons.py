"""False alarms and power of `mmrobust check`: whole gates over equally good models, and over one that got worse.

    python benchmarks/null_comparisons.py [--comparisons 1000] [--samples 300] [--cells 66] [--skewed] [--lost 0.1]

Two models whose logits share the difficulty of each sample and differ by independent noise are compared under the rule
`METRIC:-0`, so that only the test decides, over 33 cells (three scenarios, eleven rates), or 66 with both promptings,
with Holm's correction. A comparison is a false alarm if any cell fails: at most α = 5 % of them should be. The share is
printed with its 95 % interval (Wilson). Classes are balanced; with ``--skewed`` each has 0.6 times as many samples as
the one before, and one of two has a tenth. Comparisons with a class of fewer than ten samples, in which the test of a
macro mean does not decide, are counted beside. With ``--lost 0.1`` a second candidate has the logits of that share of
the samples negated where the text is missing: the power is how often a cell fails then.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmrobust.cases import PROMPTINGS, missing_cases
from mmrobust.gate.check import check
from mmrobust.gate.rules import parse_rule
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import Results

MODALITIES = ("image", "text")
SCENARIOS = ("missing-image", "missing-text", "missing-both")
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


def evaluated(
    random: np.random.Generator, truth: SplitTruth, hard: dict[str, Floats], metric: str, grid: Grid, lost: float = 0.0
) -> tuple[Results, Predictions]:
    """A model: the shared difficulty of the samples, and independent noise. Without its text it loses some samples."""
    belongs = np.asarray([[c in label for c in range(truth.classes)] for label in truth.labels])
    logits = {}
    for prompting in grid.promptings:
        for case, noise in hard.items():
            own = 2 * belongs - 1 + noise + 0.7 * random.normal(size=noise.shape)
            if case == "missing-text":
                own[random.random(len(own)) < lost] *= -1
            logits[case, prompting] = own.astype(np.float32)
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    key = {"checkpoint": "mmp", "dataset": "d", "split": "test"}
    dataset = {"name": "d", "fingerprint": "0", "split": "test", "task": truth.task, "headline_metric": metric}
    classes = [f"c{i}" for i in range(truth.classes)]
    provenance = {"dataset": {**dataset, "classes": classes}, "checkpoints": {"mmp": {"fill": "ones"}}}
    tables = truth.draw_grid(grid)
    frame = score(Predictions(truth, logits), tables, ScoringSettings(resamples=0), metrics=[metric])
    return Results(frame.assign(**key, **about), provenance), Predictions(truth, logits, tuple(grid.cells()))


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
    rule = parse_rule(f"{metric}:-0")
    for _ in range(asked.comparisons):
        truth = truth_of(random, asked.samples, *METRICS[metric], asked.skewed)
        hard = {
            case.name: 1.2 * random.normal(size=(asked.samples, truth.classes)) for case in missing_cases(MODALITIES)
        }
        before, theirs = evaluated(random, truth, hard, metric, grid)
        verdicts = []
        for lost in (0.0, asked.lost) if asked.lost else (0.0,):
            after, ours = evaluated(random, truth, hard, metric, grid, lost)
            verdicts.append(check(after, before, [rule], readers=(lambda _, p=theirs: p, lambda _, p=ours: p)))
        few = any(outcome.few is not None for outcome in verdicts[0].outcomes)
        found = bool(verdicts[-1].failures) if asked.lost else False
        counts = Counts(counts.alarms + bool(verdicts[0].failures), counts.found + found, counts.few + few)
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
