"""Evaluation: predict what a grid needs, once; score every cell as a join; write results with their provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.screening import ERROR, MISSING
from mmrobust.data.selection import SelectedSamples, select_samples
from mmrobust.degradations import DEFAULT, Noise, check_profile
from mmrobust.errors import Unfinished, UsageError
from mmrobust.evaluation.kept import KeptPredictions, describe
from mmrobust.evaluation.parts import Running
from mmrobust.evaluation.results_folder import earlier_results, keeping, merged, outdated, refuse_results
from mmrobust.evaluation.shards import plan_for, predict_shards, truth_of, under_every_prompting
from mmrobust.models.checkpoint import Checkpoint, classes_fit
from mmrobust.models.classifier import Classifier
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import DEFAULT_RATES, DEFAULT_SEEDS, Grid, make_grid
from mmrobust.scenarios.missing_tables import GivenTable, keep_table, read_missing_table
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.storage.files import remove_partial
from mmrobust.storage.locks import hold, hold_part, hold_whole
from mmrobust.storage.provenance import command_line, git_state, now, versions
from mmrobust.storage.results import RESULTS_FILE, Results, identified, read_results, write_results
from mmrobust.storage.shards import PREDICTIONS_FOLDER

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
    truth = truth_of(samples, classifier.modalities)
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
    samples = _readable(
        checkpoints, dataset, grid_for, select_samples(dataset, split, limit), on_bad_sample, running, progress
    )
    affected = [case for name, c in checkpoints.items() for case in grid_for[name].cases(c.classifier.modalities)]
    check_profile(affected, noise)
    noise_told = noise if any(case.degraded for case in affected) else None
    if running.overwrite == "never":
        refuse_results(out)
    about, part = _about(samples), running.part
    device = next((describe(checkpoint)["device"] for checkpoint in checkpoints.values()), "cpu")
    with keeping(out, device), hold_part(out, part.index, part.of) if part else hold_whole(out):
        earlier_results(out, about, noise_told, scoring)
        if not part:
            remove_partial(out, out / PREDICTIONS_FOLDER)
        for grid in grid_for.values():
            for table in grid.tables:
                keep_table(out, table, samples.ids)
        kept = {
            name: KeptPredictions(name, checkpoint, samples, noise, out, about, say)
            for name, checkpoint in checkpoints.items()
        }
        complete = [predictions.make(grid_for[name], running, progress) for name, predictions in kept.items()]
        if not all(complete):
            raise Unfinished(
                f"{out}: shard {part} is done, predictions of others are not there yet; the last one makes the table, "
                "or the same command without --shard"
            )
        # The parts that end last may end together; they make the same table.
        with hold(out, "results", timeout=RESULTS_PATIENCE):
            earlier = earlier_results(out, about, noise_told, scoring)
            frames = [_scored(predictions, grid_for[name], scoring, progress) for name, predictions in kept.items()]
            described = {name: describe(checkpoint) for name, checkpoint in checkpoints.items()}
            told = {
                "dataset": about,
                "bad_samples": samples.bad.describe(),
                "noise": dataclasses.asdict(noise_told) if noise_told else None,
                "checkpoints": described,
                "scoring": dataclasses.asdict(scoring),
                "versions": versions(),
                "git": git_state(),
                **{key: next(iter(described.values()))[key] for key in ("device", "dtype")},
                "command": command_line(),
                "started": started,
                "finished": now(),
            }
            for name in outdated(earlier, described):
                say(f"{out}: '{name}' has changed since the results there were made; its earlier rows are left out")
            write_results(out / RESULTS_FILE, *merged(earlier, pd.concat(frames), told))
            return read_results(out)


def _readable(
    checkpoints: Mapping[str, Checkpoint],
    dataset: Dataset,
    grid_for: Mapping[str, Grid],
    samples: SelectedSamples,
    on_bad_sample: str,
    running: Running,
    progress: Progress,
) -> SelectedSamples:
    """The samples, after a look at those modalities that the checkpoints take.

    Raises:
        MmrobustError: a checkpoint that the data do not fit, samples that cannot be read, or such that would be missing
            a modality that a given table may call present.
    """
    for name, checkpoint in checkpoints.items():
        check_fits(checkpoint.classifier, dataset, name)
    looked_at = {m for checkpoint in checkpoints.values() for m in checkpoint.classifier.modalities}
    modalities = [m for m in dataset.info.modalities if m in looked_at]
    samples = samples.screened(modalities, on_bad_sample, running.workers, progress)
    if on_bad_sample == MISSING and samples.bad.found and any(grid.tables for grid in grid_for.values()):
        raise UsageError(
            f"{samples.bad.summary}: a missing table that is given may call it present; take --on-bad-sample skip"
        )
    return samples


def _about(samples: SelectedSamples) -> dict[str, Any]:
    """What provenance says of the data: results of other data are not comparable."""
    info = samples.split.info
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "split": samples.split.name,
        "n": samples.size,
        "task": info.task,
        "headline_metric": info.headline_metric,
        "classes": list(info.classes),
    }


def _scored(predictions: KeptPredictions, grid: Grid, scoring: ScoringSettings, progress: Progress) -> pd.DataFrame:
    """The rows of one checkpoint in the results table."""
    frame = score(
        predictions.truth,
        predictions.read(grid),
        grid,
        settings=scoring.of_metrics,
        resamples=scoring.resamples,
        bootstrap_seed=scoring.bootstrap_seed,
        progress=progress,
    )
    return identified(frame, predictions.name, describe(predictions.checkpoint), predictions.about)


def given_tables(files: Iterable[str | Path], split: Split, modalities: Sequence[str]) -> list[GivenTable]:
    """The missing tables in ``files``, for the whole of a split and a model of these modalities.

    Raises:
        MmrobustError: as for :func:`mmrobust.scenarios.missing_tables.read_missing_table`.
    """
    natural = split.natural_cases(modalities)
    return [read_missing_table(Path(file), split.ids, modalities, natural) for file in files]


def check_fits(classifier: Classifier, dataset: Dataset, name: str) -> None:
    """Raise where a classifier cannot be evaluated on a data set.

    Where nobody knows what the classifier's classes are called (an imported checkpoint), as many classes of the same
    task do: :func:`mmrobust.models.checkpoint.classes_fit`.

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
