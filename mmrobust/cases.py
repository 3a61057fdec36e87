"""A case: the state of every modality of one sample."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from mmrobust.errors import UsageError, unknown_name

KINDS = ("image", "text", "audio", "features")
"""Every kind of modality. ``features`` are numbers: an array [D], or [T, D] along time."""
MODALITIES = ("image", "text", "audio")
"""The usual modalities, each called as its kind. A data set and a model each name theirs, in a fixed order, and may use
other names (:func:`check_modality`); a data set says of which kind each is."""
RESERVED = ("both", "any", "each", "id", "label", "split", "group", "case", "complete")
"""Words that are no names of modalities: they are those of scenarios, cases and columns."""
CAUSES = ("rain", "wind", "crowd", "low-bandwidth", "impact")
"""Corruptions of pictures and sounds by one cause: ``noisy-both:rain@3`` is the same rain in both."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def check_modality(name: str) -> str:
    """Return ``name``, the name of a modality; raise a ``UsageError`` where it cannot be one."""
    if name in RESERVED:
        raise UsageError(f"modality '{name}': the word has a meaning of its own; call the modality otherwise")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"modality '{name}': a name is a letter, then letters, digits and _, 64 at most")
    return name


class State(str, Enum):
    """The state of one modality of a sample."""

    PRESENT = "present"
    MISSING = "missing"
    DEGRADED = "degraded"


_PREFIX = {State.MISSING: "missing", State.DEGRADED: "noisy"}
_PART = re.compile(
    r"(?P<what>(?P<prefix>missing|noisy)-(?P<modality>[A-Za-z]\w*))(?P<noise>(:[a-z-]+)?(@(0|[1-9][0-9]*))?)", re.ASCII
)


