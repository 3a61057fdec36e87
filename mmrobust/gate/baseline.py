"""Baselines: results to judge later ones by, with the predictions that paired intervals need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrobust.errors import DataError, NoPredictionsError, UsageError
from mmrobust.gate.evidence import refuse_contradiction
from mmrobust.scenarios.missing_tables import FOLDER, is_given, kept_file
from mmrobust.scoring.store import PredictionStore, predictions_behind, shard_headers
from mmrobust.storage.files import atomic_folder, is_there
from mmrobust.storage.provenance import ignored_by_git
from mmrobust.storage.results import RESULTS_FILE, Results, read_results
from mmrobust.storage.shards import PREDICTIONS_FOLDER
from mmrobust.storage.tasks import TASK_METRICS


def save_baseline(results: Path, folder: Path, *, allow_dirty: bool = False, replace: bool = False) -> tuple[str, ...]:
    """Copy results, with the predictions and missing tables behind them, to ``folder``, as a whole or not at all.

    Args:
        results: the results file, or its folder.
        folder: the folder to make.
        allow_dirty: accept results that were made, or whose predictions were, from a working tree with uncommitted
            changes or without any commit.
        replace: replace the baseline in ``folder``, which stays until the new one is complete.

    Returns:
        Notes on what a good baseline would have and this one does not.

    Raises:
        DataError: there are no such results, their predictions cannot be read or do not give their values, or a value
            is not defined.
        UsageError: the results or their predictions are from a dirty tree, or ``folder`` exists and is not empty.
    """
    read = read_results(results)
    if folder.suffix == ".parquet":
        raise UsageError(f"{folder}: a baseline is a folder, as it holds predictions too; leave out '.parquet'")
    source = results / RESULTS_FILE if results.is_dir() else results
    if folder.resolve() in (source.parent.resolve(), *source.parent.resolve().parents):
        raise UsageError(f"{folder}: the results themselves are there; name another folder")
    _refuse_undefined(results, read)
    headers = shard_headers(source.parent)
    names = dict.fromkeys(read.frame["checkpoint"])
    shards = [shard for name in names for shard in PredictionStore.behind(results, read, name, headers).shards]
    git = read.provenance.get("git")
    if not allow_dirty:
        for file, made_from in ((results, git), *((shard.path, shard.provenance.get("git")) for shard in shards)):
            _refuse_dirty(file, made_from or {})
    notes = [note for name in names for note in _hold_against_predictions(results, read, name)]
    tables = {name: kept_file(source.parent, name) for name in read.frame["scenario"].unique() if is_given(name)}
    kept = {name: of for name, of in tables.items() if is_there(of)}
    notes += [f"no missing table '{name}': the limits alone will decide" for name in tables if name not in kept]
    if not git:
        notes.append("the results do not record a git commit")

    if is_there(folder / RESULTS_FILE) and not replace:
        raise UsageError(f"{folder}: already holds a baseline; replace it with --replace, or name another folder")
    with atomic_folder(folder, "baseline", replace=replace and is_there(folder / RESULTS_FILE)) as partial:
        _copy(source, partial / RESULTS_FILE)
        for shard in sorted({shard.path for shard in shards}):
            _copy(shard, partial / PREDICTIONS_FOLDER / shard.name)
        for table in kept.values():
            _copy(table, partial / FOLDER / table.name)
    if ignored := ignored_by_git((folder / RESULTS_FILE, folder / PREDICTIONS_FOLDER)):
        notes.append(f"git ignores {' and '.join(ignored)}: commit with `git add --force`, or CI will not have it")
    return tuple(notes)


def _refuse_dirty(file: Path, git: Mapping[str, Any]) -> None:
    if git.get("dirty"):
        tree = f"commit {git['commit'][:12]} and uncommitted changes" if git.get("commit") else "no commit yet"
        tree += f": {', '.join(changed)}" if (changed := git.get("changed")) else ""
        raise UsageError(
            f"{file}: was made from a dirty tree ({tree}), so it cannot be reproduced; commit and evaluate again with "
            "--overwrite always, or pass --allow-dirty"
        )


def _refuse_undefined(path: Path, results: Results) -> None:
    undefined = results.frame[results.frame["value"].isna()]
    if len(undefined):
        first = undefined.iloc[0]
        raise DataError(
            f"{path}: {first['metric']} of '{first['checkpoint']}' at {first['scenario']}/{first['missing_rate']:g} is "
            "not defined, so nothing can be judged by it; score again with --metrics, without this one"
        )


def _hold_against_predictions(path: Path, results: Results, name: str) -> list[str]:
    """Raise if the predictions of a checkpoint do not give its results. Returns notes on what was not looked at."""
    try:
        predictions = predictions_behind(path, results, name)
    except NoPredictionsError:
        return [f"no predictions of '{name}': the limits alone will decide"]
    metrics = dict.fromkeys(results.frame.loc[results.frame["checkpoint"] == name, "metric"])
    known = [metric for metric in metrics if metric in TASK_METRICS[predictions.truth.task]]
    refuse_contradiction(predictions, results, name, known, f"{path}: the")
    return [f"{metric} is no metric of mmrobust's: its values were not looked at" for metric in metrics.keys() - known]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
