"""Tables of token sequences or features by sample, in memory, in memory-mapped files, or on a GPU.

A training that adds to a table in files writes one array of numbers (``.values``) and, last, an index that says which
samples they belong to (``.index``). A killed training leaves an array without an index, which is never read. Several
trainings can share a folder: each writes files of its own, and reads those that were complete when it began.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from mmrobust.data.dataset import Positions
from mmrobust.errors import DataError
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.devices import copied
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.storage.files import atomic_file

SHARED = -1
"""Takes the place of a position where a table has one entry for all samples."""
NO_MARK = -1
DISK_LEFT = 0.1
"""Share of the disk that is left free."""
MOVED_TOKENS = 2**14
"""Tokens that are moved to a GPU at a time."""


class _Kind(NamedTuple):
    """What all sequences of a table have in common."""

    width: int
    causal: bool
    segments: tuple[str, ...]


@dataclass
class _File:
    """An array [tokens, D] in a file, to which tokens are added."""

    path: Path
    tokens: int = 0


_Array = npt.NDArray[np.float32] | _File | Tensor
"""Tokens [tokens, D]: in memory, in a file, or, behind a row of zeros, on a GPU."""


class _Place(NamedTuple):
    """Where one sample's tokens lie."""

    array: _Array
    start: int
    """Its first token in the array."""
    mark: int
    """The sample's ``marked_B``."""
    lengths: tuple[int, ...]
    """Length of each segment, without padding."""


class FeatureTable:
    """Token sequences of a split's samples: a frozen stream, or the features, in one state of the inputs.

    Args:
        name: identifies everything that decides a value; file names begin with it.
        folder: where files go. Complete files of this name that lie there are part of the table.
        memory: what may be held in memory. What exceeds it is written to files, unless the disk is nearly full: then it
            is not stored.
        shared: whether the sequence is the same for every sample, so that one entry is enough.
    """

    def __init__(self, name: str, folder: Path, memory: MemoryBudget, *, shared: bool = False) -> None:
        self.name, self._folder, self._memory, self._shared = name, folder, memory, shared
        self._kind: _Kind | None = None
        self._places: dict[int, _Place] = {}
        self._growing: _File | None = None
        self.nbytes = 0
        for index in sorted(folder.glob(f"{name}-*.index")):
            self._read_index(index)

    def absent(self, positions: Positions) -> Positions:
        """Those of ``positions`` that must be added before all of them can be read."""
        if self._shared:
            return positions[:0] if SHARED in self._places else positions[:1]
        return positions[[int(position) not in self._places for position in positions]]

    def add(self, positions: Sequence[int], sequence: TokenSequence) -> None:
        """Add the tokens of the samples at ``positions``, without their padding.

        Raises:
            OSError: they cannot be written.
        """
        sequence = sequence.packed()
        tokens_BLD = sequence.tokens_BLD.detach().float().cpu()
        batch, length, width = tokens_BLD.shape
        valid_BL = torch.ones(batch, length, dtype=torch.bool) if sequence.mask_BL is None else sequence.mask_BL.cpu()
        names, sizes = zip(*sequence.segments, strict=True)
        self._kind = self._kind or _Kind(width, sequence.causal, names)
        values = tokens_BLD[valid_BL].numpy()
        if (where := self._append(values)) is None:
            return
        array, start = where
        lengths_BS = torch.stack([part.sum(1) for part in torch.split(valid_BL, list(sizes), dim=1)], dim=1).tolist()
        marks = [NO_MARK] * batch if sequence.marked_B is None else sequence.marked_B.tolist()
        keys = [SHARED] if self._shared else positions
        for position, lengths, mark in zip(keys, lengths_BS, marks, strict=True):
            self._places[int(position)] = _Place(array, start, mark, tuple(lengths))
            start += sum(lengths)
        self.nbytes += values.nbytes

    def finish(self, lasting: bool) -> None:
        """End a series of additions; if ``lasting``, make what was written to files visible to later trainings."""
        file, self._growing = self._growing, None
        if file is None or not lasting:
            return
        with file.path.open("rb+") as opened:
            os.fsync(opened.fileno())
        file.path = file.path.replace(file.path.with_suffix(".values"))
        rows = [[position, p.start, p.mark, *p.lengths] for position, p in self._places.items() if p.array is file]
        with atomic_file(file.path.with_suffix(".index")) as written:
            save_file({"places": np.asarray(rows)}, written, metadata={"kind": json.dumps(self._kind)})

    def move(self, device: torch.device, dtype: torch.dtype, room: MemoryBudget) -> None:
        """Move the values to a GPU, in ``dtype``, if there is ``room`` for all of them; reading no longer copies them.

        Raises:
            DataError: a file was changed or removed.
        """
        arrays = {id(place.array): place.array for place in self._places.values()}
        sizes = {key: array.tokens if isinstance(array, _File) else len(array) for key, array in arrays.items()}
        if self._kind is None or not room.take((1 + sum(sizes.values())) * self._kind.width * dtype.itemsize):
            return
        moved = torch.zeros(1 + sum(sizes.values()), self._kind.width, dtype=dtype, device=device)
        firsts = dict(zip(sizes, np.cumsum([1, *sizes.values()]).tolist(), strict=False))
        for key, array in arrays.items():
            values = _values(array, self._kind.width)
            for start in range(0, len(values), MOVED_TOKENS):
                part = torch.tensor(values[start : start + MOVED_TOKENS])
                moved[firsts[key] + start : firsts[key] + start + len(part)] = part
            self._memory.give_back(array.nbytes if isinstance(array, np.ndarray) else 0)
        self._places = {
            position: place._replace(array=moved, start=firsts[id(place.array)] + place.start)
            for position, place in self._places.items()
        }
        self.nbytes = moved.nbytes

    def read(self, positions: Positions) -> TokenSequence:
        """The sequences of the samples at ``positions``, all of which are in the table, padded to the longest.

        Without ``padding_ND``, which is only needed before a stream's first layer. One sequence, where it is shared.

        Raises:
            DataError: a file was changed or removed.
        """
        kind = self._kind
        assert kind is not None, f"table {self.name} is empty"
        places = [self._places[int(position)] for position in ([SHARED] if self._shared else positions)]
        lengths_BS = np.asarray([place.lengths for place in places])
        longest_S = lengths_BS.max(0).tolist()
        offsets = np.cumsum([0, *longest_S]).tolist()
        gather = _on_device if all(isinstance(place.array, Tensor) for place in places) else _in_memory
        masks = [np.arange(n) < lengths_BS[:, i : i + 1] for i, n in enumerate(longest_S)]
        padded = (lengths_BS != longest_S).any()
        marks = [place.mark for place in places]
        return TokenSequence(
            gather(places, offsets, kind.width),
            torch.from_numpy(np.concatenate(masks, axis=1)) if padded else None,
            tuple(zip(kind.segments, longest_S, strict=True)),
            causal=kind.causal,
            marked_B=None if marks[0] == NO_MARK else torch.tensor(marks),
        ).unpacked()

    def _append(self, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32] | _File, int] | None:
        """Store ``values`` [tokens, D]; returns the array and its first token, or ``None`` where there is no room."""
        if self._memory.take(values.nbytes):
            return values, 0
        self._folder.mkdir(parents=True, exist_ok=True)
        disk = shutil.disk_usage(self._folder)
        if disk.free - values.nbytes < DISK_LEFT * disk.total:
            return None
        if self._growing is None:
            self._growing = _File(self._folder / f"{self.name}-{secrets.token_hex(4)}.partial")
        file = self._growing
        with file.path.open("ab") as opened:
            opened.write(values.data)
        file.tokens += len(values)
        return file, file.tokens - len(values)

    def _read_index(self, index: Path) -> None:
        """Add the samples of a complete file. A damaged one is ignored: its samples are computed again."""
        path = index.with_suffix(".values")
        try:
            with safe_open(index, "np") as opened:
                width, causal, segments = json.loads(opened.metadata()["kind"])
                rows = opened.get_tensor("places").tolist()
            size = path.stat().st_size
        except (OSError, SafetensorError, KeyError, ValueError):
            return
        file = _File(path, sum(sum(row[3:]) for row in rows))
        if size != file.tokens * width * np.dtype(np.float32).itemsize:
            return
        self.nbytes += size
        self._kind = self._kind or _Kind(width, causal, tuple(segments))
        for position, start, mark, *lengths in rows:
            self._places.setdefault(position, _Place(file, start, mark, tuple(lengths)))


