"""Scenarios, missing tables and the grid: which sample is in which case.

A missing table is a pure function of (sample ids, scenario, rate, seed). Samples are ranked by
``blake2b(f"{seed}/{scenario}/{sample_id}")`` and the first ⌊N·η⌋ are affected, so the table is the same on every
platform and nested: who is missing at 30 % is missing at 70 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case, missing_cases, noisy_cases
from mmrobust.degradations import check_noise
from mmrobust.errors import UnknownNameError, UsageError, unknown_name
from mmrobust.missing_tables import GivenDraw, GivenTable

SITUATION = "situation"
CONCAT = "concat"
PROMPTINGS = (SITUATION, CONCAT)
"""``situation``: the model is told the case. ``concat``: it is not, and is offered all cases together."""


@dataclass(frozen=True)
class Scenario:
    """The rule that gives each sample of a split its case at a missing rate."""

    name: str
    cases: tuple[Case, ...]
    """What an affected sample becomes: the affected one of rank r falls into ``cases[r % len(cases)]``."""

    @classmethod
    def parse(cls, name: str, modalities: Iterable[str]) -> Scenario:
        """The scenario of that ``name`` for a model of these ``modalities``.

        ``missing-<modality>`` affects one modality. ``missing-both`` (two modalities) is MMP's protocol: half the
        affected samples lose one modality, half the other. Any other scenario is named as the case that the affected
        samples are in: ``noisy-<modality>`` and ``noisy-both``, Prompt the Missing's, under a noise profile; with a
        severity (``noisy-both@2``) or a common corruption (``noisy-image:blur@3``) as the case has them; and what is
        put together of these, in any order (``noisy-image:blur@3+noisy-text:word-drop@2``).

        Raises:
            UsageError: no such scenario for these modalities, or no such corruption or severity.
        """
        modalities = tuple(modalities)
        known = (*scenario_names(modalities), *noisy_scenario_names(modalities))
        if name not in known:
            return cls(name, (_composed(name, modalities, known),))
        if name.startswith("noisy-"):
            return cls(name, (Case.parse(name, modalities),))
        lost = modalities if name == "missing-both" else (name.removeprefix("missing-"),)
        return cls(name, tuple(Case.missing(modalities, modality) for modality in lost))


def _composed(name: str, modalities: tuple[str, ...], known: tuple[str, ...]) -> Case:
    """The case that a scenario is named after which is none of the ``known`` ones.

    Raises:
        UsageError: it is none, or has another name, or names a noise that there is not.
    """
    try:
        case = Case.parse(name, modalities)
    except UnknownNameError:
        raise unknown_name(f"scenario for {' and '.join(modalities)}", name, known) from None
    if not case.degraded:
        raise unknown_name(f"scenario for {' and '.join(modalities)}", name, known)
    check_noise(case)
    if sorted(case.name.split("+")) != sorted(name.split("+")):  # models name their modalities in different orders
        raise UsageError(f"scenario '{name}' is called '{case.name}'")
    return case


def scenario_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """The missing-modality scenarios of a model with these modalities.

    >>> scenario_names(("image", "text"))
    ('missing-image', 'missing-text', 'missing-both')
    """
    single = tuple(f"missing-{modality}" for modality in modalities)
    return (*single, "missing-both") if len(modalities) == 2 else single


def noisy_scenario_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """The scenarios under a noise profile of a model with these modalities; no part of the default grid.

    >>> noisy_scenario_names(("image", "text"))
    ('noisy-image', 'noisy-text', 'noisy-both')
    """
    return tuple(case.name for case in noisy_cases(modalities)[1:])


def training_cases(scenario: str, modalities: Sequence[str]) -> tuple[Case, ...]:
    """The cases that a classifier tells apart which trains under ``scenario``.

    The missing ones or, where something is degraded, the noisy ones; and the scenario's own. Which corruption it was
    is not told: all of them are one case.

    >>> [case.name for case in training_cases("noisy-text:ocr@3", ("image", "text"))]
    ['complete', 'noisy-image', 'noisy-text', 'noisy-both']
    """
    own = tuple(case.plain for case in Scenario.parse(scenario, modalities).cases)
    usual = noisy_cases(modalities) if any(case.degraded for case in own) else missing_cases(modalities)
    return tuple(dict.fromkeys((*usual, *own)))


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


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid; it has one number per metric."""

    scenario: str
    missing_rate: float
    seed: int
    prompting: str


