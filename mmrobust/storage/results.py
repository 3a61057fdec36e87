"""The results table: one row per cell and metric, with its provenance in the file's metadata.

A change to the schema raises its version, and the reader keeps reading the older ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mmrobust.errors import DataError
from mmrobust.storage.files import is_there
from mmrobust.storage.parquet import first_line, read_parquet, write_table
from mmrobust.storage.provenance import read_provenance
from mmrobust.storage.tasks import RANGES

RESULTS_VERSION = 2
RESULTS_FILE = "results.parquet"
ROBUSTNESS_FIGURES = ("auc_eta", "relative_robustness", "worst_value", "drop_per_10_points")
"""The figures of a curve that have an interval; :mod:`mmrobust.scoring.robustness` defines them."""
INTERVALS = tuple(f"{of}_{end}" for of in ("ci", "mean", *ROBUSTNESS_FIGURES) for end in ("low", "high"))
"""The columns with the ends of intervals."""
RESULTS_SCHEMA = pa.schema(
    [
        # The key of a row:
        ("checkpoint", pa.string()),  # the name under which the checkpoint was evaluated
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("scenario", pa.string()),
        ("missing_rate", pa.float64()),  # η in [0, 1]
        ("seed", pa.int64()),  # the mask seed: who is affected
        ("prompting", pa.string()),
        ("metric", pa.string()),
        # What was evaluated:
        ("method", pa.string()),
        ("head", pa.string()),
        ("backbone", pa.string()),
        # How many samples the value is over, and how many of them the scenario affected:
        ("n", pa.int64()),
        ("n_affected", pa.int64()),
        ("n_naturally_missing", pa.int64()),  # samples without some modality before any scenario
        # Samples of the smallest class, where too few for the intervals to hold; else null. Since version 2.
        ("few", pa.int64()),
        # The value, and the ends of 95 % intervals over samples (null where not computed). ``ci_`` is that of it.
        # Since version 2, ``mean_`` is that of the mean over the mask seeds of this rate, the same on each of its rows;
        # those of the robustness figures are the same on each row of the curve.
        ("value", pa.float64()),
        *((name, pa.float64()) for name in INTERVALS),
    ]
)

RESULTS_KEYS = ("checkpoint", "dataset", "split", "scenario", "missing_rate", "seed", "prompting", "metric")
CELL_KEYS = ("scenario", "missing_rate", "seed", "prompting", "metric")
"""The part of the key that two checkpoints on the same data share."""

_COUNTS = ("n", "n_affected", "n_naturally_missing")
_NULLABLE = ("few", "value", *INTERVALS)
_IN_RANGE = ("value", "ci_low", "ci_high", "mean_low", "mean_high")
_ROUNDING = 1e-6  # a float32 sum of shares may exceed 1 by this
_SINCE_VERSION_2 = ("few", *INTERVALS[2:])


class Results(NamedTuple):
    """A results table and its provenance."""

    frame: pd.DataFrame
    """One row per ``RESULTS_KEYS``, columns as ``RESULTS_SCHEMA``."""
    provenance: dict[str, Any]
    """See :data:`mmrobust.storage.provenance.SHAPES`."""

    @property
    def headline_metric(self) -> str:
        """The headline metric of the data set.

        Raises:
            DataError: the provenance does not name it.
        """
        metric = (self.provenance.get("dataset") or {}).get("headline_metric")
        if not metric:
            raise DataError("the results do not name the headline metric of their data set; run mmrobust eval again")
        return str(metric)


def identified(
    frame: pd.DataFrame, name: str, described: Mapping[str, Any], dataset: Mapping[str, Any]
) -> pd.DataFrame:
    """Add the columns that identify checkpoint and data to scored cells, to make rows of ``RESULTS_SCHEMA``.

    Args:
        frame: one row per cell and metric.
        name: name of the checkpoint.
        described: the checkpoint as the provenance describes it.
        dataset: the data set as the provenance describes it.
    """
    columns: list[str] = list(RESULTS_SCHEMA.names)
    return frame.assign(
        checkpoint=name,
        dataset=dataset["name"],
        split=dataset["split"],
        **{key: described[key] for key in ("method", "head", "backbone")},
    )[columns]


def write_results(path: Path, frame: pd.DataFrame, provenance: Mapping[str, Any]) -> None:
    """Write ``frame``, sorted by its key, to ``path`` atomically.

    Its columns are those of ``RESULTS_SCHEMA``, of which those that version 1 did not have may be missing.
    """
    frame = frame.assign(**{name: np.nan for name in _SINCE_VERSION_2 if name not in frame})
    frame = frame.sort_values(list(RESULTS_KEYS), kind="stable", ignore_index=True)
    table = pa.Table.from_pandas(frame, schema=RESULTS_SCHEMA, preserve_index=False).replace_schema_metadata(None)
    write_table(path, table, {"kind": "results", "schema_version": RESULTS_VERSION, **provenance})


def read_results(path: Path, made_by: str = "mmrobust eval CHECKPOINT --data DIR --out") -> Results:
    """Read the results in ``path``: a results file, or a folder with a ``results.parquet``; ``made_by`` makes one.

    Raises:
        DataError: there is no such file, or it is empty, damaged, of a newer schema or not a results table.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    if not is_there(file):
        where = f"{path}: contains no {RESULTS_FILE}" if path.is_dir() else f"{path}: no such file or folder"
        raise DataError(f"{where}; make results with: {made_by} {path}")
    table = read_parquet(file, "results", "run mmrobust eval again")
    provenance = read_provenance(table.schema, file, "results", RESULTS_VERSION)
    for name in _SINCE_VERSION_2:
        if name not in table.schema.names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    absent = [name for name in RESULTS_SCHEMA.names if name not in table.schema.names]
    if absent:
        raise DataError(f"{file}: is not a results table: no column {', '.join(absent)}")
    try:
        table = table.select(RESULTS_SCHEMA.names).cast(RESULTS_SCHEMA)
    except (pa.ArrowException, ValueError) as cause:
        raise DataError(f"{file}: a column has the wrong type for results ({first_line(cause)})") from cause
    if not table.num_rows:
        raise DataError(f"{file}: contains no rows; run mmrobust eval again")
    _check_rows(table, file, provenance["schema_version"])
    frame = table.to_pandas(use_threads=False)
    for name in frame["checkpoint"].unique():
        if name not in provenance["checkpoints"]:
            raise DataError(f"{file}: has results of '{name}', but its metadata does not describe that checkpoint")
    return Results(frame, provenance)


