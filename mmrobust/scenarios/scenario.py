"""Scenarios: what happens to the affected samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmrobust.cases import Case, missing_cases, noisy_cases
from mmrobust.degradations import check_noise
from mmrobust.errors import UnknownNameError, UsageError, unknown_name


@dataclass(frozen=True)
class Scenario:
    """The rule that gives each sample of a split its case at a missing rate."""

    name: str
    cases: tuple[Case, ...]
    """The cases of affected samples: the affected sample of rank r is in ``cases[r % len(cases)]``."""

    @classmethod
    def parse(cls, name: str, modalities: Iterable[str]) -> Scenario:
        """The scenario called ``name`` for a model with these ``modalities``.

        ``missing-<modality>`` affects one modality. ``missing-both`` (two modalities) is MMP's protocol: half the
        affected samples lose one modality, half the other. Every other scenario has the name of the case of its
        affected samples: ``noisy-<modality>`` and ``noisy-both`` (Prompt the Missing), under a noise profile; the same
        with a severity (``noisy-both@2``) or a common corruption (``noisy-image:blur@3``); and combinations of these,
        in any order (``noisy-image:blur@3+noisy-text:word-drop@2``).

        Raises:
            UsageError: there is no such scenario for these modalities, or no such corruption or severity.
        """
        modalities = tuple(modalities)
        if name in scenario_names(modalities):
            lost = modalities if name == "missing-both" else (name.removeprefix("missing-"),)
            return cls(name, tuple(Case.missing(modalities, modality) for modality in lost))
        try:
            case = Case.parse(name, modalities)
            if not case.degraded:
                raise UnknownNameError
        except UnknownNameError:
            known = (*scenario_names(modalities), *noisy_scenario_names(modalities))
            raise unknown_name(f"scenario for {' and '.join(modalities)}", name, known) from None
        check_noise(case)
        if sorted(case.name.split("+")) != sorted(name.split("+")):  # models name their modalities in different orders
            raise UsageError(f"scenario '{name}' is called '{case.name}'")
        return cls(name, (case,))


def scenario_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """The missing-modality scenarios of a model with these modalities.

    >>> scenario_names(("image", "text"))
    ('missing-image', 'missing-text', 'missing-both')
    """
    single = tuple(f"missing-{modality}" for modality in modalities)
    return (*single, "missing-both") if len(modalities) == 2 else single


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
