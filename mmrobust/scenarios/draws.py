"""Drawing missing tables: a missing table is a pure function of (sample ids, scenario, rate, seed).

Samples are ranked by ``blake2b(f"{seed}/{scenario}/{sample_id}")`` and the first ⌊N·η⌋ are affected, so the table is
the same on every platform, and nested: a sample affected at 30 % is also affected at 70 %. Where each modality has a
rate of its own, samples are ranked for each by ``blake2b(f"{seed}/missing-each/{modality}/{sample_id}")``, and one that
would lose all of its M modalities keeps the one, in the order of their names, whose index is the first 8 bytes of
``blake2b(f"{seed}/missing-each/keep/{sample_id}")`` modulo M. Who loses any modality is nested then too.

Both halves of an evaluation use the same tables (:class:`CellTables`): the plan, to see which samples must be predicted
in which case, and the join, to select the prediction of each sample.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.errors import UsageError, check_name
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import GivenTable
from mmrobust.scenarios.scenario import Scenario
from mmrobust.storage.tasks import Label


def affected_count(samples: int, rate: float) -> int:
    """⌊N·η⌋, exact: the rate is read as the decimal number it was written as (0.29 of 100 samples are 29)."""
    return int(samples * Fraction(repr(float(rate))))


def rank_samples(sample_ids: Sequence[str], scenario: str, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the samples in the order in which ``scenario`` affects them under ``seed``."""
    hashed = (hashlib.blake2b(f"{seed}/{scenario}/{sample_id}".encode()).digest() for sample_id in sample_ids)
    # Their first eight bytes put the hashes in order, unless two samples share them: then the rest is needed.
    starts = np.frombuffer(b"".join(digest[:8] for digest in hashed), dtype=">u8").astype(np.uint64)
    order = np.argsort(starts, kind="stable")
    if (np.diff(starts[order]) != 0).all():
        return order.astype(np.int64, copy=False)
    return _rank_by_whole_hashes(sample_ids, scenario, seed)


def _rank_by_whole_hashes(sample_ids: Sequence[str], scenario: str, seed: int) -> npt.NDArray[np.int64]:
    digests = [hashlib.blake2b(f"{seed}/{scenario}/{sample_id}".encode()).digest() for sample_id in sample_ids]
    order = sorted(range(len(sample_ids)), key=lambda i: (digests[i], sample_ids[i]))
    return np.asarray(order, dtype=np.int64)


@dataclass(frozen=True)
class Traits:
    """What a draw may depend on besides the ids of the samples: their groups and labels."""

    groups: tuple[str, ...] | None = None
    """The group of each sample; ``None``: each is its own."""
    labels: tuple[Label, ...] | None = None
    """The class, or the classes, of each sample; ``None`` where they are not known, or labels are numbers."""
    classes: tuple[str, ...] = ()
    """The names of the classes."""


