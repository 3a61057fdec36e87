"""Whether the data allow what is asked for, before anything is trained: a run must not end at its first validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.errors import TrainingError, UsageError
from mmrobust.models.checkpoint import CheckpointConfig
from mmrobust.models.classifier import Classifier
from mmrobust.training.batching import Batch, share_of
from mmrobust.training.recipe import CASE_WISE, Recipe
from mmrobust.training.splits import TrainingSplit, case_positions
from mmrobust.training.validation import groups_of, metric_over


@dataclass(frozen=True)
class Setup:
    """A classifier and the splits it trains and is validated on."""

    classifier: Classifier
    config: CheckpointConfig
    train: TrainingSplit
    validation: TrainingSplit
    head_taken: bool
    """Whether the head is a fine-tuned checkpoint's, and needs no start."""


def check_trainable(setup: Setup, recipe: Recipe, seed: int) -> None:
    """Raise where a training would have no sample for what it must learn, or could not be validated.

    Args:
        setup: what is trained, on what.
        recipe: how.
        seed: of the training.

    Raises:
        TrainingError: the head begins from samples in a case that no training sample can be in; no sample can be in any
            of the cases that batches are to run in; a sample is by nature in a case that nothing is learned for; the
            headline metric is not defined on the validation split. The message names the case and the way out.
    """
    classifier, train, validation = setup.classifier, setup.train, setup.validation
    cases = [Case.parse(name, classifier.modalities) for name in classifier.cases]
    chosen = share_of(train.encoded.split.ids, recipe.share, seed)
    if classifier.head.starts_from_features and not setup.head_taken:
        for case in cases:
            if not len(case_positions(train, case)):
                raise TrainingError(
                    f"the {classifier.head.name} head begins from training samples in every case, but none can be in "
                    f"case '{case.name}': none has {' and '.join(case.present)}; take --head-set init=random, another "
                    "--head, or data with such samples"
                )
    groups = groups_of(validation, recipe, cases, seed)
    if recipe.batching == CASE_WISE:
        able = {"training": any(len(np.intersect1d(chosen, case_positions(train, case))) for case in cases)}
        for name, some in (able | {"validation": bool(groups)}).items():
            if not some:
                raise TrainingError(
                    f"batches are to run in {', '.join(classifier.cases)}, but no {name} sample has what any of these "
                    "calls present; take --recipe-set batching=mixed with a missing-* --scenario, or data with such "
                    "samples"
                )
    else:
        _check_told(setup, "training", _possible(train, chosen), "batching=case-wise")
    validated = {name: positions for group in groups for name, positions in group.items()}
    leave_out = "validate_on=table" if recipe.batching == CASE_WISE else "batching=case-wise"
    _check_told(setup, "validation", validated, leave_out)
    _check_metric(setup, groups)


def _possible(split: TrainingSplit, positions: Positions) -> Batch:
    """Case → those of ``positions`` whose samples any draw of the missing table can put in it."""
    natural = split.encoded.split.natural_cases(split.encoded.modalities)
    if natural is None:
        return {}
    alike: dict[Case, list[int]] = {}
    for position in positions.tolist():
        alike.setdefault(natural[position], []).append(position)
    affected = split.scenario.cases if split.rate else ()
    found: dict[str, list[int]] = {}
    for own, some in alike.items():
        for case in dict.fromkeys((own, *(case.within(own) for case in affected))):
            if case is not None:
                found.setdefault(case.name, []).extend(some)
    return {name: np.asarray(some) for name, some in found.items()}


def _check_told(setup: Setup, what: str, possible: Batch, leave_out: str) -> None:
    """Raise where a sample may be in a case that nothing of the classifier is trained for.

    ``leave_out`` is the setting of the recipe that leaves such samples out.
    """
    classifier, splits = setup.classifier, {"training": setup.train, "validation": setup.validation}
    for name, positions in possible.items():
        try:
            classifier.told(name, SITUATION)
        except UsageError:
            sample = splits[what].encoded.split.ids[positions[0]]
            raise TrainingError(
                f"{len(positions)} {what} samples, such as '{sample}', lack a modality by nature and are in case "
                f"'{name}', but {classifier.method.name} + {classifier.head.name} under {setup.train.scenario.name} "
                f"learns {', '.join(classifier.cases)} only; take a missing-* --scenario, --recipe-set {leave_out}, "
                "which leaves them out, or data without them"
            ) from None


def _check_metric(setup: Setup, groups: list[Batch]) -> None:
    """Raise where the headline metric has no value on the validation split, whatever is predicted."""
    config, split = setup.config, setup.validation
    for group in groups:
        positions = np.concatenate(list(group.values()))
        constant = np.zeros((len(positions), len(config.classes)), dtype=np.float32)
        if not np.isfinite(metric_over(split, positions, constant, config.task, config.headline_metric)):
            raise TrainingError(
                f"the {config.headline_metric} of {len(positions)} validation samples in {', '.join(group)} is not "
                "defined: are all of one class? Prepare the data with a validation split that has every class, or "
                "with another headline metric"
            )
