"""Which samples of a split a scenario affects: the missing table, and a summary of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.format import choose_modalities
from mmrobust.degradations import check_noise
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.grid import check_rate
from mmrobust.scenarios.scenario import EACH, Scenario


@dataclass(frozen=True)
class AffectedSplit:
    """A split under one scenario, missing rate and seed."""

    split: Split
    modalities: tuple[str, ...]
    scenario: str
    rate: float
    seed: int
    cases: tuple[str, ...]
    """Name of the case of each sample, in the split's order."""
    affected: npt.NDArray[np.int64]
    """Positions of the affected samples, in the order in which a growing rate affects them."""
    naturally_missing: int
    """Number of samples in which a modality is missing before any scenario."""

    @property
    def table(self) -> dict[str, str]:
        """Sample id → case name."""
        return dict(zip(self.split.ids, self.cases, strict=True))

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that the table depends on."""
        info = self.split.info
        return {
            "dataset": {"name": info.name, "fingerprint": info.fingerprint, "split": self.split.name},
            "modalities": list(self.modalities),
            "scenario": self.scenario,
            "missing_rate": self.rate,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        affected = f"{len(self.affected):,} of {len(self.split):,} samples affected"
        natural = f"{self.naturally_missing:,} lack a modality by nature"
        line = f"{self.scenario} at {self.rate:g}, seed {self.seed}: {affected}; {natural}"
        usual = len(self.modalities) == 2 and not self.scenario.startswith(EACH)
        return line if usual else f"{line}; {self.missing_pairs:.1%} of all pairs of sample and modality are missing"

    @property
    def missing_pairs(self) -> float:
        """The share of (sample, modality) pairs that are missing: the missing rate of IMDer and DiCMoR."""
        lost = {name: sum(map(case.is_missing, self.modalities)) for name, case in self._parsed.items()}
        return sum(lost[name] for name in self.cases) / (len(self.cases) * len(self.modalities))

    @property
    def _parsed(self) -> dict[str, Case]:
        return {name: Case.parse(name, self.modalities) for name in set(self.cases)}


def apply_scenario(
    dataset: Dataset, split: str, scenario: str, rate: float, seed: int, modalities: Sequence[str]
) -> AffectedSplit:
    """Draw the missing table of a split, for a model of these ``modalities``.

    Raises:
        MmrobustError: a name is unknown, or the rate is not in [0, 1].
    """
    chosen = choose_modalities(dataset.info, modalities)
    rule, part = Scenario.parse(scenario, chosen), dataset.split(split)
    for case in rule.cases:
        check_noise(case, dataset.info.kinds)
    natural = part.natural_cases(chosen)
    draw = ScenarioDraw(part.ids, rule, seed, natural, part.traits)
    return AffectedSplit(
        split=part,
        modalities=chosen,
        scenario=scenario,
        rate=check_rate(rate),
        seed=seed,
        cases=tuple(draw.table(rate).tolist()),
        affected=draw.affected(rate),
        naturally_missing=sum(case.present != case.modalities for case in natural or ()),
    )
