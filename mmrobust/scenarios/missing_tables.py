"""Missing tables as files: written for other programs, or given to ``eval`` as a scenario of their own.

Parquet and CSV have the columns ``id`` and ``case``. ``.pt`` is the format of the code of MMP, DCP and MoRA: a vector
of codes in the split's order, 0 complete, 1 text missing, 2 image missing. It has no ids: only its length can be
checked. It may have a code for each group instead, in the order in which groups first appear: theirs for MM-IMDb has
one for each film, which has several plots. ``.jsonl`` is AOEPT's: for each sample ``id``, and true or false for
``text_missing`` and ``image_missing``, or whatever the modalities are called; it lists the samples of all splits.
"""

from __future__ import annotations

import csv
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.degradations import check_noise
from mmrobust.errors import DataError, UsageError
from mmrobust.storage.files import atomic_file, check_file, is_there, read_error, system_failure

SUFFIXES = (".parquet", ".csv", ".pt")
READ_SUFFIXES = (*SUFFIXES, ".jsonl")
COLUMNS = ("id", "case")
CODES = ("complete", "missing-text", "missing-image")
"""The cases of the papers' codes 0, 1 and 2."""
PREFIX = "table:"
FOLDER = "missing-tables"
"""Folder in a results folder for copies of the given tables, so that ``score`` does not need the files."""
MAX_BYTES = 2**30
"""Limit on the size of a ``.pt`` file: codes of 200 million samples."""


@dataclass(frozen=True)
class GivenTable:
    """A missing table from a file. To a grid it is a scenario of its own, with one rate and the seed 0."""

    name: str
    """``table:STEM@HASH``: the file's name and a hash of its content, so that two tables never share a name."""
    rate: float
    """The share of the split's samples that it affects."""
    cases: Mapping[str, str]
    """Sample id → case name, for every sample of the split. Naturally missing modalities are missing here too."""
    affected_ids: frozenset[str]
    """The samples that are not in their natural case."""
    given: Mapping[str, str] = field(repr=False)
    """Sample id → case name, as in the file."""

    def over(self, sample_ids: Sequence[str]) -> tuple[npt.NDArray[np.object_], int]:
        """The case name of each of these samples [N] of the split, and how many of them the table affects."""
        names = np.asarray([self.cases[sample_id] for sample_id in sample_ids], dtype=object)
        return names, len(self.affected_ids.intersection(sample_ids))


def is_given(scenario: str) -> bool:
    """Whether a scenario is a missing table from a file, by its name."""
    return scenario.startswith(PREFIX)


def keep_table(folder: Path, table: GivenTable, sample_ids: Sequence[str]) -> None:
    """Copy the rows of a given table for some samples into the results folder ``folder``."""
    rows = {sample_id: table.given[sample_id] for sample_id in sample_ids}
    write_missing_table(kept_file(folder, table.name), rows, {"scenario": table.name, "missing_rate": table.rate})


def kept_table(
    folder: Path, name: str, sample_ids: Sequence[str], modalities: Sequence[str], natural: Sequence[Case] | None
) -> GivenTable:
    """Read the copy that :func:`keep_table` made of the table ``name``; see :func:`read_missing_table`.

    Raises:
        DataError: there is no copy, or it is not of these samples.
    """
    file = kept_file(folder, name)
    if not is_there(file):
        raise DataError(
            f"{folder}: holds no missing table '{name}'; give its file to: mmrobust eval CHECKPOINT --data DIR "
            f"--missing-table FILE --out {folder}"
        )
    return replace(read_missing_table(file, sample_ids, modalities, natural), name=name)


def kept_file(folder: Path, name: str) -> Path:
    """The copy of the table ``name`` in a results folder. The name may be hostile; the path stays in the folder."""
    stem = re.sub(r"[^\w.@-]+", "-", name.removeprefix(PREFIX))
    return folder / FOLDER / f"{stem}.parquet"


