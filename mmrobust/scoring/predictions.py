"""Predictions as they lie on disk, read back for scoring. No model, no data set, no torch.

Shards are read one after the other into one array for each (case, prompting): beside these, memory holds one shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from mmrobust.cases import CONCAT, Case
from mmrobust.errors import DataError
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import is_given, kept_table
from mmrobust.scoring.metrics import MetricSettings, Outcomes, WeightedTruth, metric_settings
from mmrobust.scoring.shards import ShardChoice, readable, shard_headers
from mmrobust.scoring.truth import Logits, SplitTruth
from mmrobust.storage.results import Results
from mmrobust.storage.shards import PREDICTIONS_FOLDER, Shard, ShardHeader, read_shard


@dataclass(frozen=True)
class StoredPredictions:
    """The predictions of one checkpoint, and what they say of the samples."""

    truth: SplitTruth
    logits: Logits
    """(case name, prompting) → logits [N, C]; a row is NaN where the sample was not predicted."""
    cells: tuple[Cell, ...] = ()
    """The cells of the results that they are behind; none where there are no results."""
    settings: MetricSettings = field(default_factory=MetricSettings)
    """How these results count."""
    name: str = ""
    """The name under which the checkpoint was evaluated."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint, as the provenance of results has it."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """The data, as the provenance of results have them."""
    noise: Mapping[str, Any] | None = None
    """Profile and seed behind the degraded cases, where there are any."""

    def outcomes(self, logits: npt.NDArray[np.float32], weighted: WeightedTruth) -> Outcomes:
        """These ``logits`` beside the truth, to give to a metric."""
        return Outcomes(logits, weighted, self.truth.task == "multi-label", self.settings)

    def predicted(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """[N, C]: whether the class is predicted."""
        unweighted = WeightedTruth(np.empty((0, self.truth.classes), dtype=np.bool_), np.empty((0, 0)))
        return self.outcomes(logits, unweighted).predicted

    def ordered_as(self, ids: Sequence[str]) -> StoredPredictions:
        """The same predictions, with the samples in the order of ``ids``.

        Raises:
            DataError: they are not of these samples.
        """
        if tuple(ids) == self.truth.ids:
            return self
        place = {sample: position for position, sample in enumerate(self.truth.ids)}
        absent = [sample for sample in ids if sample not in place]
        if absent or len(ids) != len(place):
            said = f"sample '{absent[0]}' is not among them" if absent else f"they are of {len(place)}, not {len(ids)}"
            raise DataError(f"the predictions are of other samples: {said}")
        order = [place[sample] for sample in ids]
        truth, natural = self.truth, self.truth.natural
        ordered = replace(
            truth,
            ids=tuple(ids),
            labels=tuple(truth.labels[i] for i in order),
            natural=None if natural is None else tuple(natural[i] for i in order),
        )
        logits = {key: values[order] for key, values in self.logits.items()}
        return replace(self, truth=ordered, logits=logits)

    def beside(self, other: StoredPredictions) -> StoredPredictions:
        """The same predictions, with the samples in the order of ``other``'s.

        Raises:
            DataError: they are not of the same samples, or say otherwise of them.
        """
        ordered = self.ordered_as(other.truth.ids)
        for what in ("labels", "natural", "task", "modalities"):
            if getattr(ordered.truth, what) != getattr(other.truth, what):
                of = f" of '{self.name}'" if self.name else ""
                raise DataError(f"the predictions{of} are not of the same samples: their {what} differ")
        return ordered


def read_predictions(
    folder: Path, results: Results | None = None, say: Say = say_nothing
) -> Iterator[StoredPredictions]:
    """The predictions under ``folder``, one checkpoint after the other: of every one that the results name.

    Args:
        folder: a results folder.
        results: what it holds; ``None``: there are none, and every checkpoint's predictions are read.
        say: told of shards that cannot be used, which are left out.

    Raises:
        DataError: there are none, some checkpoint has none, or what is there does not make a whole.
    """
    headers = shard_headers(folder, say)
    if not headers:
        raise DataError(
            f"{folder}: holds no predictions; make them with: mmrobust eval CHECKPOINT --data DIR --out {folder}"
        )
    if results is None:
        _refuse_schema_1(headers)
        return (_read(one, say) for one in ShardChoice.all_of(folder, headers))
    chosen = [ShardChoice.behind(folder, results, name, headers) for name in results.provenance["checkpoints"]]
    for one in chosen:
        if not one.shards:
            raise DataError(f"{folder}: holds no predictions of '{one.name}'; run mmrobust eval again with it")
        _refuse_schema_1(one.shards)
    return (_read(one, say) for one in chosen)


def _refuse_schema_1(headers: Sequence[ShardHeader]) -> None:
    if old := [header for header in headers if not header.placed or "described" not in header.provenance]:
        raise DataError(
            f"{old[0].path}: predictions of schema 1 do not say all that scoring asks for; run the mmrobust eval that "
            "made them once more: it brings them up to date"
        )


def predictions_behind(path: Path, results: Results, checkpoint: str) -> StoredPredictions:
    """The predictions behind the results of one checkpoint.

    Args:
        path: the results file or its folder; the shards lie in ``predictions/`` beside ``results.parquet``.
        results: what was read from it.
        checkpoint: its name in the results.

    Raises:
        DataError: there are none, they cannot be read, or they are of other samples than the results.
    """
    folder = path if path.is_dir() else path.parent
    chosen = ShardChoice.behind(folder, results, checkpoint, shard_headers(folder))
    if not chosen.shards:
        raise DataError(f"{folder / PREDICTIONS_FOLDER}: holds no predictions of '{checkpoint}'")
    return _read(chosen)


def _read(chosen: ShardChoice, say: Say | None = None) -> StoredPredictions:
    """What the shards of one checkpoint are together."""
    folder, name, size = chosen.folder, chosen.name, chosen.size
    classes, modalities = len(chosen.dataset["classes"]), tuple(chosen.described.get("modalities") or ())
    if size > (rows := sum(header.rows for header in chosen.shards)):  # before room is made for as many
        raise DataError(
            f"{folder}: holds {rows} predictions of '{name}', which is evaluated on {size} samples; "
            "run the same mmrobust eval again: it makes those that lack"
        )
    if "task" not in chosen.dataset:
        raise DataError(f"{folder}: its results do not name the task of their data; run mmrobust eval again")
    placed = all(header.placed for header in chosen.shards)
    places = None if placed else _places(chosen)
    ids: list[str] = [""] * size
    labels: list[tuple[int, ...]] = [()] * size
    natural = ["complete"] * size
    known = np.zeros(size, dtype=np.bool_)
    logits: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
    for read in readable((header.path for header in chosen.shards), read_shard, say):
        if read.logits.shape[1] != classes:
            raise DataError(f"{read.path}: holds {read.logits.shape[1]} logits of a sample, not {classes}")
        shard = (read if places is None else read.placed(places)).within(size)
        for place, sample, label, case in _new_samples(shard, known):
            if label and not 0 <= min(label) <= max(label) < classes:
                raise DataError(f"{read.path}: sample '{sample}' is of class {max(label)}, and there are {classes}")
            ids[place], labels[place], natural[place] = sample, label, case
        for key, (positions, values) in shard.by_case():
            if key not in logits:
                logits[key] = np.full((size, classes), np.nan, dtype=np.float32)
            logits[key][positions] = values
    if not known.all():
        raise DataError(
            f"{folder}: holds predictions of {known.sum()} of the {size} samples that '{name}' is evaluated on; "
            "run the same mmrobust eval again: it makes those that lack"
        )
    cases = _parsed(natural, modalities) if placed else _most_present(chosen, logits, modalities)
    truth = SplitTruth(tuple(ids), tuple(labels), modalities, classes, chosen.dataset["task"], cases)
    return _with_results(StoredPredictions(truth, logits), chosen)


def cells_of(rows: pd.DataFrame) -> tuple[Cell, ...]:
    """The cells that rows of results are of, sorted."""
    keys = rows[["scenario", "missing_rate", "seed", "prompting"]].drop_duplicates()
    return tuple(sorted(Cell(*key) for key in keys.itertuples(index=False, name=None)))


def _with_results(read: StoredPredictions, chosen: ShardChoice) -> StoredPredictions:
    """The same with what the results say, and with what prompting makes no difference to under both."""
    cells: tuple[Cell, ...] = ()
    truth, results = read.truth, chosen.results
    if results is not None:
        rows = results.frame[results.frame["checkpoint"] == chosen.name]
        cells = cells_of(rows)
        given = [scenario for scenario in rows["scenario"].unique() if is_given(scenario)]
        tables = (kept_table(chosen.folder, scenario, truth.ids, truth.modalities, truth.natural) for scenario in given)
        truth = replace(truth, tables=tuple(tables))
    # Results of before this was said have cells under a prompting that nothing was predicted under.
    unsaid = any(cell.prompting == CONCAT for cell in cells) and all(told != CONCAT for _, told in read.logits)
    logits = dict(read.logits)
    if not chosen.described.get("depends_on_prompting", not unsaid):
        logits |= {(case, CONCAT): values for (case, _), values in read.logits.items()}
    return StoredPredictions(
        truth,
        logits,
        cells,
        metric_settings(results.provenance) if results else MetricSettings(),
        chosen.name,
        chosen.described,
        chosen.dataset,
        chosen.noise,
    )


def _new_samples(shard: Shard, known: npt.NDArray[np.bool_]) -> Iterator[tuple[int, str, tuple[int, ...], str]]:
    """Place, id, label and natural case of the samples that are not ``known`` yet, and now are."""
    assert shard.position is not None
    places, first = np.unique(shard.position, return_index=True)
    fresh = ~known[places]
    places, rows = places[fresh], pa.array(first[fresh])
    known[places] = True
    natural = ["complete"] * len(places) if shard.natural is None else shard.natural.take(rows).to_pylist()
    samples, labels = shard.id.take(rows).to_pylist(), shard.label.take(rows).to_pylist()
    for place, sample, label, case in zip(places.tolist(), samples, labels, natural, strict=True):
        yield place, sample, tuple(label), case


def _parsed(natural: Sequence[str], modalities: tuple[str, ...]) -> tuple[Case, ...] | None:
    cases = {name: Case.parse(name, modalities) for name in set(natural)}
    return None if set(cases) == {"complete"} else tuple(cases[name] for name in natural)


# Schema 1 says neither where a sample stands nor what it lacks by nature.


def _places(chosen: ShardChoice) -> dict[str, int]:
    """The samples in the order in which the shards name them.

    Raises:
        DataError: they are of another number than the results.
    """
    columns = (read_shard(header.path).id for header in chosen.shards)
    ids = dict.fromkeys(sample for column in columns for sample in column.to_pylist())
    if len(ids) != chosen.size:
        said = f"predictions of '{chosen.name}' are of {len(ids)} samples, its results of {chosen.size}"
        raise DataError(f"{chosen.folder / PREDICTIONS_FOLDER}: {said}")
    return {sample: place for place, sample in enumerate(ids)}


def _most_present(chosen: ShardChoice, logits: Logits, modalities: tuple[str, ...]) -> tuple[Case, ...] | None:
    """The case of each sample by nature: of those that it was predicted in, the one in which most is present.

    That is so wherever some cell left the sample unaffected. Where none did, a cell scored again differs from the
    results, which whoever pairs predictions checks.
    """
    results = chosen.results
    assert results is not None  # without results, schema 1 is refused
    if not int(results.frame.loc[results.frame["checkpoint"] == chosen.name, "n_naturally_missing"].max()):
        return None
    cases = {name: Case.parse(name, modalities) for name, _ in logits}
    natural: list[Case] = [Case.complete(modalities)] * chosen.size
    for name in sorted(cases, key=lambda name: (len(cases[name].present), not cases[name].degraded)):
        for (other, _), values in logits.items():
            if other == name:
                for position in np.flatnonzero(~np.isnan(values[:, 0])):
                    natural[position] = cases[name].without_noise()
    return tuple(natural)
