"""The samples that an evaluation uses: a split or its first N samples, without those that cannot be read.

Samples that cannot be decoded are an error by default, or found before anything else happens, in one pass over the
split, and treated as the user wants. So missing tables, cases and counts are those of a data set without these samples,
or in which the unreadable modalities are missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.loading import Loader
from mmrobust.errors import UsageError, check_name
from mmrobust.runtime.progress import Progress, no_progress

ERROR, MISSING, SKIP = ON_BAD_SAMPLE = ("error", "missing", "skip")
"""``error``: the first one ends the run. ``missing``: a modality that cannot be read counts as naturally missing.
``skip``: the sample is left out."""
SAMPLES_AT_ONCE = 256
"""Samples that are checked at a time."""
STRETCH_SAMPLES = 512
"""Samples, by their position in the split, that are decoded and sorted into batches together. Whoever predicts them,
and after whatever interruption, they form the same batches, and so give the same logits to the last bit."""


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
        """Apply the policy to ``split``; see :meth:`Split.without` and :meth:`Split.with_missing`."""
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


def screen(
    split: Split,
    modalities: Sequence[str],
    policy: str,
    *,
    limit: int | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> tuple[Split, BadSamples]:
    """Find the bad samples among the first ``limit`` of ``split``: those of which one of the modalities cannot be read.

    Returns the split after the policy (with ``error`` nothing is checked yet), and the bad samples.

    Raises:
        UsageError: the policy is unknown.
        DataError: no sample is left, or, with ``missing``, a sample has no modality left.
    """
    check_name("--on-bad-sample", policy, ON_BAD_SAMPLE)
    if policy == ERROR:
        return split, BadSamples()
    found: dict[str, dict[str, str]] = {}
    size = min(len(split), limit or len(split))
    presence = {modality: split.presence[modality] for modality in modalities}
    requests = (
        {p: [m for m in modalities if presence[m][p]] for p in range(start, min(start + SAMPLES_AT_ONCE, size))}
        for start in range(0, size, SAMPLES_AT_ONCE)
    )
    with closing(Loader(split, None, workers)) as loader, progress("look for bad samples", size) as advance:
        for start, problems in zip(range(0, size, SAMPLES_AT_ONCE), loader.check(requests), strict=True):
            for (position, modality), problem in problems.items():
                found.setdefault(split.ids[position], {})[modality] = str(problem)
            advance(min(SAMPLES_AT_ONCE, size - start))
    bad = BadSamples(policy, found)
    screened = bad.apply(split)
    if found and policy == MISSING:
        screened.natural_cases(modalities)  # report a sample without any modality now, not halfway through the work
    return screened, bad


@dataclass(frozen=True)
class SelectedSamples:
    """The first ``size`` samples of a split."""

    split: Split
    size: int
    bad: BadSamples = field(default_factory=BadSamples)
    """The samples of the split that could not be read, and how they were treated."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples."""
        return self.split.ids[: self.size]

    def screened(
        self, modalities: Sequence[str], on_bad_sample: str, workers: int = 0, progress: Progress = no_progress
    ) -> SelectedSamples:
        """The selection after :func:`screen`, which also says what it raises."""
        split, bad = screen(self.split, modalities, on_bad_sample, limit=self.size, workers=workers, progress=progress)
        return SelectedSamples(split, self.size - (len(self.split) - len(split)), bad)


def select_samples(dataset: Dataset, split: str, limit: int | None = None) -> SelectedSamples:
    """Select the first ``limit`` samples of a split, or all of them.

    Raises:
        UsageError: there is no such split, or the limit is below one.
        DataError: the split is empty.
    """
    chosen = dataset.split(split)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least one sample is needed")
    return SelectedSamples(chosen, min(len(chosen), limit or len(chosen)))
