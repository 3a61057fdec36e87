"""The grid: scenarios × missing rates × mask seeds × promptings, and what users write to choose them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import product

from mmrobust.cases import PROMPTINGS, Case
from mmrobust.configuration import number_hint
from mmrobust.errors import UsageError, check_name
from mmrobust.scenarios.missing_tables import GivenTable
from mmrobust.scenarios.scenario import Scenario, scenario_names


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid, with one value per metric."""

    scenario: str
    missing_rate: float
    seed: int
    prompting: str


@dataclass(frozen=True)
class Grid:
    """Scenarios × missing rates × mask seeds × promptings, and missing tables from files × promptings.

    Raises:
        UsageError: no rate, seed or prompting, a rate outside [0, 1] or an unknown prompting.
    """

    scenarios: tuple[str, ...]
    """With neither scenarios nor tables, :meth:`of` fills in every missing-modality scenario of a model."""
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    promptings: tuple[str, ...] = PROMPTINGS
    tables: tuple[GivenTable, ...] = ()

    def __post_init__(self) -> None:
        for axis in ("scenarios", "rates", "seeds", "promptings"):
            values = tuple(dict.fromkeys(getattr(self, axis)))
            if not values and axis != "scenarios":
                raise UsageError(f"the grid has no {axis}: name at least one")
            object.__setattr__(self, axis, values)
        object.__setattr__(self, "rates", tuple(sorted(check_rate(rate) for rate in self.rates)))
        object.__setattr__(self, "tables", tuple({table.name: table for table in self.tables}.values()))
        for prompting in self.promptings:
            check_name("prompting", prompting, PROMPTINGS)

    def cells(self) -> Iterator[Cell]:
        """Every cell, by scenario, then prompting, rate and seed."""
        for scenario, prompting, rate, seed in product(self.scenarios, self.promptings, self.rates, self.seeds):
            yield Cell(scenario, rate, seed, prompting)
        for table, prompting in product(self.tables, self.promptings):
            yield Cell(table.name, table.rate, 0, prompting)

    def of(self, modalities: Sequence[str], tables: Sequence[GivenTable] = ()) -> Grid:
        """The grid for a model with these modalities, with further missing tables from files.

        Raises:
            UsageError: it names no scenario, and the model has one modality, which cannot be missing.
        """
        tables = (*self.tables, *tables)
        if len(modalities) == 1 and not self.scenarios and not tables:
            raise UsageError(
                f"a model of {modalities[0]} alone has no missing-modality scenario; name one that degrades it, as in "
                f"--scenario noisy-{modalities[0]}:…"
            )
        scenarios = self.scenarios or (() if tables else scenario_names(modalities))
        return replace(self, scenarios=scenarios, tables=tables)

    def cases(self, modalities: Sequence[str]) -> tuple[Case, ...]:
        """The cases of affected samples, over all cells."""
        drawn = (case for name in self.scenarios for case in Scenario.parse(name, modalities).cases)
        given = (Case.parse(name, modalities) for table in self.tables for name in set(table.cases.values()))
        return tuple(dict.fromkeys((*drawn, *given)))


DEFAULT_RATES = tuple(step / 10 for step in range(11))
DEFAULT_SEEDS = (0, 1, 2)
MAX_SEEDS = 10_000


def make_grid(
    modalities: Sequence[str],
    scenarios: Sequence[str] | None,
    rates: Sequence[float],
    seeds: int | Sequence[int],
    promptings: Sequence[str],
    tables: Sequence[GivenTable] = (),
) -> Grid:
    """Make the grid for a model with these modalities; see :class:`Grid`. ``seeds`` may be their number."""
    drawn = mask_seeds(seeds) if isinstance(seeds, int) else tuple(seeds)
    return Grid(tuple(scenarios or ()), tuple(rates), drawn, tuple(promptings)).of(modalities, tables)


def mask_seeds(count: int) -> tuple[int, ...]:
    """The first ``count`` mask seeds, from 0.

    Raises:
        UsageError: fewer than one, or so many that a grid of them would fill the memory.
    """
    if not 1 <= count <= MAX_SEEDS:
        raise UsageError(f"--seeds {count}: give a number of mask seeds from 1 to {MAX_SEEDS:,}")
    return tuple(range(count))


def check_rate(rate: float) -> float:
    """Return ``rate`` as a float; raise a ``UsageError`` where it is outside [0, 1]."""
    if not 0 <= rate <= 1:
        raise UsageError(f"missing rate {rate:g} is not a share of the samples: give a number from 0 to 1")
    return float(rate)


def check_seed(seed: int) -> int:
    """Return ``seed``; raise a ``UsageError`` where it is negative, or too large for PyTorch."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed}: give a whole number of 0 or more, below 2^63")
    return seed


def parse_rates(texts: Iterable[str]) -> tuple[float, ...]:
    """Rates from text: numbers, comma-separated lists and ``start:stop:step`` (stop included).

    >>> parse_rates(["0:1:0.5", "0.7"])
    (0.0, 0.5, 0.7, 1.0)
    """
    return tuple(sorted({float(rate) for text in texts for rate in _parse_rate_list(text)}))


def _parse_rate_list(text: str) -> list[Decimal]:
    """The rates of a comma-separated list."""
    parts = text.split(",")
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise UsageError(f"missing rates '{text}': one of them is empty; commas separate rates, as in 0.3,0.7")
    try:
        rates = [rate for part in parts for rate in _parse_rate_range(part.strip())]
        for rate in rates:
            check_rate(float(rate))
    except UsageError as cause:
        within = f" (in '{text}'{number_hint(text)})" if len(parts) > 1 else ""
        raise UsageError(f"{cause}{within}") from None
    return rates


def _parse_rate_range(text: str) -> list[Decimal]:
    """The rates of one ``number`` or ``start:stop:step``, in decimal arithmetic, so that steps of 0.1 reach 1."""
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
            raise UsageError(f"missing rates '{text}' are more than 10,000: give a larger step")
        return [start + step * i for i in range(int((stop - start) / step) + 1)]
    hint = number_hint(text) or "; try 0.7 or 0:1:0.1"
    raise UsageError(f"missing rate '{text}' is neither a number nor start:stop:step{hint}")
