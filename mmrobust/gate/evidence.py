"""The predictions behind results: held against the table that they must give, and paired column by column.

A results table can be edited; the predictions that it was made from say what it must hold. The gate reads them wherever
they are, and goes on without them only where there are none at all. A pair of prediction columns (the logits of both
sides in a cell) that several cells share is one piece of evidence, however many cells show it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import CONCAT
from mmrobust.errors import DataError, NoPredictionsError
from mmrobust.gate.figures import figure_of
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scenarios.draws import CellTables
from mmrobust.scoring import Bools, Floats
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.metrics import RANKED
from mmrobust.scoring.paired import Pair, make_pair, over_seeds
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.regression import OF_NUMBERS
from mmrobust.scoring.significance import holm
from mmrobust.scoring.store import cells_of
from mmrobust.storage.results import CELL_KEYS, Results
from mmrobust.storage.tasks import REGRESSION

PredictionReader = Callable[[str], Predictions]
"""Name of a checkpoint → its predictions. Raises ``NoPredictionsError`` where there are none."""
PairKey = tuple[str, float, str]
"""Scenario, missing rate and prompting."""
_ROWS_AT_ONCE = 1024
IDENTICAL = "has identical predictions on both sides"
_SAME = 1e-6  # by how much two ways to add up the same numbers may differ


def refuse_contradiction(
    predictions: Predictions,
    results: Results,
    name: str,
    metrics: Iterable[str],
    whose: str,
    progress: Progress = no_progress,
) -> None:
    """Raise unless the predictions of a checkpoint give the values, and the counts, that its results have.

    Args:
        predictions: of the checkpoint.
        results: with rows of the checkpoint.
        name: of the checkpoint in them.
        metrics: the metrics whose values are compared.
        whose: whose predictions these are, for the message: ``the candidate's``.
        progress: counts the cells.

    Raises:
        DataError: a value or a count differs, or a prediction that a cell needs is missing.
        UsageError: the task has no such metric.
    """
    names = list(metrics)
    rows = results.frame
    rows = rows[(rows["checkpoint"] == name) & rows["metric"].isin(names)]
    if CONCAT not in predictions.promptings and any(prompting == CONCAT for _, prompting in predictions.logits):
        raise DataError(
            f"{whose} results of '{name}' say that prompting makes no difference to it, but it has predictions under "
            f"{CONCAT}: evaluate it again"
        )
    settings = ScoringSettings(predictions.settings.threshold, predictions.settings.f1_absent, resamples=0)
    scored = score(predictions, predictions.truth.draw(cells_of(rows)), settings, metrics=names, progress=progress)
    both = rows.merge(scored, on=list(CELL_KEYS), suffixes=("", "_given"))
    differs = (both["value"] - both["value_given"]).abs() > _SAME
    differs |= both["value"].isna() != both["value_given"].isna()
    for column, wrong in (("value", differs), *((c, both[c] != both[f"{c}_given"]) for c in ("n", "n_affected"))):
        if wrong.any():
            first: Any = both[wrong].iloc[0]
            what = first["metric"] if column == "value" else f"{column} of {first['metric']}"
            more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
            raise DataError(
                f"{whose} predictions of '{name}' do not give the {what} that its results have at {first['scenario']}/"
                f"{first['missing_rate']:g}, seed {first['seed']}, {first['prompting']}{more}: {first[column]:g} in "
                f"the table, {first[f'{column}_given']:g} from the predictions; run mmrobust score or eval again"
            )


def read_pair(
    readers: tuple[PredictionReader, PredictionReader],
    results: tuple[Results, Results],
    names: tuple[str, str],
    metrics: Sequence[str],
    progress: Progress = no_progress,
) -> Pair:
    """The predictions of a checkpoint on both sides, each held against its own results.

    Args:
        readers: of the baseline and of the candidate.
        results: of both.
        names: of the checkpoint in both.
        metrics: the metrics whose values the predictions must give.
        progress: counts the cells of each side.

    Raises:
        NoPredictionsError: a side has none; what the other has was still held against its results.
        DataError: a side contradicts its results, or the two are not of the same samples with the same labels.
    """
    sides: list[Predictions] = []
    absent: NoPredictionsError | None = None
    for read, of_side, name, whose in zip(readers, results, names, ("the baseline's", "the candidate's"), strict=True):
        try:
            predictions = read(name)
        except NoPredictionsError as none:
            absent = absent or none
            continue
        refuse_contradiction(predictions, of_side, name, metrics, whose, progress)
        sides.append(predictions)
    if absent is not None:
        raise absent
    return make_pair(*sides)


@dataclass(frozen=True)
class Columns:
    """What the metrics see of a pair in each cell."""

    decided: dict[PairKey, Hashable]
    """Cell → what identifies the decisions of both sides, for metrics that count them."""
    scored: dict[PairKey, Hashable]
    """Cell → what identifies the logits of both sides, for metrics of a ranking."""
    flips: dict[PairKey, tuple[float, float, bool]]
    """Cell → samples that only the baseline, and only the candidate, gets right (means over mask seeds), and whether
    all its seeds give one missing table. In a multi-label task, right is exactly the true set of classes."""
    tables: dict[PairKey, Hashable]
    """Cell → what identifies its missing tables."""
    identical: frozenset[PairKey]
    """The cells in which both sides have the same logits, to the last bit: nothing has changed there."""
    remarks: tuple[str, ...]
    """What makes a comparison of this pair say little."""

    def of(self, name: str, metric: str, cell: PairKey) -> Hashable:
        """What identifies the evidence in one cell on what a rule names: equal where it is the same.

        Args:
            name: a metric, or a figure (see :mod:`mmrobust.gate.figures`).
            metric: the metric behind it.
            cell: the cell; of a figure of a curve, any.
        """
        by_cell = self.scored if metric in RANKED or metric in OF_NUMBERS else self.decided
        figure = figure_of(name)
        if figure is None:
            return name, by_cell[cell]
        if not figure.of_metric:  # what happens to each sample counts, and so does how sure the model is
            return name, self.scored[cell], self.tables[cell]
        scenario, rate, prompting = cell
        if figure.of_scenarios:
            return name, tuple(sorted((key[:2], column) for key, column in by_cell.items() if key[2] == prompting))
        curve = [(key[1], column) for key, column in by_cell.items() if (key[0], key[2]) == (scenario, prompting)]
        if not figure.of_curve:
            curve = [(at, column) for at, column in curve if at in (0.0, rate)]
        return name, tuple(sorted(curve, key=lambda point: point[0]))


def columns_of(pair: Pair, name: str, classes: Sequence[str]) -> Columns:
    """Identify the prediction columns of a pair, by their content.

    Args:
        pair: the predictions of both sides.
        name: of the checkpoint, for the remarks.
        classes: the names of the classes; their numbers where there are none.
    """
    decided, scored, same, flips = [], [], [], []
    sides = [_Decided.of(side, pair.tables) for side in pair.sides]
    numbers = _row_numbers([logits for side in sides for logits in side.logits])
    numbers_of = numbers[: len(sides[0].logits)], numbers[len(sides[0].logits) :]
    constant, used = [0, 0], sides[0].used | sides[1].used
    of_samples = np.arange(len(pair.baseline.truth.ids))
    for key in range(len(pair.tables.keys)):
        places = [side.places(pair.tables, key) for side in sides]
        rows = [of_side[place, of_samples] for of_side, place in zip(numbers_of, places, strict=True)]
        decisions = [side.decisions[place, of_samples] for side, place in zip(sides, places, strict=True)]
        first, second = (side.right[place, of_samples] for side, place in zip(sides, places, strict=True))
        flips.append((int((first & ~second).sum()), int((second & ~first).sum())))
        same.append(bool(np.array_equal(rows[0], rows[1])))
        for number, packed in enumerate(decisions):
            constant[number] += bool((packed == packed[0]).all())
        scored.append(_digest(rows))
        decided.append(_digest(decisions))
    classes = classes or [str(number) for number in range(pair.baseline.truth.classes)]
    cells = [(key, keys.tolist()) for key, keys in over_seeds(pair.tables)["key"]]
    identical = frozenset(key for key, keys in cells if all(same[at] for at in keys))
    remarks = _remarks(pair, name, classes, all(same), constant, used)
    by_decision, by_score = ({key: _shares([of[at] for at in keys]) for key, keys in cells} for of in (decided, scored))
    by_flips = {
        key: (*np.mean([flips[at] for at in keys], axis=0).tolist(), len(set(keys)) == 1) for key, keys in cells
    }
    tables: dict[PairKey, Hashable] = {key: frozenset(pair.tables.keys[at][0] for at in keys) for key, keys in cells}
    return Columns(by_decision, by_score, by_flips, tables, identical, remarks)


@dataclass(frozen=True)
class _Decided:
    """What one side predicts in the P pairs of case and prompting that its cells need.

    A cell is a choice among these rows, so each row is looked at once, not once per cell.
    """

    predictions: Predictions
    place: dict[tuple[int, str], int]
    """Index of the case, and prompting → index of the pair."""
    logits: list[Floats]
    """P of [N, C]."""
    decisions: npt.NDArray[np.uint8]
    """[P, N, C / 8]: whether each class is predicted, as bits; in a regression task the bytes of the number."""
    right: Bools
    """[P, N]: whether the predicted classes are exactly the true ones; no number is."""
    used: Bools
    """[C]: whether each class is predicted for some sample in some cell."""

    @classmethod
    def of(cls, predictions: Predictions, tables: CellTables) -> _Decided:
        needed: dict[tuple[int, str], Bools] = {}
        for number, prompting in tables.keys:
            table = tables.tables[number]
            for case in np.flatnonzero(np.bincount(table)).tolist():
                rows = needed.setdefault((case, predictions.prompting(prompting)), np.zeros(len(table), dtype=np.bool_))
                rows |= table == case
        logits, decisions, right = [], [], []
        used = np.zeros(predictions.truth.classes, dtype=np.bool_)
        for (case, prompting), rows in needed.items():
            predictions.require(rows, tables.cases[case], prompting)
            logits.append(predictions.get(tables.cases[case], prompting))
            if predictions.truth.task == REGRESSION:  # nothing is decided: the numbers count, to the last bit
                decisions.append(np.ascontiguousarray(logits[-1]).view(np.uint8))
                right.append(np.zeros(len(rows), dtype=np.bool_))
                continue
            predicted = predictions.predicted(logits[-1])
            decisions.append(np.packbits(predicted, axis=1))
            right.append((predicted == predictions.truth.targets).all(axis=1))
            used |= predicted[rows].any(axis=0)
        place = {key: number for number, key in enumerate(needed)}
        return cls(predictions, place, logits, np.stack(decisions), np.stack(right), used)

    def places(self, tables: CellTables, key: int) -> npt.NDArray[np.int64]:
        """[N]: which of the P pairs each sample is in, in the cells of a key."""
        number, prompting = tables.keys[key]
        prompting = self.predictions.prompting(prompting)
        of_cases = [self.place.get((case, prompting), -1) for case in range(len(tables.cases))]
        return np.asarray(of_cases, dtype=np.int64)[tables.tables[number]]


def _row_numbers(logits: Sequence[Floats]) -> npt.NDArray[np.int32]:
    """For each row of Q arrays [N, C], the first of the arrays whose row of that sample is equal: [Q, N]."""
    numbers = np.empty((len(logits), len(logits[0])), dtype=np.int32)
    for own, values in enumerate(logits):
        numbers[own] = own
        for earlier, others in enumerate(logits[:own]):
            rows = np.flatnonzero((numbers[own] == own) & (values[:, 0] == others[:, 0]))
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = rows[start : start + _ROWS_AT_ONCE]
                numbers[own, part[(values[part] == others[part]).all(axis=1)]] = earlier
    return numbers


def _digest(arrays: Iterable[npt.NDArray[Any]]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _shares(columns: Sequence[bytes]) -> Hashable:
    """The columns of a cell's mask seeds, each with its share: equal where the mean over seeds is the same mean."""
    return frozenset((column, count / len(columns)) for column, count in Counter(columns).items())


