"""The samples of a training: which case each is in, which are trained on, and how an epoch batches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.errors import TrainingError
from mmrobust.scenarios.draws import ScenarioDraw, affected_count, rank_samples
from mmrobust.scenarios.scenario import Scenario
from mmrobust.training.recipe import CASE_WISE, Recipe

PositionsByCase = dict[str, Positions]
"""Case name → positions of the samples that are in that case: a batch, or a group that is validated together."""


@dataclass(frozen=True)
class TrainingSplit:
    """A split under a missing table."""

    encoded: EncodedSplit
    table: npt.NDArray[np.object_]
    """The case name of each sample [N]."""
    targets: Tensor
    """Multi-hot labels [N, classes]; in a regression task, the numbers [N, 1]."""
    scenario: Scenario
    rate: float
    """The table's missing rate."""

    @classmethod
    def draw(cls, encoded: EncodedSplit, targets: Tensor, scenario: Scenario, rate: float, seed: int) -> TrainingSplit:
        """A split under the missing table of this scenario, missing rate and seed."""
        natural = encoded.split.natural_cases(encoded.modalities)
        table = ScenarioDraw(encoded.split.ids, scenario, seed, natural, encoded.split.traits).table(rate)
        return cls(encoded, table, targets, scenario, rate)

    def redrawn(self, seed: int, scenario: Scenario | None = None, rate: float | None = None) -> TrainingSplit:
        """The split under another missing table: with another seed and, where given, scenario or missing rate."""
        rate = self.rate if rate is None else rate
        return TrainingSplit.draw(self.encoded, self.targets, scenario or self.scenario, rate, seed)

    def by_case(self, positions: Positions) -> PositionsByCase:
        """``positions``, grouped by the case that each sample has in the missing table."""
        cases = self.table[positions]
        return {case: positions[cases == case] for case in sorted(set(cases.tolist()))}

    def eligible(self, case: Case) -> Positions:
        """Positions of the samples whose data hold every modality that ``case`` calls present."""
        presence = self.encoded.split.presence
        return np.flatnonzero(np.all([presence[modality] for modality in case.present], axis=0))


def possible_cases(split: TrainingSplit) -> tuple[str, ...]:
    """Names, without corruptions, of the cases in which a missing table of the split's scenario can put a sample."""
    complete = Case.complete(split.encoded.modalities)
    natural = split.encoded.split.natural_cases(split.encoded.modalities)
    owns = {complete} if natural is None else set(natural)
    found = {case.within(own) for own in owns for case in (complete, *split.scenario.cases)}
    return tuple(sorted(case.plain.name for case in found if case is not None))


def training_share(sample_ids: Sequence[str], share: float, seed: int) -> Positions:
    """Positions, ascending, of the ⌊N · share⌋ samples that are trained on, fixed by the seed.

    Nested, like missing tables: the samples of a smaller share are among those of a larger one.

    Raises:
        TrainingError: the share is smaller than one sample.
    """
    count = affected_count(len(sample_ids), share)
    if not count:
        raise TrainingError(f"a share of {share:g} of {len(sample_ids)} training samples is none: take a larger one")
    return np.sort(rank_samples(sample_ids, "training-share", seed)[:count])


def epoch_batches(
    split: TrainingSplit, order: Positions, recipe: Recipe, cases: Sequence[Case]
) -> list[PositionsByCase]:
    """The batches of one epoch, which goes through the positions of ``order``; by the recipe's ``batching``.

    ``mixed``: a batch's samples are in the cases of the missing table. ``case-wise``: each batch runs once in every one
    of the ``cases``, one step per case, so that an epoch has as many times the steps: Prompt the Missing trains one
    model per case; this interleaves those trainings. A sample whose data lack a modality that the case calls present is
    left out of that step.
    """
    parts = [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]
    if recipe.batching != CASE_WISE:
        return [split.by_case(part) for part in parts]
    eligible = {case.name: split.eligible(case) for case in cases}
    steps = ({name: part[np.isin(part, positions)]} for part in parts for name, positions in eligible.items())
    return [batch for batch in steps if count(batch)]


def count(batch: PositionsByCase) -> int:
    """Number of (sample, case) pairs in a batch."""
    return sum(len(positions) for positions in batch.values())


def union(groups: Sequence[Mapping[str, Positions]]) -> PositionsByCase:
    """All (sample, case) pairs of several batches or groups, each once and in ascending order."""
    return {
        case: np.unique(np.concatenate([group[case] for group in groups if case in group]))
        for case in dict.fromkeys(case for group in groups for case in group)
    }
