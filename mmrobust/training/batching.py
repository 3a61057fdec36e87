"""How batches meet cases: as the missing table says, or every batch in each case, in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions
from mmrobust.errors import TrainingError
from mmrobust.scenarios.draws import affected_count, rank_samples
from mmrobust.training.recipe import CASE_WISE, Recipe
from mmrobust.training.splits import TrainingSplit, case_positions

Batch = dict[str, Positions]
"""Case → positions of the samples that a step sees in it."""


def share_of(sample_ids: Sequence[str], share: float, seed: int) -> Positions:
    """Positions, ascending, of the fixed ⌊N · share⌋ samples that a training draws from.

    Nested, like missing tables: the samples of a smaller share are among those of a larger.

    Raises:
        TrainingError: the share is of no sample.
    """
    count = affected_count(len(sample_ids), share)
    if not count:
        raise TrainingError(f"a share of {share:g} of {len(sample_ids)} training samples is none: take a larger one")
    return np.sort(rank_samples(sample_ids, "training-share", seed)[:count])


def epoch_batches(split: TrainingSplit, order: Positions, recipe: Recipe, cases: Sequence[Case]) -> list[Batch]:
    """The batches of one epoch.

    Args:
        split: what is trained on.
        order: the positions that the epoch goes through, in that order.
        recipe: ``batch_size`` and ``batching``. ``mixed``: a batch's samples are in the cases of the missing table.
            ``case-wise``: each batch runs once in every case, one step each, so an epoch has as many times the steps:
            Prompt the Missing's trainings, one per case, interleaved. A sample that lacks by nature what a case calls
            present is left out of it.
        cases: those that case-wise batches run in.
    """
    parts = [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]
    if recipe.batching != CASE_WISE:
        return [split.of_case(part) for part in parts]
    able = {case.name: case_positions(split, case) for case in cases}
    steps = ({name: part[np.isin(part, positions)]} for part in parts for name, positions in able.items())
    return [batch for batch in steps if all(len(positions) for positions in batch.values())]


def validation_groups(split: TrainingSplit, recipe: Recipe, cases: Sequence[Case]) -> list[Batch]:
    """What is validated together: everyone in the table's case, or everyone in each case, whose mean counts."""
    if recipe.batching != CASE_WISE:
        return [split.of_case(np.arange(len(split.table)))]
    groups = [{case.name: case_positions(split, case)} for case in cases]
    return [group for group in groups if all(len(positions) for positions in group.values())]
