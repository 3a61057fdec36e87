"""A case: the state of every modality of one sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from mmrobust.errors import UsageError, unknown_name

MODALITIES = ("image", "text", "audio")
"""Every modality that mmrobust knows; a data set and a backbone each name theirs, in a fixed order."""

NOISY = ("image", "audio")
"""The modalities for which there is noise."""


class State(str, Enum):
    """What became of one modality of a sample."""

    PRESENT = "present"
    MISSING = "missing"
    DEGRADED = "degraded"


_PREFIX = {State.MISSING: "missing", State.DEGRADED: "noisy"}


@dataclass(frozen=True)
class Case:
    """The state of every modality of one sample: what the literature calls the missing case.

    >>> Case.missing(("image", "text"), "text").name
    'missing-text'
    >>> Case.parse("noisy-both", ("audio", "image")).degraded
    ('audio', 'image')
    """

    states: tuple[tuple[str, State], ...]
    """(modality, state) pairs, in the order in which the model or the data set names its modalities."""

    def __post_init__(self) -> None:
        if not self.states:
            raise UsageError("a case needs at least one modality")
        for modality, _ in self.states:
            if modality not in MODALITIES:
                raise unknown_name("modality", modality, MODALITIES)
        if not self.present:
            raise UsageError(f"a case with nothing present: {', '.join(m for m, _ in self.states)} are all missing")

    @classmethod
    def of(cls, states: Mapping[str, State]) -> Case:
        """The case made from a mapping modality → state."""
        return cls(tuple((modality, State(state)) for modality, state in states.items()))

    @classmethod
    def complete(cls, modalities: Iterable[str]) -> Case:
        """The case in which nothing is missing or degraded."""
        return cls(tuple((modality, State.PRESENT) for modality in modalities))

    @classmethod
    def missing(cls, modalities: Iterable[str], *lost: str) -> Case:
        """The case in which the modalities ``lost`` are missing and the others present."""
        return cls(tuple((m, State.MISSING if m in lost else State.PRESENT) for m in modalities))

    @classmethod
    def parse(cls, name: str, modalities: Iterable[str]) -> Case:
        """The case of that ``name`` for a model of these ``modalities``; the inverse of :attr:`name`.

        Raises:
            UsageError: the name is none of a case, or speaks of a modality that is not there.
        """
        states = dict.fromkeys(modalities, State.PRESENT)
        known = ["complete", *(f"{prefix}-{m}" for m in states for prefix in _PREFIX.values()), "noisy-both"]
        if name == "noisy-both" and len(states) == 2:
            return cls.of(dict.fromkeys(states, State.DEGRADED))
        for part in () if name == "complete" else name.split("+"):
            prefix, _, modality = part.partition("-")
            state = next((s for s, p in _PREFIX.items() if p == prefix), None)
            if state is None or modality not in states:
                raise unknown_name("case", name, known)
            states[modality] = state
        return cls.of(states)

    @property
    def name(self) -> str:
        """The name: ``complete``, ``missing-text``, ``noisy-both``, ``missing-image+noisy-text``."""
        if len(self.states) == 2 and len(self.degraded) == 2:
            return "noisy-both"
        parts = [f"{_PREFIX[state]}-{modality}" for modality, state in self.states if state is not State.PRESENT]
        return "+".join(parts) or "complete"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Every modality, whatever its state."""
        return tuple(modality for modality, _ in self.states)

    @property
    def present(self) -> tuple[str, ...]:
        """The modalities that carry information: all that are not missing (a degraded one is present)."""
        return tuple(modality for modality, state in self.states if state is not State.MISSING)

    @property
    def degraded(self) -> tuple[str, ...]:
        """The modalities that are there, but noisy."""
        return tuple(modality for modality, state in self.states if state is State.DEGRADED)

    def is_missing(self, modality: str) -> bool:
        """Whether ``modality`` is missing in this case."""
        return (modality, State.MISSING) in self.states

    def without_noise(self) -> Case:
        """The same with what is degraded present as it was."""
        return Case(tuple((m, State.PRESENT if s is State.DEGRADED else s) for m, s in self.states))

    def within(self, natural: Case) -> Case | None:
        """This case for a sample that is by nature in the case ``natural`` already.

        What is missing by nature stays missing. ``None`` where nothing would be present any more.
        """
        already = dict(natural.states)
        states = {m: State.MISSING if already[m] is State.MISSING else state for m, state in self.states}
        return None if all(state is State.MISSING for state in states.values()) else Case.of(states)

    def __str__(self) -> str:
        return self.name


def noisy_cases(modalities: Iterable[str]) -> tuple[Case, ...]:
    """``complete``, each modality noisy alone, and, of two that can be, both: Prompt the Missing's cases.

    A text is never noisy: there is no noise for it.

    >>> [case.name for case in noisy_cases(("audio", "image"))]
    ['complete', 'noisy-audio', 'noisy-image', 'noisy-both']
    """
    modalities = tuple(modalities)
    alone = [dict.fromkeys(modalities, State.PRESENT) | {m: State.DEGRADED} for m in modalities if m in NOISY]
    both = [dict.fromkeys(modalities, State.DEGRADED)] if len(modalities) == 2 == len(alone) else []
    return (Case.complete(modalities), *(Case.of(states) for states in alone + both))


def missing_cases(modalities: Iterable[str]) -> tuple[Case, ...]:
    """``complete`` and, for each modality, the case in which it alone is missing (MMP's missing types).

    >>> [case.name for case in missing_cases(("image", "text"))]
    ['complete', 'missing-image', 'missing-text']
    """
    modalities = tuple(modalities)
    return (Case.complete(modalities), *(Case.missing(modalities, m) for m in modalities))
