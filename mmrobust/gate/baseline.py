"""Baselines: results to judge later ones by, with the predictions that paired intervals need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mmrobust.errors import UsageError
from mmrobust.scenarios.missing_tables import FOLDER, is_given, kept_file
from mmrobust.scoring.store import PredictionStore, shard_headers
from mmrobust.storage.files import atomic_folder
from mmrobust.storage.results import RESULTS_FILE, read_results
from mmrobust.storage.shards import PREDICTIONS_FOLDER


def save_baseline(results: Path, folder: Path, *, allow_dirty: bool = False, replace: bool = False) -> tuple[str, ...]:
    """Copy results, with the predictions and missing tables behind them, to ``folder``, as a whole or not at all.

    Args:
        results: the results file, or its folder.
        folder: the folder to make.
        allow_dirty: accept results that were made from a working tree with uncommitted changes.
        replace: replace the baseline in ``folder``, which stays until the new one is complete.

    Returns:
        Notes on what a good baseline would have and this one does not.

    Raises:
        DataError: there are no such results, or their predictions cannot be read.
        UsageError: the results are from a dirty tree, or ``folder`` exists and is not empty.
    """
    read = read_results(results)
    git = read.provenance.get("git") or {}
    if git.get("dirty") and not allow_dirty:
        raise UsageError(
            f"{results}: was made from a dirty tree (commit {str(git.get('commit'))[:12]} and uncommitted changes), so "
            "it cannot be reproduced; commit and evaluate again, or pass --allow-dirty"
        )
    if folder.suffix == ".parquet":
        raise UsageError(f"{folder}: a baseline is a folder, as it holds predictions too; leave out '.parquet'")
    source = results / RESULTS_FILE if results.is_dir() else results
    if folder.resolve() in (source.parent.resolve(), *source.parent.resolve().parents):
        raise UsageError(f"{folder}: the results themselves are there; name another folder")
    headers = shard_headers(source.parent)
    names = dict.fromkeys(read.frame["checkpoint"])
    shards = {name: PredictionStore.behind(results, read, name, headers).paths for name in names}
    notes = [f"no predictions of '{name}': the limits alone will decide" for name, found in shards.items() if not found]
    tables = {name: kept_file(source.parent, name) for name in read.frame["scenario"].unique() if is_given(name)}
    notes += [
        f"no missing table '{name}': the limits alone will decide" for name, of in tables.items() if not of.is_file()
    ]
    if not git:
        notes.append("the results do not record a git commit")

    with atomic_folder(folder, "baseline", replace=replace and (folder / RESULTS_FILE).is_file()) as partial:
        _copy(source, partial / RESULTS_FILE)
        for shard in sorted({shard for found in shards.values() for shard in found}):
            _copy(shard, partial / PREDICTIONS_FOLDER / shard.name)
        for table in filter(Path.is_file, tables.values()):
            _copy(table, partial / FOLDER / table.name)
    return tuple(notes)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
