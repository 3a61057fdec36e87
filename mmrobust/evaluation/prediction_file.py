"""Predictions that another program wrote: a table with a row per (sample, case), and a column per class."""

from __future__ import annotations

import difflib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import PROMPTINGS, SITUATION, Case
from mmrobust.configuration import number_hint
from mmrobust.degradations import check_noise
from mmrobust.errors import DataError, UsageError, check_name, unknown_name
from mmrobust.scoring.scales import LOGITS, SCALES, SUM_SLACK, logits_of_probabilities
from mmrobust.scoring.truth import Key
from mmrobust.storage.text_tables import Cells, open_table, rounded_hint

NAMED = 3
"""The most names that a message lists."""

_ABOUT = ("id", "case", "prompting", "noise_seed")
"""The columns that are no classes."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FileFormat:
    """What a file of predictions is of, and how it is read.

    Raises:
        UsageError: the scale is unknown, or a class has the name of a column that is no class.
    """

    ids: Sequence[str]
    """The samples, in the split's order."""
    modalities: tuple[str, ...]
    """Those of the model, to which the cases refer."""
    classes: Sequence[str]
    several: bool
    """Whether a sample may belong to several classes (multi-label)."""
    where: str
    """The split and data set, for messages."""
    scale: str = LOGITS
    """``logits``, or ``probabilities``: of a softmax, or for a multi-label task of a sigmoid for each class."""
    noise_seed: int = 0
    """The noise seed of degraded cases for which the file gives none."""
    numbers: bool = False
    """Whether the task is regression: then there is one class, the number, whose values have no scale."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown_name("--scale", self.scale, SCALES)
        if self.numbers and self.scale != LOGITS:
            raise UsageError(f"--scale {self.scale}: {self.where} has numbers to predict; leave it out")
        if clash := [name for name in self.classes if name in _ABOUT]:
            raise UsageError(f"class '{clash[0]}' of {self.where} has the name of a column; rename the class")


@dataclass(frozen=True)
class FilePredictions:
    """The predictions in a file."""

    rows: dict[Key, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = field(repr=False)
    """(case, prompting) → positions [n] of samples, ascending, and their logits [n, C]."""
    tells_promptings: bool
    """Whether the file says under which prompting each prediction was made."""
    noise_seed: int | None
    """The seed of the degraded cases; ``None``: there are none."""
    notes: tuple[str, ...]
    """What was left out, one line each."""


def read_prediction_file(file: Path, form: FileFormat) -> FilePredictions:
    """Read predictions from a CSV, TSV, JSONL or Parquet file.

    The file has columns ``id``, ``case``, one per class by name, and optionally ``prompting`` and ``noise_seed``; their
    order does not matter. A CSV file is UTF-8, delimited by commas, semicolons or tabs. Further columns, unknown
    samples and rows that say the same twice are left out, and noted.

    Raises:
        DataError: the file cannot be read, lacks a column, or a row is none: an unknown case or prompting, a value that
            is no finite number or no probability, or two rows that contradict each other. The message names the first,
            and says how many there are.
    """
    table = open_table(file, what="predictions")
    notes = _check_columns(file, table.columns, form)
    reader = _Reader(file, form, "prompting" in table.columns)
    for where, cells in table.rows():
        reader.add(where, cells)
    return reader.finish(notes)


def _check_columns(file: Path, columns: Sequence[str], form: FileFormat) -> list[str]:
    """Notes on columns that are not used; raises a ``DataError`` where one is missing or there twice."""
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise DataError(f"{file}: column '{twice[0]}' appears twice")
    for name in ("id", "case"):
        if name not in columns:
            raise DataError(f"{file}: no column '{name}'; predictions have id, case, and one column per class")
    missing = [name for name in form.classes if name not in columns]
    further = [name for name in columns if name not in (*_ABOUT, *form.classes)]
    if missing:
        near = difflib.get_close_matches(missing[0], further, n=1, cutoff=0.5)
        hint = f" (is '{near[0]}' meant for '{missing[0]}'?)" if near else ""
        if form.numbers:
            raise DataError(f"{file}: no column '{missing[0]}', the number to predict of {form.where}{hint}")
        raise DataError(
            f"{file}: no column for {len(missing)} of the {len(form.classes)} classes of {form.where}: "
            f"{_listed(missing)}{hint}; columns and classes are matched by name"
        )
    if not further:
        return []
    few = len(further) == 1
    return [f"{_count(len(further), 'column')} {'is no class' if few else 'are no classes'}: {_listed(further)}"]


class _Reader:
    """Collects the rows of a file, and the problems of those that are none."""

    def __init__(self, file: Path, form: FileFormat, tells_promptings: bool) -> None:
        self._file, self._form, self._tells = file, form, tells_promptings
        self._place = {sample: position for position, sample in enumerate(form.ids)}
        self._cases: dict[str, tuple[int, bool]] = {}  # name as written → number, and whether it is degraded
        self._numbers: dict[str, int] = {}  # canonical name of a case → its number
        self._keys = array("q")  # (position, case, prompting) of each row
        self._values = array("d")
        self._unknown: Counter[str] = Counter()
        self._seeds: set[int] = set()
        self._problems: dict[str, tuple[str, int]] = {}  # kind → message about the first row, and number of rows

    def add(self, where: str, cells: Cells) -> None:
        """Add a row."""
        sample = _text(cells.get("id"))
        if not sample.strip():
            return self._problem("id", f"{where}: has no id")
        position = self._place.get(sample, self._place.get(sample.strip()))
        if position is None:
            self._unknown[sample] += 1
            return None
        try:
            case, degraded = self._case(_text(cells.get("case")).strip())
            prompting = _text(cells.get("prompting")).strip() if self._tells else SITUATION
            check_name("prompting", prompting, PROMPTINGS)
        except UsageError as cause:
            return self._problem("name", f"{where}: {cause}")
        column = "noise_seed"
        try:
            seed = _seed(cells.get(column)) if degraded else None
            values = [_number(cells.get(column := name)) for name in self._form.classes]
        except ValueError as cause:
            named = column if column == "noise_seed" else f"class '{column}'"
            return self._problem("value", f"{where}: {named}: {cause}")
        if degraded:
            self._seeds.add(self._form.noise_seed if seed is None else seed)
        self._keys.extend((position, case, PROMPTINGS.index(prompting)))
        self._values.extend(values)
        return None

    def _case(self, name: str) -> tuple[int, bool]:
        """The number of the case called ``name``, and whether it is degraded."""
        if name not in self._cases:
            if not name:
                raise UsageError("has no case")
            try:
                case = Case.parse(name, self._form.modalities)
            except UsageError as cause:
                raise UsageError(f"{cause}; --modalities names those of the model") from None
            check_noise(case)
            self._cases[name] = (self._numbers.setdefault(case.name, len(self._numbers)), bool(case.degraded))
        return self._cases[name]

    def _problem(self, kind: str, message: str) -> None:
        first, count = self._problems.get(kind, (message, 0))
        self._problems[kind] = (first, count + 1)

    def finish(self, notes: list[str]) -> FilePredictions:
        """The predictions of the rows; raises a ``DataError`` where there is a problem."""
        for message, count in self._problems.values():
            self._refuse(message, count)
        if not self._keys:
            if self._unknown:
                raise DataError(
                    f"{self._file}: none of its {_count(len(self._unknown), 'sample')} ({_listed(self._unknown)}) is "
                    f"in {self._form.where}; --split names another split{_rounded(self._unknown)}"
                )
            raise DataError(f"{self._file}: has no rows")
        if len(self._seeds) > 1:
            seeds = " and ".join(map(str, sorted(self._seeds)[:NAMED]))
            raise DataError(
                f"{self._file}: has rows under noise seeds {seeds}; results hold one: import each under its own --out"
            )
        keys = np.frombuffer(self._keys, dtype=np.int64).reshape(-1, 3)
        logits, scale_notes = self._logits(keys)
        rows, twice = self._distinct(keys, logits)
        if self._unknown:
            are = "is" if len(self._unknown) == 1 else "are"
            notes.append(
                f"{_count(len(self._unknown), 'sample')} ({_count(self._unknown.total(), 'row')}) {are} not in "
                f"{self._form.where} and left out: {_listed(self._unknown)}{_rounded(self._unknown)}"
            )
        notes += [*twice, *scale_notes]
        return FilePredictions(rows, self._tells, next(iter(self._seeds), None), tuple(notes))

    def _logits(self, keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], list[str]]:
        """The values as logits [n, C], and what to note about their scale."""
        values = np.frombuffer(self._values).reshape(len(keys), len(self._form.classes))
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32))
        self._refuse_values(keys, values, ~finite, "is not a finite number (of 32 bits)")
        between = bool(((values >= 0) & (values <= 1)).all())
        if self._form.scale == LOGITS:
            sums = bool(np.abs(values.sum(axis=1) - 1).max() <= SUM_SLACK)
            if self._form.numbers:
                return values.astype(np.float32), []
            note = "all values lie between 0 and 1: if they are probabilities, give --scale probabilities"
            return values.astype(np.float32), [note] if between and (self._form.several or sums) else []
        outside = (values < 0) | (values > 1)
        self._refuse_values(keys, values, outside, "is not a probability; --scale says what it is")
        sums_N = values.sum(axis=1)
        wrong = np.abs(sums_N - 1) > SUM_SLACK
        if wrong.any() and not self._form.several:
            first = int(wrong.argmax())
            message = f"{self._file}: {self._named(keys[first])}: its probabilities add up to {sums_N[first]:g}, not 1"
            self._refuse(message, int(wrong.sum()))
        return logits_of_probabilities(values, several=self._form.several), []

    def _distinct(
        self, keys: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
    ) -> tuple[dict[Key, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]], list[str]]:
        """The rows by case and prompting, each sample once; raises where two of one sample differ."""
        distinct, first, of_row, counts = np.unique(
            keys[:, [1, 2, 0]], axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        differs = (logits != logits[first[of_row.ravel()]]).any(axis=1)
        if differs.any():
            named = self._named(keys[int(differs.argmax())])
            self._refuse(f"{self._file}: {named} has two rows with different values", int(differs.sum()))
        notes = []
        if repeated := len(keys) - len(distinct):
            named = self._named(keys[first[int((counts > 1).argmax())]])
            notes.append(f"{_count(repeated, 'row')} repeated with the same values, such as {named}")
        names = list(self._numbers)
        rows = {}
        for case, prompting in np.unique(distinct[:, :2], axis=0).tolist():
            of_key = (distinct[:, :2] == (case, prompting)).all(axis=1)
            rows[names[case], PROMPTINGS[prompting]] = (distinct[of_key, 2], logits[first[of_key]])
        return dict(sorted(rows.items())), notes

    def _refuse_values(
        self, keys: npt.NDArray[np.int64], values: Floats, wrong: npt.NDArray[np.bool_], what: str
    ) -> None:
        """Raise if any of the values [n, C] is ``wrong``, naming the first."""
        if wrong.any():
            row, column = np.argwhere(wrong)[0].tolist()
            value, name = f"{values[row, column]:g}", self._form.classes[column]
            message = f"{self._file}: {self._named(keys[row])}: its value {value} for class '{name}' {what}"
            self._refuse(message, len(np.unique(np.argwhere(wrong)[:, 0])))

    def _refuse(self, message: str, count: int) -> None:
        more = f" ({_count(count - 1, 'more row')} like it)" if count > 1 else ""
        raise DataError(f"{message}{more}")

    def _named(self, key: npt.NDArray[np.int64]) -> str:
        position, case, prompting = key.tolist()
        under = f" under {PROMPTINGS[prompting]}" if self._tells else ""
        return f"sample '{self._form.ids[position]}' in case '{list(self._numbers)[case]}'{under}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(value: Any) -> float:
    """``value`` as a float.

    Raises:
        ValueError: it is none, with how the message begins.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise ValueError("has no value")
        if "_" not in text:  # Python's own spelling of large numbers, but no other program's
            try:
                return float(text)
            except ValueError:
                pass
        point = "; write decimals with a point" if "," in text else number_hint(text)
        raise ValueError(f"'{text[:40]}' is not a number{point}")
    if value is None:
        raise ValueError("has no value")
    if isinstance(value, bool):
        raise ValueError(f"'{value}' is not a number")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"'{str(value)[:40]}' is not a number") from None


def _seed(value: Any) -> int | None:
    """A noise seed; ``None`` where the cell is empty. Tables with empty cells often hold whole numbers as 3.0."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = _number(value)
    if np.isnan(number):
        return None
    if number < 0 or number != int(min(number, 2.0**62)):
        raise ValueError(f"'{str(value)[:40]}' is not a whole number of 0 or more")
    return int(number)


def _rounded(ids: Iterable[str]) -> str:
    """A remark on ids that a spreadsheet rounded, if one was."""
    return next((hint for name in ids if (hint := rounded_hint(name))), "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    """The first few of the names, in quotes."""
    every = list(names)
    return ", ".join(f"'{name[:60]}'" for name in every[:NAMED]) + (" …" if len(every) > NAMED else "")