def read_missing_table(
    path: Path,
    sample_ids: Sequence[str],
    modalities: Sequence[str],
    natural: Sequence[Case] | None = None,
    groups: Sequence[str] | None = None,
) -> GivenTable:
    """Read a missing table for a split and a model.

    A naturally missing modality stays missing, whatever the table says, and a sample that the table would leave without
    any modality stays in its natural case.

    Args:
        path: a ``.parquet``, ``.csv``, ``.pt`` or ``.jsonl`` file.
        sample_ids: the ids of the whole split, in its order.
        modalities: of the model.
        natural: the natural case of each sample; ``None``: all are complete.
        groups: the group of each sample, if it has one; a ``.pt`` may have a code for each.

    Raises:
        DataError: there is no such file, it cannot be read, or the table is not of this split.
        UsageError: the format is unknown, a case does not exist, or a ``.pt`` is not for image and text.
    """
    check_suffix(path, READ_SUFFIXES)
    if not is_there(path):
        raise DataError(f"{path}: no such file; make a missing table with: mmrobust data missing-table --help")
    if path.suffix == ".pt":
        named = _read_codes(path, sample_ids, modalities, groups)
    elif path.suffix == ".jsonl":
        named = _read_masks(path, sample_ids, modalities)
    else:
        named = _read_rows(path, sample_ids)
    parsed: dict[str, Case] = {}
    for sample_id, name in named.items():
        if name not in parsed:
            try:
                parsed[name] = Case.parse(name, modalities)
                check_noise(parsed[name])
            except UsageError as cause:
                raise UsageError(f"{path}: sample '{sample_id}': {cause}") from None
    complete = Case.complete(modalities)
    cases, affected = {}, []
    for sample_id, before in zip(sample_ids, natural or [complete] * len(sample_ids), strict=True):
        case = parsed[named[sample_id]].within(before) or before
        cases[sample_id] = case.name
        if case != before:
            affected.append(sample_id)
    digest = hashlib.blake2b(digest_size=4)
    for sample_id in sample_ids:
        digest.update(f"{sample_id}\t{named[sample_id]}\n".encode())
    name = PREFIX + re.sub(r"[^\w.-]+", "-", path.stem) + f"@{digest.hexdigest()}"
    return GivenTable(name, len(affected) / len(sample_ids), cases, frozenset(affected), named)


def write_missing_table(path: Path, table: Mapping[str, str], provenance: Mapping[str, Any]) -> None:
    """Write ``table`` (sample id → case name, in the split's order) atomically, in the format of the file's suffix.

    The provenance (scenario, rate, seed, data …) is stored in the metadata of a Parquet file.

    Raises:
        UsageError: the suffix is unknown, or a case has no code for a ``.pt``.
    """
    check_suffix(path)
    if path.suffix == ".pt":
        _write_codes(path, table)
    elif path.suffix == ".csv":
        with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            write_csv(file, table)
    else:
        import pyarrow as pa

        from mmrobust.storage.parquet import write_table

        columns = {"id": list(table), "case": list(table.values())}
        write_table(path, pa.table(columns), {"kind": "missing-table", "schema_version": 1, **provenance})


def write_csv(file: TextIO, table: Mapping[str, str]) -> None:
    """Write ``table`` as CSV with a header."""
    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table.items()])


