"""Metrics of a ranking, for many cells at once: one walk down the ranking of a class serves all cells and resamples.

A cell takes each sample's prediction in one case, so all cells rank the same (sample, case) entries, of which each
holds one per sample. The entries are sorted once per class. The walk goes down that order in blocks; what a cell has
seen so far, per resample, is a sum of weights over the entries that it holds, hence a matrix product of memberships
(ones and zeros) with weights. Sums of whole weights are exact in float32 up to 2**24, whatever their order, so they
depend neither on the blocks nor on the cells beside it.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import on_every_core

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

BLOCK = 12
"""Entries per step of a walk: more make larger products, of which a larger part is zeros."""
STRETCH = 64
"""The same where nobody is positive, and all that is wanted is their sum."""
CELLS_AT_ONCE = 128
"""Cells per walk: so many that sorting and gathering pay, so few that what they have seen stays in the cache."""
_NOTHING = 1e-30
_FLUSH = 8
"""Steps whose float32 sums are added up before they go into the float64 total."""


@dataclass(frozen=True)
class RankedCells:
    """What a classifier said of N samples in the cases that T cells put them in, beside R rows of weights."""

    logits: Sequence[Floats]
    """For each case, [N, C]; rows that no cell takes may be NaN."""
    tables: npt.NDArray[np.uint8]
    """[T, N]: the index of the case that each cell takes of each sample."""
    targets: Bools
    """[N, C]: whether the sample belongs to the class."""
    weights: Floats
    """[R, N]: how often each resample drew the sample. Fastest where ``weights.T`` is C-contiguous.

    The first row is the one of the value itself: its figures are double precision, whatever the type of the weights.
    """


@dataclass(frozen=True)
class _Step:
    """One step of a walk: a row for each of n pairs of a cell and a group of equal scores with a positive of its."""

    groups: list[slice]
    """The rows of each group: no cell is twice among them."""
    cells: npt.NDArray[np.int64]
    """[n]: the cell of each row."""
    found: Floats
    """[n, R]: weight of the positives in the group."""
    positives: Floats
    """[n, R]: weight of the positives with this score or a higher one."""
    seen: Floats
    """[n, R]: weight of all samples with this score or a higher one."""
    tied: Callable[[], Floats]
    """[n, R]: weight of all samples in the group. Only where it is asked for: it is a product of its own."""

    def of_first_row(self) -> _Step:
        """The same for the first row of weights alone, in double precision: the sums are whole numbers, and exact."""
        found, positives, seen = (part[:, :1].astype(np.float64) for part in (self.found, self.positives, self.seen))
        return _Step(self.groups, self.cells, found, positives, seen, lambda: self.tied()[:, :1].astype(np.float64))


Gain = Callable[[_Step], Floats]
"""What each row of a step adds to the figure of its cell [n, R]; it may overwrite the step's arrays."""


def mean_average_precision(cells: RankedCells, advance: Advance | None = None) -> Floats:
    """[T, R]: macro mean of the classes' average precision; a class without a positive sample counts 0.

    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct scores, scikit-learn's ``average_precision_score``. The logits are
    ranked themselves: the sigmoid does not change their order.

    Args:
        cells: the predictions.
        advance: told the number of cells, once per class.
    """

    def gain(step: _Step) -> Floats:
        precision = np.divide(step.positives, step.seen, out=step.positives)
        return np.multiply(precision, step.found, out=precision)

    actual = (cells.weights @ cells.targets.astype(cells.weights.dtype)).astype(np.float64)
    walks = [([z[:, c] for z in cells.logits], cells.targets[:, c]) for c in range(cells.targets.shape[1])]
    mean = np.zeros((len(cells.tables), len(cells.weights)))
    for index, area in enumerate(_totals(walks, cells, gain, advance)):
        mean += np.divide(area, actual[:, index], out=area, where=actual[:, index] > 0)
    return np.asarray(mean / len(walks))


