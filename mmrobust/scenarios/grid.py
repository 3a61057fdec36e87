"""The grid: scenarios × missing rates × mask seeds × promptings, and what users write to choose them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import product

from mmrobust.cases import PROMPTINGS, Case
from mmrobust.configuration import number_hint
from mmrobust.errors import UsageError, check_name
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scenarios.missing_tables import GivenTable
from mmrobust.scenarios.scenario import EACH, Scenario, each_name, scenario_names


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
    """With neither scenarios nor tables, :meth:`of` fills in every missing-modality scenario of a model. DPL's names of
    availabilities (``65/65``) may stand among them: :meth:`of` makes :attr:`points` of them."""
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    promptings: tuple[str, ...] = PROMPTINGS
    tables: tuple[GivenTable, ...] = ()
    points: tuple[tuple[str, float], ...] = ()
    """(scenario, missing rate) pairs that are in the grid besides, for every seed and prompting. Scenarios with rates
    of their own (``missing-each:…``) are such points."""
    notes: tuple[str, ...] = ()
    """What :meth:`of` took names of availabilities for, a line each."""

    def __post_init__(self) -> None:
        for axis in ("scenarios", "rates", "seeds", "promptings"):
            values = tuple(dict.fromkeys(getattr(self, axis)))
            if not values and axis != "scenarios":
                raise UsageError(f"the grid has no {axis}: name at least one")
            object.__setattr__(self, axis, values)
        object.__setattr__(self, "rates", tuple(sorted(check_rate(rate) for rate in self.rates)))
        object.__setattr__(self, "tables", tuple({table.name: table for table in self.tables}.values()))
        object.__setattr__(self, "points", tuple(dict.fromkeys((name, check_rate(rate)) for name, rate in self.points)))
        for prompting in self.promptings:
            check_name("prompting", prompting, PROMPTINGS)

    def cells(self) -> Iterator[Cell]:
        """Every cell, by scenario, then prompting, rate and seed."""
        for scenario, prompting, rate, seed in product(self.scenarios, self.promptings, self.rates, self.seeds):
            yield Cell(scenario, rate, seed, prompting)
        for (scenario, rate), prompting, seed in product(self.points, self.promptings, self.seeds):
            if scenario not in self.scenarios or rate not in self.rates:
                yield Cell(scenario, rate, seed, prompting)
        for table, prompting in product(self.tables, self.promptings):
            yield Cell(table.name, table.rate, 0, prompting)

    def of(self, modalities: Sequence[str], tables: Sequence[GivenTable] = ()) -> Grid:
        """The grid for a model with these modalities, with further missing tables from files.

        Raises:
            UsageError: a scenario does not fit, or it names none, and the model has one modality, which cannot be
                missing.
        """
        tables = (*self.tables, *tables)
        if len(modalities) == 1 and not self.scenarios and not tables:
            raise UsageError(
                f"a model of {modalities[0]} alone has no missing-modality scenario; name one that degrades it, as in "
                f"--scenario noisy-{modalities[0]}:…"
            )
        scenarios, points, notes = list[str](), list(self.points), list(self.notes)
        for name in self.scenarios or (() if tables or points else scenario_names(modalities)):
            if is_availability(name):
                points.append(availability_of(name, modalities, notes.append))
            elif (own := Scenario.parse(name, modalities).rate) is not None:
                points.append((name, own))
            else:
                scenarios.append(name)
        return replace(self, scenarios=tuple(scenarios), points=tuple(points), notes=tuple(notes), tables=tables)

    def cases(self, modalities: Sequence[str]) -> tuple[Case, ...]:
        """The cases of affected samples, over all cells."""
        names = (*self.scenarios, *(name for name, _ in self.points))
        drawn = (case for name in names for case in Scenario.parse(name, modalities).cases)
        given = (Case.parse(name, modalities) for table in self.tables for name in set(table.cases.values()))
        return tuple(dict.fromkeys((*drawn, *given)))


_PERCENT = r"([0-9]{1,3}(\.[0-9]{1,2})?)"
_AVAILABILITY = re.compile(rf"{_PERCENT}/{_PERCENT}")


def is_availability(name: str) -> bool:
    """Whether a scenario is called as DPL's tables do: by what is available of each modality, in %, as in ``65/65``."""
    return _AVAILABILITY.fullmatch(name) is not None


