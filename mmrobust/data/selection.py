"""The samples that an evaluation looks at: a split or the first samples of it, without those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.screening import BadSamples, screen
from mmrobust.errors import UsageError
from mmrobust.runtime.progress import Progress, no_progress

STRETCH_SAMPLES = 512
"""Samples, by their position in the split, that are decoded and sorted into batches together. Whoever predicts them,
and after whatever interruption, they form the same batches, and so give the same logits to the last bit."""


@dataclass(frozen=True)
class SelectedSamples:
    """The first samples of a split."""

    split: Split
    size: int
    """How many."""
    bad: BadSamples = field(default_factory=BadSamples)
    """Which samples of the split could not be read, and what was done about them."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples."""
        return self.split.ids[: self.size]

    def screened(
        self, modalities: Sequence[str], on_bad_sample: str, workers: int = 0, progress: Progress = no_progress
    ) -> SelectedSamples:
        """The selection after a look at its samples: see :func:`mmrobust.data.screening.screen`.

        Raises:
            MmrobustError: as for :func:`mmrobust.data.screening.screen`.
        """
        split, bad = screen(self.split, modalities, on_bad_sample, limit=self.size, workers=workers, progress=progress)
        return SelectedSamples(split, self.size - (len(self.split) - len(split)), bad)


def select_samples(dataset: Dataset, split: str, limit: int | None = None) -> SelectedSamples:
    """The first ``limit`` samples of a split; all of them where that is ``None``.

    Raises:
        UsageError: no such split, or a limit below one.
        DataError: an empty split.
    """
    chosen = dataset.split(split)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least one sample is needed")
    return SelectedSamples(chosen, min(len(chosen), limit or len(chosen)))
