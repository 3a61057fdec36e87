"""Who is affected: a missing table is a pure function of (sample ids, scenario, rate, seed).

Samples are ranked by ``blake2b(f"{seed}/{scenario}/{sample_id}")`` and the first ⌊N·η⌋ are affected, so the table is
the same on every platform and nested: who is missing at 30 % is missing at 70 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.scenarios.scenario import Scenario


def affected_count(samples: int, rate: float) -> int:
    """⌊N·η⌋, exact: the rate is taken as the decimal number it was written as (0.29 of 100 samples are 29)."""
    return int(samples * Fraction(repr(float(rate))))


def rank_samples(sample_ids: Sequence[str], scenario: str, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the samples in the order in which ``scenario`` affects them under ``seed``."""
    digests = [hashlib.blake2b(f"{seed}/{scenario}/{sample_id}".encode()).digest() for sample_id in sample_ids]
    order = sorted(range(len(sample_ids)), key=lambda i: (digests[i], sample_ids[i]))
    return np.asarray(order, dtype=np.int64)


class ScenarioDraw:
    """One scenario and seed over the samples of a split: the missing table at every rate.

    Args:
        sample_ids: the ids of the split's samples, in the split's order.
        scenario: the scenario.
        seed: the mask seed.
        natural: the case that each sample is in by nature (a null modality); ``None`` where all are complete.
            A sample that has nothing to lose under the scenario is never affected and does not count in N.
    """

    def __init__(
        self, sample_ids: Sequence[str], scenario: Scenario, seed: int, natural: Sequence[Case] | None = None
    ) -> None:
        modalities = scenario.cases[0].modalities
        complete = Case.complete(modalities)
        numbers = {complete: 0} if natural is None else {case: n for n, case in enumerate(dict.fromkeys(natural))}
        of = np.array([0] * len(sample_ids) if natural is None else [numbers[case] for case in natural], dtype=np.intp)
        outcomes = [[c.within(case) for c in scenario.cases] for case in numbers]
        loses = np.array([all(c not in (None, case) for c in outcomes[n]) for case, n in numbers.items()], dtype=bool)

        ranked = rank_samples(sample_ids, scenario.name, seed)
        self._order: npt.NDArray[np.int64] = ranked[loses[of[ranked]]]
        self._unaffected = np.asarray([case.name for case in numbers], dtype=object)[of]
        names = np.asarray([[case and case.name for case in cases] for cases in outcomes], dtype=object)
        self._affected = self._unaffected.copy()
        self._affected[self._order] = names[of[self._order], np.arange(len(self._order)) % len(scenario.cases)]

    def affected(self, rate: float) -> npt.NDArray[np.int64]:
        """Positions of the ⌊N·η⌋ affected samples, first-affected first."""
        return self._order[: affected_count(len(self._order), rate)]

    def table(self, rate: float) -> npt.NDArray[np.object_]:
        """The missing table: the case name of each sample [N], in the split's order."""
        table = self._unaffected.copy()
        affected = self.affected(rate)
        table[affected] = self._affected[affected]
        return table


def missing_table(
    sample_ids: Sequence[str],
    scenario: Scenario,
    rate: float,
    seed: int,
    natural: Sequence[Case] | None = None,
) -> dict[str, str]:
    """Sample id → case name, for one (scenario, rate, seed). Arguments as for :class:`ScenarioDraw`."""
    return dict(zip(sample_ids, ScenarioDraw(sample_ids, scenario, seed, natural).table(rate), strict=True))