def availability_of(name: str, modalities: Sequence[str], say: Say = say_nothing) -> tuple[str, float]:
    """The scenario and the missing rate that leave so much of each of two modalities; ``say`` is called with them.

    >>> availability_of("65/65", ("image", "text")), availability_of("100/30", ("image", "text"))
    (('missing-both', 0.7), ('missing-text', 0.7))
    >>> availability_of("80/40", ("image", "text"))
    ('missing-both:0.25', 0.8)

    Raises:
        UsageError: there are not two modalities, or a sample would lose both.
    """
    if len(modalities) != 2:
        raise UsageError(f"scenario '{name}': availabilities are of two modalities, not {', '.join(modalities)}")
    lost = [100 - Fraction(part) for part in name.split("/")]
    rate = sum(lost) / 100
    if min(lost) < 0:
        raise UsageError(f"scenario '{name}': more than 100 % of a modality cannot be available")
    if rate > 1:
        raise UsageError(f"scenario '{name}': {float(sum(lost)):g} % of the samples would lose one of two; 100 is most")
    if not rate:
        raise UsageError(f"scenario '{name}': nothing is missing; give --missing-rate 0")
    share = lost[0] / sum(lost)
    scenario = "missing-both" if 2 * share == 1 else f"missing-both:{round(float(share), 4):g}"
    if 0 in lost:
        scenario = f"missing-{modalities[0 if lost[0] else 1]}"
    there = " and ".join(f"{part} % {m} available" for part, m in zip(name.split("/"), modalities, strict=True))
    say(f"{name} is taken as {scenario} at {float(rate):g}: {there}")
    return scenario, float(rate)


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
        meant = f"; is {rate / 100:g} meant?" if 1 < rate <= 100 else ""
        raise UsageError(f"missing rate {rate:g} is not a share of the samples: give a number from 0 to 1{meant}")
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


def parse_grid(
    scenarios: Sequence[str] | None, rates: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Scenarios and missing rates from text, as ``--scenario`` and ``--missing-rate`` have them.

    A rate may give each modality its own, as in ``image=0.3,text=0.7``, several of them separated by ``;``: it stands
    for a scenario (:func:`mmrobust.scenarios.scenario.each_name`). Without other rates, the second result is empty.

    Raises:
        UsageError: a rate is none, or only rates for each modality are given, and scenarios besides.
    """
    parts = [part.strip() for text in rates or () for part in text.split(";")]
    own = [parse_rates_of_each(part) for part in parts if "=" in part]
    others = [part for part in parts if "=" not in part]
    if own and scenarios and not others:
        raise UsageError(f"--missing-rate {parts[0]} is a scenario of its own: no --scenario, or other rates as well")
    plain = parse_rates(others)
    if own and others and not scenarios:
        raise UsageError(f"--missing-rate {others[0]} is for which --scenario? Rates for each modality have their own")
    return (*(scenarios or ()), *own), plain


def parse_rates_of_each(text: str) -> str:
    """The scenario of missing rates for each modality: ``image=0.3,text=0.7``.

    >>> parse_rates_of_each("text=0.7,image=0.3")
    'missing-each:image=0.3+text=0.7'

    Raises:
        UsageError: it is not that.
    """
    rates: dict[str, float] = {}
    for part in text.split(","):
        modality, _, rate = (piece.strip() for piece in part.partition("="))
        try:
            value = check_rate(float(rate))
        except ValueError:
            value = -1.0
        if not modality or value < 0:
            raise UsageError(f"missing rate '{text}': give each modality one, as in image=0.3,text=0.7")
        if modality in rates:
            raise UsageError(f"missing rate '{text}' names {modality} twice")
        rates[modality] = value
    return each_name(rates)


def decides_rate(scenario: str | None, rate: str | float | None) -> bool:
    """Whether a scenario and a rate are one (``65/65``, ``image=0.3,text=0.7``), which depends on the modalities."""
    of_scenario = scenario is not None and (is_availability(scenario) or scenario.startswith(EACH))
    return of_scenario or (isinstance(rate, str) and "=" in rate)


def scenario_and_rate(
    scenario: str | None, rate: str | float | None, modalities: Sequence[str], say: Say = say_nothing
) -> tuple[str | None, float | None]:
    """One scenario and its missing rate, where either may decide the other.

    ``65/65`` and ``image=0.3,text=0.7`` are both at once; ``say`` is called with what ``65/65`` is taken for. What is
    not given stays ``None``.

    Raises:
        UsageError: both decide the rate, or it is none.
    """
    if isinstance(rate, str) and "=" in rate:
        if scenario is not None:
            raise UsageError(f"--missing-rate {rate} is a scenario of its own: give no --scenario")
        scenario, rate = parse_rates_of_each(rate), None
    own = None
    if scenario is not None and is_availability(scenario):
        scenario, own = availability_of(scenario, modalities, say)
    elif scenario is not None:
        own = Scenario.parse(scenario, modalities).rate if scenario.startswith(EACH) else None
    if isinstance(rate, str):
        (rate, *more) = parse_rates([rate])
        if more:
            raise UsageError("--missing-rate: give one")
    if own is not None and rate not in (None, own):
        raise UsageError(f"scenario '{scenario}' is at its own missing rate: give no --missing-rate")
    return scenario, own if own is not None else None if rate is None else check_rate(rate)


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
