"""Validation: the headline metric that decides which epoch is the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.scenarios.scenario import Scenario, noisy_scenario_names, scenario_names
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of
from mmrobust.training.recipe import CASE_WISE, GRID, Recipe
from mmrobust.training.sources import LiveSource
from mmrobust.training.splits import PositionsByCase, TrainingSplit, count, union

BATCH = 64
GRID_RATES = (0.0, 0.5, 1.0)


def validation_groups(split: TrainingSplit, recipe: Recipe, cases: Sequence[Case], seed: int) -> list[PositionsByCase]:
    """The groups of samples whose metrics are averaged to validate an epoch.

    Args:
        split: the validation split.
        recipe: its ``validate_on`` and ``batching``: all samples under the training scenario (one group), all samples
            in each case (a group per case), or the cells of a small grid.
        cases: the cases of case-wise training.
        seed: seed of the grid's missing tables.
    """
    everyone = np.arange(len(split.table))
    if recipe.validate_on == GRID:
        modalities = split.encoded.modalities
        noisy = split.scenario.name.startswith("noisy-")
        names = (noisy_scenario_names if noisy else scenario_names)(modalities)
        scenarios = [Scenario.parse(name, modalities) for name in names]
        return [split.redrawn(seed, each, rate).by_case(everyone) for each in scenarios for rate in GRID_RATES]
    if recipe.batching == CASE_WISE:
        groups = [{case.name: split.eligible(case)} for case in cases]
        return [group for group in groups if count(group)]
    return [split.by_case(everyone)]


def validate(source: LiveSource, split: TrainingSplit, metric: str, groups: Sequence[PositionsByCase] = ()) -> float:
    """The mean of a metric over ``groups`` of samples; every (sample, case) pair is predicted once.

    Args:
        source: gives the split's features; its classifier is in evaluation mode.
        split: the split.
        metric: name of the metric.
        groups: the groups; without any, all samples in the cases of the missing table are one group.
    """
    groups = groups or [split.by_case(np.arange(len(split.table)))]
    task = source.classifier.task
    logits = {case: predict_case(source, positions, case) for case, positions in union(groups).items()}
    values = []
    for group in groups:
        positions = np.concatenate(list(group.values()))
        predicted = np.concatenate([logits[case][some] for case, some in group.items()])
        values.append(metric_over(split, positions, predicted, task, metric))
    return sum(values) / len(values)


def metric_over(
    split: TrainingSplit, positions: Positions, logits: npt.NDArray[np.float32], task: str, metric: str
) -> float:
    """A metric of the ``logits`` [n, classes] of the samples at ``positions`` [n]; NaN where it is not defined."""
    truth = WeightedTruth(split.targets[positions].numpy() > 0, np.ones((1, len(positions))))
    outcomes = Outcomes(logits, truth, task == "multi-label")
    return float(metrics_of(task, [metric])[metric](outcomes)[0])


@torch.no_grad()
def predict_case(source: LiveSource, positions: Positions, name: str) -> npt.NDArray[np.float32]:
    """Logits [N, classes] in the case ``name``: of the samples at ``positions``, and NaN for the others."""
    classifier, encoded = source.classifier, source.encoded
    case = Case.parse(name, classifier.modalities)
    told = classifier.told(name, SITUATION)
    logits = np.full((len(encoded.split), len(classifier.classes)), np.nan, dtype=np.float32)
    for batch in source.batches(case, positions, BATCH):
        with classifier.autocast():
            logits[batch] = classifier.head(source.features(batch, case, encoded.noise), told).float().cpu().numpy()
    return logits
