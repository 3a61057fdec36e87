"""What each modality is worth to a model, from its predictions: the drop when it goes, its Shapley value, and equity.

A coalition is a set of modalities that are present; its value v(S) is the metric over all samples in the case in which
the others are missing. Samples that lack a modality by nature are left out. v(∅), of a model without any input, is the
best value that one answer for all samples can have.

Of a metric of which less is better, v is its negative, so that more worth is the same for all metrics.

- The *drop* of a modality is v(all) − v(all without it).
- Its *Shapley value* is what it adds to a coalition, mean over the orders in which modalities can join: Σ over S
  without it of |S|! (M − |S| − 1)! / M! · (v(S ∪ m) − v(S)) (Shapley 1953). Those of all modalities sum to
  v(all) − v(∅). It needs every combination.
- *Equity* is the entropy of the shares of the Shapley values, divided by log M: 1 where all modalities are worth the
  same, 0 where one is worth everything. A value below 0 counts as 0.

All are sums of values over the same samples, so their errors follow from what each sample contributes
(:mod:`mmrobust.scoring.intervals`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.cases import SITUATION, Case
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.scenario import usual_scenario
from mmrobust.scoring import Floats
from mmrobust.scoring.contributions import CellContributions
from mmrobust.scoring.intervals import difference_interval, few, sample_size, sampling_error
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of
from mmrobust.scoring.paired import Pair
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.regression import best_constant
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.tasks import RANGES, REGRESSION, sign_of

MOST_MODALITIES = 8
"""Coalitions of more modalities are not looked for."""
Coalition = frozenset[str]


@dataclass(frozen=True)
class Part:
    """The value of a coalition, or a sum of such values, and what each sample contributes to it."""

    value: float
    deviations: Floats
    """[N]: see :class:`mmrobust.scoring.contributions.Contributions`."""

    @classmethod
    def total(cls, terms: Sequence[tuple[float, Part]]) -> Part:
        """The weighted sum of several."""
        value = math.fsum(weight * part.value for weight, part in terms)
        return cls(value, np.sum([weight * part.deviations for weight, part in terms], axis=0))


@dataclass(frozen=True)
class Worth:
    """What one modality is worth to a model under one prompting."""

    modality: str
    drop: Part | None
    """``None`` where not every sample was predicted without it."""
    shapley: Part | None
    """``None`` where not every sample was predicted in every combination."""


def modality_worth(predictions: Predictions, metric: str, promptings: Sequence[str] | None = None) -> pd.DataFrame:
    """What each modality is worth to a model, by a metric of its task, under these ``promptings`` (by default all).

    Returns:
        One row per prompting that the model tells apart, and modality: ``drop`` and ``shapley``, each with the ends of
        its 95 % interval over samples (``drop_low`` …), ``share`` (of the sum of the Shapley values, those below 0
        counting as 0) and ``equity`` (the same in all rows of a prompting). NaN where predictions lack. Without rows
        for a model of one modality, and where no modality has either.

    Raises:
        UsageError: the task has no such metric.
        DataError: a prediction is not finite.
    """
    metrics_of(predictions.truth.task, [metric])
    whole = _complete_samples(predictions)
    rows = []
    asked = predictions.promptings if promptings is None else promptings
    for prompting in {predictions.prompting(one): one for one in reversed(asked)}.values():
        found = worth_under(whole, metric, prompting)
        if all(one.drop is None for one in found):
            continue
        shares, equity = _shares(found), _equity(found)
        for one, share in zip(found, shares, strict=True):
            row = {"prompting": prompting, "modality": one.modality, "share": share}
            row["equity"] = math.nan if equity is None else equity.value
            for name, part in (("drop", one.drop), ("shapley", one.shapley)):
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), _interval(whole, metric, part), strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def worth_under(whole: Predictions, metric: str, prompting: str) -> list[Worth]:
    """What each modality is worth under one prompting, for predictions of samples that are complete by nature."""
    modalities, sign = whole.truth.modalities, float(sign_of(metric))
    values = dict(_coalitions(whole, metric, prompting))
    everything = frozenset(modalities)
    joined = len(values) == 2 ** len(modalities) - 1
    if joined:
        values[frozenset()] = _without_input(whole.truth, metric, whole)
    found = []
    for modality in modalities:
        rest, drop, shapley = everything - {modality}, None, None
        if everything in values and rest in values:
            drop = Part.total([(sign, values[everything]), (-sign, values[rest])])
        if joined:
            shapley = Part.total([(sign * weight, part) for weight, part in _shapley_terms(values, modality, rest)])
        found.append(Worth(modality, drop, shapley))
    return found


def worth_differences(pair: Pair, metric: str) -> pd.DataFrame:
    """The difference in the drop when a modality goes, candidate − baseline, in every curve ``missing-MODALITY``.

    As :func:`mmrobust.scoring.paired.area_differences`; more is a model that makes more of the modality.
    """
    return _differences(pair, metric, lambda found: {f"missing-{one.modality}": one.drop for one in found})


def shapley_differences(pair: Pair, metric: str) -> pd.DataFrame:
    """The difference in the Shapley value of a modality; as :func:`worth_differences`."""
    return _differences(pair, metric, lambda found: {f"missing-{one.modality}": one.shapley for one in found})


def equity_differences(pair: Pair, metric: str) -> pd.DataFrame:
    """The difference in equity, in the scenario with every modality (``missing-both``, ``missing-any``).

    As :func:`worth_differences`; more is a model that depends less on one modality.
    """
    scenario = usual_scenario(pair.baseline.truth.modalities)
    return _differences(pair, metric, lambda found: {scenario: _equity(found)})


def _differences(
    pair: Pair, metric: str, parts_of: Callable[[Sequence[Worth]], Mapping[str, Part | None]]
) -> pd.DataFrame:
    """The differences in what ``parts_of`` takes, by scenario, of the worth of all modalities."""
    sides = [_complete_samples(side) for side in pair.sides]
    rows = []
    for prompting in dict.fromkeys(cell.prompting for cell in pair.tables.cells):
        before, after = (parts_of(worth_under(side, metric, prompting)) for side in sides)
        for scenario in before:
            parts = [before[scenario], after[scenario]]
            if parts == [None, None]:
                continue
            values = [math.nan if part is None else part.value for part in parts]
            error, degrees = np.array([math.nan]), np.array([math.nan])
            if parts[0] is not None and parts[1] is not None:
                error, degrees = sampling_error((parts[1].deviations - parts[0].deviations)[None])
            rows.append(
                {
                    "scenario": scenario,
                    "prompting": prompting,
                    "baseline": values[0],
                    "candidate": values[1],
                    "difference": values[1] - values[0],
                    "error": float(error[0]),
                    "degrees": float(degrees[0]),
                }
            )
    columns = ["scenario", "prompting", "baseline", "candidate", "difference", "error", "degrees"]
    smallest = few(sides[0], metric)
    return (
        pd.DataFrame(rows, columns=columns)
        .sort_values(["scenario", "prompting"], ignore_index=True)
        .assign(
            metric=metric,
            few=np.nan if smallest is None else float(smallest),
            size=sample_size(sides[0], metric),
        )
    )


def _complete_samples(predictions: Predictions) -> Predictions:
    """The predictions of the samples that lack nothing by nature."""
    truth = predictions.truth
    if truth.natural is None:
        return predictions
    rows = np.flatnonzero([case.present == case.modalities for case in truth.natural])
    if len(rows) < 2:  # too few to say anything: nothing was predicted of them
        logits = {key: np.full_like(values[:1], np.nan) for key, values in predictions.logits.items()}
        kept = replace(truth, ids=truth.ids[:1], labels=truth.labels[:1], natural=None, groups=None, tables=())
        return replace(predictions, truth=kept, logits=logits)
    kept = replace(
        truth,
        ids=tuple(truth.ids[row] for row in rows),
        labels=tuple(truth.labels[row] for row in rows),
        natural=None,
        groups=None,
        tables=(),
    )
    return replace(predictions, truth=kept, logits={key: values[rows] for key, values in predictions.logits.items()})


def _coalitions(whole: Predictions, metric: str, prompting: str) -> Iterator[tuple[Coalition, Part]]:
    """The value of each coalition in whose case every sample was predicted."""
    modalities = whole.truth.modalities
    if not 1 < len(modalities) <= MOST_MODALITIES:
        return
    cells: dict[Coalition, Cell] = {}
    for count in range(len(modalities)):
        for lost in itertools.combinations(modalities, count):
            case = Case.missing(modalities, *lost).name
            logits = whole.logits.get((case, whole.prompting(prompting)))
            if logits is not None and not np.isnan(logits[:, 0]).any():
                cell = Cell(case, 1.0, 0, prompting) if lost else Cell(f"missing-{modalities[0]}", 0.0, 0, prompting)
                cells[frozenset(modalities) - frozenset(lost)] = cell
    if not cells:
        return
    tables = whole.truth.draw(sorted(cells.values()))
    key_of = dict(zip(tables.cells, tables.of_cell.tolist(), strict=True))
    keys = sorted(set(key_of.values()))
    contributions = CellContributions(whole, tables).of_keys(keys, [metric])
    parts = {key: Part(of.value, of.deviations) for key, (of,) in zip(keys, contributions, strict=True)}
    for coalition, cell in cells.items():
        yield coalition, parts[key_of[cell]]


def _without_input(truth: SplitTruth, metric: str, like: Predictions) -> Part:
    """The value of the best constant: the largest class, or in a multi-label task the best number of large ones.

    In a regression task, the median of the labels for the mean absolute error, else their mean, of which r is 0.
    """
    if truth.task == REGRESSION:
        if metric == "pearson":
            return Part(0.0, np.zeros(len(truth.ids)))
        number = np.float32(best_constant(metric, truth.targets[:, 0]))
        return _of_constant(truth, metric, like, np.full((len(truth.ids), 1), number))
    order = np.argsort(-truth.targets.sum(axis=0), kind="stable")
    several = truth.task == "multi-label"
    weighted = WeightedTruth(truth.targets, np.ones((1, len(truth.ids))))
    function = metrics_of(truth.task, [metric])[metric]

    def constant(count: int) -> npt.NDArray[np.float32]:
        logits = np.full(truth.classes, -30.0, dtype=np.float32)  # a probability of 0
        logits[order[:count]] = 30.0
        return np.tile(logits, (len(truth.ids), 1))

    counts = range(1, truth.classes + 1) if several else (1,)
    best = max(counts, key=lambda n: float(function(Outcomes(constant(n), weighted, several, like.settings))[0]))
    if truth.task == "binary" and metric == "auroc":  # every answer is tied
        return Part(0.5, np.zeros(len(truth.ids)))
    return _of_constant(truth, metric, like, constant(best))


def _of_constant(truth: SplitTruth, metric: str, like: Predictions, logits: npt.NDArray[np.float32]) -> Part:
    """The value of the same ``logits`` [N, C] whatever the input."""
    alone = replace(like, truth=truth, logits={("complete", SITUATION): logits}, promptings=(SITUATION,))
    tables = truth.draw([Cell(f"missing-{truth.modalities[0]}", 0.0, 0, SITUATION)])
    ((of,),) = CellContributions(alone, tables).of_keys([0], [metric])
    return Part(of.value, of.deviations)


def _shapley_terms(values: Mapping[Coalition, Part], modality: str, rest: Coalition) -> Iterator[tuple[float, Part]]:
    """The values of the coalitions, weighted as in the Shapley value of a modality."""
    every = len(rest) + 1
    for count in range(every):
        weight = math.factorial(count) * math.factorial(every - count - 1) / math.factorial(every)
        for joined in map(frozenset, itertools.combinations(sorted(rest), count)):
            yield weight, values[joined | {modality}]
            yield -weight, values[joined]


def _shares(found: Sequence[Worth]) -> list[float]:
    """The share of each modality's Shapley value in their sum; NaN where there are none."""
    amounts = [math.nan if one.shapley is None else max(0.0, one.shapley.value) for one in found]
    total = math.fsum(amounts)
    return [amount / total if total > 0 else math.nan for amount in amounts]  # not above 0: NaN too


