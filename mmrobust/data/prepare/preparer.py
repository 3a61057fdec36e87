"""What all preparers share: a description of the data set, the listing of its samples, and one way to write them.

A preparer is a function that lists the samples of a source and says how to read one of them. :func:`preparer` turns it
into a :class:`Preparer`, which reads and checks the samples one at a time, so that no more than one sample's media are
in memory, and writes the data set. Three things can happen to a sample:

- It is read and decoded, and becomes part of the data set.
- The source itself has a gap that the papers skip too (:class:`SkipSample`): the sample is left out and counted.
- One of its files is missing or cannot be decoded (:class:`UnusableSample`): the download is incomplete or damaged.
  Results on such a data set would pass for results on the whole one, so this is an error, which names the first such
  samples. With ``allow_incomplete`` they are left out and counted, and each is named.

A split whose size differs from the release's is not an error, since part of a data set may be prepared on purpose. But
it is reported, and recorded in ``dataset.json``.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrobust.data.class_balance import untrained
from mmrobust.data.decoding import is_transparent
from mmrobust.data.format import SPLITS, DatasetInfo, choose_headline
from mmrobust.data.prepare.dry_run import SHOWN, DryRun
from mmrobust.data.prepare.source_files import SkipSample, UnusableSample
from mmrobust.data.writing import Record, SampleRow, write_dataset
from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.storage.files import refuse_to_overwrite, sha256
from mmrobust.storage.tasks import REGRESSION

MAX_UNUSABLE = 100
"""Preparing stops at this many unusable samples: most likely the wrong folder was given."""
MAX_NAMED = 3
"""Unusable samples that the error names; the others are only counted."""


@dataclass(frozen=True)
class Description:
    """What ``dataset.json`` says about a data set besides its samples, and the sizes to expect."""

    name: str
    modalities: tuple[str, ...]
    classes: Sequence[str]
    licence: str
    source: str
    """Where the data come from."""
    task: str = "single-label"
    headline_metric: str | None = None
    """``None``: the task's usual one."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Samples in each split of the release; empty where it states none."""
    size: int | None = None
    """Samples in the release as a whole, where it has no splits."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Modality → its kind; one that is not there is called as its kind."""
    steps: Mapping[str, bool] = field(default_factory=dict)
    """Modality of kind features → whether a sample has [T, D] rather than [D]."""
    grouped: bool = False
    """Whether samples have a group."""


@dataclass(frozen=True)
class Listing:
    """The samples that a source lists, before any of them is read."""

    description: Description
    read: Callable[..., Iterable[SampleRow]]
    """Yields the row, or the rows, of one sample, given its tuple from ``samples``. Raises ``SkipSample`` and
    ``UnusableSample``."""
    samples: Iterable[tuple[Any, ...]]
    """For each sample its split, followed by whatever else ``read`` takes."""
    total: int
    """Number of samples, for the progress bar."""
    by_class: bool = False
    """Whether they are listed class by class, so that the first few would all be of one. Each is then only a name."""

    def described(self, **changes: Any) -> Listing:
        """The same samples, with changes to their description."""
        return replace(self, description=replace(self.description, **changes))


