"""Taking a source in: each sample is read and checked once, and what cannot be used is counted and named.

A preparer lists its samples, each as its split and a function that reads it; :meth:`Intake.rows` calls those functions
one after the other, so that no more than one sample's media are in memory. Three things can befall a sample:

- it is read and decoded: taken in;
- the source itself has a gap that the papers step over too (:class:`Gap`): left out and counted;
- a file of it is not there or cannot be decoded (:class:`Unusable`): the download is incomplete or damaged. Since
  results on such a data set would pass for results on the whole one, that is an error at the end, which names the
  first such samples. With ``allow_incomplete`` they are left out, counted, and each named.

Split sizes other than the release's are no error (a part of a data set can be prepared on purpose) but never silent:
they are remarked on, and stand in ``dataset.json`` and in ``mmrobust data info``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.format import SPLITS
from mmrobust.data.writing import Record, Row
from mmrobust.errors import DataError
from mmrobust.runtime.progress import Progress
from mmrobust.storage.files import sha256

Remark = Callable[[str], None]
"""Told, in one line, what a user should know and nobody asked for."""

Listed = tuple[str, Callable[[], Sequence[Row]]]
"""The split of a sample, and what reads it: its row, or several (a film with a row for each plot)."""

MAX_UNUSABLE = 100
"""So many samples that cannot be used, and preparing stops: the wrong folder, most likely."""

MAX_NAMED = 3
"""Samples that the error names; the others are counted."""

MOST_BYTES = 2**30
"""Of one file: an encoded picture or recording, or a list of them."""

DECODERS: Mapping[str, Callable[[bytes, str], object]] = {"image": decode_image, "audio": decode_audio}


def no_remark(line: str) -> None:
    """Say nothing: the default of every library function."""
    del line


class Unusable(DataError):
    """A sample whose files are not there or cannot be decoded; ``reason`` is what it is counted under."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Gap(Exception):  # no error: it never leaves this package
    """A sample that the source lacks a part of, and that the papers leave out as well; says what is lacking."""


class Intake:
    """Takes the samples of one source in.

    Args:
        name: of the data set, for the progress bar.
        sizes: the samples that the release has in each split; empty where there is no official figure.
        pairs: the samples that it has in all, where it has no splits of its own.
        limit: take the first so many samples of each split.
        allow_incomplete: leave samples out that cannot be used.
        progress: told of each sample.
        remark: told of sizes that are not the release's, and of each sample that is left out.
    """

    def __init__(
        self,
        name: str,
        *,
        sizes: Mapping[str, int] | None = None,
        pairs: int | None = None,
        limit: int | None,
        allow_incomplete: bool,
        progress: Progress,
        remark: Remark,
    ) -> None:
        self.name, self._sizes, self._pairs, self._limit = name, sizes or {}, pairs, limit
        self._allow_incomplete, self._progress, self._remark = allow_incomplete, progress, remark
        self._listed = dict.fromkeys(SPLITS, 0)
        self._unusable: list[Unusable] = []
        self.record = Record()

    def note(self, line: str) -> None:
        """Remark on ``line`` now, and keep it in ``dataset.json``."""
        self.record.notes.append(line)
        self._remark(line)

    def keep_hash(self, file: Path) -> None:
        """Write the SHA-256 of an annotation file into ``dataset.json``."""
        self.record.files[file.name] = sha256(file)

    def rows(self, listed: Iterable[Listed], total: int | None) -> Iterator[Row]:
        """The rows of the samples ``listed``, in that order.

        Args:
            listed: of each sample its split and what reads it.
            total: how many there are, for the progress bar; ``None``: unknown.

        Raises:
            DataError: at the end, where samples cannot be used and may not be left out; or as soon as there are
                :data:`MAX_UNUSABLE` of them.
        """
        with self._progress(self.name, total) as advance:
            for split, read in listed:
                advance(1)
                if self._limit is not None and self._listed[split] >= self._limit:
                    continue
                self._listed[split] += 1
                try:
                    yield from read()
                except Gap as gap:
                    self._leave_out(str(gap))
                except Unusable as unusable:
                    self._set_aside(unusable)
        if self._unusable:
            raise self._incomplete()
        self._compare_sizes()

    def _leave_out(self, reason: str) -> None:
        self.record.left_out[reason] = self.record.left_out.get(reason, 0) + 1

    def _set_aside(self, unusable: Unusable) -> None:
        if self._allow_incomplete:
            self._leave_out(unusable.reason)
            self._remark(f"left out: {unusable}")
            return
        self._unusable.append(unusable)
        if len(self._unusable) >= MAX_UNUSABLE:
            raise self._incomplete()

    def _incomplete(self) -> DataError:
        count = len(self._unusable)
        named = "; ".join(str(unusable) for unusable in self._unusable[:MAX_NAMED])
        said = named if count == 1 else f"{count} samples cannot be used: {named}{'; …' if count > MAX_NAMED else ''}"
        return DataError(f"{said}; get the files again, or leave such samples out with --allow-incomplete")

    def _compare_sizes(self) -> None:
        if self._limit is not None:
            return
        for split, size in self._sizes.items():
            found = self._listed[split]
            if found != size:
                self.note(f"{split} has {found:,} samples, the release of {self.name} {size:,}")
        found = sum(self._listed.values())
        if self._pairs is not None and found != self._pairs:
            self.note(f"{found:,} samples in all, the release of {self.name} has {self._pairs:,}")


def read_media(modality: str, file: Path, where: str = "") -> bytes:
    """Read the picture or recording in ``file`` and see that it can be decoded.

    Args:
        modality: ``image`` or ``audio``.
        file: where it lies.
        where: what asks for it (file and row of the annotation), for the message.

    Raises:
        Unusable: it is not there, or cannot be read or decoded.
    """
    place = f"{where}: " if where else ""
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe would hang, a device has no end
            raise OSError("it is no regular file")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise OSError(f"it holds more than {MOST_BYTES:,} bytes")
    except (OSError, ValueError) as cause:  # ValueError: a path with a zero byte
        reason = getattr(cause, "strerror", None) or str(cause)
        raise Unusable(f"{place}{modality} {file} cannot be read ({reason})", f"{modality} not there") from cause
    check_media(modality, content, f"{place}{file}")
    return content


def check_media(modality: str, content: bytes, origin: str) -> None:
    """See that the picture or recording ``content`` can be decoded.

    Raises:
        Unusable: it cannot; the message begins with ``origin``.
    """
    try:
        DECODERS[modality](content, origin)
    except DataError as cause:
        raise Unusable(str(cause), f"{modality} unreadable") from cause