def _equity(found: Sequence[Worth]) -> Part | None:
    """The entropy H of the shares p over log M; ``None`` where there are no shares.

    What a sample contributes is the linear term: ∂H/∂φ = −(log p + H) / Σφ for each Shapley value φ above 0.
    """
    terms = [
        (share, one.shapley)
        for share, one in zip(_shares(found), found, strict=True)
        if share > 0 and one.shapley is not None
    ]
    if not terms:
        return None
    entropy = math.fsum(share * math.log(1 / share) for share, _ in terms)
    total, largest = math.fsum(part.value for _, part in terms), math.log(len(found))
    slopes = [-(math.log(share) + entropy) / (total * largest) for share, _ in terms]
    deviations = np.sum([slope * part.deviations for slope, (_, part) in zip(slopes, terms, strict=True)], axis=0)
    return Part(entropy / largest, deviations)


def _interval(whole: Predictions, metric: str, part: Part | None) -> tuple[float, float, float]:
    """A figure and the ends of its interval."""
    if part is None:
        return math.nan, math.nan, math.nan
    error, degrees = sampling_error(part.deviations[None])
    low, high = difference_interval(np.array([part.value]), error, degrees, sample_size(whole, metric))
    least, most = RANGES[metric]  # no two values lie farther apart
    return part.value, max(least - most, float(low[0])), min(most - least, float(high[0]))
