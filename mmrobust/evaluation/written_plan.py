"""Plans as files: what a grid needs of a model that runs elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmrobust.cases import Case
from mmrobust.configuration import plain
from mmrobust.data.dataset import Dataset
from mmrobust.data.input_files import InputFiles, check_files
from mmrobust.data.selection import ERROR, select_samples
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError
from mmrobust.evaluation.plan import DrawnGrid, given_tables, readable_samples, used_noise
from mmrobust.evaluation.results_folder import about_data
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import Grid
from mmrobust.storage.files import atomic_folder, write_json, writing
from mmrobust.storage.parquet import write_table
from mmrobust.storage.provenance import command_line, now, versions

PLAN_VERSION = 1
INPUTS_FOLDER = "inputs"


def write_plan(
    dataset: Dataset,
    grid: Grid,
    out: Path,
    *,
    modalities: Sequence[str],
    split: str = "test",
    limit: int | None = None,
    missing_tables: Iterable[Path] = (),
    noise: Noise | None = None,
    on_bad_sample: str = ERROR,
    inputs: bool = False,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> dict[str, Any]:
    """Write which (sample, case) pairs a grid needs, exactly those that an evaluation would predict.

    The folder ``out`` appears when all of it is written: ``plan.parquet`` and ``plan.csv`` (columns ``id`` and
    ``case``, a case at a time, in the split's order), ``plan.json`` (what is returned), and with ``inputs`` the files
    of the samples in ``inputs/``; then the plan has a column per modality with the path of its file, empty where it is
    missing.

    Args:
        dataset: the data.
        grid: the grid.
        out: the folder to make.
        modalities: of the model.
        split: of the data set.
        limit: use only the first N samples.
        missing_tables: files with missing tables, each an additional scenario.
        noise: how noisy inputs are degraded.
        on_bad_sample: what to do with samples that cannot be read: ``error``, ``missing`` or ``skip``.
        inputs: whether to write the samples as each case has them.
        progress: shows the progress.
        say: called with what a scenario like ``65/65`` is taken for.

    Returns:
        What the plan is of: data, modalities, grid, noise, and the number of pairs in each case.

    Raises:
        UsageError: ``out`` holds files already, a name is unknown, or a noise cannot be written as files.
        DataError: a sample or a missing table cannot be read, or ``out`` cannot be written.
    """
    noise = noise or Noise()
    grid = grid.of(modalities, given_tables(missing_tables, dataset.split(split), modalities))
    for note in grid.notes:
        say(note)
    noise_of_grid = used_noise(grid.cases(modalities), noise, dataset.info.kinds)
    try:
        check_files(grid.cases(modalities), noise, dataset.info.kinds)
    except UsageError as cause:
        if inputs:
            raise
        say(f"only a checkpoint here can have some of these inputs: {cause}")
    with writing(out, "nothing of it is kept"), atomic_folder(out, "plan") as partial:
        samples = readable_samples(
            select_samples(dataset, split, limit),
            modalities,
            on_bad_sample,
            tables=bool(grid.tables),
            progress=progress,
        )
        positions = dict(sorted(DrawnGrid.draw(grid, samples, modalities).tables.positions().items()))
        needed = {Case.parse(name, modalities): of_case for name, of_case in positions.items() if len(of_case)}
        files = InputFiles(samples.split, modalities, noise) if inputs else None
        about = {
            "dataset": about_data(samples),
            "modalities": list(modalities),
            "scenarios": [*grid.scenarios, *(scenario for scenario, _ in grid.points)],
            "missing_rates": list(grid.rates),
            "seeds": list(grid.seeds),
            "missing_tables": [table.name for table in grid.tables],
            "noise": plain(noise_of_grid),
            "bad_samples": samples.bad.describe(),
            "pairs": sum(map(len, needed.values())),
            "cases": {case.name: len(of_case) for case, of_case in needed.items()},
            "files": 0 if files is None else files.write(partial / INPUTS_FOLDER, needed, progress),
            "versions": versions(),
            "command": command_line(),
            "finished": now(),
        }
        table = _table(samples.ids, needed, files, modalities)
        write_table(partial / "plan.parquet", table, {"kind": "plan", "schema_version": PLAN_VERSION, **about})
        _write_csv(partial / "plan.csv", table)
        write_json(partial / "plan.json", {"schema_version": PLAN_VERSION, **about})
    return about


def _table(
    ids: Sequence[str],
    needed: Mapping[Case, npt.NDArray[np.int64]],
    files: InputFiles | None,
    modalities: Sequence[str],
) -> pa.Table:
    """One row per pair; with ``files``, the path of each modality."""
    every, positions = pa.array(ids, pa.string()), np.concatenate(list(needed.values()))
    columns = {
        "id": every.take(pa.array(positions)),
        "case": pa.array([case.name for case, of_case in needed.items() for _ in of_case], pa.string()),
    }
    for modality in modalities if files else ():
        assert files is not None
        paths = (files.paths(of_case, modality, case) for case, of_case in needed.items())
        named = [path and f"{INPUTS_FOLDER}/{path}" for of_case in paths for path in of_case]
        columns[modality] = pa.array(named, pa.string())
    return pa.table(columns)


def _write_csv(file: Path, table: pa.Table) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(_rows(table))


def _rows(table: pa.Table) -> Iterator[tuple[str | None, ...]]:
    for batch in table.to_batches(max_chunksize=2**16):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
