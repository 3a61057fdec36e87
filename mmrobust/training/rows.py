"""What a frozen part gave for each sample, kept in memory or in files: tables of rows of tokens, of any length each.

A table in files can be used by later trainings. It lies in shards, each a file of raw numbers (``.values``) and,
written last, one that says which samples they are of (``.rows``): a shard that was not finished has none, and is not
seen.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor

from mmrobust.data.dataset import Positions
from mmrobust.errors import DataError
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.memory import MemoryBudget
from mmrobust.storage.files import atomic_file

SHARED = -1
"""The position under which a row lies that is the same for every sample."""
NO_MARK = -1


DISK_LEFT = 0.1
"""Share of the disk that is never taken."""


@dataclass(frozen=True)
class Row:
    """Where one sample's tokens lie, and what they are."""

    shard: int
    start: int
    """First token within the shard."""
    lengths: tuple[int, ...]
    """Of each segment; padding is not kept."""
    mark: int
    """``marked_B`` of the sample."""


class RowTable:
    """One frozen stream (or the features) of the samples of a split, in one state of their inputs.

    Args:
        name: of the table; in files it begins the files' names, and must say everything that decides a value.
        folder: where files go.
        memory: what may be kept in memory; the rest lies in files, and what the disk has no room for is not kept.
    """

    def __init__(self, name: str, folder: Path, memory: MemoryBudget) -> None:
        self.name, self.folder, self._memory = name, folder, memory
        self._rows: dict[int, Row] = {}
        self._shards: list[Tensor | FileIO] = []
        weakref.finalize(self, _close, self._shards)
        self._new: list[int] = []
        self._growing: tuple[Path, FileIO, int] | None = None
        self._template: TokenSequence | None = None
        self.nbytes = 0
        for file in sorted(folder.glob(f"{name}-*.rows")):
            self._read_shard(file)

    def absent(self, positions: Positions) -> Positions:
        """Those of ``positions`` that have no row yet."""
        return positions[[int(position) not in self._rows for position in positions]]

    def add(self, positions: Sequence[int], sequence: TokenSequence) -> None:
        """Keep the ``sequence`` of the samples at ``positions``, without its padding."""
        tokens_BLD = sequence.tokens_BLD.detach().float().cpu()
        batch, length = tokens_BLD.shape[:2]
        valid = torch.ones(batch, length, dtype=torch.bool) if sequence.mask_BL is None else sequence.mask_BL.cpu()
        lengths = [part.sum(1) for part in torch.split(valid, [n for _, n in sequence.segments], dim=1)]
        marks = [NO_MARK] * batch if sequence.marked_B is None else sequence.marked_B.tolist()
        values = tokens_BLD[valid]
        place = self._append(values)
        if place is None:
            return
        shard, start = place
        for index, position in enumerate(positions):
            row = Row(shard, start, tuple(int(part[index]) for part in lengths), int(marks[index]))
            self._rows[int(position)] = row
            self._new.append(int(position))
            start += sum(row.lengths)
        if self._template is None:
            names = [name for name, _ in sequence.segments]
            self._template = _template(tokens_BLD.shape[2], sequence.mask_BL is not None, names, sequence.causal)
        self.nbytes += values.nbytes

    def finish(self, lasting: bool) -> None:
        """All is added; if ``lasting``, what was added to files is made visible to later trainings."""
        if self._growing is None or not lasting:
            return
        partial, file, _ = self._growing
        file.flush()
        os.fsync(file.fileno())
        self._growing = None
        rows, template = [self._rows[position] for position in self._new], self._template
        assert template is not None
        place = partial.with_suffix(".rows")
        partial.replace(place.with_suffix(".values"))
        facts = {
            "positions": np.asarray(self._new, dtype=np.int64),
            "starts": np.asarray([row.start for row in rows], dtype=np.int64),
            "lengths": np.asarray([row.lengths for row in rows], dtype=np.int64),
            "marks": np.asarray([row.mark for row in rows], dtype=np.int64),
            "kind": np.asarray([template.tokens_BLD.shape[2], template.mask_BL is not None, template.causal]),
        }
        names = {"segments": ",".join(name for name, _ in template.segments)}
        with atomic_file(place) as written:
            save_file(facts, written, metadata=names)
        self._new = []

    def take(self, positions: Positions) -> TokenSequence:
        """The sequence of the samples at ``positions``, all of which have rows, padded to the longest of them.

        Without ``padding_ND``: only what enters a stream's first layer is ever asked for it.
        """
        template = self._template
        assert template is not None, f"table {self.name} is empty"
        rows = [self._rows[int(position)] for position in positions]
        lengths = np.asarray([row.lengths for row in rows])
        longest = lengths.max(0)
        offsets = np.concatenate([[0], np.cumsum(longest)])
        width = template.tokens_BLD.shape[2]
        tokens = torch.zeros(len(rows), int(offsets[-1]), width)
        for index, row in enumerate(rows):
            values = self._values(row, width)
            begin = 0
            for offset, length in zip(offsets.tolist(), row.lengths, strict=False):
                tokens[index, offset : offset + length] = values[begin : begin + length]
                begin += length
        mask = None
        if template.mask_BL is not None:
            parts = [np.arange(n) < lengths[:, i : i + 1] for i, n in enumerate(longest)]
            mask = torch.from_numpy(np.concatenate(parts, axis=1))
        marked = None if rows[0].mark == NO_MARK else torch.tensor([row.mark for row in rows])
        return TokenSequence(
            tokens,
            mask,
            tuple((name, int(n)) for (name, _), n in zip(template.segments, longest, strict=True)),
            causal=template.causal,
            marked_B=marked,
        )

    def _append(self, values: Tensor) -> tuple[int, int] | None:
        """(shard, first token) at which ``values`` [tokens, D] lie now; ``None`` where there is no room for them."""
        if self._memory.take(values.nbytes):
            self._shards.append(values)
            return len(self._shards) - 1, 0
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = shutil.disk_usage(self.folder)
        if disk.free - values.nbytes < DISK_LEFT * disk.total:
            return None
        if self._growing is None:
            # Several trainings may write into one folder: each its own shard.
            place = self.folder / f"{self.name}-{secrets.token_hex(4)}.partial"
            file = FileIO(place, "wb+")
            self._shards.append(file)
            self._growing = place, file, 0
        place, file, start = self._growing
        file.seek(0, os.SEEK_END)
        _write(file, values.contiguous().numpy().data.cast("B"))
        self._growing = place, file, start + len(values)
        return len(self._shards) - 1, start

    def _values(self, row: Row, width: int) -> Tensor:
        """The tokens [sum of lengths, D] of a row."""
        shard, length = self._shards[row.shard], sum(row.lengths)
        if isinstance(shard, Tensor):
            return shard[row.start : row.start + length]
        values = np.empty((length, width), dtype=np.float32)
        shard.seek(row.start * width * values.itemsize)
        _read(shard, values.data.cast("B"))
        return torch.from_numpy(values)

    def _read_shard(self, file: Path) -> None:
        """Take over the rows of a finished shard; one that is damaged is left alone, its rows are made again."""
        try:
            with safe_open(file, "np") as opened:
                names = opened.metadata()["segments"].split(",")
            facts = load_file(file)
            values = FileIO(file.with_suffix(".values"))
        except (OSError, SafetensorError, KeyError):
            return
        width, masked, causal = facts["kind"].tolist()
        size = os.fstat(values.fileno()).st_size
        if size != int(facts["lengths"].sum()) * width * np.dtype(np.float32).itemsize:
            values.close()
            return
        self.nbytes += size
        self._shards.append(values)
        for position, start, lengths, mark in zip(
            *(facts[name].tolist() for name in ("positions", "starts", "lengths", "marks")), strict=True
        ):
            self._rows.setdefault(position, Row(len(self._shards) - 1, start, tuple(lengths), mark))
        self._template = self._template or _template(width, bool(masked), names, bool(causal))


def _write(file: FileIO, values: memoryview) -> None:
    """All of ``values``: a disk that fills up takes a part, and says what is wrong only when the rest comes.

    Raises:
        OSError: it cannot be written.
    """
    while len(values):
        taken = file.write(values)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
        values = values[taken:]


def _read(file: FileIO, values: memoryview) -> None:
    """Fill ``values`` from the file.

    Raises:
        DataError: it ends before: somebody has cut it off since it was opened.
    """
    while len(values):
        found = file.readinto(values)
        if not found:
            raise DataError(f"{file.name}: ends before what is kept in it; was it changed? Remove it, and begin again")
        values = values[found:]


def _close(shards: list[Tensor | FileIO]) -> None:
    for shard in shards:
        if isinstance(shard, FileIO):
            shard.close()


def _template(width: int, masked: bool, segments: Sequence[str], causal: bool) -> TokenSequence:
    """A sequence of no tokens that says what all rows of a table have in common."""
    mask = torch.zeros(1, 0, dtype=torch.bool) if masked else None
    return TokenSequence(torch.zeros(1, 0, width), mask, tuple((name, 0) for name in segments), causal=causal)