@dataclass(frozen=True)
class Grid:
    """Scenarios × missing rates × mask seeds × promptings; and given missing tables × promptings.

    Raises:
        UsageError: an empty axis (scenarios may be none where there are tables), a rate outside [0, 1] or an unknown
            prompting.
    """

    scenarios: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    promptings: tuple[str, ...] = PROMPTINGS
    tables: tuple[GivenTable, ...] = ()

    def __post_init__(self) -> None:
        for axis in ("scenarios", "rates", "seeds", "promptings"):
            values = tuple(dict.fromkeys(getattr(self, axis)))
            if not values and not (axis == "scenarios" and self.tables):
                raise UsageError(f"the grid has no {axis}: name at least one")
            object.__setattr__(self, axis, values)
        object.__setattr__(self, "rates", tuple(sorted(check_rate(rate) for rate in self.rates)))
        object.__setattr__(self, "tables", tuple({table.name: table for table in self.tables}.values()))
        for prompting in self.promptings:
            if prompting not in PROMPTINGS:
                raise unknown_name("prompting", prompting, PROMPTINGS)

    def cells(self) -> Iterator[Cell]:
        """Every cell, scenario by scenario, then by prompting, rate and seed."""
        for scenario in self.scenarios:
            for prompting in self.promptings:
                for rate in self.rates:
                    for seed in self.seeds:
                        yield Cell(scenario, rate, seed, prompting)
        for table in self.tables:
            for prompting in self.promptings:
                yield Cell(table.name, table.rate, 0, prompting)

    def draws(
        self, sample_ids: Sequence[str], modalities: Sequence[str], natural: Sequence[Case] | None = None
    ) -> Iterator[tuple[str, int, tuple[float, ...], ScenarioDraw | GivenDraw]]:
        """(scenario, seed, rates, draw) for every missing table of the grid, the drawn ones and the given ones."""
        for name in self.scenarios:
            scenario = Scenario.parse(name, modalities)
            for seed in self.seeds:
                yield name, seed, self.rates, ScenarioDraw(sample_ids, scenario, seed, natural)
        for table in self.tables:
            yield table.name, 0, (table.rate,), table.over(sample_ids)

    def cases(self, modalities: Sequence[str]) -> tuple[Case, ...]:
        """What affected samples become in any of its cells."""
        drawn = (case for name in self.scenarios for case in Scenario.parse(name, modalities).cases)
        given = (Case.parse(name, modalities) for table in self.tables for name in set(table.cases.values()))
        return tuple(dict.fromkeys((*drawn, *given)))


DEFAULT_RATES = tuple(step / 10 for step in range(11))
DEFAULT_SEEDS = (0, 1, 2)
MOST_SEEDS = 10_000


def make_grid(
    modalities: Sequence[str],
    scenarios: Sequence[str] | None,
    rates: Sequence[float],
    seeds: int | Sequence[int],
    promptings: Sequence[str],
    tables: Sequence[GivenTable] = (),
) -> Grid:
    """The grid for a model of these modalities: every missing-modality scenario, where neither these nor tables are.

    Raises:
        UsageError: a scenario, rate or prompting that does not exist, or no seed.
    """
    chosen = tuple(scenarios or ()) or (() if tables else scenario_names(modalities))
    drawn = mask_seeds(seeds) if isinstance(seeds, int) else tuple(seeds)
    return Grid(chosen, tuple(rates), drawn, tuple(promptings), tuple(tables))


def mask_seeds(count: int) -> tuple[int, ...]:
    """The first ``count`` mask seeds, from 0.

    Raises:
        UsageError: none at all, or more than anybody needs: a grid of them would fill the memory.
    """
    if not 1 <= count <= MOST_SEEDS:
        raise UsageError(f"--seeds {count}: from 1 to {MOST_SEEDS:,} mask seeds")
    return tuple(range(count))


def check_rate(rate: float) -> float:
    """``rate`` itself, where it is a missing rate.

    Raises:
        UsageError: it lies outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"missing rate {rate:g} is not a share of the samples: give a number from 0 to 1")
    return float(rate)


def check_seed(seed: int) -> int:
    """``seed`` itself, where random numbers can be drawn from it.

    Raises:
        UsageError: it is negative, or too large for PyTorch.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed}: give a whole number of 0 or more, below 2^63")
    return seed


def parse_rates(texts: Iterable[str]) -> tuple[float, ...]:
    """Rates from text: numbers, comma-separated lists and ``start:stop:step`` (stop included).

    >>> parse_rates(["0:1:0.5", "0.7"])
    (0.0, 0.5, 0.7, 1.0)
    """
    rates: set[Decimal] = set()
    for text in texts:
        for part in text.split(","):
            rates.update(_parse_rate_range(part.strip()))
    return tuple(sorted(check_rate(float(rate)) for rate in rates))


def _parse_rate_range(text: str) -> list[Decimal]:
    """The rates of one ``number`` or ``start:stop:step``, in decimal arithmetic, so that 0.1 steps reach 1."""
    try:
        numbers = [Decimal(number) for number in text.split(":")]
    except InvalidOperation:
        numbers = []
    if len(numbers) == 1 and numbers[0].is_finite():
        return numbers
    if len(numbers) == 3 and all(n.is_finite() for n in numbers) and numbers[2] > 0 and numbers[1] >= numbers[0]:
        start, stop, step = numbers
        check_rate(float(start))
        check_rate(float(stop))
        if (stop - start) / step > 10_000:
            raise UsageError(f"missing rates '{text}' are more than 10,000: take a larger step")
        return [start + step * i for i in range(int((stop - start) / step) + 1)]
    raise UsageError(f"missing rate '{text}' is neither a number nor start:stop:step; try 0.7 or 0:1:0.1")
