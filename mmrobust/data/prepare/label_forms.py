"""What the label cells of a table mean: classes by index or name, lists of them, or multi-hot vectors.

A table does not say it, and a wrong guess gives a data set that trains and scores, of other classes. So the form is
found from all of its cells together, is said in a line, and what has two readings is refused with what to type.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.errors import DataError, UsageError
from mmrobust.storage.tasks import REGRESSION

LabelCell = str | tuple[str, ...]
"""A label cell: its text, or the parts of the list that it holds."""

BAR = "|"
SEPARATORS = (BAR, ";", ",")
"""What may join the classes of a sample in one cell."""
MAX_LIST_CHARACTERS = 1_000_000
"""A longer cell is not taken apart as a list."""
EXAMPLES = 3
"""Labels that a message shows."""

AS_CLASS = "--label-as-class"
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
"""Tables turn whole numbers into 3.0."""
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}
_NUMPY = re.compile(r"\[[\s\d.+-]+\]")
_NUMPY_STRINGS = re.compile(r"(?<=['\"])\s+(?=['\"])")


@dataclass(frozen=True)
class LabelForm:
    """The form of a column of labels."""

    kind: str
    """``name``, ``index``, ``list``, ``multi-hot`` or ``delimited``; of a regression task, ``number``."""
    separator: str = ""
    """What joins the classes of a ``delimited`` cell."""
    length: int = 0
    """Number of entries of a ``multi-hot`` vector."""
    several: bool = False
    """Whether some sample has several classes or none."""

    def __str__(self) -> str:
        every = "" if self.several else ", of one class each"
        return {
            "name": "names",
            "index": "indexes",
            "number": "numbers",
            "list": f"lists{every}",
            "multi-hot": f"{'multi' if self.several else 'one'}-hot vectors of {self.length}",
            "delimited": f"names joined by {self.separator!r}",
        }[self.kind]

    def names(self, cell: LabelCell, where: str) -> tuple[str, ...]:
        """The names of the classes in a cell, each once; ``where`` it stands, for messages."""
        if self.kind == "index" and isinstance(cell, str) and (whole := _WHOLE.fullmatch(cell)):
            return (whole[1],)
        if self.kind in {"name", "index"}:
            return (cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False),)
        parts = _parts(cell)
        if self.kind == "multi-hot":
            assert parts is not None
            return tuple(str(place) for place, part in enumerate(parts) if _BITS[part])
        if parts is None:
            assert isinstance(cell, str)
            parts = tuple(cell.split(self.separator)) if self.kind == "delimited" else (cell,)
        names = tuple(dict.fromkeys(part.strip() for part in parts))
        if "" in names:
            raise DataError(f"{where}: label '{cell}' has an empty part")
        return names

    def classes(self, cells: Mapping[LabelCell, str]) -> tuple[str, ...]:
        """The classes of all ``cells`` (cell → place), sorted; of multi-hot vectors, the indexes of their entries."""
        if self.kind == "multi-hot":
            return tuple(map(str, range(self.length)))
        return sort_classes({name for cell, where in cells.items() for name in self.names(cell, where)})


NAMES = LabelForm("name")


def label_cell(where: str, column: str, value: Any) -> LabelCell | None:
    """What a label cell holds, of whatever type; ``None`` where it is empty (null, NaN or blank).

    Raises:
        DataError: it holds something that is no label, or a list that does.
    """
    if hasattr(value, "tolist"):  # NumPy's, as some readers give
        value = value.tolist()
    if isinstance(value, Mapping):
        value = _chosen(value, value)
    if isinstance(value, (list, tuple)):
        parts = tuple(_scalar(part) for part in value)
        if None in parts:
            raise DataError(f"{where}: the list in '{column}' holds {value[parts.index(None)]!r}, which is no label")
        return tuple(part for part in parts if part is not None)
    text = _scalar(value)
    empty = value is None or isinstance(value, str) or (isinstance(value, float) and math.isnan(value))
    if text is None and not empty:
        raise DataError(f"{where}: '{column}' holds a {type(value).__name__}, which is no label")
    return text


def _scalar(value: Any) -> str | None:
    """A single label as text; ``None`` where it is empty or no label. 2.0 is 2: tables turn integers into floats."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value).strip() or None if isinstance(value, (str, int)) else None


