"""The values of many cells in many bootstrap resamples, fast: what paired differences are made of.

A cell's value under R rows of weights could be had from :mod:`mmrobust.scoring.metrics` alone, one cell after the
other. With hundreds of cells that is slow, and most of it is the same sum again, so two kinds of metric go together:

- those that are a mean over samples (accuracy, samples F1): all cells are one product, [cells, N] @ [N, R];
- those of class counts (macro, micro, weighted F1): counts are sums over samples, and a missing table differs from the
  one at the next lower rate only in the samples that this rate adds. So only the *differences* from table to table are
  summed, as one sparse product, and added up along the rates.

Every other metric is computed cell by cell.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of, target_matrix
from mmrobust.scoring.predictions import Predictions

Floats = npt.NDArray[np.floating[Any]]

_OF_SAMPLES = ("accuracy", "samples_f1")
_OF_COUNTS = ("macro_f1", "micro_f1", "weighted_f1")


@dataclass(frozen=True)
class _Counted(Outcomes):
    """Outcomes of which only the counts are known."""

    known: tuple[Floats, Floats, Floats] = field(kw_only=True)

    @functools.cached_property
    def counts(self) -> tuple[Floats, Floats, Floats]:
        return self.known


def resampled_values(
    stored: Predictions, tables: CellTables, metric: str, weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """The value of a metric in every key of ``tables``, under every row of weights.

    Args:
        stored: the predictions of one checkpoint.
        tables: the cells, as keys that differ.
        metric: a metric of the task.
        weights: [R, N], as :func:`mmrobust.scoring.bootstrap.resample_weights` gives them; ones for the value itself.

    Returns:
        [keys, R].

    Raises:
        UsageError: no such metric.
        DataError: a prediction that a cell needs is not there.
    """
    truth = stored.truth
    (function,) = metrics_of(truth.task, [metric]).values()
    if (shares := sample_shares(stored, tables, metric)) is not None:
        return np.asarray((shares @ weights.T).astype(np.float64) / weights.sum(axis=1, dtype=np.float64))
    weighted = WeightedTruth(target_matrix(truth.labels, truth.classes), weights)
    values = np.empty((len(tables.keys), len(weights)))
    if metric in _OF_COUNTS:
        nothing = stored.outcomes(np.empty((0, truth.classes), dtype=np.float32), weighted)
        for chain in _chains(tables):
            for key, counts in zip(chain, _counts(stored, tables, chain, weighted), strict=True):
                known = (*counts, weighted.actual)
                values[key] = function(_Counted(**vars(nothing), known=known))
        return values
    for key in range(len(tables.keys)):
        values[key] = function(stored.outcomes(stored.chosen(tables, key), weighted))
    return values


def sample_shares(stored: Predictions, tables: CellTables, metric: str) -> npt.NDArray[np.float32] | None:
    """What each sample adds to a metric that is a mean over samples [keys, N]; ``None`` where the metric is none.

    To the accuracy: whether it is right. To the samples F1: its own.
    """
    if metric not in _OF_SAMPLES:
        return None
    targets = target_matrix(stored.truth.labels, stored.truth.classes)
    shares = np.empty((len(tables.keys), len(targets)), dtype=np.float32)
    for key in range(len(tables.keys)):
        predicted = stored.predicted(stored.chosen(tables, key))
        hits, both = (predicted & targets).sum(axis=1), predicted.sum(axis=1) + targets.sum(axis=1)
        shares[key] = np.divide(2 * hits, both, out=np.zeros(len(hits)), where=both > 0)
    return shares


def _chains(tables: CellTables) -> list[list[int]]:
    """The keys in the order of their tables, which is that of the rates, by prompting."""
    chains: dict[str, list[int]] = {}
    for key in sorted(range(len(tables.keys)), key=lambda key: tables.keys[key][0]):
        chains.setdefault(tables.keys[key][1], []).append(key)
    return list(chains.values())


def _counts(
    stored: Predictions, tables: CellTables, chain: Sequence[int], weighted: WeightedTruth
) -> npt.NDArray[np.float32]:
    """Weight of the true positives and of the predicted members of each class: [len(chain), 2, R, C]."""
    from scipy import sparse

    steps, before = [], sparse.csc_matrix((len(weighted.targets), 2 * weighted.targets.shape[1]), dtype=np.float32)
    for key in chain:
        predicted = stored.predicted(stored.chosen(tables, key))
        now = sparse.csc_matrix(np.concatenate([predicted & weighted.targets, predicted], axis=1), dtype=np.float32)
        step = now - before
        step.eliminate_zeros()
        steps.append(step)
        before = now
    sums = sparse.hstack(steps, format="csc").T.tocsr() @ np.ascontiguousarray(weighted.weights.T)
    shape = (len(chain), 2, weighted.targets.shape[1], len(weighted.weights))
    return np.asarray(sums.reshape(shape).cumsum(axis=0, dtype=np.float32).swapaxes(2, 3))
