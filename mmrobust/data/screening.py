"""Samples that cannot be decoded: refused by default, or found first and then treated as the user wants.

They are found before anything else is decided, in one pass over the split. So the missing tables, the cases and the
counts are those of a data set that never had these samples, or that lacks what cannot be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrobust.data.dataset import Split
from mmrobust.data.loading import Loader
from mmrobust.errors import unknown_name
from mmrobust.runtime.progress import Progress, no_progress

ERROR, MISSING, SKIP = ON_BAD_SAMPLE = ("error", "missing", "skip")
"""``error``: the first one ends the run. ``missing``: what cannot be read counts as missing by nature. ``skip``: the
sample is left out."""
SAMPLES = 256
"""How many are looked at at a time."""


@dataclass(frozen=True)
class BadSamples:
    """What was found in a split, and what became of it: a part of the provenance."""

    policy: str = ERROR
    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Sample id → modality → what is wrong."""

    @property
    def summary(self) -> str:
        """A line for people; empty where there are none."""
        if not self.found:
            return ""
        treated = "were left out" if self.policy == SKIP else "count as lacking what cannot be read"
        return f"{len(self.found)} samples cannot be read and {treated}, such as '{next(iter(self.found))}'"

    def treated(self, split: Split) -> Split:
        """``split`` as the policy has it.

        Raises:
            DataError: nothing is left.
        """
        if not self.found:
            return split
        position = {sample: index for index, sample in enumerate(split.ids)}
        if self.policy == SKIP:
            return split.without({position[sample] for sample in self.found})
        unusable: dict[str, list[int]] = {}
        for sample, problems in self.found.items():
            for modality in problems:
                unusable.setdefault(modality, []).append(position[sample])
        return split.lacking(unusable)

    def describe(self) -> dict[str, Any]:
        """Policy, number, and each of them, in values that JSON can hold."""
        return {"number": len(self.found), "summary": self.summary, **dataclasses.asdict(self)}


def check_policy(policy: str) -> str:
    """``policy`` itself, where it is one.

    Raises:
        UsageError: it is not.
    """
    if policy not in ON_BAD_SAMPLE:
        raise unknown_name("--on-bad-sample", policy, ON_BAD_SAMPLE)
    return policy


def screen(
    split: Split,
    modalities: Sequence[str],
    policy: str,
    *,
    limit: int | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> tuple[Split, BadSamples]:
    """The split without its bad samples, or without what of them cannot be read.

    Args:
        split: the samples.
        modalities: those that will be looked at.
        policy: one of :data:`ON_BAD_SAMPLE`; ``error`` looks at nothing yet.
        limit: only so many samples will be looked at, from the first.
        workers: processes that decode.
        progress: shows how far it is.

    Raises:
        UsageError: an unknown policy.
        DataError: nothing is left; or, where it counts as missing, a sample is left with nothing at all.
    """
    if check_policy(policy) == ERROR:
        return split, BadSamples()
    found: dict[str, dict[str, str]] = {}
    size = min(len(split), limit or len(split))
    presence = {modality: split.presence[modality] for modality in modalities}
    requests = (
        {p: [m for m in modalities if presence[m][p]] for p in range(start, min(start + SAMPLES, size))}
        for start in range(0, size, SAMPLES)
    )
    loader = Loader(split, None, workers)
    try:
        with progress("look for bad samples", size) as advance:
            for start, problems in zip(range(0, size, SAMPLES), loader.check(requests), strict=True):
                for (position, modality), problem in problems.items():
                    found.setdefault(split.ids[position], {})[modality] = str(problem)
                advance(min(SAMPLES, size - start))
    finally:
        loader.close()
    bad = BadSamples(policy, found)
    treated = bad.treated(split)
    if found and policy == MISSING:
        treated.natural_cases(modalities)  # a sample that now has nothing at all is an error here, not in the middle
    return treated, bad
