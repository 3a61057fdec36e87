"""Scenarios: what happens to the affected samples."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mmrobust.cases import Case, missing_cases, noisy_cases
from mmrobust.degradations import check_noise
from mmrobust.errors import UnknownNameError, UsageError, check_name, unknown_name

EACH = "missing-each:"
"""How a scenario with a rate for each modality begins."""
MOST_MODALITIES = 8
"""Of a scenario over every combination: the cases of more could not be told apart in one byte."""
_SHARE = re.compile(r"0?\.[0-9]{1,4}|0|1")
_EACH_RATE = re.compile(r"(?P<modality>\w+)=(?P<rate>0|1|0\.[0-9]{1,6})", re.ASCII)


@dataclass(frozen=True)
class Dependence:
    """Missing not at random: a share of the affected samples that are of one class, or of one group."""

    on: str
    """``label`` or ``group``."""
    value: str
    """The class or the group."""
    share: Fraction
    """Of the affected samples, as long as there are others of it."""

    @classmethod
    def parse(cls, text: str, scenario: str) -> Dependence:
        """Read ``label=CLASS:SHARE`` or ``group=NAME:SHARE``; without a share, all that there are come first."""
        on, equals, rest = text.partition("=")
        value, colon, share = rest.rpartition(":")
        if not colon or not _SHARE.fullmatch(share):
            value, share = rest, "1"
        if on not in ("label", "group") or not equals or not value or not Fraction(share):
            raise UsageError(
                f"scenario '{scenario}': '^{text}' is not ^label=CLASS:SHARE or ^group=NAME:SHARE, with a share above "
                "0 of at most 4 decimals, as in missing-text^label=drama:0.8"
            )
        return cls(on, value, Fraction(share))


@dataclass(frozen=True)
class Scenario:
    """The rule that gives each sample of a split its case at a missing rate."""

    name: str
    cases: tuple[Case, ...]
    """The cases of affected samples: the affected sample of rank r is in ``cases[r % len(cases)]``. Under a
    :attr:`dependence`, ranks count within each class or group; with rates of their own, these are all that occur."""
    key: str
    """What samples are ranked under, with the seed."""
    dependence: tuple[Dependence, ...] = ()
    """What being affected depends on; empty: on nothing (missing completely at random)."""
    rates: tuple[tuple[str, float], ...] = ()
    """(modality, missing rate) pairs where each modality has a rate of its own and is drawn on its own."""

    @property
    def rate(self) -> float | None:
        """The one missing rate of a scenario with :attr:`rates`: their mean over its modalities; ``None`` of any other.

        It is the share of (sample, modality) pairs that are missing, the rate of IMDer and DiCMoR, but for the
        modalities that samples keep because they would lose all.
        """
        if not self.rates:
            return None
        of_all = sum(Fraction(repr(rate)) for _, rate in self.rates) / len(self.cases[0].modalities)
        return float(of_all)

    def rate_of_pairs(self, share: float) -> float:
        """The missing rate η at which this ``share`` of all (sample, modality) pairs is missing, in complete data.

        The share is the missing rate of IMDer and DiCMoR: η · k / M, where an affected sample loses k of M modalities
        on average.

        >>> Scenario.parse("missing-any", ("image", "text", "audio")).rate_of_pairs(0.3)
        0.6

        Raises:
            UsageError: even at η = 1 less is missing, or the scenario has :attr:`rates` of its own.
        """
        lost = [sum(case.is_missing(modality) for modality in case.modalities) for case in self.cases]
        most = Fraction(sum(lost), len(lost) * len(self.cases[0].modalities))
        rate = Fraction(repr(share)) / most if most else Fraction(2)
        if self.rates or not 0 <= rate <= 1:
            has = "has rates of its own" if self.rates else f"can miss {float(most):.1%} of all pairs at most"
            raise UsageError(f"scenario '{self.name}' {has}, not the share {share:g}")
        return float(rate)

    @classmethod
    def parse(cls, name: str, modalities: Iterable[str]) -> Scenario:
        """The scenario called ``name`` for a model with these ``modalities``.

        ``missing-<modality>`` affects one modality. ``missing-both`` (two modalities) is MMP's protocol: half the
        affected samples lose one modality, half the other; under ``missing-both:0.3``, 30 % lose the first.
        ``missing-any`` has every incomplete combination in equal shares. ``missing-each:image=0.3+text=0.7`` gives each
        modality a rate of its own. Every other scenario has the name of the case of its affected samples:
        ``missing-image+missing-audio``; ``noisy-<modality>`` and ``noisy-both`` (Prompt the Missing), under a noise
        profile; the same with a severity (``noisy-both@2``) or a common corruption (``noisy-image:blur@3``); and
        combinations of these, in any order (``noisy-image:blur@3+noisy-text:word-drop@2``).

        ``^label=CLASS:SHARE`` or ``^group=NAME:SHARE`` behind any of them, once or several times, makes being affected
        depend on the label or the group: that share of the affected samples is of this class or group.

        Raises:
            UsageError: there is no such scenario for these modalities, or no such corruption or severity.
        """
        modalities = tuple(modalities)
        base, *conditions = name.split("^")
        dependence = tuple(Dependence.parse(text, name) for text in conditions)
        if dependence:
            if base.startswith(EACH):
                raise UsageError(f"scenario '{name}': rates of their own and a dependence exclude each other")
            if len({one.on for one in dependence}) > 1 or sum(one.share for one in dependence) > 1:
                raise UsageError(f"scenario '{name}': depends on labels or groups, not both, with shares of 1 together")
            if len({one.value for one in dependence}) < len(dependence):
                raise UsageError(f"scenario '{name}': names a {dependence[0].on} twice")
        if base.startswith(EACH):
            return _with_rates(base, modalities)
        cases = _cases_of(base, modalities)
        key = "missing-both" if base.startswith("missing-both:") else base
        return cls(name, cases, key, dependence)


def _cases_of(name: str, modalities: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases of affected samples, by rank."""
    if name == "missing-any" and len(modalities) > 1:
        if len(modalities) > MOST_MODALITIES:
            raise UsageError(f"missing-any: of {len(modalities)} modalities; it takes {MOST_MODALITIES} at most")
        # By names, so that models that name their modalities in different orders share their missing tables.
        lost = (
            some for count in range(1, len(modalities)) for some in itertools.combinations(sorted(modalities), count)
        )
        return tuple(Case.missing(modalities, *some) for some in lost)
    if name.startswith("missing-both:") and len(modalities) == 2:
        return _uneven(name, modalities)
    if name in scenario_names(modalities):
        alone = modalities if name == "missing-both" else (name.removeprefix("missing-"),)
        return tuple(Case.missing(modalities, modality) for modality in alone)
    try:
        case = Case.parse(name, modalities)
        if not case.degraded and name == "complete":
            raise UnknownNameError
    except UnknownNameError:
        known = dict.fromkeys((*scenario_names(modalities), "missing-any", *noisy_scenario_names(modalities)))
        raise unknown_name(f"scenario for {' and '.join(modalities)}", name, known) from None
    check_noise(case)
    if sorted(case.name.split("+")) != sorted(name.split("+")):  # models name their modalities in different orders
        raise UsageError(f"scenario '{name}' is called '{case.name}'")
    return (case,)


