"""Baselines: results that later ones are judged by, kept with the predictions that the paired interval needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mmrobust.errors import UsageError
from mmrobust.scenarios.missing_tables import FOLDER, is_given, kept_file
from mmrobust.scoring.store import PredictionStore, shard_headers
from mmrobust.storage.files import atomic_folder
from mmrobust.storage.results import PREDICTIONS_FOLDER, RESULTS_FILE, Results, read_results


def save_baseline(results: Path, folder: Path, *, allow_dirty: bool = False, replace: bool = False) -> tuple[str, ...]:
    """Copy results, and the predictions and missing tables behind them, to ``folder``: all of it or nothing.

    Args:
        results: the results file, or the folder that holds one.
        folder: what to make.
        allow_dirty: take results that were made from a working tree with uncommitted changes.
        replace: in place of what is there, which stays until the new one is whole.

    Returns:
        Notes: what of a good baseline is lacking.

    Raises:
        DataError: no such results, or predictions that cannot be read.
        UsageError: the results are from a dirty tree, or ``folder`` holds something already.
    """
    read = read_results(results)
    git = read.provenance.get("git") or {}
    if git.get("dirty") and not allow_dirty:
        raise UsageError(
            f"{results}: was made from a dirty tree (commit {str(git.get('commit'))[:12]} and uncommitted changes), so "
            "nobody can make it again; commit and evaluate again, or say --allow-dirty"
        )
    if folder.suffix == ".parquet":
        raise UsageError(f"{folder}: a baseline is a folder, as it holds predictions too; leave out '.parquet'")
    source = results / RESULTS_FILE if results.is_dir() else results
    if folder.resolve() in (source.parent.resolve(), *source.parent.resolve().parents):
        raise UsageError(f"{folder}: is where the results lie already; name another folder")
    shards = _shards(results, read)
    notes = [f"no predictions of '{name}': limits alone will decide" for name, found in shards.items() if not found]
    tables = {name: kept_file(source.parent, name) for name in read.frame["scenario"].unique() if is_given(name)}
    notes += [f"no missing table '{name}': limits alone will decide" for name in tables if not tables[name].is_file()]
    if not git:
        notes.append("the results do not say which commit they are of")

    with atomic_folder(folder, "baseline", replace=replace and (folder / RESULTS_FILE).is_file()) as partial:
        _copy(source, partial / RESULTS_FILE)
        for shard in sorted({shard for found in shards.values() for shard in found}):
            _copy(shard, partial / PREDICTIONS_FOLDER / shard.name)
        for table in filter(Path.is_file, tables.values()):
            _copy(table, partial / FOLDER / table.name)
    return tuple(notes)


def _shards(path: Path, results: Results) -> dict[str, list[Path]]:
    headers = shard_headers(path if path.is_dir() else path.parent)
    names = dict.fromkeys(results.frame["checkpoint"])
    return {name: PredictionStore.behind(path, results, name, headers).paths for name in names}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