def _check_rows(table: pa.Table, file: Path, version: int) -> None:
    """Raise if a row of results has a null in its key or an impossible number, or a cell two rows.

    Raises:
        DataError: the message names the column.
    """
    for name in RESULTS_SCHEMA.names:
        if name not in _NULLABLE and table[name].null_count:
            raise DataError(f"{file}: a row has no {name}; run mmrobust eval again")
    for name, least, most in (("missing_rate", 0.0, 1.0), ("seed", 0, 2**62), *((n, 0, 2**62) for n in _COUNTS)):
        found = pc.min_max(table[name]).as_py()
        if not least <= found["min"] <= found["max"] <= most:
            raise DataError(f"{file}: a row has a {name} of {found['min']} or {found['max']}; run mmrobust eval again")
    if pc.any(pc.is_nan(table["missing_rate"])).as_py():  # min_max skips NaN
        raise DataError(f"{file}: a row has a missing_rate of NaN; run mmrobust eval again")
    for name in ("value", *INTERVALS):
        if pc.any(pc.is_inf(table[name])).as_py():
            raise DataError(f"{file}: a row has an infinite {name}; run mmrobust eval again")
    # Without threads: where none can be started for lack of memory, Arrow would wait for them for ever.
    cells = table.group_by(list(RESULTS_KEYS), use_threads=False).aggregate([("n", "count")])
    if cells.num_rows < table.num_rows:
        twice = cells.filter(pc.greater(cells["n_count"], 1)).slice(0, 1).to_pylist()[0]
        cell = ", ".join(f"{key} {twice[key]}" for key in RESULTS_KEYS)
        raise DataError(f"{file}: a cell occurs twice ({cell}): remove the file, and run mmrobust score or eval again")
    ordered = list(zip(INTERVALS[::2], INTERVALS[1::2], strict=True))
    if version > 1:  # the percentiles of version 1 need not hold the value
        ordered += [("ci_low", "value"), ("value", "ci_high")]
    for low, high in ordered:
        above = pc.greater(
            pc.subtract(table[low], table[high]), pc.add(_ROUNDING, pc.multiply(_ROUNDING, pc.abs(table[high])))
        )
        if pc.any(above).as_py():
            raise DataError(
                f"{file}: a row has a {low} above its {high}: remove the file, and run mmrobust score or eval again"
            )
    by_metric = table.group_by("metric", use_threads=False)
    measured = by_metric.aggregate([(name, "min_max") for name in _IN_RANGE]).to_pylist()
    for of_metric in measured:
        least, most = RANGES.get(of_metric["metric"], (-math.inf, math.inf))
        for name in _IN_RANGE:
            for found in of_metric[f"{name}_min_max"].values():
                if found is not None and not math.isnan(found) and not least - _ROUNDING <= found <= most + _ROUNDING:
                    raise DataError(
                        f"{file}: {of_metric['metric']} has a {name} of {found:g}, but lies between {least:g} and "
                        f"{most:g}: remove the file, and run mmrobust score or eval again"
                    )