class Intake:
    """Reads the samples of a listing, and records what was left out and what a user should know.

    The arguments are those of :meth:`Preparer.__call__`.
    """

    def __init__(self, limit: int | None, allow_incomplete: bool, progress: Progress, remark: Say) -> None:
        self._limit, self._allow_incomplete = limit, allow_incomplete
        self._progress, self._remark = progress, remark
        self.record = Record()
        self._said: list[str] = []

    def note(self, line: str) -> None:
        """Report ``line`` now, and keep it in ``dataset.json``."""
        self.record.notes.append(line)
        self._remark(line)

    def say(self, line: str) -> None:
        """Report ``line`` once all samples are read, so that nothing stands before an error; it is kept nowhere."""
        self._said.append(line)

    def say_now(self) -> None:
        """Report what was to be said."""
        for line in self._said:
            self._remark(line)
        self._said.clear()

    def record_hash(self, file: Path) -> None:
        """Keep the SHA-256 of an annotation file in ``dataset.json``."""
        self.record.files[file.name] = sha256(file)

    def rows(self, listing: Listing) -> Iterator[SampleRow]:
        """Read the listed samples, in order.

        Raises:
            DataError: samples are unusable; at the end, or as soon as there are :data:`MAX_UNUSABLE` of them.
        """
        counts, written = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        seen: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        unusable: list[UnusableSample] = []
        about, transparent = listing.description, 0
        pictures = [modality for modality in about.modalities if about.kinds.get(modality, modality) == "image"]
        samples, total = listing.samples, listing.total
        if self._limit is not None and listing.by_class:
            samples = list(_spread(samples, self._limit))
            total = len(samples)
        with self._progress(about.name, total) as advance:
            for sample in samples:
                split = sample[0]
                advance(1)
                if self._limit is not None and counts[split] >= self._limit:
                    continue
                counts[split] += 1
                try:
                    for row in listing.read(*sample):
                        seen[row.split].update(row.label)
                        written[row.split] += 1
                        shown = (row.media.get(modality) for modality in pictures)
                        transparent += sum(isinstance(each, bytes) and is_transparent(each) for each in shown)
                        yield row
                except SkipSample as skipped:
                    self._leave_out(str(skipped))
                except UnusableSample as found:
                    if self._allow_incomplete:
                        self._leave_out(found.reason)
                        self._remark(f"left out: {found}")
                        continue
                    unusable.append(found)
                    if len(unusable) >= MAX_UNUSABLE:
                        break
        if unusable:
            raise _incomplete(unusable)
        self.say_now()
        if transparent:
            self.note(f"{transparent:,} pictures are transparent in places, and laid on white")
        if self._limit is None:
            self._compare_sizes(about, counts, written)
            if about.task != REGRESSION and (line := untrained(about.classes, seen)):
                self.note(line)
        elif about.task == "single-label" and 2 * len(seen["train"]) < min(written["train"], len(about.classes)):
            self._remark(
                f"the first {written['train']:,} training samples are of {len(seen['train'])} of the "
                f"{len(about.classes)} classes: shuffle the source's list, or take more"
            )

    def _leave_out(self, reason: str) -> None:
        self.record.left_out[reason] = self.record.left_out.get(reason, 0) + 1

    def _compare_sizes(self, expected: Description, counts: Mapping[str, int], written: Mapping[str, int]) -> None:
        """Compare ``counts``, of what the source lists, with the release; what it lists may become several samples."""
        for split, size in expected.sizes.items():
            if counts[split] == size:
                continue
            if written[split] > counts[split]:
                made = f"made from {counts[split]:,} of the {size:,} in the release of {expected.name}"
                self.note(f"{split} has {written[split]:,} samples, {made}")
            else:
                self.note(f"{split} has {counts[split]:,} samples, the release of {expected.name} {size:,}")
        total = sum(counts.values())
        if expected.size is not None and total != expected.size:
            self.note(f"{total:,} samples in all, the release of {expected.name} has {expected.size:,}")


def _spread(samples: Iterable[tuple[Any, ...]], limit: int) -> Iterator[tuple[Any, ...]]:
    """At most ``limit`` samples of each split, evenly spaced."""
    listed = list(samples)
    sizes, seen = Counter(sample[0] for sample in listed), Counter[str]()
    for sample in listed:
        split = sample[0]
        before = limit * seen[split] // sizes[split]
        seen[split] += 1
        if limit * seen[split] // sizes[split] > before:
            yield sample


def _incomplete(unusable: Sequence[UnusableSample]) -> DataError:
    count, named = len(unusable), "; ".join(str(sample) for sample in unusable[:MAX_NAMED])
    if count > 1:
        least = "at least " if count == MAX_UNUSABLE else ""
        named = f"{least}{count} samples cannot be used: {named}{'; …' if count > MAX_NAMED else ''}"
    return DataError(f"{named}; get the files again, or leave such samples out with --allow-incomplete")


