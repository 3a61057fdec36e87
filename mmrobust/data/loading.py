"""Loading: from Parquet to a backbone's tensors, ahead of use, read in windows, decoded in worker processes or threads.

The requests alone decide what comes out, and in which order: neither the number of workers or threads nor any size here
changes a single bit of it.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmrobust.data.dataset import Sample, Split
from mmrobust.data.decoding import decode
from mmrobust.errors import DataError, MmrobustError, UsageError
from mmrobust.runtime.machine import available_cores, own_threads
from mmrobust.runtime.threads import in_threads
from mmrobust.runtime.workers import WorkerLost, Workers

if TYPE_CHECKING:
    from torch import Tensor

    from mmrobust.data.processor import Processor

Request = Mapping[int, Collection[str]]
"""Position of a sample → the modalities of it to load."""
Encoded = dict[tuple[int, str], "Tensor"]
"""(position, modality) → packed tensor (:meth:`Processor.pack`)."""

_Task = Sequence[tuple[Sample, Sequence[str]]]
"""Samples, each with the modalities to encode."""
_Result = Any
"""An encoded modality of a sample (an array), a decoded one, or the error that says why there is none."""

CHUNK_SAMPLES = 32
"""Samples that a worker is given at a time."""
CHUNKS_AHEAD = 2
"""Chunks that are ready or in progress for each worker."""
WINDOW_BYTES = 16 * 2**20
"""Bytes of samples, as stored in the file, that are read at a time. Within a window each row group is read once."""
WINDOW_SAMPLES = 2**14
"""The most samples that are read at a time: small ones take more memory as objects than in the file."""
DECODED_BYTES = 4 * 2**20
"""Bytes of decoded media that a processor is given at a time, or one medium, where it is larger."""
FEW_SAMPLES = 2048
"""A smaller split is decoded before worker processes would have started."""
MAX_WORKERS = 32
"""The most processes that ``auto`` starts, and threads: each has two chunks in memory, and a process its libraries."""


class _Chunk(NamedTuple):
    """Part of a request."""

    request: Request
    last: bool
    """Whether it is the last part."""


class Loader:
    """Reads and encodes samples of a split, in so many ``workers`` (0: in threads of this process).

    Without a ``processor``, samples are only decoded: given (:meth:`media`) if ``keep``, and otherwise just checked.
    """

    def __init__(self, split: Split, processor: Processor | None, workers: int = 0, *, keep: bool = False) -> None:
        self.split, self.processor, self.workers, self._keep = split, processor, workers, keep
        self._pool: Workers[_Task, list[_Result]] | None = None

    def load(self, requests: Iterable[Request]) -> Iterator[Encoded]:
        """Yield the packed tensors of each request. Workers meanwhile load those of the next ones.

        Raises:
            DataError: a sample cannot be read or decoded (names it), or a worker was killed.
        """
        import torch

        for results in self.media(requests):
            yield {key: torch.from_numpy(result) for key, result in results.items()}

    def media(self, requests: Iterable[Request]) -> Iterator[dict[tuple[int, str], Any]]:
        """Yield the media of each request, as :func:`mmrobust.data.decoding.decode` gives them.

        Raises:
            DataError: as for :meth:`load`.
        """
        for results in self._results(requests):
            for result in results.values():
                if isinstance(result, MmrobustError):
                    raise result
            yield results

    def check(self, requests: Iterable[Request]) -> Iterator[dict[tuple[int, str], MmrobustError]]:
        """Yield what cannot be decoded of each request: (position, modality) → error."""
        for results in self._results(requests):
            yield {key: result for key, result in results.items() if isinstance(result, MmrobustError)}

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _results(self, requests: Iterable[Request]) -> Iterator[dict[tuple[int, str], _Result]]:
        """Yield the results of each request: (position, modality) → result."""
        found: dict[tuple[int, str], _Result] = {}
        for chunk, results in self._encoded(self._tasks(_chunks(requests))):
            keys = ((position, modality) for position, modalities in chunk.request.items() for modality in modalities)
            found |= zip(keys, results, strict=True)
            if chunk.last:
                yield found
                found = {}

    def _tasks(self, chunks: Iterable[_Chunk]) -> Iterator[tuple[_Chunk, _Task]]:
        """Read the samples of the chunks, a window at a time."""
        most = min(WINDOW_SAMPLES, max(1, int(WINDOW_BYTES / self.split.sample_bytes)))
        window, size = list[_Chunk](), 0
        for chunk in chunks:
            if window and size + len(chunk.request) > most:
                yield from self._read_window(window)
                window, size = [], 0
            window.append(chunk)
            size += len(chunk.request)
        yield from self._read_window(window)

    def _read_window(self, chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, _Task]]:
        positions = sorted({position for chunk in chunks for position in chunk.request})
        samples = dict(zip(positions, self.split.read(positions), strict=True))
        return ((chunk, [(samples[p], tuple(some)) for p, some in chunk.request.items()]) for chunk in chunks)

    def _encoded(self, tasks: Iterator[tuple[_Chunk, _Task]]) -> Iterator[tuple[_Chunk, list[_Result]]]:
        """Carry out the tasks in order, in threads of this process or in the workers."""
        work = functools.partial(_encode, self.processor, self._keep)
        if not self.workers:
            threads = min(MAX_WORKERS, own_threads())
            yield from in_threads(lambda task: (task[0], work(task[1])), tasks, threads)
            return
        if self._pool is None:
            setup = functools.partial(_use_one_thread, torch_runs=self.processor is not None)
            self._pool = Workers(work, self.workers, setup)
        waiting: deque[tuple[_Chunk, int]] = deque()
        try:
            while True:
                for chunk, task in itertools.islice(tasks, CHUNKS_AHEAD * self.workers - len(waiting)):
                    waiting.append((chunk, self._pool.submit(task)))
                if not waiting:
                    return
                chunk, number = waiting.popleft()
                yield chunk, self._pool.result(number)
        except WorkerLost as cause:
            waiting.clear()
            self.close()
            raise DataError(
                f"{self.split.dataset.folder}: a worker that decodes samples was killed, perhaps for lack of memory; "
                "run the same command with fewer --workers to go on"
            ) from cause
        finally:
            for _, number in waiting:
                self._pool.discard(number)


def resolve_workers(text: str, samples: int, on_cpu: bool) -> int:
    """The number of worker processes.

    ``auto``: none for few samples, or where the model itself needs the CPU; else as many as there are cores for each of
    the processes that ``torchrun`` started here, but for one that feeds the model. Anything else but a whole number is
    a ``UsageError``.
    """
    if text == "auto":
        cores = available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return 0 if samples < FEW_SAMPLES or on_cpu else min(MAX_WORKERS, max(1, cores - 1))
    if not text.isdecimal():
        raise UsageError(f"--workers {text}: give a whole number, 0 for none, or auto")
    return int(text)


def _chunks(requests: Iterable[Request]) -> Iterator[_Chunk]:
    for request in requests:
        positions = sorted(request)
        starts = range(0, max(1, len(positions)), CHUNK_SAMPLES)
        for start in starts:
            part = positions[start : start + CHUNK_SAMPLES]
            yield _Chunk({position: request[position] for position in part}, last=start == starts[-1])


def _encode(processor: Processor | None, keep: bool, task: _Task) -> list[_Result]:
    """Encode the modalities of the samples in order; without a processor, decode them, and ``keep`` them or not."""
    wanted = [(sample, modality) for sample, modalities in task for modality in modalities]
    if processor is None:
        found = (_decoded(*one) for one in wanted)
        return [media if keep or isinstance(media, MmrobustError) else None for media in found]
    results: list[_Result] = [None] * len(wanted)
    for modality in dict.fromkeys(modality for _, modality in wanted):
        places = [place for place, (_, its) in enumerate(wanted) if its == modality]
        for together in _few_at_once(places, wanted, results):
            samples, media = [wanted[place][0] for place in together], [results[place] for place in together]
            for place, result in zip(together, _encoded(processor, modality, samples, media), strict=True):
                results[place] = result
    return results


def _few_at_once(
    places: Sequence[int], wanted: Sequence[tuple[Sample, str]], results: list[_Result]
) -> Iterator[list[int]]:
    """Decode what is ``wanted`` into ``results``; yield the places of as much as may lie in memory at a time."""
    together, size = list[int](), 0
    for place in places:
        media = results[place] = _decoded(*wanted[place])
        if isinstance(media, MmrobustError):
            continue
        together.append(place)
        size += _decoded_bytes(media)
        if size >= DECODED_BYTES:
            yield together
            together, size = [], 0
    if together:
        yield together


def _decoded(sample: Sample, modality: str) -> _Result:
    try:
        return decode(sample, modality)
    except MmrobustError as error:
        return error
    except Exception as cause:
        return _cannot(sample, modality, cause)


def _encoded(processor: Processor, modality: str, samples: Sequence[Sample], media: Sequence[Any]) -> list[_Result]:
    """The arrays of decoded media, or the error of each that cannot be encoded."""
    try:
        return [np.asarray(tensor.numpy()) for tensor in processor.pack(modality, media)]
    except Exception as cause:  # the library's processor did not expect an input of this shape
        if len(media) == 1:
            return [cause if isinstance(cause, MmrobustError) else _cannot(samples[0], modality, cause)]
        alone = (_encoded(processor, modality, [sample], [one]) for sample, one in zip(samples, media, strict=True))
        return [result for results in alone for result in results]


def _cannot(sample: Sample, modality: str, cause: Exception) -> DataError:
    reason = " ".join(str(cause).split())[:160] or type(cause).__name__
    return DataError(f"sample '{sample.id}' of {sample.origin}: its {modality} cannot be processed ({reason})")


def _decoded_bytes(media: Any) -> int:
    """About how much memory a decoded medium takes: a picture (RGB), a recording (waveform, rate), a text, an array."""
    if isinstance(media, tuple):
        return int(media[0].nbytes)
    if isinstance(media, str):
        return len(media)
    return int(media.nbytes) if isinstance(media, np.ndarray) else 3 * int(np.prod(media.size))


def _use_one_thread(torch_runs: bool) -> None:
    """Set up a worker process, as the workers share the machine. Decoding alone does not wait for torch."""
    if torch_runs:
        import torch

        torch.set_num_threads(1)