def check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise a ``UsageError`` unless ``path`` ends in one of the ``suffixes``, by default those that are written."""
    if path.suffix not in suffixes:
        raise UsageError(f"{path}: a missing table is a {', '.join(suffixes[:-1])} or {suffixes[-1]} file")


def _write_codes(path: Path, table: Mapping[str, str]) -> None:
    code = {name: number for number, name in enumerate(CODES)}
    for sample_id, name in table.items():
        if name not in code:
            raise UsageError(
                f"{path}: sample '{sample_id}' is in case '{name}'; a .pt table has codes only for {', '.join(CODES)}; "
                "write .parquet or .csv"
            )
    import torch

    with atomic_file(path) as partial:
        # float32, as in the papers' code
        torch.save(torch.tensor([code[name] for name in table.values()], dtype=torch.float32), partial)


def _read_codes(
    path: Path, sample_ids: Sequence[str], modalities: Sequence[str], groups: Sequence[str] | None
) -> dict[str, str]:
    """Sample id → case name, from a vector of codes."""
    if set(modalities) != {"image", "text"}:
        raise UsageError(
            f"{path}: a .pt table is for image and text, the model takes {' and '.join(modalities)}; "
            "give a .parquet or .csv"
        )
    import torch

    from mmrobust.storage.weights import check_archive

    check_file(path, "missing table", most_bytes=MAX_BYTES)
    check_archive(path, DataError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles before it refuses them
            codes = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:  # zip, pickle and torch raise different errors; a file that would run code ends here too
        if why := system_failure(cause):
            raise read_error(path, why) from cause
        raise DataError(f"{path}: cannot be read as a tensor; code in a file is never run") from cause
    if not isinstance(codes, torch.Tensor) or codes.ndim != 1 or codes.layout != torch.strided:
        what = f"a tensor of shape {tuple(codes.shape)}" if isinstance(codes, torch.Tensor) else type(codes).__name__
        raise DataError(f"{path}: holds {what}, not a vector with a code for each sample")
    values = codes.tolist()
    of_group = {group: place for place, group in enumerate(dict.fromkeys(groups or ()))}
    if groups is not None and len(values) == len(of_group) != len(sample_ids):
        values = [values[of_group[group]] for group in groups]
    if len(values) != len(sample_ids):
        several = f" in {len(of_group)} groups" if of_group else ""
        raise DataError(
            f"{path}: has {len(codes)} codes, but the split has {len(sample_ids)} samples{several}; a .pt table has "
            "one code for each, in the split's order"
        )
    named = dict(zip(sample_ids, values, strict=True))
    for sample_id, value in named.items():
        if value not in range(len(CODES)):
            raise DataError(f"{path}: sample '{sample_id}' has code {value:g}; codes are 0, 1 and 2")
    return {sample_id: CODES[int(value)] for sample_id, value in named.items()}


def _read_masks(path: Path, sample_ids: Sequence[str], modalities: Sequence[str]) -> dict[str, str]:
    """Sample id → case name, from JSON lines of ``id`` and a Boolean for each modality; other samples may be listed."""
    from mmrobust.storage.text_tables import json_lines

    columns = {f"{modality}_missing": modality for modality in modalities}
    named, known = dict[str, str](), set(sample_ids)
    for where, cells in json_lines(path):
        sample_id = str(cells.get("id"))
        if sample_id not in known:
            continue
        if sample_id in named:
            raise DataError(f"{where}: sample '{sample_id}' is listed twice")
        for column in columns:
            if cells.get(column) not in (True, False):
                raise DataError(
                    f"{where}: {column} is {cells.get(column)!r}, not true or false; a mask has each of them"
                )
        lost = [modality for column, modality in columns.items() if cells[column]]
        if len(lost) == len(columns):
            raise DataError(f"{where}: sample '{sample_id}' lacks {' and '.join(lost)}: nothing is left of it")
        named[sample_id] = Case.missing(modalities, *lost).name
    if absent := [i for i in sample_ids if i not in named]:
        raise DataError(
            f"{path}: has {len(named)} of the split's {len(known)} samples; there is no line for '{absent[0]}'"
        )
    return named


def _read_rows(path: Path, sample_ids: Sequence[str]) -> dict[str, str]:
    """Sample id → case name, from the columns of a file, whose rows may be in any order."""
    from mmrobust.storage.text_tables import open_table

    table = open_table(path, what="missing table")
    for column in COLUMNS:
        if column not in table.columns:
            raise DataError(f"{path}: no column '{column}'; a missing table has {' and '.join(COLUMNS)}")
    named, known = dict[str, str](), set(sample_ids)
    for _, cells in table.rows():
        sample_id, name = (str(cells[column]) for column in COLUMNS)
        if sample_id in named:
            raise DataError(f"{path}: sample '{sample_id}' is listed twice")
        if sample_id not in known:
            raise DataError(f"{path}: sample '{sample_id}' is not in the split, which has {len(known)} samples")
        named[sample_id] = name
    if absent := [i for i in sample_ids if i not in named]:
        raise DataError(
            f"{path}: has {len(named)} of the split's {len(known)} samples; there is no row for '{absent[0]}'"
        )
    return named
