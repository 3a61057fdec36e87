"""What is trained and validated on: a split, the case of each of its samples, and its labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.scenario import Scenario


@dataclass(frozen=True)
class TrainingSplit:
    """A split under its missing table."""

    encoded: EncodedSplit
    table: npt.NDArray[np.object_]
    """The case name of each sample [N]."""
    targets: Tensor
    """Labels as ones in [N, classes]."""
    scenario: Scenario
    rate: float
    """The table's missing rate."""

    def drawn(self, seed: int, scenario: Scenario | None = None, rate: float | None = None) -> TrainingSplit:
        """The same under another draw of the missing table."""
        split, scenario = self.encoded.split, scenario or self.scenario
        draw = ScenarioDraw(split.ids, scenario, seed, split.natural_cases(self.encoded.modalities))
        return dataclasses.replace(self, table=draw.table(self.rate if rate is None else rate))

    def of_case(self, positions: Positions) -> dict[str, Positions]:
        """``positions`` by the case that their samples are in."""
        cases = self.table[positions]
        return {case: positions[cases == case] for case in sorted(set(cases.tolist()))}


def case_positions(split: TrainingSplit, case: Case) -> Positions:
    """Positions of the samples that have, by nature, all that ``case`` calls present."""
    presence = split.encoded.split.presence
    return np.flatnonzero(np.all([presence[m] for m in case.present], axis=0))