class Preparer:
    """Writes one kind of raw data as a data set folder: ``prepare_mmimdb(source, out, limit=100)``.

    ``list_samples`` is called with the source (what ``--source`` names; ``None`` where the data are embedded), the
    :class:`Intake`, and the preparer's own settings, which are keyword-only. ``overrides`` are the names of fields of
    the :class:`Description` that the user may set.
    """

    def __init__(self, list_samples: Callable[..., Listing], source: str | None, overrides: Sequence[str] = ()) -> None:
        functools.update_wrapper(self, list_samples)
        self.list_samples, self.source, self._overrides = list_samples, source, tuple(overrides)
        parameters = inspect.signature(list_samples).parameters.values()
        own = (p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        self.settings = (*self._overrides, *own)
        """Names of the settings that this preparer takes."""

    def __call__(
        self,
        *paths: Path,
        limit: int | None = None,
        allow_incomplete: bool = False,
        progress: Progress = no_progress,
        remark: Say = say_nothing,
        **settings: Any,
    ) -> DatasetInfo:
        """Write the data set.

        Args:
            paths: the source (unless the data are embedded), and the folder to make.
            limit: take only ``limit`` samples of each split: the first, or of a listing class by class evenly spaced
                ones.
            allow_incomplete: leave out samples with a file that is missing or cannot be decoded.
            progress: advanced once per sample.
            remark: called with a line for each choice made in the user's place, each size that differs from the
                release's, and each sample left out because it is unusable.
            settings: those of this preparer, see :attr:`settings`.

        Raises:
            UsageError: the folder to make holds files already, or a setting is invalid.
            DataError: the source does not have the expected form, or a file is missing or broken; names file and row.
        """
        *source, out = paths
        refuse_to_overwrite(out, "data set")
        intake = Intake(limit, allow_incomplete, progress, remark)
        listing = self._listed(source, intake, settings)
        about = listing.description
        info = write_dataset(
            out,
            intake.rows(listing),
            name=about.name,
            modalities=about.modalities,
            classes=about.classes,
            task=about.task,
            headline_metric=choose_headline(about.task, about.headline_metric),
            licence=about.licence,
            source=about.source,
            record=intake.record,
            kinds=about.kinds,
            steps=about.steps,
            grouped=about.grouped,
        )
        if "train" in info.splits and "validation" not in info.splits:
            remark("no sample is in the validation split, which training needs: take more, or have the source name it")
        return info

    def dry_run(self, *source: Path, remark: Say = say_nothing, **settings: Any) -> DryRun:
        """Write nothing, and return what would be written, with the first samples. Arguments: those of a call.

        Raises:
            UsageError: a setting is invalid.
            DataError: the source does not have the expected form, or its first :data:`MAX_NAMED` samples are unusable.
        """
        intake = Intake(None, False, no_progress, remark)
        listing = self._listed(source, intake, settings)
        rows: list[SampleRow] = []
        unusable: list[UnusableSample] = []
        for sample in listing.samples:
            try:
                rows += itertools.islice(listing.read(*sample), SHOWN - len(rows))
            except SkipSample:
                continue
            except UnusableSample as found:
                intake.say(f"cannot be used: {found}")
                unusable.append(found)
            if len(rows) == SHOWN or len(unusable) == MAX_NAMED:
                break
        if unusable and not rows:
            raise _incomplete(unusable)
        intake.say_now()
        about = listing.description
        metric = choose_headline(about.task, about.headline_metric)
        return DryRun(
            about.name, about.modalities, about.task, about.classes, metric, listing.total, tuple(rows), about.kinds
        )

    def _listed(self, source: Sequence[Path], intake: Intake, settings: dict[str, Any]) -> Listing:
        """The samples of ``source``, described as the ``settings`` have it."""
        if settings.get("task") is not None:  # refuse an unknown one before anything is read
            choose_headline(settings["task"], settings.get("headline_metric"))
        overrides = {name: settings.pop(name, None) for name in self._overrides}
        if overrides.get("task") == REGRESSION:
            raise UsageError(f"--task {REGRESSION}: this source has classes; numbers are read from a manifest")
        listing = self.list_samples(*source, intake, **settings)
        return listing.described(**{name: value for name, value in overrides.items() if value})


def preparer(source: str | None, overrides: Sequence[str] = ()) -> Callable[[Callable[..., Listing]], Preparer]:
    """Decorate a function that lists samples, to make it a :class:`Preparer`."""
    return functools.partial(Preparer, source=source, overrides=overrides)
