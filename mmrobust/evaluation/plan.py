"""The plan of an evaluation: which predictions a grid needs, which share a process makes, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.data.dataset import Split
from mmrobust.data.selection import MISSING, STRETCH_SAMPLES, SelectedSamples
from mmrobust.degradations import Noise, check_noise, check_profile
from mmrobust.errors import UsageError, unknown_name
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scenarios.draws import CellTables
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.missing_tables import GivenTable, read_missing_table
from mmrobust.scoring.truth import Key, Plan, SplitTruth


@dataclass(frozen=True)
class DrawnGrid:
    """A grid with its missing tables drawn over the samples of a split. The plan and the join both use them."""

    grid: Grid
    truth: SplitTruth
    tables: CellTables

    @classmethod
    def draw(cls, grid: Grid, samples: SelectedSamples, modalities: Sequence[str]) -> DrawnGrid:
        """Draw the missing tables of ``grid`` for models with these modalities.

        Raises:
            UsageError: a scenario does not fit the modalities.
        """
        truth = split_truth(samples, modalities)
        return cls(grid, truth, truth.draw_grid(grid))

    def plan(self, promptings: Sequence[str]) -> dict[Key, npt.NDArray[np.int64]]:
        """The samples to predict in each (case, prompting): exactly those that some cell needs.

        Args:
            promptings: those that the model tells apart. If it is only one, it stands for every prompting of the grid.
        """
        predicted = self.grid.promptings if len(promptings) > 1 else promptings
        needed = sorted(self.tables.positions().items())
        return {(case, prompting): positions for case, positions in needed for prompting in predicted}


def split_truth(samples: SelectedSamples, modalities: Sequence[str]) -> SplitTruth:
    """The truth about the samples, for models with these modalities.

    Raises:
        DataError: a sample has none of the modalities, or its label does not fit the task.
    """
    split = samples.split
    natural = split.natural_cases(modalities)
    return SplitTruth(
        ids=samples.ids,
        labels=split.labels[: samples.size],
        modalities=tuple(modalities),
        classes=len(split.info.classes),
        task=split.info.task,
        natural=None if natural is None else natural[: samples.size],
        groups=None if split.groups is None else split.groups[: samples.size],
        names=split.info.classes,
    )


def given_tables(files: Iterable[str | Path], split: Split, modalities: Sequence[str]) -> list[GivenTable]:
    """Read missing tables for a whole split and a model with these modalities.

    Raises:
        MmrobustError: as for :func:`mmrobust.scenarios.missing_tables.read_missing_table`.
    """
    natural = split.natural_cases(modalities)
    return [read_missing_table(Path(file), split.ids, modalities, natural, split.groups) for file in files]


def readable_samples(
    samples: SelectedSamples,
    modalities: Sequence[str],
    on_bad_sample: str,
    *,
    tables: bool,
    workers: int = 0,
    progress: Progress = no_progress,
) -> SelectedSamples:
    """The samples, after checking that these modalities of them can be read.

    Args:
        samples: the samples.
        modalities: those that will be read.
        on_bad_sample: what to do with samples that cannot be read: ``error`` (nothing is checked yet), ``missing`` or
            ``skip``.
        tables: whether the grid has missing tables from files.
        workers: processes that decode.
        progress: shows the progress.

    Raises:
        MmrobustError: some cannot be read, or would count as missing a modality that a table from a file may have as
            present.
    """
    samples = samples.screened(modalities, on_bad_sample, workers, progress)
    if tables and on_bad_sample == MISSING and samples.bad.found:
        raise UsageError(
            f"{samples.bad.summary}: a table from --missing-table may have it as present; use --on-bad-sample skip"
        )
    return samples


def used_noise(cases: Iterable[Case], noise: Noise, kinds: Mapping[str, str]) -> Noise | None:
    """``noise`` if any of the cases is degraded, else ``None``; ``kinds`` are those of the data set's modalities.

    Raises:
        UsageError: its profile has no noise for a degraded modality, or a case names a corruption of another kind.
    """
    cases = list(cases)
    check_profile(cases, noise, kinds)
    for case in cases:
        check_noise(case, kinds)
    return noise if any(case.degraded for case in cases) else None


@dataclass(frozen=True)
class WorkShare:
    """One of several equal shares of an evaluation, for processes or machines that work together: ``--shard I/N``.

    A share is every N-th stretch of the split. Batches are formed within a stretch, so the logits are the same to the
    bit whichever process predicts it.

    Raises:
        UsageError: ``index`` is not from 1 to ``of``.
    """

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise UsageError(f"--shard {self}: shards count from 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> WorkShare:
        """Parse ``I/N``; a ``UsageError`` if it has another form, or there is no such share."""
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(of)):
            raise UsageError(f"--shard '{text}': give I/N, from 1/N to N/N, as in --shard 2/8")
        return cls(int(index), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def within(self, plan: Plan) -> dict[Key, npt.NDArray[np.int64]]:
        """The part of ``plan`` that belongs to this share."""
        share = {key: p[p // STRETCH_SAMPLES % self.of == self.index - 1] for key, p in plan.items()}
        return {key: positions for key, positions in share.items() if len(positions)}


ENGINES = LOCAL, RAY = ("local", "ray")
OVERWRITE = NEVER, ONLY_MISSING, ALWAYS = ("never", "only-missing", "always")


@dataclass(frozen=True)
class PredictionSettings:
    """How predictions are made; no setting changes the results.

    Raises:
        UsageError: a name is unknown, or settings contradict each other.
    """

    batch_size: int | BatchSize = DEFAULT_BATCH_SIZE
    engine: str = LOCAL
    ray_address: str | None = None
    """Address of a running Ray cluster; ``None``: start one on this machine."""
    ray_workers: int | None = None
    """Copies of the model; ``None``: one per GPU, or per CPU where there is no GPU."""
    share: WorkShare | None = None
    """The share of the work to do; ``None``: all of it."""
    overwrite: str = ONLY_MISSING
    """``never``: refuse a folder that holds results; ``always``: make every prediction again."""
    workers: int = 0
    """Processes that decode for the local engine; Ray workers decode for themselves."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.overwrite not in OVERWRITE:
            raise unknown_name("--overwrite", self.overwrite, OVERWRITE)
        if self.engine != RAY and (self.ray_address or self.ray_workers):
            raise UsageError("--ray-address and --ray-workers go with --engine ray")
        if self.ray_workers is not None and self.ray_workers < 1:
            raise UsageError(f"--ray-workers {self.ray_workers}: at least one is needed")
        if self.share is not None and self.overwrite != ONLY_MISSING:
            raise UsageError(f"--shard goes with --overwrite {ONLY_MISSING}, not with {self.overwrite}")
