"""Evaluation: draw the missing tables, plan, predict, store, join, write.

:func:`evaluate` evaluates one model in memory, :func:`evaluate_models` several into a results folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.selection import ERROR, select_samples
from mmrobust.degradations import DEFAULT, Noise
from mmrobust.errors import Unfinished, UsageError
from mmrobust.evaluation.model import IdentifiedModel, PredictingModel
from mmrobust.evaluation.names import entry_of, told_apart
from mmrobust.evaluation.plan import (
    ALWAYS,
    NEVER,
    DrawnGrid,
    PredictionSettings,
    given_tables,
    readable_samples,
    used_noise,
)
from mmrobust.evaluation.predicting import predict_missing
from mmrobust.evaluation.results_folder import (
    about_data,
    earlier_results,
    grown,
    hold_folder,
    merged,
    outdated,
    prediction_identity,
    refuse_results,
    unbacked,
)
from mmrobust.models.checkpoint import Checkpoint, classes_fit
from mmrobust.models.prediction.classifier_model import as_model
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize
from mmrobust.runtime.printable import printable
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import DEFAULT_RATES, DEFAULT_SEEDS, Grid, make_grid, mask_seeds
from mmrobust.scenarios.missing_tables import keep_table
from mmrobust.scoring.dependence import affected_shares, merged_shares
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import LogitMatrices, Predictions
from mmrobust.scoring.writer import PredictionWriter
from mmrobust.storage.locks import hold
from mmrobust.storage.provenance import git_state, now, results_provenance
from mmrobust.storage.results import RESULTS_FILE, Results, identified, read_results, write_results
from mmrobust.storage.tasks import REGRESSION

RESULTS_PATIENCE = 600.0
"""Seconds that one share of an evaluation waits for another that is writing the table."""


def evaluate(
    model: Any,
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
    out: str | Path | None = None,
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """Evaluate a model over a grid, in memory or into a results folder.

    Args:
        model: a classifier, as returned by :func:`mmrobust.load`, a checkpoint or a :class:`mmrobust.Model`.
        dataset: a data set, or its folder.
        scenarios: names; ``None``: every missing-modality scenario of the model's modalities, or none if a missing
            table is given.
        rates: missing rates in [0, 1].
        seeds: mask seeds, or how many of them.
        prompting: ``situation``, ``concat``.
        split: of the data set.
        batch_size: samples per forward pass; does not change the results.
        limit: use only the first N samples.
        noise_profile: how noisy inputs are degraded: ``default`` or ``released``.
        noise_seed: of the noise, independent of the mask seeds.
        workers: processes that decode. A script that uses them needs ``if __name__ == "__main__"``, since they import
            it.
        on_bad_sample: what to do with samples that cannot be read: ``error``, ``missing`` or ``skip``.
        missing_table: a file with a missing table, as an additional scenario.
        out: folder for ``results.parquet`` and ``predictions/``, as ``mmrobust eval`` writes them: predictions that it
            holds are not made again, and other commands read it. ``None``: nothing is stored. A bare classifier cannot
            be stored: load it with :func:`mmrobust.models.checkpoint.load_checkpoint`.
        progress: shows the progress.

    Returns:
        One row per cell and metric: ``scenario``, ``missing_rate``, ``seed``, ``prompting``, ``metric``, ``n``,
        ``n_affected``, ``n_naturally_missing``, ``value``, ``ci_low``, ``ci_high``. With ``out``, all rows of the model
        in that folder, with every column of ``results.parquet``.

    Raises:
        MmrobustError: a name is unknown, or the data do not fit the model or cannot be read.
    """
    model = as_model(model)
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    name = _name_of(model)
    if out is not None:
        if not hasattr(model, "fingerprint"):
            raise UsageError(
                "out: predictions of a bare classifier cannot be stored; give a checkpoint (load_checkpoint)"
            )
        drawn_seeds = mask_seeds(seeds) if isinstance(seeds, int) else tuple(seeds)
        (name,) = told_apart({name: model}, Path(out))
        frame = evaluate_models(
            {name: model},
            dataset,
            Grid(tuple(scenarios or ()), tuple(rates), drawn_seeds, tuple(prompting)),
            Path(out),
            split=split,
            limit=limit,
            missing_tables=[Path(missing_table)] if missing_table else [],
            noise=Noise(noise_profile, noise_seed),
            on_bad_sample=on_bad_sample,
            settings=PredictionSettings(batch_size=batch_size, workers=workers),
            progress=progress,
        ).frame
        return frame[frame["checkpoint"] == name].reset_index(drop=True)
    check_fits(model, dataset, name)
    tables = given_tables([missing_table] if missing_table else [], dataset.split(split), model.modalities)
    grid = make_grid(model.modalities, scenarios, rates, seeds, prompting, tables)
    samples = select_samples(dataset, split, limit).screened(model.modalities, on_bad_sample, workers, progress)
    drawn, noise = DrawnGrid.draw(grid, samples, model.modalities), Noise(noise_profile, noise_seed)
    used_noise(grid.cases(model.modalities), noise, dataset.info.kinds)

    plan = drawn.plan(model.promptings)
    model.check(plan)
    logits = LogitMatrices(len(drawn.truth.ids), drawn.truth.classes)
    for rows in model.predict(samples, plan, noise, batch_size=batch_size, workers=workers, progress=progress):
        logits.fill(rows.items())
    return score(Predictions(drawn.truth, logits.by_key, promptings=model.promptings), drawn.tables, progress=progress)


def evaluate_models(
    models: Mapping[str, IdentifiedModel],
    dataset: Dataset,
    grid: Grid,
    out: Path,
    *,
    split: str = "test",
    limit: int | None = None,
    missing_tables: Iterable[Path] = (),
    noise: Noise | None = None,
    on_bad_sample: str = ERROR,
    settings: PredictionSettings | None = None,
    scoring: ScoringSettings | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> Results:
    """Evaluate models over a grid into the folder ``out``, or extend the results there.

    Only new predictions are computed. Rows with the same key are replaced; all other rows of ``results.parquet`` stay.
    A name that ``out`` holds for another model is extended (:func:`told_apart`).
    Each model, given under its name, is a checkpoint or whatever else implements the protocol (:func:`as_model` of a
    :class:`mmrobust.Model` does). It is evaluated on :meth:`Grid.of` its modalities; each file of ``missing_tables`` is
    an additional scenario. ``settings`` say how predictions are made (batch size, engine, share of the work, what is
    overwritten), ``scoring`` how they are scored (threshold, absent classes, resamples). ``say`` is called with a
    message for each problem that was found and solved. The other arguments are those of :func:`evaluate`.

    Returns:
        All results of the folder, as written.

    Raises:
        Unfinished: this was one share of the work, and others are not done yet.
        MmrobustError: the data do not fit or cannot be read, ``out`` holds results of other data or other noise, or
            another run is using it.
    """
    started, noise = now(), noise or Noise()
    settings, scoring = settings or PredictionSettings(), scoring or ScoringSettings()

    for name, model in models.items():
        check_fits(model, dataset, name)
    grids = _grids(models, grid, list(missing_tables), dataset.split(split))
    taken = {modality for model in models.values() for modality in model.modalities}
    samples = readable_samples(
        select_samples(dataset, split, limit),
        [modality for modality in dataset.info.modalities if modality in taken],
        on_bad_sample,
        tables=any(one.tables for one in grids.values()),
        workers=settings.workers,
        progress=progress,
    )
    of_grids = (case for modalities, one in grids.items() for case in one.cases(modalities))
    for note in dict.fromkeys(note for one in grids.values() for note in one.notes):
        say(note)
    noise_of_grids = used_noise(of_grids, noise, dataset.info.kinds)
    drawn = {modalities: DrawnGrid.draw(one, samples, modalities) for modalities, one in grids.items()}
    for model in models.values():
        model.check(drawn[model.modalities].plan(model.promptings))

    if settings.overwrite == NEVER:
        refuse_results(out)
    models = told_apart(models, out, say)
    plans = {name: drawn[model.modalities].plan(model.promptings) for name, model in models.items()}
    about, described = about_data(samples), {name: entry_of(model, out) for name, model in models.items()}
    git = git_state()
    with hold_folder(out, next(iter(models.values())).device, settings.share):
        earlier_results(out, about, noise_of_grids, scoring)
        for one in grids.values():
            for table in one.tables:
                keep_table(out, table, samples.ids)
        stores = {
            name: PredictionWriter(
                out,
                drawn[model.modalities].truth,
                prediction_identity(model.fingerprint, model.dtype, samples),
                name=name,
                described=described[name],
                dataset=about,
                git=git,
                noise=dataclasses.asdict(noise),
                say=say,
            )
            for name, model in models.items()
        }
        complete = [
            predict_missing(model, plans[name], stores[name], samples, noise, settings, progress, say)
            for name, model in models.items()
        ]
        if not all(complete):
            raise Unfinished(
                f"{out}: shard {settings.share} is done, others are not yet; the last one writes the table, or the "
                "same command without --shard"
            )
        # Several shares may finish at the same time; they write the same table.
        with hold(out, "results", timeout=RESULTS_PATIENCE):
            earlier = earlier_results(out, about, noise_of_grids, scoring)
            frames = []
            for name, model in models.items():
                frame = score(stores[name].read(), drawn[model.modalities].tables, scoring, progress=progress)
                frames.append(identified(frame, name, described[name], about))
            provenance = results_provenance(
                started,
                dataset=about,
                checkpoints=described,
                noise=noise_of_grids,
                scoring=scoring,
                bad_samples=samples.bad.describe(),
                **merged_shares(*(affected_shares(one.tables, one.truth) for one in drawn.values())),
            )
            changed = outdated(earlier, described)
            for name in changed:
                was = "has changed since the results there were made; its earlier rows are dropped"
                say(f"{out}: '{name}' {was} (their predictions are kept: that model's own eval brings them back)")
            new = pd.concat(frames)
            # Of one whose predictions were made again, nothing is left behind rows of other cells.
            remade = [name for name in described if name not in changed] if settings.overwrite == ALWAYS else []
            if grown(earlier, new, [*changed, *remade]):
                say(f"{out}: intervals of whole curves, as of AUC-η, over rates of several runs: mmrobust score {out}")
            if gone := unbacked(earlier, new, remade):
                say(f"{out}: {gone:,} earlier rows are dropped, since --overwrite {ALWAYS} made only these cells again")
            write_results(out / RESULTS_FILE, *merged(earlier, new, provenance, without=[*changed, *remade]))
            return read_results(out)


def _name_of(model: Any) -> str:
    """The name under which a model is stored, and that messages give it."""
    if hasattr(model, "name"):
        return str(model.name)
    return printable(model.folder.name) if isinstance(model, Checkpoint) else "the classifier"


def _grids(
    models: Mapping[str, IdentifiedModel], grid: Grid, files: Sequence[Path], split: Split
) -> dict[tuple[str, ...], Grid]:
    """Modalities → the grid for models that take them."""
    distinct = dict.fromkeys(model.modalities for model in models.values())
    return {modalities: grid.of(modalities, given_tables(files, split, modalities)) for modalities in distinct}


def check_fits(model: PredictingModel, dataset: Dataset, name: str) -> None:
    """Raise if a model cannot be evaluated on a data set.

    For a model whose classes have no names (an imported checkpoint), only their number and the task must match. A model
    that reorders its classes may have them in any order.

    Raises:
        UsageError: modalities, classes or task differ; the message names both.
    """
    info = dataset.info
    missing = [m for m in model.modalities if m not in info.modalities]
    if missing:
        raise UsageError(
            f"{name}: takes {' + '.join(model.modalities)}, but {dataset.folder} has "
            f"{' + '.join(info.modalities)}: no {' and no '.join(missing)}"
        )
    if not classes_fit(model, info.classes, info.task) and not (
        model.reorders_classes and model.task == info.task and set(model.classes) == set(info.classes)
    ):
        only = ""
        if model.classes_named and model.task == info.task:
            ours, theirs = {*model.classes}, {*info.classes}
            sides = (("model", ours - theirs), ("data", theirs - ours))
            unmatched = [f"'{min(names)}' is only in the {side}" for side, names in sides if names]
            only = f": {', '.join(unmatched)}" if unmatched else ": in another order"
        raise UsageError(
            f"{name}: knows {_about_classes(model.task, model.classes)}, "
            f"{dataset.folder} has {_about_classes(info.task, info.classes)}{only}"
        )


def _about_classes(task: str, classes: Sequence[str]) -> str:
    if task == REGRESSION:
        return f"a number to predict ({classes[0]})"
    return f"{len(classes)} {task} classes ({', '.join(classes[:3])}{' …' if len(classes) > 3 else ''})"
