"""Validation: the headline metric that decides which epoch is the best.

And, before a training, whether its data have samples for everything that is learned, and allow validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.errors import TrainingError, UsageError
from mmrobust.scenarios.scenario import Scenario, noisy_scenario_names, scenario_names
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of
from mmrobust.storage.tasks import REGRESSION
from mmrobust.training.objective import loss
from mmrobust.training.recipe import CASE_WISE, GRID, Recipe
from mmrobust.training.setup import Setup
from mmrobust.training.sources import LiveSource
from mmrobust.training.splits import PositionsByCase, TrainingSplit, count, training_share, union

BATCH = 64
GRID_RATES = (0.0, 0.5, 1.0)


def validation_groups(split: TrainingSplit, recipe: Recipe, cases: Sequence[Case], seed: int) -> list[PositionsByCase]:
    """The groups of samples of the validation split whose metrics are averaged to validate an epoch.

    By the recipe's ``validate_on`` and ``batching``: all samples under the training scenario (one group), all that are
    eligible for each of the ``cases`` of case-wise training (a group per case), or the cells of a small grid, whose
    missing tables are drawn with the seed.
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


@dataclass(frozen=True)
class Validation:
    """What a classifier achieves on the validation split."""

    metric: float
    """The headline metric, the mean over the groups."""
    loss: float
    """The task's loss, the mean over the samples of all groups."""
    predicts_nothing: bool
    """Multi-label: no score of any sample passes the threshold."""


def validate(
    source: LiveSource, split: TrainingSplit, metric: str, groups: Sequence[PositionsByCase] = ()
) -> Validation:
    """A metric's mean over ``groups`` of samples, and the loss; every (sample, case) pair is predicted once.

    ``source`` gives the split's features; its classifier is in evaluation mode. Without groups, all samples in the
    cases of the missing table are one.
    """
    groups = groups or [split.by_case(np.arange(len(split.table)))]
    task, scale = source.classifier.task, source.classifier.scale
    logits = {case: predict_case(source, positions, case) for case, positions in union(groups).items()}
    values, total, highest = [], 0.0, -np.inf
    for group in groups:
        positions = np.concatenate(list(group.values()))
        predicted = np.concatenate([logits[case][some] for case, some in group.items()])
        values.append(metric_over(split, positions, predicted, task, metric))
        targets = split.targets[positions].double()
        total += float(loss(torch.from_numpy(predicted).double(), targets, task, 0.0, scale=scale))
        highest = max(highest, float(predicted.max()))
    samples = sum(map(count, groups))
    return Validation(sum(values) / len(values), total / samples, task == "multi-label" and highest <= 0)


def metric_over(
    split: TrainingSplit, positions: Positions, logits: npt.NDArray[np.float32], task: str, metric: str
) -> float:
    """A metric of the ``logits`` [n, classes] of the samples at ``positions`` [n]; NaN where it is not defined."""
    labels = split.targets[positions].numpy()
    targets = labels.astype(np.float64) if task == REGRESSION else labels > 0
    truth = WeightedTruth(targets, np.ones((1, len(positions))))
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


def check_trainable(setup: Setup, recipe: Recipe, seed: int) -> None:
    """Raise where a training would have no samples for something that it must learn, or could not be validated.

    Raises:
        TrainingError: the head is initialised from samples in a case that no training sample can be in; no sample can
            be in any of the cases of case-wise batches; a sample's data put it in a case that nothing is trained for;
            the headline metric is not defined on the validation split. The message names the case and a way out.
    """
    classifier, train, validation = setup.classifier, setup.train, setup.validation
    cases = [Case.parse(name, classifier.modalities) for name in classifier.cases]
    chosen = training_share(train.encoded.split.ids, recipe.share, seed)
    if classifier.head.starts_from_features and not setup.head_taken:
        for case in cases:
            if not len(train.eligible(case)):
                raise TrainingError(
                    f"the {classifier.head.name} head is initialised from training samples in every case, but none can "
                    f"be in case '{case.name}': none has {' and '.join(case.present)}; take --head-set init=xavier, "
                    "another --head, or data with such samples"
                )
    groups = validation_groups(validation, recipe, cases, seed)
    if recipe.batching == CASE_WISE:
        eligible = any(len(np.intersect1d(chosen, train.eligible(case))) for case in cases)
        for name, some in {"training": eligible, "validation": bool(groups)}.items():
            if not some:
                raise TrainingError(
                    f"batches are to run in {', '.join(classifier.cases)}, but no {name} sample has what any of these "
                    "calls present; take --recipe-set batching=mixed with a missing-* --scenario, or data with such "
                    "samples"
                )
    else:
        _check_trained_for(setup, train, "training", _possible(train, chosen), "batching=case-wise")
    validated = {name: positions for group in groups for name, positions in group.items()}
    leave_out = "validate_on=table" if recipe.batching == CASE_WISE else "batching=case-wise"
    _check_trained_for(setup, validation, "validation", validated, leave_out)
    _check_metric(setup, groups)


def _possible(split: TrainingSplit, positions: Positions) -> PositionsByCase:
    """Case → those of ``positions`` that any draw of the missing table can put in it; empty where all are complete."""
    natural = split.encoded.split.natural_cases(split.encoded.modalities)
    if natural is None:
        return {}
    by_own: dict[Case, list[int]] = {}
    for position in positions.tolist():
        by_own.setdefault(natural[position], []).append(position)
    affected = split.scenario.cases if split.rate else ()
    found: dict[str, list[int]] = {}
    for own, some in by_own.items():
        for case in dict.fromkeys((own, *(case.within(own) for case in affected))):
            if case is not None:
                found.setdefault(case.name, []).extend(some)
    return {name: np.asarray(some) for name, some in found.items()}


def _check_trained_for(
    setup: Setup, split: TrainingSplit, what: str, possible: PositionsByCase, leave_out: str
) -> None:
    """Raise where a sample may be in a case that is not trained for; the setting ``leave_out`` would leave it out."""
    classifier = setup.classifier
    for name, positions in possible.items():
        try:
            classifier.told(name, SITUATION)
        except UsageError:
            sample = split.encoded.split.ids[positions[0]]
            raise TrainingError(
                f"{len(positions)} {what} samples, such as '{sample}', lack a modality by nature and are in case "
                f"'{name}', but {classifier.method.name} + {classifier.head.name} under {setup.train.scenario.name} "
                f"learns {', '.join(classifier.cases)} only; take a missing-* --scenario, --recipe-set {leave_out}, "
                "which leaves them out, or data without them"
            ) from None


def _check_metric(setup: Setup, groups: list[PositionsByCase]) -> None:
    """Raise where the headline metric is not defined on the validation split, whatever is predicted."""
    config, split = setup.config, setup.validation
    for group in groups:
        positions = np.concatenate(list(group.values()))
        constant = np.zeros((len(positions), len(config.classes)), dtype=np.float32)
        if not np.isfinite(metric_over(split, positions, constant, config.task, config.headline_metric)):
            same, wanted = "of one class", "that has every class"
            if config.task == REGRESSION:
                same, wanted = "labels equal", "whose labels differ"
            raise TrainingError(
                f"the {config.headline_metric} of {len(positions)} validation samples in {', '.join(group)} is not "
                f"defined: are all {same}? Prepare the data with a validation split {wanted}, or with another headline "
                "metric"
            )