class ScenarioDraw:
    """One scenario and seed over the samples of a split: the missing table at every rate.

    Where samples have groups, groups are ranked and counted in their place: N is their number, and the samples of a
    group share their case.

    Args:
        sample_ids: the ids of the split's samples, in the split's order.
        scenario: the rule.
        seed: the mask seed.
        natural: the natural case of each sample (null modalities); ``None`` where all are complete. A sample to which
            the scenario makes no difference is never affected, and does not count in N.
        traits: groups, and the labels that the scenario may depend on.

    Raises:
        UsageError: the scenario depends on a class or group that there is not.
    """

    def __init__(
        self,
        sample_ids: Sequence[str],
        scenario: Scenario,
        seed: int,
        natural: Sequence[Case] | None = None,
        traits: Traits | None = None,
    ) -> None:
        self._scenario, traits = scenario, traits or Traits()
        modalities = scenario.cases[0].modalities
        complete = Case.complete(modalities)
        numbers = {complete: 0} if natural is None else {case: n for n, case in enumerate(dict.fromkeys(natural))}
        of = np.array([0] * len(sample_ids) if natural is None else [numbers[case] for case in natural], dtype=np.intp)
        self._unaffected = np.asarray([case.name for case in numbers], dtype=object)[of]
        units, of_sample = _units(sample_ids, traits.groups)
        if scenario.rates:
            self._draw_each(units, of_sample, seed, list(numbers), of)
            return
        outcomes = [[c.within(case) for c in scenario.cases] for case in numbers]
        loses = np.array([all(c not in (None, case) for c in outcomes[n]) for case, n in numbers.items()], dtype=bool)
        able = np.zeros(len(units), dtype=bool)
        able[of_sample[loses[of]]] = True
        ranked = rank_samples(units, scenario.key, seed)
        ranked, places = _arrange(ranked[able[ranked]], _strata(scenario, units, of_sample, traits), scenario)

        place_of, which = np.full(len(units), -1, dtype=np.int64), np.zeros(len(units), dtype=np.int64)
        place_of[ranked], which[ranked] = np.arange(len(ranked)), places % len(scenario.cases)
        changed = np.flatnonzero(loses[of] & (place_of[of_sample] >= 0))
        self._order: npt.NDArray[np.int64] = changed[np.argsort(place_of[of_sample[changed]], kind="stable")]
        # Where no sample has a group, every unit is one sample.
        self._sizes = np.cumsum(np.bincount(place_of[of_sample[self._order]], minlength=len(ranked)))
        names = np.asarray([[case and case.name for case in cases] for cases in outcomes], dtype=object)
        self._affected = self._unaffected.copy()
        self._affected[self._order] = names[of[self._order], which[of_sample[self._order]]]

    def _draw_each(
        self,
        units: Sequence[str],
        of_sample: npt.NDArray[np.int64],
        seed: int,
        natural: list[Case],
        of: npt.NDArray[np.intp],
    ) -> None:
        """Draw each modality on its own, and leave a unit that would lose all of its modalities one.

        ``natural`` are the natural cases, ``of`` the index of each sample's. A sample with one modality keeps it, and
        does not count.
        """
        modalities = sorted(natural[0].modalities)
        has = np.array([[not case.is_missing(m) for m in modalities] for case in natural], dtype=bool)[of]  # [N, M]
        unit_has = np.zeros((len(units), len(modalities)), dtype=bool)
        np.logical_or.at(unit_has, of_sample, has & (has.sum(axis=1, keepdims=True) > 1))
        lost = np.zeros_like(unit_has)
        for modality, rate in self._scenario.rates:
            column = modalities.index(modality)
            ranked = rank_samples(units, f"{self._scenario.key}/{modality}", seed)
            ranked = ranked[unit_has[ranked, column]]
            lost[ranked[: affected_count(len(ranked), rate)], column] = True
        for sample in np.flatnonzero(~(has & ~lost[of_sample]).any(axis=1)).tolist():
            key = f"{seed}/{self._scenario.key}/keep/{units[of_sample[sample]]}"
            kept = np.flatnonzero(has[sample])
            lost[of_sample[sample], kept[_hash_number(key) % len(kept)]] = False
        names: dict[tuple[int, bytes], str] = {}
        self._affected = self._unaffected.copy()
        for sample in np.flatnonzero((has & lost[of_sample]).any(axis=1)).tolist():
            which = lost[of_sample[sample]]
            found = (int(of[sample]), which.tobytes())
            if found not in names:
                gone = [modality for modality, one in zip(modalities, which, strict=True) if one]
                case = Case.missing(natural[0].modalities, *gone).within(natural[found[0]])
                assert case is not None
                names[found] = case.name
            self._affected[sample] = names[found]
        self._order = np.flatnonzero(self._affected != self._unaffected)

    def affected(self, rate: float) -> npt.NDArray[np.int64]:
        """Positions of the affected samples, first-affected first: ⌊N·η⌋ of them, or those of ⌊N·η⌋ groups.

        Raises:
            UsageError: the scenario has rates of its own, and this is another.
        """
        if (own := self._scenario.rate) is not None:
            if rate != own:
                raise UsageError(f"scenario '{self._scenario.name}' has its own missing rates, {own:g} of all pairs")
            return self._order
        count = affected_count(len(self._sizes), rate)
        return self._order[: self._sizes[count - 1] if count else 0]

    def table(self, rate: float) -> npt.NDArray[np.object_]:
        """The missing table: the case name of each sample [N], in the split's order. Raises as :meth:`affected`."""
        table = self._unaffected.copy()
        affected = self.affected(rate)
        table[affected] = self._affected[affected]
        return table


def _units(sample_ids: Sequence[str], groups: Sequence[str] | None) -> tuple[Sequence[str], npt.NDArray[np.int64]]:
    """What is ranked, samples or groups, and the index of each sample's."""
    if groups is None:
        return sample_ids, np.arange(len(sample_ids), dtype=np.int64)
    numbers: dict[str, int] = {}
    of_sample = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    return list(numbers), of_sample


def _strata(
    scenario: Scenario, units: Sequence[str], of_sample: npt.NDArray[np.int64], traits: Traits
) -> npt.NDArray[np.int64]:
    """For each unit, the index of the dependence that it falls under; their number where it falls under none."""
    strata = np.full(len(units), len(scenario.dependence), dtype=np.int64)
    for number, one in reversed(list(enumerate(scenario.dependence))):
        if one.on == "group":
            if traits.groups is None:
                raise UsageError(f"scenario '{scenario.name}': the samples have no groups")
            check_name("group", one.value, units)
            strata[list(units).index(one.value)] = number
            continue
        if traits.labels is None:
            raise UsageError(f"scenario '{scenario.name}': the labels are not known here, or are numbers")
        check_name("class", one.value, traits.classes)
        label = traits.classes.index(one.value)
        strata[of_sample[[label in labels for labels in traits.labels]]] = number
    return strata


