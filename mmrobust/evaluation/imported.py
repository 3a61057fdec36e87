"""Predictions made elsewhere, as a results folder like that of an evaluation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.configuration import plain
from mmrobust.data.dataset import Dataset
from mmrobust.data.selection import ERROR, SelectedSamples, select_samples
from mmrobust.degradations import Noise, check_noise, check_profile
from mmrobust.errors import UsageError
from mmrobust.evaluation.earlier_import import EarlierImport
from mmrobust.evaluation.plan import given_tables, readable_samples, split_truth
from mmrobust.evaluation.prediction_file import FileFormat, FilePredictions, read_prediction_file
from mmrobust.evaluation.results_folder import about_data, earlier_results, hold_folder, merged, prediction_identity
from mmrobust.evaluation.scorable import complete_cells, predicted_promptings, wanted_cells
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.missing_tables import keep_table
from mmrobust.scoring.dependence import affected_shares, merged_shares
from mmrobust.scoring.join import score
from mmrobust.scoring.scales import LOGITS
from mmrobust.scoring.store import IMPORTED
from mmrobust.scoring.truth import Key, Plan, PredictedRows
from mmrobust.scoring.writer import PredictionWriter
from mmrobust.storage.files import sha256
from mmrobust.storage.fingerprints import new_digest
from mmrobust.storage.provenance import git_state, now, results_provenance
from mmrobust.storage.results import RESULTS_FILE, Results, identified, read_results, write_results
from mmrobust.storage.tasks import REGRESSION

DTYPE = "float32"
"""The number format in which logits are kept."""
CASES_NAMED = 4
"""The most cases that a line lists."""


@dataclass(frozen=True)
class Imported:
    """What an import brought."""

    cases: Mapping[str, int]
    """Case → number of predictions in the file: each (sample, case, prompting) once."""
    new: int
    """Predictions that the folder did not hold yet."""
    unneeded: int
    """Predictions in the file that no cell needs."""
    lacking: Mapping[str, int]
    """Case → number of predictions that cells need and the folder does not hold."""
    cells: int
    """Cells that have all of their predictions, and are in the results."""
    incomplete_cells: int
    """Cells that lack some, and are left out."""
    results: Results | None = dataclasses.field(repr=False)
    """The results of the folder; ``None`` where it has no complete cell."""

    def counts(self) -> dict[str, Any]:
        """Everything but the results, in values that JSON can hold."""
        fields = (field.name for field in dataclasses.fields(self) if field.name != "results")
        return {name: plain(getattr(self, name)) for name in fields}


def import_predictions(
    file: Path,
    dataset: Dataset,
    name: str,
    out: Path,
    grid: Grid,
    *,
    modalities: Sequence[str],
    split: str = "test",
    limit: int | None = None,
    scale: str = LOGITS,
    missing_tables: Iterable[Path] = (),
    noise: Noise | None = None,
    on_bad_sample: str = ERROR,
    replace: bool = False,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> Imported:
    """Put predictions that another program made into the results folder ``out``, and score the cells that they allow.

    Several models share a folder. Under a name that is there already, new predictions are added, and every cell that
    is complete now is scored.

    Args:
        file: the predictions; see :func:`mmrobust.evaluation.prediction_file.read_prediction_file`.
        dataset: the data, which give the labels.
        name: what the results call the model.
        out: folder for ``results.parquet`` and ``predictions/``.
        grid: the cells to score. Without scenarios: every missing-modality scenario, and one for each further case that
            there are predictions in.
        modalities: of the model.
        split: of the data set.
        limit: use only the first N samples.
        scale: of the values in the file: ``logits`` or ``probabilities``.
        missing_tables: files with missing tables, each an additional scenario.
        noise: how the degraded inputs were made; its seed is for rows without one.
        on_bad_sample: what to do with samples that cannot be read: ``error`` (they are not looked at), ``missing`` or
            ``skip``.
        replace: replace the predictions under this name, instead of adding to them.
        progress: shows the progress.
        say: called with each line about what is left out or lacking.

    Returns:
        What was imported, and the results.

    Raises:
        DataError: the file cannot be read, or ``out`` cannot be written.
        UsageError: ``out`` holds results of other data or other noise, or a prediction contradicts one that is there.
    """
    started, noise = now(), noise or Noise()
    if not name.strip():
        raise UsageError("--name is empty; give the name that the model is to have in the results")
    if grid.scenarios:
        grid = grid.of(modalities)
    for note in grid.notes:
        say(note)
    given = given_tables(missing_tables, dataset.split(split), modalities)
    samples = readable_samples(
        select_samples(dataset, split, limit), modalities, on_bad_sample, tables=bool(given), progress=progress
    )
    truth, about = split_truth(samples, modalities), about_data(samples)
    read = _read(file, samples, modalities, scale, noise, say)

    with hold_folder(out, "cpu", None):
        before = EarlierImport.find(out, name)
        used_noise = before.noise if read.noise_seed is None and not replace else _noise_of(read, noise)
        fingerprint = _fingerprint(name, read) if replace or not before.fingerprint else before.fingerprint
        described = {
            "fingerprint": fingerprint,
            **dict.fromkeys(("head", "backbone", "device"), ""),
            "method": IMPORTED,
            "modalities": list(modalities),
            "depends_on_prompting": read.tells_promptings,
            "dtype": DTYPE,
            "imported": _files((() if replace else before.files), file, scale, started),
        }
        identity = prediction_identity(fingerprint, DTYPE, samples)
        if before.others or not replace:
            earlier_results(out, about, used_noise, before.scoring)
        if not replace:
            before.check_extension(described, identity, used_noise)
        store = PredictionWriter(
            out,
            truth,
            identity,
            name=name,
            described=described,
            dataset=about,
            git=git_state(),
            noise=plain(used_noise),
            say=say,
        )
        if replace:
            store.clear()
        new = _new_rows(store, read.rows, f"{file}: ", out)
        store.add(new)
        store.flush()

        predictions = store.read()
        cells, tables = wanted_cells(predictions, grid, given, () if replace else before.cells, out)
        drawn = truth.draw(cells, tables)
        plan = {
            (case, p): at
            for case, at in drawn.positions().items()
            for p in predicted_promptings(predictions)
            if len(at)
        }
        lacking = store.missing(plan)
        complete = complete_cells(drawn, lacking, predictions)
        results = before.others
        if complete:
            for table in given:
                keep_table(out, table, samples.ids)
            frame = score(predictions, truth.draw(complete, tables), before.scoring, progress=progress)
            provenance = results_provenance(
                started,
                dataset=about,
                checkpoints={name: described},
                noise=used_noise,
                scoring=before.scoring,
                bad_samples=samples.bad.describe(),
                **merged_shares(affected_shares(truth.draw(complete, tables), truth)),
            )
            results = Results(*merged(before.others, identified(frame, name, described, about), provenance))
        if results is None:
            (out / RESULTS_FILE).unlink(missing_ok=True)
        else:
            write_results(out / RESULTS_FILE, *results)
            results = read_results(out)
        before.remove_other_than(fingerprint)
    imported = Imported(
        cases=_by_case({key: positions for key, (positions, _) in read.rows.items()}),
        new=sum(len(positions) for positions, _ in new.values()),
        unneeded=sum(int((~np.isin(at, plan.get(key, ()))).sum()) for key, (at, _) in read.rows.items()),
        lacking=_by_case(lacking),
        cells=len(complete),
        incomplete_cells=len(cells) - len(complete),
        results=results,
    )
    _say_lacking(imported, name, plan, {key: truth.ids[at[0]] for key, at in lacking.items()}, say)
    return imported


def _read(
    file: Path, samples: SelectedSamples, modalities: Sequence[str], scale: str, noise: Noise, say: Say
) -> FilePredictions:
    info = samples.split.info
    form = FileFormat(
        ids=samples.ids,
        modalities=tuple(modalities),
        classes=info.classes,
        several=info.task == "multi-label",
        numbers=info.task == REGRESSION,
        where=f"split '{samples.split.name}' of {samples.split.dataset.folder}",
        scale=scale,
        noise_seed=noise.seed,
    )
    read = read_prediction_file(file, form)
    cases = [Case.parse(case, modalities) for case in {case for case, _ in read.rows}]
    check_profile(cases, noise, info.kinds)
    for case in cases:
        check_noise(case, info.kinds)
    for note in read.notes:
        say(f"{file}: {note}")
    return read


def _files(earlier: Sequence[Mapping[str, Any]], file: Path, scale: str, at: str) -> list[Mapping[str, Any]]:
    """The files that were imported, each once."""
    entry = {"file": file.name, "sha256": sha256(file), "scale": scale}
    known = any(all(one.get(key) == value for key, value in entry.items()) for one in earlier)
    return [*earlier, *(() if known else ({**entry, "at": at},))]


def _noise_of(read: FilePredictions, noise: Noise) -> Noise | None:
    """The noise of the predictions; ``None`` where none of their cases is degraded."""
    return None if read.noise_seed is None else Noise(noise.profile, read.noise_seed)


def _fingerprint(name: str, read: FilePredictions) -> str:
    """The identity of an imported model: its name and the predictions that came first."""
    digest = new_digest()
    digest.update(f"{IMPORTED}/{name}".encode())
    for key, (positions, logits) in read.rows.items():
        digest.update(f"/{key}/".encode() + positions.tobytes() + logits.tobytes())
    return digest.hexdigest()


def _new_rows(store: PredictionWriter, rows: PredictedRows, place: str, out: Path) -> PredictedRows:
    """The rows that the store does not hold yet.

    Raises:
        UsageError: one contradicts a prediction that it holds.
    """
    missing = store.missing({key: positions for key, (positions, _) in rows.items()})
    stored, new = store.read(), {}
    for (case, prompting), (positions, logits) in rows.items():
        added = np.isin(positions, missing.get((case, prompting), ()))
        known = positions[~added]
        if len(known):
            differs = (stored.logits[case, prompting][known] != logits[~added]).any(axis=1)
            if differs.any():
                sample = stored.truth.ids[int(known[int(differs.argmax())])]
                raise UsageError(
                    f"{place}its prediction of sample '{sample}' in case '{case}' is not the one that {out} holds of "
                    f"'{store.name}' ({int(differs.sum()):,} differ in this case); give another --name, or --replace "
                    "to drop the earlier ones"
                )
        if added.any():
            new[case, prompting] = (positions[added], logits[added])
    return new


def _by_case(plan: Mapping[Key, npt.NDArray[np.int64]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (case, _), positions in plan.items():
        counts[case] += len(positions)
    return dict(counts)


def _say_lacking(imported: Imported, name: str, plan: Plan, examples: Mapping[Key, str], say: Say) -> None:
    """Say what is too many and what lacks."""
    if imported.unneeded:
        say(f"'{name}': {imported.unneeded:,} predictions that no cell needs are kept")
    if not imported.lacking:
        return
    example = {case: sample for (case, _), sample in examples.items()}
    cases = [f"{case} {count:,} (such as '{example[case]}')" for case, count in imported.lacking.items()]
    more = ["…"] if len(cases) > CASES_NAMED else []
    every = imported.cells + imported.incomplete_cells
    say(
        f"'{name}' lacks {sum(imported.lacking.values()):,} of the {sum(map(len, plan.values())):,} predictions that "
        f"these cells need: {', '.join(cases[:CASES_NAMED] + more)}; {imported.incomplete_cells:,} of {every:,} cells "
        "are left out until they are imported too"
    )