def _remarks(
    pair: Pair, name: str, classes: Sequence[str], same: bool, constant: Sequence[int], used: Bools
) -> tuple[str, ...]:
    remarks, total = [], len(pair.tables.keys)
    occurs = pair.baseline.truth.targets.any(axis=0)
    if same:
        remarks.append(f"'{name}' {IDENTICAL}")
    if pair.baseline.truth.task == REGRESSION:
        occurs = np.zeros_like(used)
    elif pair.baseline.truth.task != "multi-label" and occurs.sum() == 1:
        remarks.append(f"all samples are of one class, '{classes[int(occurs.argmax())]}'")
    for side, cells in zip(("baseline", "candidate"), constant, strict=True):
        if cells:
            remarks.append(f"the {side} of '{name}' predicts the same for every sample in {cells} of {total} columns")
    if never := [classes[c] for c in np.flatnonzero(occurs & ~used).tolist()]:
        listed = ", ".join(f"'{label}'" for label in never[:5]) + (" …" if len(never) > 5 else "")
        kind = "class occurs but is" if len(never) == 1 else "classes occur but are"
        remarks.append(
            f"{len(never)} {kind} never predicted by either side of '{name}' ({listed}): "
            "nothing can be lost there (perhaps they were not in the training data)"
        )
    return tuple(remarks)


def corrected(p: Floats, columns: Sequence[Hashable], correction: str) -> tuple[Floats, int]:
    """p-values [K] corrected for the number of distinct ``columns`` [K], without the limit at 1, and that number.

    Cells with the same column show the same evidence, and are corrected once: see :func:`holm`. ``correction`` is
    ``holm`` or ``none``. NaN stays NaN and does not count.
    """
    place = {column: at for at, column in reversed(list(enumerate(columns)))}  # the first cell of each
    first = sorted(place.values())
    row = {columns[at]: number for number, at in enumerate(first)}
    distinct = p[first]
    count = int((~np.isnan(distinct)).sum())
    if correction != "holm":
        return p, count
    return holm(distinct)[[row[column] for column in columns]], count