def auroc(cells: RankedCells, advance: Advance | None = None) -> Floats:
    """[T, R]: area under the ROC curve of the second class of two; NaN where the samples are all of one class.

    P(score of a positive > score of a negative) + ½ P(equal). Ranked by the difference of the two logits, of which the
    softmax is a monotone function, but which does not saturate.

    Args:
        cells: the predictions.
        advance: told the number of cells.
    """
    targets = cells.targets[:, 1]
    positives = (cells.weights @ targets.astype(cells.weights.dtype)).astype(np.float64)
    negatives = cells.weights.sum(axis=1, dtype=np.float64) - positives

    def gain(step: _Step) -> Floats:
        # Of the negatives, those that rank below and half of those that rank the same.
        not_beaten = (step.seen - step.positives) - (step.tied() - step.found) / 2
        of_row = negatives[: step.found.shape[1]].astype(step.found.dtype)
        return np.asarray((of_row - not_beaten) * step.found)

    scores = [logits[:, 1].astype(np.float64) - logits[:, 0] for logits in cells.logits]
    (beaten,) = _totals([(scores, targets)], cells, gain, advance)
    pairs = positives * negatives
    return np.asarray(np.divide(beaten, pairs, out=np.full_like(beaten, np.nan), where=pairs > 0))


def _totals(
    walks: Sequence[tuple[Sequence[Floats], Bools]], cells: RankedCells, gain: Gain, advance: Advance | None
) -> Iterator[npt.NDArray[np.float64]]:
    """For each (scores by case, targets), the sum of what its steps gain [T, R]. Every core walks for itself."""
    weights = np.ascontiguousarray(cells.weights.T)
    parts = np.array_split(cells.tables, -(-len(cells.tables) // CELLS_AT_ONCE))
    tables = [np.ascontiguousarray(part.T) for part in parts]

    def total(job: tuple[int, int]) -> npt.NDArray[np.float64]:
        walk, part = job
        return _total(_walk(*walks[walk], tables[part], weights), len(parts[part]), weights, gain)

    jobs = [(walk, part) for walk in range(len(walks)) for part in range(len(parts))]
    totals = on_every_core(total, jobs)
    for _ in walks:
        done = []
        for part in parts:
            done.append(next(totals))
            if advance is not None:
                advance(len(part))
        yield np.concatenate(done)


def _total(steps: Iterator[_Step], cells: int, weights: Floats, gain: Gain) -> npt.NDArray[np.float64]:
    shape = cells, weights.shape[1]
    total, recent = np.zeros(shape), np.zeros(shape, dtype=weights.dtype)
    first, room = np.zeros(cells), np.empty_like(recent)
    for number, step in enumerate(steps, start=1):
        first += np.bincount(step.cells, gain(step.of_first_row())[:, 0], minlength=cells)
        gained = gain(step)
        for rows in step.groups:
            _add_rows(gained[rows], step.cells[rows], recent, room)
        if number % _FLUSH == 0:
            total += recent
            recent[:] = 0
    total += recent
    total[:, 0] = first
    return total


def _walk(scores: Sequence[Floats], targets: Bools, tables: npt.NDArray[np.uint8], weights: Floats) -> Iterator[_Step]:
    """Down the ranking of one class, all cells and resamples at once.

    Args:
        scores: for each case, [N].
        targets: [N]: who is positive.
        tables: [N, T]: the index of the case that each cell takes of each sample.
        weights: [N, R].
    """
    samples, cases = _entries(tables, len(scores))
    penalties = -np.stack(scores)[cases, samples]
    order = np.argsort(penalties, kind="stable")
    samples, cases, penalties = samples[order], cases[order], penalties[order]
    group = np.cumsum(np.concatenate([[0], penalties[1:] != penalties[:-1]]))
    hits = targets[samples]
    shape = tables.shape[1], weights.shape[1]
    # Lost in the first weight that is added to it; where nothing was seen, nothing was found, and 0 / nothing is 0.
    seen = np.full(shape, _NOTHING, dtype=weights.dtype)
    positives = np.zeros(shape, dtype=weights.dtype)
    desk = _Desk(*shape, weights.dtype)
    for entries in _blocks(group, hits):
        held = np.ascontiguousarray((tables[samples[entries]] == cases[entries, None]).T)  # [T, K]
        drawn, hit = weights[samples[entries]], np.flatnonzero(hits[entries])  # [K, R], [H]
        if len(hit):
            yield _step(held, drawn, group[entries], hit, positives, seen, desk)
        seen += np.matmul(held.astype(drawn.dtype), drawn, out=desk.of_cells)


class _Desk:
    """Arrays that one walk writes over and over: fresh ones at every step would cost more than what is computed."""

    def __init__(self, cells: int, resamples: int, dtype: npt.DTypeLike) -> None:
        shape = cells * (BLOCK + 1), resamples  # as many rows as a step can have
        self.found, self.positives, self.seen, self.product = (np.empty(shape, dtype) for _ in range(4))
        self.of_cells = np.empty((cells, resamples), dtype)


def _step(
    held: Bools,
    drawn: Floats,
    group: npt.NDArray[np.int64],
    hit: npt.NDArray[np.int64],
    positives: Floats,
    seen: Floats,
    desk: _Desk,
) -> _Step:
    """One block of K entries.

    Args:
        held: [T, K]: which cell holds them.
        drawn: [K, R]: their weights.
        group: [K]: entries of the same number have equal scores.
        hit: [H]: which of them are positive.
        positives: [T, R]: weight of the positives before the block; after this, with those of the block.
        seen: [T, R]: weight of all samples before the block.
        desk: holds what is returned, until the next step.
    """
    levels = np.unique(group[hit])  # [G]
    within = group[hit] == levels[:, None]  # [G, H]
    level, cell = np.nonzero((within.astype(np.float32) @ held[:, hit].T.astype(np.float32)) > 0)  # [n], group by group
    ends = np.searchsorted(level, np.arange(len(levels) + 1))
    groups = [slice(start, end) for start, end in itertools.pairwise(ends.tolist())]
    n, holds = len(cell), held[cell]

    def summed(mask: Bools, rows: Floats) -> Floats:
        return np.matmul(mask.astype(rows.dtype), rows, out=desk.product[:n])

    for rows, members in zip(groups, within, strict=True):
        for entry in hit[members]:
            holders = np.flatnonzero(held[:, entry])
            _add_rows(drawn[entry], holders, positives, desk.product)
        _take(positives, cell[rows], desk.positives[rows])
    _take(seen, cell, desk.seen[:n])
    desk.seen[:n] += summed(holds & (group <= levels[:, None])[level], drawn)
    if len(levels) == len(hit):  # without ties, the one hit of the group is the one that the cell holds
        _take(drawn, hit[level], desk.found[:n])
    else:
        desk.found[:n] = summed(holds[:, hit] & within[level], drawn[hit])
    return _Step(
        groups=groups,
        cells=cell,
        found=desk.found[:n],
        positives=desk.positives[:n],
        seen=desk.seen[:n],
        tied=lambda: summed(holds & (group == levels[:, None])[level], drawn),
    )


def _add_rows(rows: Floats, which: npt.NDArray[np.int64], to: Floats, room: Floats) -> None:
    """``to[which] += rows``, in ``room``."""
    sums = room[: len(which)]
    _take(to, which, sums)
    sums += rows
    to[which] = sums


def _take(rows: Floats, which: npt.NDArray[np.int64], out: Floats) -> None:
    np.take(rows, which, axis=0, out=out, mode="clip")  # any other mode takes a copy first


def _entries(tables: npt.NDArray[np.uint8], cases: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(sample, case) of every prediction that some cell takes."""
    taken = np.stack([(tables == case).any(axis=1) for case in range(cases)])
    case, sample = np.nonzero(taken)
    return sample, case


def _blocks(group: npt.NDArray[np.int64], hits: Bools) -> Iterator[slice]:
    """Stretches that no group of equal scores crosses, down to the last hit: with hits and without, in turn.

    Those with hits begin with one and have about :data:`BLOCK` entries, the others up to :data:`STRETCH`.
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
