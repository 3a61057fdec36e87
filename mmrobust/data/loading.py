"""From Parquet to a backbone's tensors, ahead of whoever needs them: read in windows, decoded in worker processes.

What is asked for decides what comes out, and in which order; neither the number of workers nor the size of anything
here changes a bit of it.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmrobust.data.dataset import Sample, Split
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.errors import DataError, MmrobustError, UsageError
from mmrobust.runtime.machine import available_cores
from mmrobust.runtime.workers import WorkerLost, Workers

if TYPE_CHECKING:
    from torch import Tensor

    from mmrobust.data.processor import Processor

Wanted = Mapping[int, Collection[str]]
"""Position of a sample → the modalities of it that are wanted."""
Encoded = dict[tuple[int, str], "Tensor"]
"""(position, modality) → tensor."""

_Value = npt.NDArray[Any] | MmrobustError
_Found = dict[tuple[int, str], _Value]
_Pairs = Sequence[tuple[Sample, Sequence[str]]]

PIECE_SAMPLES = 32
"""What one worker is given at a time."""
WINDOW_BYTES = 16 * 2**20
"""Samples, as they lie in the file, that are read at a time: in random order, every row group once for all of them."""
PIECES_AHEAD = 2
"""How many pieces lie ready or in work for each worker."""
FEW_SAMPLES = 2048
"""Splits of fewer are decoded before worker processes have started."""
MOST_WORKERS = 8

_processor: Processor | None = None
"""In a worker process: what encodes."""


class _Piece(NamedTuple):
    """A part of what is wanted."""

    wanted: Wanted
    last: bool
    """Whether the request that it is of ends with it."""


class Loader:
    """Reads and encodes samples of a split.

    Args:
        split: the samples.
        processor: the backbone's; without one, samples can only be checked.
        workers: processes that decode; 0: this one does.
    """

    def __init__(self, split: Split, processor: Processor | None, workers: int = 0) -> None:
        self.split, self.processor, self.workers = split, processor, workers
        self._pool: Workers[_Pairs, list[_Value]] | None = None

    def load(self, requests: Iterable[Wanted]) -> Iterator[Encoded]:
        """The tensors of each request, request by request. With workers, of the next ones too.

        Raises:
            DataError: a sample that cannot be read or decoded, named; or a worker was killed.
        """
        import torch

        for found in self._requests(requests):
            encoded = {}
            for key, value in found.items():
                if isinstance(value, MmrobustError):
                    raise value
                encoded[key] = torch.from_numpy(value)
            yield encoded

    def check(self, requests: Iterable[Wanted]) -> Iterator[dict[tuple[int, str], MmrobustError]]:
        """What of each request cannot be decoded, and why: (position, modality) → error."""
        for found in self._requests(requests):
            yield {key: value for key, value in found.items() if isinstance(value, MmrobustError)}

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _read(self, pieces: Iterable[_Piece]) -> Iterator[tuple[_Piece, list[Sample]]]:
        """Each piece with its samples, read a window at a time."""
        most, window, size = max(1, int(WINDOW_BYTES / self.split.sample_bytes)), list[_Piece](), 0
        for piece in pieces:
            if window and size + len(piece.wanted) > most:
                yield from self._window(window)
                window, size = [], 0
            window.append(piece)
            size += len(piece.wanted)
        yield from self._window(window)

    def _window(self, pieces: Sequence[_Piece]) -> Iterator[tuple[_Piece, list[Sample]]]:
        positions = sorted({position for piece in pieces for position in piece.wanted})
        samples = dict(zip(positions, self.split.read(positions), strict=True))
        return ((piece, [samples[position] for position in piece.wanted]) for piece in pieces)

    def _requests(self, requests: Iterable[Wanted]) -> Iterator[_Found]:
        """What becomes of all that is wanted, request by request."""
        found: _Found = {}
        for piece, values in self._worked(self._read(_pieces(requests))):
            keys = ((position, modality) for position, modalities in piece.wanted.items() for modality in modalities)
            found |= zip(keys, values, strict=True)
            if piece.last:
                yield found
                found = {}

    def _worked(self, pieces: Iterator[tuple[_Piece, list[Sample]]]) -> Iterator[tuple[_Piece, list[_Value]]]:
        """Each piece with what becomes of it, in this process or in the workers."""
        if not self.workers:
            yield from ((piece, encode(self.processor, _pairs(piece, samples))) for piece, samples in pieces)
            return
        pool = self._workers()
        waiting: deque[tuple[_Piece, int]] = deque()
        try:
            while True:
                while len(waiting) < PIECES_AHEAD * self.workers and (following := next(pieces, None)) is not None:
                    piece, samples = following
                    waiting.append((piece, pool.give(_pairs(piece, samples))))
                if not waiting:
                    return
                piece, number = waiting.popleft()
                yield piece, pool.result(number)
        except WorkerLost as cause:
            waiting.clear()
            self.close()
            raise DataError(
                f"{self.split.dataset.folder}: a worker that decodes samples was killed, perhaps for want of memory; "
                "the same command with fewer --workers goes on"
            ) from cause
        finally:
            for _, number in waiting:
                pool.forget(number)

    def _workers(self) -> Workers[_Pairs, list[_Value]]:
        if self._pool is None:
            self._pool = Workers(_encode_in_worker, self.workers, functools.partial(_start_worker, self.processor))
        return self._pool


def resolve_workers(text: str, samples: int, on_cpu: bool) -> int:
    """How many processes decode. ``auto``: none where few samples are read, or where the model needs the CPU itself.

    Raises:
        UsageError: no whole number.
    """
    if text == "auto":
        return 0 if samples < FEW_SAMPLES or on_cpu else min(MOST_WORKERS, max(1, available_cores() - 1))
    if not text.isdecimal():
        raise UsageError(f"--workers {text}: give a whole number, 0 for none, or auto")
    return int(text)


def encode(processor: Processor | None, wanted: Sequence[tuple[Sample, Sequence[str]]]) -> list[_Value]:
    """The wanted modalities of each sample, one after the other: encoded, or what is wrong with it.

    Args:
        processor: what encodes; ``None``: nothing does, it is only seen whether they can be decoded.
        wanted: samples and their modalities.
    """
    return [_encode_one(processor, sample, modality) for sample, modalities in wanted for modality in modalities]


def _encode_one(processor: Processor | None, sample: Sample, modality: str) -> _Value:
    try:
        raw = decode(sample, modality)
        return np.empty(0) if processor is None else np.asarray(processor.encode(modality, raw).numpy())
    except MmrobustError as error:
        return error
    except Exception as cause:  # a decoded input of a shape that the library's processor did not expect
        reason = " ".join(str(cause).split())[:160] or type(cause).__name__
        return DataError(f"sample '{sample.id}' of {sample.origin}: its {modality} cannot be processed ({reason})")


def decode(sample: Sample, modality: str) -> Any:
    """One modality of a sample as a processor takes it: ``PIL.Image``, ``str`` or (waveform, rate in Hz)."""
    origin = f"sample '{sample.id}' of {sample.origin}"
    if modality == "text":
        return sample.text
    media = sample.image if modality == "image" else sample.audio
    if media is None:
        raise DataError(f"{origin}: its {modality} holds no bytes, a path alone; prepare the data set again")
    return decode_image(media, origin) if modality == "image" else decode_audio(media, origin)


def _pieces(requests: Iterable[Wanted]) -> Iterator[_Piece]:
    for wanted in requests:
        positions = sorted(wanted)
        starts = range(0, max(1, len(positions)), PIECE_SAMPLES)
        for start in starts:
            part = positions[start : start + PIECE_SAMPLES]
            yield _Piece({position: wanted[position] for position in part}, last=start == starts[-1])


def _pairs(piece: _Piece, samples: Sequence[Sample]) -> _Pairs:
    return [(sample, tuple(piece.wanted[position])) for position, sample in zip(piece.wanted, samples, strict=True)]


def _start_worker(processor: Processor | None) -> None:
    """What a worker process begins with: it shares the machine with the others, one thread each."""
    import torch

    global _processor  # noqa: PLW0603 (what workers are handed once, not with every piece)
    _processor = processor
    torch.set_num_threads(1)


def _encode_in_worker(wanted: _Pairs) -> list[_Value]:
    return encode(_processor, wanted)
