"""How often the 95 % intervals hold the true value, and how often a test at 5 % finds a difference where none is.

    python benchmarks/coverage.py [--draws 1000] [--samples 50,300,2000] [--metrics accuracy,map] [--before]

Test sets of N samples are drawn from populations of which the true values are known (from a million samples), and
predicted by two models of equal strength whose errors are correlated. The intervals are those of `score_curve`, of
which `mmrobust score` makes its table, and the comparison of the two is that of `PairedCurve`, of which `check` and
`compare` make theirs. One scenario, missing-image at the rates 0, ½ and 1, three mask seeds. One core.

Columns: the value of one cell and the mean over the mask seeds, both at the rate ½; AUC-η, relative robustness, the
worst cell and the drop per 10 points; the paired difference at the rate ½, and that of AUC-η; the false alarms, which
are the share of p-values (one-sided, one cell, the rate ½) of at most 5 %. Draws that are marked `few` (see
docs/statistics.md) do not count; their share is in the last column, and where fewer than 100 count, nothing is printed.

`--before` computes the intervals of 0.1 instead: percentile bootstrap, the mean of the seeds' ends, and a normal test
with the standard deviation of the bootstrap as its error. It takes about a hundred times as long: give fewer draws.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from mmrobust.scenarios.draws import CellTables
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.bootstrap import percentile_interval, resample_weights
from mmrobust.scoring.cell_values import resampled_values, sample_shares
from mmrobust.scoring.contributions import CellContributions
from mmrobust.scoring.curve_intervals import CellsOfCurve, score_curve
from mmrobust.scoring.intervals import difference_interval, few, sample_size
from mmrobust.scoring.paired import PairedCurve
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.significance import p_values
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.tasks import REGRESSION, sign_of

Floats = npt.NDArray[np.floating]
MODALITIES = ("image", "text")
CASES = ("complete", "missing-image")
GRID = Grid(("missing-image",), (0.0, 0.5, 1.0), (0, 1, 2), ("situation",))
HALF = 0.5
TRUTH_SAMPLES = 1_000_000
AT_ONCE = 100_000
"""Samples of the population that are scored at a time."""
ENOUGH = 100
"""A share of fewer draws is not printed."""
FIGURES = ("value", "mean", "auc_eta", "relative_robustness", "worst_value", "drop_per_10_points")
COLUMNS = (*FIGURES, "difference", "auc_difference", "false_alarms", "few")
HEADS = ("cell", "mean", "AUC-η", "relative", "worst", "drop", "difference", "its AUC-η", "false alarms", "few")


@dataclass(frozen=True)
class Population:
    """How samples and the logits of a model come about: noise, with ``strength`` added to the true classes."""

    task: str
    shares: Floats
    """[C]: of the samples that belong to each class. Of numbers one: whether they and their errors are skewed."""
    strengths: tuple[float, float]
    """With all inputs, and without the image. Of numbers, the deviation of the errors."""

    def truth(self, random: np.random.Generator, samples: int) -> SplitTruth:
        """Samples with their labels."""
        classes = len(self.shares)
        if self.task == REGRESSION:
            numbers = random.exponential(size=samples) if self.shares[0] else random.normal(size=samples)
            labels = tuple((number,) for number in numbers.tolist())
        elif self.task == "multi-label":
            belongs = random.random((samples, classes)) < self.shares
            labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in belongs)
        else:
            labels = tuple((int(c),) for c in random.choice(classes, samples, p=self.shares))
        return SplitTruth(ids_of(samples), labels, MODALITIES, classes, self.task)

    def models(self, random: np.random.Generator, truth: SplitTruth, count: int = 2) -> Iterator[Predictions]:
        """Equally good models: two thirds of the variance of their noise are shared, and so is most of both cases'."""
        shape = truth.targets.shape
        hard = random.normal(size=shape)
        for _ in range(count):
            own = 0.8 * hard + 0.6 * random.normal(size=shape)
            logits = {}
            for case, strength in zip(CASES, self.strengths, strict=True):
                noise = 0.8 * own + 0.6 * random.normal(size=shape)
                made = strength * truth.targets + noise
                if self.task == REGRESSION:
                    made = truth.targets + strength * noise * (truth.targets if self.shares[0] else 1)
                logits[case, "situation"] = made.astype(np.float32)
            yield Predictions(truth, logits, tuple(sorted(GRID.cells())), ("situation",))


