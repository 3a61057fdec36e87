"""Metrics of a ranking for many cells at once: one walk down the ranking of a class serves all cells and resamples.

A cell takes the prediction of each sample in one case, so all cells rank the same (sample, case) entries, and each cell
holds one entry per sample. The entries are sorted once per class. The walk goes down that order in blocks; the weight
that a cell has seen so far, per resample, is a sum over the entries that it holds, hence a matrix product of
memberships (ones and zeros) with weights. Sums of whole weights are exact in float32 up to 2**24 in any order, so they
depend neither on the blocks nor on which cells are computed together.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import on_every_core
from mmrobust.scoring import Bools, Floats

BLOCK = 12
"""Entries per step of a walk: with more, products are larger but a larger share of them is zeros."""
STRETCH = 64
"""Entries per block without positives, of which only the sum is needed."""
CELLS_AT_ONCE = 128
"""Cells per walk: enough to share the cost of sorting and gathering, few enough for their sums to stay in the cache."""
_TINY = 1e-30
_FLUSH = 8
"""Steps summed in float32 before they are added to the float64 total."""


@dataclass(frozen=True)
class RankedCells:
    """The logits of N samples in the cases that T cells put them in, with the truth and R rows of weights."""

    logits: Sequence[Floats]
    """For each case, [N, C]; rows that no cell uses may be NaN."""
    tables: npt.NDArray[np.uint8]
    """[T, N]: the index of the case of each sample in each cell."""
    targets: Bools
    """[N, C]: whether the sample belongs to the class."""
    weights: Floats
    """[R, N]: how often each resample drew the sample. Fastest where ``weights.T`` is C-contiguous.

    The first row is that of the value itself, which is computed in double precision whatever the type of the weights.
    """


@dataclass(frozen=True)
class _Step:
    """One step of a walk: n rows, one per pair of a cell and a group of equal scores in which it has a positive."""

    groups: list[slice]
    """The rows of each group, which are of different cells."""
    cells: npt.NDArray[np.int64]
    """[n]: the cell of each row."""
    hits: Floats
    """[n, R]: weight of the positives in the group."""
    positives: Floats
    """[n, R]: weight of the positives with this score or a higher one."""
    seen: Floats
    """[n, R]: weight of all samples with this score or a higher one."""
    tied: Callable[[], Floats]
    """[n, R]: weight of all samples in the group. A function, since it takes another product that not all need."""

    def first_row(self) -> _Step:
        """The step under the first row of weights only, in double precision: the sums are whole numbers, and exact."""
        hits, positives, seen = (sums[:, :1].astype(np.float64) for sums in (self.hits, self.positives, self.seen))
        return _Step(self.groups, self.cells, hits, positives, seen, lambda: self.tied()[:, :1].astype(np.float64))


Gain = Callable[[_Step], Floats]
"""What each row of a step adds to the metric of its cell [n, R]; it may overwrite the arrays of the step."""


def mean_average_precision(cells: RankedCells, advance: Advance | None = None) -> Floats:
    """[T, R]: macro mean of the classes' average precision; a class without a positive sample counts 0.

    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct scores, scikit-learn's ``average_precision_score``. The ranking is
    of the logits: the sigmoid does not change their order. ``advance`` is called with the number of cells per class.
    """

    def gain(step: _Step) -> Floats:
        precision = np.divide(step.positives, step.seen, out=step.positives)
        return np.multiply(precision, step.hits, out=precision)

    actual = (cells.weights @ cells.targets.astype(cells.weights.dtype)).astype(np.float64)
    walks = [([z[:, c] for z in cells.logits], cells.targets[:, c]) for c in range(cells.targets.shape[1])]
    mean = np.zeros((len(cells.tables), len(cells.weights)))
    for index, area in enumerate(_sums_of_gains(walks, cells, gain, advance)):
        mean += np.divide(area, actual[:, index], out=area, where=actual[:, index] > 0)
    return np.asarray(mean / len(walks))


def auroc(cells: RankedCells, advance: Advance | None = None) -> Floats:
    """[T, R]: area under the ROC curve of the second class of two; NaN where all samples are of one class.

    P(score of a positive > score of a negative) + ½ P(equal). The ranking is by the difference of the two logits: the
    softmax is a monotone function of it, but saturates. ``advance`` is called with the number of cells.
    """
    targets = cells.targets[:, 1]
    positives = (cells.weights @ targets.astype(cells.weights.dtype)).astype(np.float64)
    negatives = cells.weights.sum(axis=1, dtype=np.float64) - positives

    def gain(step: _Step) -> Floats:
        # The negatives that rank lower, and half of those that rank the same.
        not_beaten = (step.seen - step.positives) - (step.tied() - step.hits) / 2
        of_row = negatives[: step.hits.shape[1]].astype(step.hits.dtype)
        return np.asarray((of_row - not_beaten) * step.hits)

    scores = [logits[:, 1].astype(np.float64) - logits[:, 0] for logits in cells.logits]
    (beaten,) = _sums_of_gains([(scores, targets)], cells, gain, advance)
    pairs = positives * negatives
    return np.asarray(np.divide(beaten, pairs, out=np.full_like(beaten, np.nan), where=pairs > 0))


def _sums_of_gains(
    walks: Sequence[tuple[Sequence[Floats], Bools]], cells: RankedCells, gain: Gain, advance: Advance | None
) -> Iterator[npt.NDArray[np.float64]]:
    """For each (scores by case, targets), the sum of the gains of all steps [T, R]. Each core does walks of its own."""
    weights = np.ascontiguousarray(cells.weights.T)
    batches = np.array_split(cells.tables, -(-len(cells.tables) // CELLS_AT_ONCE))
    tables = [np.ascontiguousarray(batch.T) for batch in batches]
    jobs = [(scores, targets, table) for scores, targets in walks for table in tables]
    sums = on_every_core(lambda job: _sum_of_gains(*job, weights, gain), jobs)
    for _ in walks:
        done = []
        for batch in batches:
            done.append(next(sums))
            if advance is not None:
                advance(len(batch))
        yield np.concatenate(done)


def _sum_of_gains(
    scores: Sequence[Floats], targets: Bools, tables: npt.NDArray[np.uint8], weights: Floats, gain: Gain
) -> npt.NDArray[np.float64]:
    """The gains of one walk [T, R]; arguments as for :func:`_walk`."""
    cells = tables.shape[1]
    shape = cells, weights.shape[1]
    total, recent = np.zeros(shape), np.zeros(shape, dtype=weights.dtype)
    first, buffer = np.zeros(cells), np.empty_like(recent)
    for number, step in enumerate(_walk(scores, targets, tables, weights), start=1):
        first += np.bincount(step.cells, gain(step.first_row())[:, 0], minlength=cells)
        gained = gain(step)
        for rows in step.groups:
            _add_rows(gained[rows], step.cells[rows], recent, buffer)
        if number % _FLUSH == 0:
            total += recent
            recent[:] = 0
    total += recent
    total[:, 0] = first
    return total


def _walk(scores: Sequence[Floats], targets: Bools, tables: npt.NDArray[np.uint8], weights: Floats) -> Iterator[_Step]:
    """Walk down the ranking of one class, for all cells and resamples at once.

    ``scores`` are [N] for each case, ``targets`` [N] says which samples are positive, ``tables`` [N, T] holds the index
    of the case of each sample in each cell, and ``weights`` are [N, R].
    """
    cases, samples = np.nonzero([(tables == case).any(axis=1) for case in range(len(scores))])  # what some cell uses
    penalties = -np.stack(scores)[cases, samples]
    order = np.argsort(penalties, kind="stable")
    samples, cases, penalties = samples[order], cases[order], penalties[order]
    group = np.cumsum(np.concatenate([[0], penalties[1:] != penalties[:-1]]))
    hits = targets[samples]
    shape = tables.shape[1], weights.shape[1]
    # Avoids 0 / 0 where nothing was seen; rounding removes it from the sum with the first weight.
    seen = np.full(shape, _TINY, dtype=weights.dtype)
    positives = np.zeros(shape, dtype=weights.dtype)
    buffers = _Buffers(*shape, weights.dtype)
    for entries in _blocks(group, hits):
        held = np.ascontiguousarray((tables[samples[entries]] == cases[entries, None]).T)  # [T, K]
        drawn, hit = weights[samples[entries]], np.flatnonzero(hits[entries])  # [K, R], [H]
        if len(hit):
            yield _step(held, drawn, group[entries], hit, positives, seen, buffers)
        seen += np.matmul(held.astype(drawn.dtype), drawn, out=buffers.of_cells)


class _Buffers:
    """Arrays that one walk reuses at every step: allocating them would take longer than the computation."""

    def __init__(self, cells: int, resamples: int, dtype: npt.DTypeLike) -> None:
        shape = cells * (BLOCK + 1), resamples  # as many rows as a step can have
        self.hits, self.positives, self.seen, self.product = (np.empty(shape, dtype) for _ in range(4))
        self.of_cells = np.empty((cells, resamples), dtype)


def _step(
    held: Bools,
    drawn: Floats,
    group: npt.NDArray[np.int64],
    hit: npt.NDArray[np.int64],
    positives: Floats,
    seen: Floats,
    buffers: _Buffers,
) -> _Step:
    """The step for one block of K entries, whose arrays ``buffers`` hold until the next one.

    ``held`` [T, K] says which cells hold each entry, ``drawn`` [K, R] are their weights, entries of one number in
    ``group`` [K] have equal scores, and ``hit`` [H] are the positive ones. ``positives`` and ``seen`` [T, R] are the
    weights of the positives and of all samples before the block; the positives of the block are added.
    """
    levels = np.unique(group[hit])  # [G]
    within = group[hit] == levels[:, None]  # [G, H]
    level, cell = np.nonzero((within.astype(np.float32) @ held[:, hit].T.astype(np.float32)) > 0)  # [n], group by group
    ends = np.searchsorted(level, np.arange(len(levels) + 1))
    groups = [slice(start, end) for start, end in itertools.pairwise(ends.tolist())]
    n, holds = len(cell), held[cell]

    def summed(mask: Bools, rows: Floats) -> Floats:
        return np.matmul(mask.astype(rows.dtype), rows, out=buffers.product[:n])

    for rows, members in zip(groups, within, strict=True):
        for entry in hit[members]:
            holders = np.flatnonzero(held[:, entry])
            _add_rows(drawn[entry], holders, positives, buffers.product)
        _take(positives, cell[rows], buffers.positives[rows])
    _take(seen, cell, buffers.seen[:n])
    buffers.seen[:n] += summed(holds & (group <= levels[:, None])[level], drawn)
    if len(levels) == len(hit):  # without ties, each group has one hit, and the cell holds it
        _take(drawn, hit[level], buffers.hits[:n])
    else:
        buffers.hits[:n] = summed(holds[:, hit] & within[level], drawn[hit])
    hits, positives, seen = buffers.hits[:n], buffers.positives[:n], buffers.seen[:n]
    return _Step(groups, cell, hits, positives, seen, lambda: summed(holds & (group == levels[:, None])[level], drawn))


def _add_rows(rows: Floats, which: npt.NDArray[np.int64], to: Floats, buffer: Floats) -> None:
    """``to[which] += rows``, computed in ``buffer``."""
    sums = buffer[: len(which)]
    _take(to, which, sums)
    sums += rows
    to[which] = sums


def _take(rows: Floats, which: npt.NDArray[np.int64], out: Floats) -> None:
    np.take(rows, which, axis=0, out=out, mode="clip")  # any other mode copies first


def _blocks(group: npt.NDArray[np.int64], hits: Bools) -> Iterator[slice]:
    """Split the entries, down to the last hit, into blocks with hits and blocks without.

    A group of equal scores lies within one block. Blocks with hits begin with one and have about :data:`BLOCK` entries,
    the others up to :data:`STRETCH`.
    """
    ends = [*(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
    of_hits = group[hits].tolist()
    start = number = 0
    while number < len(of_hits):
        first = ends[of_hits[number] - 1] if of_hits[number] else 0
        for begin in range(start, first, STRETCH):
            yield slice(begin, min(begin + STRETCH, first))
        last = min(bisect.bisect_left(ends, first + BLOCK), of_hits[-1])
        yield slice(first, ends[last])
        start, number = ends[last], bisect.bisect_right(of_hits, last)
