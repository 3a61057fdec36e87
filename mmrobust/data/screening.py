"""Samples that cannot be decoded: an error by default, or found beforehand and treated as the user wants.

They are found before anything else happens, in one pass over the split. So missing tables, cases and counts are those
of a data set without these samples, or in which the unreadable modalities are missing.
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
"""``error``: the first one ends the run. ``missing``: a modality that cannot be read counts as naturally missing.
``skip``: the sample is left out."""
SAMPLES_AT_ONCE = 256
"""Samples that are checked at a time."""


@dataclass(frozen=True)
class BadSamples:
    """The samples of a split that cannot be decoded, and how they are treated. Part of the provenance."""

    policy: str = ERROR
    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Sample id → modality → error message."""

    @property
    def summary(self) -> str:
        """One line for people; empty where there are no bad samples."""
        if not self.found:
            return ""
        treated = "were left out" if self.policy == SKIP else "count as missing what cannot be read"
        return f"{len(self.found)} samples cannot be read and {treated}, such as '{next(iter(self.found))}'"

    def apply(self, split: Split) -> Split:
        """Apply the policy to ``split``.

        Raises:
            DataError: no sample is left.
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
        return split.with_missing(unusable)

    def describe(self) -> dict[str, Any]:
        """Policy, number and every bad sample, in values that JSON can hold."""
        return {"number": len(self.found), "summary": self.summary, **dataclasses.asdict(self)}


def check_policy(policy: str) -> str:
    """Return ``policy``.

    Raises:
        UsageError: it is not one of :data:`ON_BAD_SAMPLE`.
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
    """Find the bad samples of ``split``, and apply the policy to them.

    Args:
        split: the samples.
        modalities: the modalities that will be read.
        policy: one of :data:`ON_BAD_SAMPLE`; with ``error`` nothing is checked yet.
        limit: check only the first ``limit`` samples.
        workers: number of processes that decode.
        progress: advanced by the number of samples checked.

    Returns:
        The split after the policy, and the bad samples.

    Raises:
        UsageError: the policy is unknown.
        DataError: no sample is left, or, with ``missing``, a sample has no modality left.
    """
    if check_policy(policy) == ERROR:
        return split, BadSamples()
    found: dict[str, dict[str, str]] = {}
    size = min(len(split), limit or len(split))
    presence = {modality: split.presence[modality] for modality in modalities}
    requests = (
        {p: [m for m in modalities if presence[m][p]] for p in range(start, min(start + SAMPLES_AT_ONCE, size))}
        for start in range(0, size, SAMPLES_AT_ONCE)
    )
    loader = Loader(split, None, workers)
    try:
        with progress("look for bad samples", size) as advance:
            for start, problems in zip(range(0, size, SAMPLES_AT_ONCE), loader.check(requests), strict=True):
                for (position, modality), problem in problems.items():
                    found.setdefault(split.ids[position], {})[modality] = str(problem)
                advance(min(SAMPLES_AT_ONCE, size - start))
    finally:
        loader.close()
    bad = BadSamples(policy, found)
    screened = bad.apply(split)
    if found and policy == MISSING:
        screened.natural_cases(modalities)  # report a sample without any modality now, not halfway through the work
    return screened, bad