def skewed(classes: int) -> Floats:
    """Each class has 0.6 times as many samples as the one before."""
    return 0.6 ** np.arange(classes) / (0.6 ** np.arange(classes)).sum()


_TEN = {"balanced": np.full(10, 0.1), "skewed": skewed(10), "near 1": np.full(10, 0.1)}
_TWO = {"balanced": np.full(2, 0.5), "skewed": np.asarray([0.9, 0.1]), "near 1": np.full(2, 0.5)}
_EIGHT = {"balanced": np.full(8, 0.25), "skewed": 0.4 * 0.6 ** np.arange(8), "near 1": np.full(8, 0.25)}
_NUMBERS = {"balanced": np.zeros(1), "skewed": np.ones(1), "near 1": np.zeros(1)}
# metric → (task, shares of the classes, strengths, strengths near 1)
METRICS = {
    "accuracy": ("single-label", _TEN, (2.7, 1.7), (4.6, 4.3)),
    "macro_f1": ("single-label", _TEN, (2.7, 1.7), (4.6, 4.3)),
    "auroc": ("binary", _TWO, (1.0, 0.6), (2.45, 2.25)),
    "map": ("multi-label", _EIGHT, (2.0, 1.4), (3.8, 3.5)),
    **dict.fromkeys(("mae", "rmse", "pearson"), (REGRESSION, _NUMBERS, (0.5, 0.9), (0.05, 0.07))),
}


def population(metric: str, kind: str) -> Population:
    """The population of a metric: ``balanced``, ``skewed``, or with values ``near 1`` (of numbers, small errors)."""
    task, shares, strengths, near = METRICS[metric]
    return Population(task, shares[kind], near if kind == "near 1" else strengths)


@functools.cache
def ids_of(samples: int) -> tuple[str, ...]:
    """The ids, and so the missing tables, are the same in every draw."""
    return tuple(f"s{number}" for number in range(samples))


@functools.cache
def tables_of(samples: int, cells: int | None = None) -> CellTables:
    """The missing tables of the grid; of its first mask seed only, for the true values."""
    grid = GRID if cells is None else replace(GRID, seeds=(0,))
    truth = SplitTruth(ids_of(samples), ((0,),) * samples, MODALITIES, 2, "single-label")
    return truth.draw_grid(grid)


