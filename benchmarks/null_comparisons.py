"""False alarms of `mmrobust check` where nothing got worse: equally good models with independent errors.

    python benchmarks/null_comparisons.py [--comparisons 400] [--samples 300] [--skewed]

Two models whose logits share the difficulty of each sample and differ by independent noise are compared under the rule
`METRIC:-0`, so that only the interval decides, over 12 cells with Holm's correction. A comparison is a false alarm if
any cell fails: at most α = 5 % of them should be. The share is printed with its 95 % interval (Wilson). Classes are
balanced; with ``--skewed`` each has 0.6 times as many samples as the one before, and one of two has a tenth.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from mmrobust.cases import missing_cases
from mmrobust.gate.check import check
from mmrobust.gate.rules import parse_rule
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.paired import make_pair
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import Results

MODALITIES = ("image", "text")
GRID = Grid(("missing-image", "missing-text"), (0.0, 0.6, 0.7, 0.8, 0.9, 1.0), (0,), ("situation",))
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
    random: np.random.Generator, truth: SplitTruth, hard: dict[str, Floats], metric: str
) -> tuple[Results, Predictions]:
    """A model: the shared difficulty of the samples, and independent noise."""
    belongs = np.asarray([[c in label for c in range(truth.classes)] for label in truth.labels])
    logits = {
        (case, "situation"): (2 * belongs - 1 + noise + 0.7 * random.normal(size=noise.shape)).astype(np.float32)
        for case, noise in hard.items()
    }
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    key = {"checkpoint": "mmp", "dataset": "d", "split": "test"}
    dataset = {"name": "d", "fingerprint": "0", "split": "test", "task": truth.task, "headline_metric": metric}
    classes = [f"c{i}" for i in range(truth.classes)]
    provenance = {"dataset": {**dataset, "classes": classes}, "checkpoints": {"mmp": {"fill": "ones"}}}
    frame = score(
        Predictions(truth, logits), truth.draw_grid(GRID), ScoringSettings(resamples=0), metrics=[metric]
    ).assign(**key, **about)
    return Results(frame, provenance), Predictions(truth, logits, tuple(GRID.cells()))


def false_alarms(metric: str, comparisons: int, samples: int, skewed: bool) -> int:
    """Number of comparisons that fail."""
    random, alarms = np.random.default_rng(7), 0
    for _ in range(comparisons):
        truth = truth_of(random, samples, *METRICS[metric], skewed)
        hard = {case.name: 1.2 * random.normal(size=(samples, truth.classes)) for case in missing_cases(MODALITIES)}
        (before, theirs), (after, ours) = (evaluated(random, truth, hard, metric) for _ in range(2))
        pair = make_pair(theirs, ours)
        alarms += not check(after, before, [parse_rule(f"{metric}:-0")], read_pair=lambda *_, p=pair: p).passed
    return alarms


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    middle, half = (hits + z**2 / 2) / (of + z**2), z * np.sqrt(hits * (of - hits) / of + z**2 / 4) / (of + z**2)
    return middle - half, middle + half


def main() -> None:
    """Print the share of false alarms for every metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=400)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--skewed", action="store_true")
    asked = parser.parse_args()
    print("metric     false alarms   share, %   95 % interval")
    for metric in METRICS:
        alarms = false_alarms(metric, asked.comparisons, asked.samples, asked.skewed)
        low, high = wilson(alarms, asked.comparisons)
        share = 100 * alarms / asked.comparisons
        print(
            f"{metric:9} {alarms:5} of {asked.comparisons:4} {share:10.1f}   {100 * low:.1f} to {100 * high:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