def _chosen(value: Mapping[Any, Any], other: Any) -> Any:
    """The list in ``{"choices": [...]}``, in which Label Studio writes several choices; else ``other``."""
    return value["choices"] if value.keys() == {"choices"} and isinstance(value["choices"], list) else other


def _parts(cell: LabelCell) -> tuple[str, ...] | None:
    """The parts of a cell that holds a list, or the text of one: JSON, Python's or NumPy's; ``None``: it does not."""
    if isinstance(cell, tuple):
        return cell
    if len(cell) > MAX_LIST_CHARACTERS or cell[:1] + cell[-1:] not in {"[]", "()", "{}"}:
        return None
    if _NUMPY.fullmatch(cell):
        found: Any = [float(part) if "." in part else part for part in cell[1:-1].split()]
    else:
        found = _literal(_NUMPY_STRINGS.sub(", ", cell))
    if isinstance(found, Mapping):
        found = _chosen(found, None)
    if not isinstance(found, (list, tuple, set)):
        return None
    parts = [_scalar(part) for part in (sorted(found, key=str) if isinstance(found, set) else found)]
    return None if None in parts else tuple(part for part in parts if part is not None)


def _literal(text: str) -> Any:
    """The value that ``text`` writes, in JSON or Python; ``None`` where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def find_label_form(
    source: Path,
    cells: Mapping[LabelCell, str],
    *,
    task: str | None = None,
    as_class: bool = False,
    separator: str | None = None,
) -> LabelForm:
    """Find the form of the distinct label ``cells`` (cell → place of its first row, for messages).

    Args:
        source: the table, for messages.
        cells: the distinct cells, none of them empty.
        task: the task, where it was asked for: it decides between two readings.
        as_class: whether each distinct cell is a class, whatever it looks like.
        separator: what joins the classes of a sample, where that was given.

    Raises:
        UsageError: what was asked for contradicts itself.
        DataError: the cells can be read in two ways, have no common form, or are decimals; it says what to type.
    """
    if separator is not None and not separator.strip():
        raise UsageError("--label-separator is blank; give what joins the labels of a sample, such as ';'")
    if task == REGRESSION:
        if as_class or separator:
            raise UsageError(
                f"--task {REGRESSION} takes numbers as labels; it excludes {AS_CLASS} and --label-separator"
            )
        if len({number_in(cell, where) for cell, where in cells.items()}) < 2:
            raise DataError(
                f"{source}: every label is {_some([_shown(cell) for cell in cells])}: there is nothing to predict"
            )
        return LabelForm("number")
    if as_class:
        if separator or task == "multi-label":
            raise UsageError(f"{AS_CLASS} makes one class of each label; it excludes --label-separator and multi-label")
        return _plain(cells)
    lists = {cell: parts for cell in cells if (parts := _parts(cell)) is not None}
    texts = [cell for cell in cells if cell not in lists and isinstance(cell, str)]
    single = task is not None and task != "multi-label"
    if any(lists.values()) or (lists and not texts):
        form = _of_lists(source, cells, lists, texts)
        if single and form.several:
            first = next(cell for cell in cells if len(form.names(cell, cells[cell])) != 1)
            count = len(form.names(first, cells[first]))
            raise DataError(
                f"{cells[first]}: has {count} classes, but --task {task} gives each sample one; {_more(task)}"
            )
        return form
    if lists and single:
        raise DataError(f"{cells[next(iter(lists))]}: has no class, but --task {task} gives each sample one")
    if separator is not None:
        if not any(separator in text for text in texts):
            raise DataError(f"{source}: no label contains the --label-separator {separator!r}, such as {_some(texts)}")
        return LabelForm("delimited", separator, several=True)
    if all(_NUMBER.fullmatch(text) for text in texts) and not all(_WHOLE.fullmatch(text) for text in texts):
        if single:
            return _plain(cells)
        raise DataError(_decimals(source, texts))
    if not single:
        found = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)
        if found is not None and (found == BAR or task == "multi-label" or _joins(source, texts, found)):
            return LabelForm("delimited", found, several=True)
        if lists:  # a column of names with [] for none
            return LabelForm("list", several=True)
    return _plain(cells)


def _plain(cells: Iterable[LabelCell]) -> LabelForm:
    """Indexes where all cells are whole numbers, names otherwise."""
    whole = all(isinstance(cell, str) and _WHOLE.fullmatch(cell) for cell in cells)
    return LabelForm("index") if whole else NAMES


def _of_lists(
    source: Path, cells: Mapping[LabelCell, str], lists: Mapping[LabelCell, tuple[str, ...]], texts: Sequence[str]
) -> LabelForm:
    """The form of cells of which some are lists that are not empty."""
    lengths = {len(parts) for parts in lists.values()}
    (length, *others) = lengths
    if not texts and not others and length > 1 and all(part in _BITS for parts in lists.values() for part in parts):
        # As indexes, lists of one length could hold a class twice, or each sample would have the same two classes.
        ones = [sum(_BITS[part] for part in parts) for parts in lists.values()]
        if not any(ones):
            raise DataError(f"{source}: every label is a list of zeros; no sample has a class")
        return LabelForm("multi-hot", length=length, several=any(count != 1 for count in ones))
    for cell, parts in lists.items():
        if decimal := next((part for part in parts if _NUMBER.fullmatch(part) and not _WHOLE.fullmatch(part)), None):
            raise DataError(
                f"{cells[cell]}: the list holds {decimal}, but labels are classes: give names, indexes or zeros and "
                "ones; a distribution over classes is no label"
            )
    for text in texts:
        mark = next((mark for mark in SEPARATORS if mark in text), None)
        if mark is not None:
            raise DataError(
                f"{cells[text]}: label '{_short(text)}' is no list, but others are ({_shown(next(iter(lists)))}): "
                f"write each label as a list, or give {AS_CLASS} if each is one class"
            )
    return LabelForm("list", several=any(len(set(parts)) != 1 for parts in lists.values()))


def _joins(source: Path, texts: Sequence[str], mark: str) -> bool:
    """Whether ``mark`` joins the names of several classes: then the same parts occur in other labels.

    Raises:
        DataError: the labels do not show it.
    """
    counts = Counter(part for text in texts for part in {part.strip() for part in text.split(mark)})
    recurs = any(counts[part.strip()] > 1 for text in texts if mark in text for part in text.split(mark))
    if recurs and mark == ";":
        return True
    if not recurs and mark == ",":  # names such as "tench, Tinca tinca"
        return False
    joined = next(text for text in texts if mark in text)
    raise DataError(
        f"{source}: label '{_short(joined)}' is one class or several: give --label-separator '{mark}' for several "
        f"(multi-label), or {AS_CLASS} for one"
    )


def number_in(cell: LabelCell, where: str) -> float:
    """The number in a label cell of a regression task; ``where`` it stands, for messages.

    Raises:
        DataError: it is none, or not finite.
    """
    text = _shown(cell)
    try:
        number = float(text) if isinstance(cell, str) and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        hint = "; write decimals with a point" if _NUMBER.fullmatch(text) else ""
        raise DataError(f"{where}: label '{text}' is not a finite number, as --task {REGRESSION} wants{hint}")
    return number


def _decimals(source: Path, texts: Sequence[str]) -> str:
    comma = " (with decimal commas)" if any("," in text for text in texts) else ""
    between = ", or --label-separator ',' for several indexes" if comma else ""
    return (
        f"{source}: the labels are decimal numbers{comma}: {_some(texts)}, {len(texts)} different ones; give --task "
        f"{REGRESSION} if they are to be predicted as numbers, name another --label-column, or give {AS_CLASS} if each "
        f"number is a class{between}"
    )


def _more(task: str | None) -> str:
    return f"leave out --task {task}, or give {AS_CLASS} if each list is one class"


def _some(texts: Collection[str]) -> str:
    shown = ", ".join(_short(text) for text in list(texts)[:EXAMPLES])
    return shown + (" …" if len(texts) > EXAMPLES else "")


def _shown(cell: LabelCell) -> str:
    return _short(cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def sort_classes(classes: set[str]) -> tuple[str, ...]:
    """Sort the names of classes: as numbers where all of them are whole numbers, as text otherwise."""
    try:
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(classes))