def _arrange(
    ranked: npt.NDArray[np.int64], strata: npt.NDArray[np.int64], scenario: Scenario
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The units in the order in which they are affected, and the rank of each within its stratum.

    Each next one is of the stratum that lags furthest behind its share; strata that have run out are passed over.
    """
    if not scenario.dependence:
        return ranked, np.arange(len(ranked), dtype=np.int64)
    shares = [one.share for one in scenario.dependence]
    shares.append(1 - sum(shares, Fraction(0)))
    whole = math.lcm(*(share.denominator for share in shares))
    weights = [int(share * whole) for share in shares]
    queues = [ranked[strata[ranked] == number] for number in range(len(shares))]
    taken = [0] * len(shares)
    order, places = np.empty_like(ranked), np.empty_like(ranked)
    for rank in range(len(ranked)):
        left = [number for number in range(len(shares)) if taken[number] < len(queues[number])]
        # Strata without a share come last, whatever the others have taken.
        number = max(left, key=lambda n: (weights[n] > 0, weights[n] * (rank + 1) - whole * taken[n], -n))
        order[rank], places[rank] = queues[number][taken[number]], taken[number]
        taken[number] += 1
    return order, places


def _hash_number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode()).digest()[:8], "big")


def missing_table(
    sample_ids: Sequence[str],
    scenario: Scenario,
    rate: float,
    seed: int,
    natural: Sequence[Case] | None = None,
    traits: Traits | None = None,
) -> dict[str, str]:
    """The missing table of one (scenario, rate, seed), sample id → case name; see :class:`ScenarioDraw`."""
    return dict(zip(sample_ids, ScenarioDraw(sample_ids, scenario, seed, natural, traits).table(rate), strict=True))


@dataclass(frozen=True)
class CellTables:
    """The case of each of N samples in each of K cells; each distinct table is stored once."""

    cells: tuple[Cell, ...]
    cases: tuple[str, ...]
    tables: tuple[npt.NDArray[np.uint8], ...]
    """The distinct tables: the index in ``cases`` of each sample's case [N]."""
    keys: tuple[tuple[int, str], ...]
    """The distinct (table, prompting); cells with the same key have the same value."""
    of_cell: npt.NDArray[np.int64]
    """[K]: the index in ``keys`` of each cell."""
    affected: npt.NDArray[np.int64]
    """[K]: the number of samples that the scenario of each cell affects."""

    def positions(self) -> dict[str, npt.NDArray[np.int64]]:
        """Case → positions, ascending, of the samples that are in it in any cell."""
        needed = {case: np.zeros(len(self.tables[0]), dtype=np.bool_) for case in self.cases}
        for table in self.tables:
            for number in np.flatnonzero(np.bincount(table)):
                needed[self.cases[number]] |= table == number
        return {case: np.flatnonzero(rows) for case, rows in needed.items()}


def draw_tables(
    cells: Sequence[Cell],
    sample_ids: Sequence[str],
    modalities: Sequence[str],
    natural: Sequence[Case] | None = None,
    given: Iterable[GivenTable] = (),
    traits: Traits | None = None,
) -> CellTables:
    """Draw the missing tables of ``cells``; samples are ranked once per scenario and seed.

    Args:
        cells: of the grid.
        sample_ids: ids of the samples, in the split's order.
        modalities: of the model, which scenarios refer to.
        natural: the natural case of each sample; ``None`` where all are complete.
        given: missing tables from files, which no scenario can draw.
        traits: groups and labels of the samples.

    Raises:
        UsageError: a scenario does not fit the modalities or the samples, or there are more than 256 cases.
    """
    from_files = {table.name: table for table in given}
    rates: dict[tuple[str, int], set[float]] = {}
    for cell in cells:
        rates.setdefault((cell.scenario, cell.seed), set()).add(cell.missing_rate)
    cases: dict[str, int] = {}
    tables: list[npt.NDArray[np.uint8]] = []
    index: dict[bytes, int] = {}
    drawn: dict[tuple[str, float, int], tuple[int, int]] = {}
    for (scenario, seed), of_draw in rates.items():
        draw = None
        if scenario not in from_files:
            draw = ScenarioDraw(sample_ids, Scenario.parse(scenario, modalities), seed, natural, traits)
        for rate in sorted(of_draw):  # ascending, so that neighbouring tables differ least
            if draw is None:
                names, count = from_files[scenario].over(sample_ids)
            else:
                names, count = draw.table(rate), len(draw.affected(rate))
            table = np.empty(len(sample_ids), dtype=np.uint8)
            for case in sorted(set(names)):
                if cases.setdefault(case, len(cases)) > np.iinfo(np.uint8).max:
                    raise UsageError("the grid has more than 256 cases; evaluate its scenarios one after another")
                table[names == case] = cases[case]
            number = index.setdefault(table.tobytes(), len(tables))
            if number == len(tables):
                tables.append(table)
            drawn[scenario, rate, seed] = (number, count)
    of_cells = [drawn[cell.scenario, cell.missing_rate, cell.seed] for cell in cells]
    key_of_cell = [(number, cell.prompting) for (number, _), cell in zip(of_cells, cells, strict=True)]
    keys = {key: place for place, key in enumerate(dict.fromkeys(key_of_cell))}
    of_cell = np.asarray([keys[key] for key in key_of_cell], dtype=np.int64)
    affected = np.asarray([count for _, count in of_cells], dtype=np.int64)
    return CellTables(tuple(cells), tuple(cases), tuple(tables), tuple(keys), of_cell, affected)