def _uneven(name: str, modalities: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases of ``missing-both:SHARE``: of the first r affected samples, ⌈r · share⌉ lose the first modality."""
    text = name.removeprefix("missing-both:")
    if not _SHARE.fullmatch(text) or Fraction(text) in (0, 1):
        raise UsageError(
            f"scenario '{name}': give the share that loses {modalities[0]}, above 0 and below 1, with at most 4 "
            "decimals, as in missing-both:0.3"
        )
    share = Fraction(text)
    if f"missing-both:{float(share):g}" != name:
        raise UsageError(f"scenario '{name}' is called 'missing-both:{float(share):g}'")
    lost = [math.ceil((rank + 1) * share) > math.ceil(rank * share) for rank in range(share.denominator)]
    first, second = (Case.missing(modalities, modality) for modality in modalities)
    return tuple(first if one else second for one in lost)


def _with_rates(name: str, modalities: tuple[str, ...]) -> Scenario:
    """The scenario ``missing-each:…``."""
    rates = [_EACH_RATE.fullmatch(part) for part in name.removeprefix(EACH).split("+")]
    given = {found["modality"]: float(found["rate"]) for found in rates if found}
    if None in rates or len(given) < len(rates):
        raise UsageError(
            f"scenario '{name}': give each modality once with a rate from 0 to 1 of at most 6 decimals, as in "
            f"{EACH}image=0.3+text=0.7"
        )
    for modality in given:
        check_name("modality", modality, modalities)
    if name != (called := each_name(given)):
        raise UsageError(f"scenario '{name}' is called '{called}'")
    if len(modalities) > MOST_MODALITIES:
        raise UsageError(f"{name}: of {len(modalities)} modalities; it takes {MOST_MODALITIES} at most")
    able = [modality for modality in sorted(modalities) if given.get(modality)]
    lost = (some for count in range(1, len(able) + 1) for some in itertools.combinations(able, count))
    cases = tuple(Case.missing(modalities, *some) for some in lost if len(some) < len(modalities))
    if not cases:
        raise UsageError(f"scenario '{name}': nothing can be missing")
    return Scenario(name, cases, EACH.rstrip(":"), rates=tuple(given.items()))


def each_name(rates: Mapping[str, float]) -> str:
    """What the scenario is called in which each modality has its own missing rate.

    >>> each_name({"text": 0.7, "image": 0.3})
    'missing-each:image=0.3+text=0.7'
    """
    return EACH + "+".join(f"{modality}={rate:g}" for modality, rate in sorted(rates.items()))


def scenario_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """The missing-modality scenarios of a model with these modalities that are in the default grid.

    >>> scenario_names(("image", "text"))
    ('missing-image', 'missing-text', 'missing-both')
    >>> scenario_names(("image", "text", "audio"))
    ('missing-image', 'missing-text', 'missing-audio', 'missing-any')
    """
    single = tuple(f"missing-{modality}" for modality in modalities)
    together = {1: (), 2: ("missing-both",)}
    return (*single, *together.get(len(modalities), ("missing-any",) if len(modalities) <= MOST_MODALITIES else ()))


def usual_scenario(modalities: Sequence[str]) -> str:
    """The scenario that a training takes where none is named: the one of :func:`scenario_names` with every modality."""
    return scenario_names(modalities)[-1]


def noisy_scenario_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """The scenarios under a noise profile of a model with these modalities; not in the default grid.

    >>> noisy_scenario_names(("image", "text"))
    ('noisy-image', 'noisy-text', 'noisy-both')
    """
    return tuple(case.name for case in noisy_cases(modalities)[1:])


def training_cases(scenario: str, modalities: Sequence[str]) -> tuple[Case, ...]:
    """The cases that a classifier trained under ``scenario`` tells apart.

    These are the missing cases or, where the scenario degrades a modality, the noisy ones, plus the scenario's own.
    Different corruptions of a modality are one case.

    >>> [case.name for case in training_cases("noisy-text:ocr@3", ("image", "text"))]
    ['complete', 'noisy-image', 'noisy-text', 'noisy-both']
    """
    own = tuple(case.plain for case in Scenario.parse(scenario, modalities).cases)
    usual = noisy_cases(modalities) if any(case.degraded for case in own) else missing_cases(modalities)
    return tuple(dict.fromkeys((*usual, *own)))
