"""What decides the best epoch: the headline metric on the validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.scenarios.scenario import Scenario, noisy_scenario_names, scenario_names
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of
from mmrobust.training.batching import Batch, validation_groups
from mmrobust.training.recipe import GRID, Recipe
from mmrobust.training.sources import LiveSource
from mmrobust.training.splits import TrainingSplit, case_positions

BATCH = 64
GRID_RATES = (0.0, 0.5, 1.0)


def validate(source: LiveSource, split: TrainingSplit, metric: str, groups: Sequence[Batch] = ()) -> float:
    """The mean of the metric over ``groups`` of the split's samples; without any, over all in their table's cases.

    Every (sample, case) is predicted once, however many groups it is in.

    Args:
        source: of the split's features; its classifier is in evaluation mode.
        split: the samples.
        metric: its name.
        groups: what is scored together, case → positions.
    """
    groups = groups or [split.of_case(np.arange(len(split.table)))]
    task = source.classifier.task
    logits = {case: predict_case(source, positions, case) for case, positions in needed(groups).items()}
    values = []
    for group in groups:
        seen = np.concatenate(list(group.values()))
        found = np.concatenate([logits[case][positions] for case, positions in group.items()])
        values.append(metric_over(split, seen, found, task, metric))
    return sum(values) / len(values)


def metric_over(
    split: TrainingSplit, positions: Positions, logits: npt.NDArray[np.float32], task: str, metric: str
) -> float:
    """The metric of that name of the ``logits`` [n, classes] of the samples at ``positions`` [n]."""
    truth = WeightedTruth(split.targets[positions].numpy() > 0, np.ones((1, len(positions))))
    outcomes = Outcomes(logits, truth, task == "multi-label")
    return float(metrics_of(task, [metric])[metric](outcomes)[0])


def groups_of(split: TrainingSplit, recipe: Recipe, cases: Sequence[Case], seed: int) -> list[Batch]:
    """What the recipe validates together: its training scenario's samples, each case, or the cells of a small grid."""
    if recipe.validate_on != GRID:
        return validation_groups(split, recipe, cases)
    modalities = split.encoded.modalities
    noisy = split.scenario.name.startswith("noisy-")
    names = (noisy_scenario_names if noisy else scenario_names)(modalities)
    everyone = np.arange(len(split.table))
    return [
        split.drawn(seed, Scenario.parse(name, modalities), rate).of_case(everyone)
        for name in names
        for rate in GRID_RATES
    ]


def needed(groups: Sequence[Batch]) -> dict[str, Positions]:
    """Case → every position that any of the groups has in it."""
    return {
        case: np.unique(np.concatenate([group[case] for group in groups if case in group]))
        for case in dict.fromkeys(case for group in groups for case in group)
    }


@torch.no_grad()
def predict_case(source: LiveSource, positions: Positions, name: str) -> npt.NDArray[np.float32]:
    """Logits [N, classes] over the whole split, with those of the samples at ``positions`` filled in."""
    classifier, encoded = source.classifier, source.encoded
    case = Case.parse(name, classifier.modalities)
    told = classifier.told(name, SITUATION)
    logits = np.full((len(encoded.split), len(classifier.classes)), np.nan, dtype=np.float32)
    for batch in source.batches(case, positions, BATCH):
        with classifier.autocast():
            logits[batch] = classifier.head(source.features(batch, case, encoded.noise), told).float().cpu().numpy()
    return logits


@torch.no_grad()
def class_features(
    source: LiveSource, split: TrainingSplit, cases: Sequence[Case]
) -> Mapping[str, tuple[Mapping[str, torch.Tensor], torch.Tensor]]:
    """Case → the parts [N, D] of every sample that can be in it, and their targets: what a head begins from."""
    seen = {}
    for case in cases:
        positions = case_positions(split, case)
        order: list[Positions] = []
        parts: dict[str, list[torch.Tensor]] = {}
        for batch in source.batches(case, positions, BATCH):
            order.append(batch)
            for modality, part in source.features(batch, case, split.encoded.noise).by_modality.items():
                parts.setdefault(modality, []).append(part.float())
        joined = {modality: torch.cat(rows) for modality, rows in parts.items()}
        device = next(iter(joined.values())).device
        seen[case.plain.name] = joined, split.targets[np.concatenate(order)].to(device)
    return seen
