"""Evaluation: predict what a grid needs, once; score every cell as a join; write results with their provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.cases import Case
from mmrobust.checkpoint import Checkpoint, classes_fit
from mmrobust.classifier import Classifier
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.screening import ERROR, MISSING
from mmrobust.degradations import DEFAULT, Noise, check_profile
from mmrobust.devices import DEFAULT_BATCH_SIZE, BatchSize, device_errors
from mmrobust.errors import Interrupted, Unfinished, UsageError
from mmrobust.files import remove_partial, writing
from mmrobust.interrupts import finishing
from mmrobust.locks import hold, hold_part, hold_whole
from mmrobust.missing_tables import GivenTable, keep_table, read_missing_table
from mmrobust.prediction.engines import ENGINES, Running
from mmrobust.prediction.shards import EvaluationSplit, plan_for, predict_shards, select_samples, under_every_prompting
from mmrobust.prediction.store import PredictionStore
from mmrobust.progress import Progress, Say, no_progress, say_nothing
from mmrobust.provenance import command_line, git_state, now, versions
from mmrobust.results import (
    PREDICTIONS_FOLDER,
    RESULTS_FILE,
    RESULTS_KEYS,
    Results,
    identified,
    read_results,
    write_results,
)
from mmrobust.scenarios import DEFAULT_RATES, DEFAULT_SEEDS, PROMPTINGS, Grid, make_grid
from mmrobust.scoring.join import ScoringSettings, SplitTruth, score

SMALLER = "take a smaller --batch-size, or another --device"

RESULTS_PATIENCE = 600.0
"""Seconds that the last part of a shared evaluation waits for another that is writing the table."""


def evaluate(
    classifier: Classifier,
    dataset: str | Path | Dataset,
    *,
    scenarios: Sequence[str] | None = None,
    rates: Sequence[float] = DEFAULT_RATES,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    prompting: Sequence[str] = PROMPTINGS,
    split: str = "test",
    batch_size: int | BatchSize = DEFAULT_BATCH_SIZE,
    limit: int | None = None,
    noise_profile: str = DEFAULT,
    noise_seed: int = 0,
    workers: int = 0,
    on_bad_sample: str = ERROR,
    missing_table: str | Path | None = None,
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """The results table of a classifier over a grid, in memory.

    Args:
        classifier: as :func:`mmrobust.load` gives it.
        dataset: a data set, or its folder.
        scenarios: names; ``None``: every missing-modality scenario of the classifier's modalities, or none where a
            missing table is given.
        rates: missing rates in [0, 1].
        seeds: mask seeds, or how many of them.
        prompting: ``situation``, ``concat``.
        split: of the data set.
        batch_size: samples per forward pass; changes no result.
        limit: only so many samples, from the first.
        noise_profile: what becomes of noisy inputs: ``default`` or ``released``.
        noise_seed: of the noise; the mask seeds do not touch it.
        workers: processes that decode; a script that asks for any keeps its own work under ``if __name__ ==
            "__main__"``, since they import it.
        on_bad_sample: what becomes of samples that cannot be read: ``error``, ``missing`` or ``skip``.
        missing_table: a file with a missing table, as one more scenario.
        progress: shows how far it is.

    Returns:
        One row per cell and metric: ``scenario``, ``missing_rate``, ``seed``, ``prompting``, ``metric``, ``n``,
        ``n_affected``, ``n_naturally_missing``, ``value``, ``ci_low``, ``ci_high``.

    Raises:
        MmrobustError: names that do not exist, data that do not fit the classifier or cannot be read.
    """
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    check_fits(classifier, dataset, "the classifier")
    tables = given_tables([missing_table] if missing_table else [], dataset.split(split), classifier.modalities)
    grid = make_grid(classifier.modalities, scenarios, rates, seeds, prompting, tables)
    samples = select_samples(dataset, split, limit)
    samples = samples.screened(classifier.modalities, on_bad_sample, workers, progress)
    truth = samples.truth(classifier.modalities)
    plan = plan_for(classifier, truth, grid)
    logits = {key: np.full((len(truth.ids), truth.classes), np.nan, dtype=np.float32) for key in plan}
    noise = Noise(noise_profile, noise_seed)
    for shard in predict_shards(classifier, samples, plan, batch_size, progress, noise, workers=workers):
        for key, (positions, values) in shard.items():
            logits[key][positions] = values
    return score(truth, under_every_prompting(classifier, logits, grid), grid, progress=progress)


def evaluate_checkpoints(
    checkpoints: Mapping[str, Checkpoint],
    dataset: Dataset,
    grid_for: Mapping[str, Grid],
    out: Path,
    *,
    split: str = "test",
    limit: int | None = None,
    noise: Noise | None = None,
    on_bad_sample: str = ERROR,
    running: Running | None = None,
    scoring: ScoringSettings | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> Results:
    """Evaluate checkpoints over their grids into the folder ``out``, and extend what is there.

    Only predictions that are new are computed. Rows of the same key are replaced, all others of ``results.parquet``
    are kept.

    Args:
        checkpoints: name → checkpoint.
        dataset: the data.
        grid_for: name → grid.
        out: gets ``results.parquet`` and ``predictions/``.
        split: of the data set.
        limit: only so many samples, from the first.
        noise: what becomes of noisy inputs.
        on_bad_sample: what becomes of samples that cannot be read: ``error``, ``missing`` or ``skip``.
        running: how predictions are made: batch size, engine, part of the work, what is overwritten.
        scoring: threshold, absent classes, resamples.
        progress: shows how far it is.
        say: told of what was found amiss and is mended.

    Returns:
        All results of the folder, as they were written.

    Raises:
        Unfinished: this was one part of the work, and predictions of others are not there yet.
        MmrobustError: data that do not fit or cannot be read, results of other data or other noise in ``out``, or
            somebody else at work there.
    """
    started, noise, running, scoring = now(), noise or Noise(), running or Running(), scoring or ScoringSettings()
    samples = select_samples(dataset, split, limit)
    for name, checkpoint in checkpoints.items():
        check_fits(checkpoint.classifier, dataset, name)
    looked_at = {m for checkpoint in checkpoints.values() for m in checkpoint.classifier.modalities}
    modalities = [m for m in dataset.info.modalities if m in looked_at]
    samples = samples.screened(modalities, on_bad_sample, running.workers, progress)
    if on_bad_sample == MISSING and samples.bad.found and any(grid.tables for grid in grid_for.values()):
        raise UsageError(
            f"{samples.bad.summary}: a missing table that is given may call it present; take --on-bad-sample skip"
        )
    about = {
        "name": dataset.info.name,
        "fingerprint": dataset.info.fingerprint,
        "split": split,
        "n": samples.size,
        "task": dataset.info.task,
        "headline_metric": dataset.info.headline_metric,
        "classes": list(dataset.info.classes),
    }
    affected = [case for name, c in checkpoints.items() for case in grid_for[name].cases(c.classifier.modalities)]
    check_profile(affected, noise)
    noisy = any(case.degraded for case in affected)
    part = running.part
    if running.overwrite == "never":
        _refuse_results(out)
    device = next((_describe(checkpoint)["device"] for checkpoint in checkpoints.values()), "cpu")
    with _keeping(out, device), hold_part(out, part.index, part.of) if part else hold_whole(out):
        _earlier(out, about, noise if noisy else None, scoring)
        if not part:
            remove_partial(out, out / PREDICTIONS_FOLDER)
        for grid in grid_for.values():
            for table in grid.tables:
                keep_table(out, table, samples.ids)
        complete = {
            name: _predict(name, checkpoint, samples, grid_for[name], noise, out, running, about, progress, say)
            for name, checkpoint in checkpoints.items()
        }
        if not all(complete.values()):
            raise Unfinished(
                f"{out}: shard {part} is done, predictions of others are not there yet; the last one makes the table, "
                "or the same command without --shard"
            )
        # The parts that end last may end together; they make the same table.
        with hold(out, "results", timeout=RESULTS_PATIENCE):
            earlier = _earlier(out, about, noise if noisy else None, scoring)
            frames = []
            for name, checkpoint in checkpoints.items():
                classifier, grid = checkpoint.classifier, grid_for[name]
                for table in grid.tables:
                    keep_table(out, table, samples.ids)
                truth = samples.truth(classifier.modalities)
                stores = _stores(name, checkpoint, samples, truth, noise, out, about, say)
                logits = {key: values for store in stores.values() for key, values in store.read().items()}
                frame = score(
                    truth,
                    under_every_prompting(classifier, logits, grid),
                    grid,
                    settings=scoring.of_metrics,
                    resamples=scoring.resamples,
                    bootstrap_seed=scoring.bootstrap_seed,
                    progress=progress,
                )
                frames.append(identified(frame, name, _describe(checkpoint), about))
            merged = _merge(earlier.frame if earlier else None, pd.concat(frames))
            provenance = {
                "dataset": about,
                "bad_samples": samples.bad.describe(),
                "noise": dataclasses.asdict(noise) if noisy else earlier.provenance.get("noise") if earlier else None,
                "checkpoints": {
                    **(earlier.provenance["checkpoints"] if earlier else {}),
                    **{name: _describe(checkpoint) for name, checkpoint in checkpoints.items()},
                },
                "scoring": dataclasses.asdict(scoring),
                "versions": versions(),
                "git": git_state(),
                **{key: _describe(next(iter(checkpoints.values())))[key] for key in ("device", "dtype")},
                "command": command_line(),
                "started": started,
                "finished": now(),
            }
            write_results(out / RESULTS_FILE, merged, provenance)
            return read_results(out)


def given_tables(files: Iterable[str | Path], split: Split, modalities: Sequence[str]) -> list[GivenTable]:
    """The missing tables in ``files``, for the whole of a split and a model of these modalities.

    Raises:
        MmrobustError: as for :func:`mmrobust.missing_tables.read_missing_table`.
    """
    natural = split.natural_cases(modalities)
    return [read_missing_table(Path(file), split.ids, modalities, natural) for file in files]


def check_fits(classifier: Classifier, dataset: Dataset, name: str) -> None:
    """Raise where a classifier cannot be evaluated on a data set.

    Where nobody knows what the classifier's classes are called (an imported checkpoint), as many classes of the same
    task do: :func:`mmrobust.checkpoint.classes_fit`.

    Raises:
        UsageError: other modalities, classes or another task; the message names both.
    """
    info = dataset.info
    lacking = [m for m in classifier.modalities if m not in info.modalities]
    if lacking:
        raise UsageError(
            f"{name}: takes {' + '.join(classifier.modalities)}, but {dataset.folder} has "
            f"{' + '.join(info.modalities)}: no {' and no '.join(lacking)}"
        )
    if not classes_fit(classifier, info.classes, info.task):
        raise UsageError(
            f"{name}: knows {_about_classes(classifier.task, classifier.classes)}, "
            f"{dataset.folder} has {_about_classes(info.task, info.classes)}"
        )


def _about_classes(task: str, classes: Sequence[str]) -> str:
    return f"{len(classes)} {task} classes ({', '.join(classes[:3])} …)"


def _stores(
    name: str,
    checkpoint: Checkpoint,
    samples: EvaluationSplit,
    truth: SplitTruth,
    noise: Noise,
    out: Path,
    about: Mapping[str, Any],
    say: Say,
) -> dict[bool, PredictionStore]:
    """Whether a case is degraded → where its predictions lie.

    The noise decides predictions in degraded cases alone: the others stay good for any profile and seed.
    """
    identity = {
        "checkpoint": checkpoint.fingerprint,
        "dataset": samples.split.info.fingerprint,
        "split": samples.split.name,
        "dtype": checkpoint.classifier.dtype,
        **({"bad_samples": samples.bad.describe()} if samples.bad.found else {}),
    }
    told = {"name": name, "about": about, "described": _describe(checkpoint)}
    under = {"noise_profile": noise.profile, "noise_seed": noise.seed}
    return {
        False: PredictionStore(out, identity, told, truth, say),
        True: PredictionStore(out, identity | under, told, truth, say),
    }


def _predict(
    name: str,
    checkpoint: Checkpoint,
    samples: EvaluationSplit,
    grid: Grid,
    noise: Noise,
    out: Path,
    running: Running,
    about: Mapping[str, Any],
    progress: Progress,
    say: Say,
) -> bool:
    """Make what a grid needs of one checkpoint and is not there yet. Returns whether all of it is there now."""
    classifier = checkpoint.classifier
    truth = samples.truth(classifier.modalities)
    stores = _stores(name, checkpoint, samples, truth, noise, out, about, say)
    if running.overwrite == "always":
        for store in stores.values():
            store.forget()
    plan = plan_for(classifier, truth, grid)
    degraded = {key: bool(Case.parse(key[0], classifier.modalities).degraded) for key in plan}

    def lacking() -> dict[tuple[str, str], npt.NDArray[np.int64]]:
        return {
            key: positions
            for kind, store in stores.items()
            for key, positions in store.missing({key: p for key, p in plan.items() if degraded[key] is kind}).items()
        }

    todo = running.part.within(lacking()) if running.part else lacking()
    try:
        if todo:
            with finishing(say, "this shard") as stop_if_asked:
                for predictions in ENGINES[running.engine](checkpoint, samples, todo, noise, running, progress):
                    for kind, store in stores.items():
                        mine = {key: rows for key, rows in predictions.items() if degraded[key] is kind}
                        if mine:
                            store.add(mine)
                    stop_if_asked()
    finally:  # what is predicted is kept, whatever ended it
        for store in stores.values():
            store.flush()
    if running.part:  # others may have added theirs in the meantime
        stores = _stores(name, checkpoint, samples, truth, noise, out, about, say)
    return not lacking()


@contextmanager
def _keeping(out: Path, device: str) -> Iterator[None]:
    """Say that what is finished is kept, where the block is stopped, the disk is full or the device fails."""
    kept = f"what is predicted is kept in {out}, the same command goes on"
    try:
        with writing(out, "what is there is kept, the same command goes on"), device_errors(device, SMALLER, kept):
            yield
    except KeyboardInterrupt:
        raise Interrupted(f"evaluation stopped; {kept}") from None


def _refuse_results(out: Path) -> None:
    """Raise where ``out`` holds results or predictions already."""
    for path in (out / RESULTS_FILE, *sorted((out / PREDICTIONS_FOLDER).glob("*.parquet"))[:1]):
        if path.exists():
            raise UsageError(f"{path} is there already, and --overwrite never leaves it as it is; name another --out")


def _earlier(out: Path, about: Mapping[str, Any], noise: Noise | None, scoring: ScoringSettings) -> Results | None:
    """The results that ``out`` holds already.

    Raises:
        UsageError: they are of other data, both they and the new ones are under noise, and it is not the same, or
            they are scored otherwise.
    """
    if not (out / RESULTS_FILE).is_file():
        return None
    earlier = read_results(out)
    if earlier.provenance["dataset"] != about:
        theirs, ours = (
            f"{data['name']} ({data['split']}, {data['n']} samples, {data['fingerprint'][:12]})"
            for data in (earlier.provenance["dataset"], about)
        )
        raise UsageError(f"{out}: holds results on {theirs}, these would be on {ours}; name another --out")
    was = earlier.provenance.get("noise")
    if noise is not None and was and was != dataclasses.asdict(noise):
        raise UsageError(
            f"{out}: holds results under noise profile {was['profile']}, seed {was['seed']}, these would be under "
            f"{noise.profile}, seed {noise.seed}; name another --out"
        )
    before = earlier.provenance.get("scoring") or dataclasses.asdict(ScoringSettings())
    for key, value in dataclasses.asdict(scoring).items():
        if before[key] != value:
            raise UsageError(
                f"{out}: holds results scored with {key.replace('_', '-')} {before[key]}, these would be with {value}; "
                "score them again (mmrobust score), or name another --out"
            )
    return earlier


def _merge(earlier: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    if earlier is None:
        return new
    both: pd.DataFrame = pd.concat([earlier, new])
    return both[~both.duplicated(list(RESULTS_KEYS), keep="last")]


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What results and predictions say of a checkpoint."""
    config = checkpoint.config
    return {
        "fingerprint": checkpoint.fingerprint,
        "method": config.method["name"],
        "head": config.head["name"],
        "settings": {"method": config.method, "head": config.head},
        "backbone": config.backbone["id"],
        "backbone_fingerprint": config.backbone["fingerprint"],
        "fill": config.fill,
        "modalities": config.modalities,
        "cases": config.cases,
        "training": config.training,
        "depends_on_prompting": checkpoint.classifier.depends_on_prompting,
        "device": str(next(checkpoint.classifier.parameters()).device),
        "dtype": checkpoint.classifier.dtype,
    }