def _in_memory(places: Sequence[_Place], offsets: Sequence[int], width: int) -> Tensor:
    """The tokens [B, L, D] of the samples at ``places``, whose segments begin at ``offsets`` and end at the last."""
    arrays = {key: _values(array, width) for key, array in {id(p.array): p.array for p in places}.items()}
    tokens_BLD = np.zeros((len(places), offsets[-1], width), dtype=np.float32)
    for tokens_LD, place in zip(tokens_BLD, places, strict=True):
        start, values = place.start, arrays[id(place.array)]
        for offset, length in zip(offsets[:-1], place.lengths, strict=True):
            tokens_LD[offset : offset + length] = values[start : start + length]
            start += length
    return torch.from_numpy(tokens_BLD)


def _on_device(places: Sequence[_Place], offsets: Sequence[int], width: int) -> Tensor:
    """As :func:`_in_memory`, where all values are on a GPU."""
    rows_BL = np.zeros((len(places), offsets[-1]), dtype=np.int64)  # row 0 is padding
    for rows_L, place in zip(rows_BL, places, strict=True):
        start = place.start
        for offset, length in zip(offsets[:-1], place.lengths, strict=True):
            rows_L[offset : offset + length] = np.arange(start, start + length)
            start += length
    values = places[0].array
    assert isinstance(values, Tensor), "these values are not on a GPU"
    rows = copied(torch.from_numpy(rows_BL).flatten(), values.device)
    return values.index_select(0, rows).view(*rows_BL.shape, width).float()


def _values(array: _Array, width: int) -> npt.NDArray[np.float32]:
    """The values [tokens, D] of an array. A file is mapped for each read only, so that it does not stay in memory.

    Raises:
        DataError: the file was changed or removed.
    """
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, Tensor):
        return np.asarray(array.float().cpu().numpy())
    try:
        return np.asarray(np.memmap(array.path, np.float32, "r", shape=(array.tokens, width)))
    except (FileNotFoundError, ValueError) as cause:
        raise DataError(
            f"{array.path}: cached features were changed or removed ({cause}); remove the file and start again"
        ) from cause