def true_values(metric: str, kind: str) -> dict[str, float]:
    """The figures in the population: F1 and the like of a million samples, which are drawn at once."""
    people, random = population(metric, kind), np.random.default_rng(99)
    truth = people.truth(random, TRUTH_SAMPLES // (4 if people.task == "multi-label" else 1))
    (model,) = people.models(random, truth, 1)
    cells = cells_of(model, tables_of(len(truth.ids), 1), metric)
    return figures_of(cells.rates, cells.mean(cells.sampled[0][0, :, 0]), sign_of(metric))


def figures_of(rates: Floats, values: Floats, sign: int) -> dict[str, float]:
    """The figures of a curve; ``sign`` −1: less is better."""
    area = float(np.trapezoid(values, rates))
    return {
        "value": float(values[rates == HALF][0]),
        "mean": float(values[rates == HALF][0]),
        "auc_eta": area,
        "relative_robustness": (area / float(values[0])) ** sign,
        "worst_value": float(sign * (sign * values).min()),
        "drop_per_10_points": float(sign * -0.1 * np.polyfit(rates, values, 1)[0]),
    }


Ends = dict[str, tuple[float, float]]


def cells_of(model: Predictions, tables: CellTables, metric: str) -> CellsOfCurve:
    """The cells of the only curve of a model."""
    rates = [cell.missing_rate for cell in tables.cells]
    return CellsOfCurve.of(CellContributions(model, tables), rates, tables.of_cell, [metric])


def after(first: Predictions, second: Predictions, metric: str) -> tuple[Ends, float, bool]:
    """The intervals, the one-sided p-value and the mark of the product."""
    tables = tables_of(len(first.truth.ids))
    cells = [cells_of(model, tables, metric) for model in (first, second)]
    scored = score_curve(cells[0])
    row = next(place for place, cell in enumerate(tables.cells) if cell.missing_rate == HALF)
    ends: Ends = {}
    for figure in FIGURES:
        name = "ci" if figure == "value" else figure
        low, high = (float(scored[f"{name}_{end}"][row, 0]) for end in ("low", "high"))
        ends[figure] = low, high
    curve = PairedCurve.of(cells)
    at_half, size = int(np.flatnonzero(curve.rates == HALF)[0]), sample_size(first, metric)
    p = float("nan")
    for name, columns, at in (("difference", curve.differences(), at_half), ("auc_difference", curve.area(), 0)):
        parts = [columns[part][[at]] for part in ("difference", "error", "degrees")]
        low, high = (float(end[0]) for end in difference_interval(*parts, size))
        ends[name] = low, high
        if name == "difference":
            p = float(p_values(*parts, two_sided=False)[0])
    return ends, p, few(first, metric) is not None


@functools.cache
def weights_of(samples: int) -> list[Floats]:
    """The resamples, which all draws share."""
    return list(resample_weights(samples))


def before(first: Predictions, second: Predictions, metric: str) -> tuple[Ends, float, bool]:
    """The intervals and the p-value of 0.1, which marked nothing."""
    at_half = [cell for cell in GRID.cells() if cell.missing_rate == HALF]
    tables = first.truth.draw(at_half)
    samples = len(first.truth.ids)
    values = [
        np.concatenate([resampled_values(model, tables, metric, w) for w in weights_of(samples)], axis=1)
        for model in (first, second)
    ]
    low, high = percentile_interval(values[0])
    ends: Ends = {"value": (float(low[0]), float(high[0])), "mean": (float(low.mean()), float(high.mean()))}
    ones = np.ones((1, samples), dtype=np.float32)
    own, other = (resampled_values(model, tables, metric, ones)[:, 0] for model in (first, second))
    difference, shares = (
        float((other - own).mean()),
        [sample_shares(model, tables, metric) for model in (first, second)],
    )
    bootstrap = (values[1] - values[0]).mean(axis=0)
    if shares[0] is not None and shares[1] is not None:
        error = float((shares[1] - shares[0]).mean(axis=0).std(ddof=1) / np.sqrt(samples))
    else:
        error = float(np.nanstd(bootstrap, ddof=1))
    (low,), (high,) = percentile_interval(bootstrap[None])
    ends["difference"] = float(low), float(high)
    return ends, float(norm.cdf(difference / error)) if error else float(difference >= 0), False


def measure(metric: str, kind: str, samples: int, draws: int, was: bool) -> dict[str, float]:
    """The shares of draws whose intervals hold, and of false alarms; NaN where no draw counts."""
    truths = {**_true(metric, kind), "difference": 0.0, "auc_difference": 0.0}
    people, random = population(metric, kind), np.random.default_rng([samples, draws])
    held: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for _ in range(draws):
        first, second = people.models(random, people.truth(random, samples))
        ends, p, marked = (before if was else after)(first, second, metric)
        held["few"].append(marked)
        if marked or np.isnan(ends["value"][0]):
            continue
        for name, (low, high) in ends.items():
            held[name].append(low - 1e-12 <= truths[name] <= high + 1e-12)
        held["false_alarms"].append(p <= 0.05)
    enough = {name: len(of) >= ENOUGH or name == "few" for name, of in held.items()}
    return {name: float(np.mean(of)) if enough[name] else float("nan") for name, of in held.items()}


_true = functools.cache(true_values)


def main() -> None:
    """Print a row for each metric, population and number of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--samples", default="50,300,2000")
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--populations", default="balanced,skewed,near 1")
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--json")
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # threads would cost more than they gain
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    print(f"| metric | population | true | N | {' | '.join(HEADS)} |")
    print(f"| --- | --- | ---: | ---: |{' ---: |' * len(HEADS)}")
    rows, started = [], time.process_time()
    for metric in asked.metrics.split(","):
        for kind in asked.populations.split(","):
            for samples in map(int, asked.samples.split(",")):
                found = measure(metric, kind, samples, asked.draws, asked.before)
                said = ["–" if np.isnan(found[name]) else f"{100 * found[name]:.1f}" for name in COLUMNS]
                true = _true(metric, kind)["value"]
                print(f"| {metric} | {kind} | {true:.3f} | {samples:,} | {' | '.join(said)} |", flush=True)
                rows.append({"metric": metric, "population": kind, "samples": samples, "true": true, **found})
    print(f"\n{asked.draws:,} draws, {time.process_time() - started:.0f} processor seconds")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:  # noqa: PTH123  # a standalone script
            json.dump(rows, file)


if __name__ == "__main__":
    main()