@dataclass(frozen=True)
class Case:
    """The state of every modality of one sample: what the literature calls the missing case.

    >>> Case.missing(("image", "text"), "text").name
    'missing-text'
    >>> Case.parse("noisy-both", ("audio", "image")).degraded
    ('audio', 'image')
    >>> Case.parse("noisy-image:blur@3", ("image", "text")).corruption("image")
    ('blur', 3)
    """

    states: tuple[tuple[str, State], ...]
    """(modality, state) pairs, in the order in which the model or the data set names its modalities."""
    noise: tuple[tuple[str, str], ...] = ()
    """(modality, ``:NAME@SEVERITY`` or ``@SEVERITY``) pairs for degraded modalities whose corruption the case names. It
    changes data and predictions, but a model is told only the :attr:`plain` case."""

    def __post_init__(self) -> None:
        if not self.states:
            raise UsageError("a case needs at least one modality")
        for modality, _ in self.states:
            check_modality(modality)
        if not self.present:
            names = [modality for modality, _ in self.states]
            missing = f"{', '.join(names)} are all" if len(names) > 1 else f"{names[0]}, the only modality, is"
            raise UsageError(f"a case with nothing present: {missing} missing")
        # Only of degraded modalities, and in their order, so that equal cases compare equal.
        noise = dict(self.noise)
        object.__setattr__(self, "noise", tuple((m, noise[m]) for m in self.degraded if noise.get(m)))

    @classmethod
    def of(cls, states: Mapping[str, State], noise: Mapping[str, str] | None = None) -> Case:
        """Make a case from modality → state, and degraded modality → noise."""
        return cls(tuple((modality, State(state)) for modality, state in states.items()), tuple((noise or {}).items()))

    @classmethod
    def complete(cls, modalities: Iterable[str]) -> Case:
        """Return the case in which nothing is missing or degraded."""
        return cls(tuple((modality, State.PRESENT) for modality in modalities))

    @classmethod
    def missing(cls, modalities: Iterable[str], *lost: str) -> Case:
        """Return the case in which the modalities ``lost`` are missing and the others present."""
        return cls(tuple((m, State.MISSING if m in lost else State.PRESENT) for m in modalities))

    @classmethod
    def parse(cls, name: str, modalities: Iterable[str]) -> Case:
        """Parse the ``name`` of a case for these ``modalities``; the inverse of :attr:`name`.

        Raises:
            UsageError: it is not the name of a case, or names another modality.
        """
        states = dict.fromkeys(modalities, State.PRESENT)
        known = ["complete", *(f"{prefix}-{m}" for m in states for prefix in _PREFIX.values())]
        known += ["noisy-both"] if len(states) == 2 else []
        noise: dict[str, str] = {}
        for part in () if name == "complete" else name.split("+"):
            found = _PART.fullmatch(part)
            if found is None or found["what"] not in known or (found["prefix"] == "missing" and found["noise"]):
                raise unknown_name("case", name, known)
            both = found["modality"] == "both"
            if both and found["noise"].startswith(":") and not _of_cause(found["noise"]):
                each = "+".join(f"noisy-{m}:NAME@SEVERITY" for m in states)
                raise UsageError(
                    f"'{name}': name the corruption of each modality, {each}, or a cause of both: {', '.join(CAUSES)}"
                )
            for modality in states if both else (found["modality"],):
                if states[modality] is not State.PRESENT:
                    raise UsageError(f"case '{name}' names {modality} twice")
                states[modality] = next(s for s, prefix in _PREFIX.items() if prefix == found["prefix"])
                noise[modality] = found["noise"]
        return cls.of(states, noise)

    @property
    def name(self) -> str:
        """The name: ``complete``, ``missing-text``, ``noisy-both``, ``missing-image+noisy-text:word-drop@2``."""
        noise = dict(self.noise)
        if len(self.states) == 2 == len(self.degraded):
            same = {noise.get(m, "") for m in self.degraded}
            if len(same) == 1 and (not (suffix := same.pop()).startswith(":") or _of_cause(suffix)):
                return f"noisy-both{suffix}"
        parts = [
            f"{_PREFIX[state]}-{modality}{noise.get(modality, '')}"
            for modality, state in self.states
            if state is not State.PRESENT
        ]
        return "+".join(parts) or "complete"

    def corruption(self, modality: str) -> tuple[str | None, int | None]:
        """Return name and severity of the ``modality``'s corruption; ``None`` for what the noise profile decides."""
        name, _, severity = dict(self.noise).get(modality, "").removeprefix(":").partition("@")
        return name or None, int(severity) if severity else None

    @property
    def plain(self) -> Case:
        """The case without named corruptions: what a model is told, and has prompts and prototypes for."""
        return Case(self.states)

    def under(self, other: Case) -> Case:
        """Return this case with the corruptions that ``other`` names for its degraded modalities."""
        return Case(self.states, other.noise)

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities, whatever their state."""
        return tuple(modality for modality, _ in self.states)

    @property
    def present(self) -> tuple[str, ...]:
        """The modalities that are not missing; a degraded one is present."""
        return tuple(modality for modality, state in self.states if state is not State.MISSING)

    @property
    def degraded(self) -> tuple[str, ...]:
        """The modalities that are degraded."""
        return tuple(modality for modality, state in self.states if state is State.DEGRADED)

    def is_missing(self, modality: str) -> bool:
        """Whether ``modality`` is missing in this case."""
        return (modality, State.MISSING) in self.states

    def without_noise(self) -> Case:
        """Return this case with degraded modalities present and intact."""
        return Case(tuple((m, State.PRESENT if s is State.DEGRADED else s) for m, s in self.states))

    def within(self, natural: Case) -> Case | None:
        """Return this case for a sample whose naturally missing modalities, those of ``natural``, stay missing.

        ``None`` if nothing would be left.
        """
        states = {m: State.MISSING if natural.is_missing(m) else state for m, state in self.states}
        return None if all(state is State.MISSING for state in states.values()) else Case.of(states, dict(self.noise))

    def __str__(self) -> str:
        return self.name


def _of_cause(noise: str) -> bool:
    """Whether what a case names, ``:NAME@SEVERITY``, is a cause."""
    return noise.removeprefix(":").partition("@")[0] in CAUSES


def noisy_cases(modalities: Iterable[str]) -> tuple[Case, ...]:
    """Return Prompt the Missing's cases: ``complete``, each modality noisy, and, if there are two, both.

    >>> [case.name for case in noisy_cases(("audio", "image"))]
    ['complete', 'noisy-audio', 'noisy-image', 'noisy-both']
    """
    modalities = tuple(modalities)
    alone = [dict.fromkeys(modalities, State.PRESENT) | {m: State.DEGRADED} for m in modalities]
    both = [dict.fromkeys(modalities, State.DEGRADED)] if len(modalities) == 2 else []
    return (Case.complete(modalities), *(Case.of(states) for states in alone + both))


def missing_cases(modalities: Iterable[str]) -> tuple[Case, ...]:
    """Return MMP's missing types: ``complete``, and for each modality the case in which only it is missing.

    >>> [case.name for case in missing_cases(("image", "text"))]
    ['complete', 'missing-image', 'missing-text']
    """
    modalities = tuple(modalities)
    return (Case.complete(modalities), *(Case.missing(modalities, m) for m in modalities))


SITUATION = "situation"
CONCAT = "concat"
PROMPTINGS = (SITUATION, CONCAT)
"""``situation``: the model is told the case. ``concat``: it is not, and gets the prompts of all cases together."""
