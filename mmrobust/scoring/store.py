"""The predictions in a results folder. No model, no data set, no torch.

A shard is a Parquet file ``predictions/{identity}-{first sample}-{content}.parquet`` with predictions of one model on
one split. Its identity is a hash of everything that determines a logit except the case and the prompting, which are
columns, so several models can share a folder without confusion. The rest of the name identifies the content: the same
predictions made again replace the file.

A writer knows the identity and finds its shards by name (:class:`mmrobust.scoring.writer.PredictionWriter`). A reader
knows only the provenance of the results, and finds the shards by their metadata (:meth:`PredictionStore.behind`).
Logits stay on disk until :meth:`PredictionStore.read`.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from mmrobust.cases import CONCAT, PROMPTINGS, SITUATION, Case
from mmrobust.errors import DataError, NewerFormatError, NoPredictionsError
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import is_given, kept_table
from mmrobust.scoring import schema_1
from mmrobust.scoring.metrics import MetricSettings, metric_settings
from mmrobust.scoring.predictions import LogitMatrices, Predictions
from mmrobust.scoring.truth import Logits, SplitTruth
from mmrobust.storage.files import files_in
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.storage.results import Results
from mmrobust.storage.shards import PREDICTIONS_FOLDER, Shard, ShardHeader, read_shard, read_shard_header
from mmrobust.storage.tasks import REGRESSION, Label

IMPORTED = "imported"
"""The method of a model whose predictions were made elsewhere."""
_IDENTITY = ("checkpoint", "dataset", "split", "dtype")
"""The metadata that all shards of one model on one split share."""
_Sample = tuple[str, Label, str, str | None]
"""Id, label, natural case and group."""
_T = TypeVar("_T")


@dataclass
class PredictionStore:
    """The predictions of one model on one split that a results folder holds, in its ``predictions/``."""

    folder: Path
    name: str
    """The name under which the model was evaluated."""
    described: Mapping[str, Any]
    """The model, as the provenance of results describes it."""
    dataset: Mapping[str, Any]
    """The data, as the provenance of results describes them."""
    noise: Mapping[str, Any] | None
    """Profile and seed of the noise of the degraded cases, if there are any."""
    size: int
    """Number of samples, from the start of the split."""
    shards: Sequence[ShardHeader] = ()
    results: Results | None = None
    """The results made from the predictions, if there are any."""
    say: Say | None = None
    """Called with a message for each shard that cannot be read, which is left out; ``None``: raise instead."""

    @classmethod
    def every(cls, folder: Path, headers: Iterable[ShardHeader], say: Say | None = None) -> list[PredictionStore]:
        """One store for each model in a folder without results, from the metadata of its shards.

        Runs with and without ``--limit`` share predictions; the metadata of the largest run is used.

        Raises:
            DataError: one model has predictions under several noises.
        """
        groups: dict[tuple[str, ...], list[ShardHeader]] = {}
        for header in headers:
            groups.setdefault((*_identity(header.provenance), _bad_samples(header.provenance)), []).append(header)
        stores = []
        for _, shards in sorted(groups.items()):
            largest = max((shard.provenance for shard in shards), key=lambda provenance: int(provenance["about"]["n"]))
            name, described, dataset = (largest[key] for key in ("name", "described", "about"))
            if len(noises := _noises(shards)) > 1:
                listed = ", ".join(f"{noise['profile']} with seed {noise['seed']}" for noise in noises)
                raise DataError(
                    f"{folder}: holds predictions of '{name}' under several noises ({listed}), and no "
                    "results to choose between them; run mmrobust eval again with the noise that you mean"
                )
            noise = noises[0] if noises else None
            stores.append(cls(folder, name, described, dataset, noise, int(dataset["n"]), shards, say=say))
        number = Counter(store.name for store in stores)
        for store in stores:  # one name for two models would make one table of both
            if number[store.name] > 1:
                of = store.shards[0].provenance
                identity = fingerprint_settings({"model": _identity(of), "bad_samples": _bad_samples(of)})
                store.name = f"{store.name}@{identity[:8]}"
        return stores

    @classmethod
    def behind(
        cls,
        path: Path,
        results: Results,
        name: str,
        headers: Iterable[ShardHeader] | None = None,
        say: Say | None = None,
    ) -> PredictionStore:
        """The predictions from which the results of one model were made.

        They are of the same checkpoint, data, split, dtype, bad samples and noise. ``path`` is the results file or its
        folder, ``results`` what was read from it, and ``headers`` are those of the shards there, if already read.

        Raises:
            DataError: a shard cannot be read.
        """
        folder = path if path.is_dir() else path.parent
        provenance, rows = results.provenance, results.frame[results.frame["checkpoint"] == name]
        described = provenance.get("checkpoints", {}).get(name) or {}
        dataset = provenance.get("dataset") or {}
        identity = _identity(
            {
                "checkpoint": described.get("fingerprint"),
                "dataset": dataset.get("fingerprint"),
                "split": dataset.get("split"),
                "dtype": described.get("dtype") or provenance.get("dtype"),
            }
        )
        headers = shard_headers(folder) if headers is None else headers
        shards = [header for header in headers if _identity(header.provenance) == identity]
        # Positions count the samples that could be read. The results record the bad samples of the last evaluation;
        # where all shards of a model agree, theirs count.
        if len({_bad_samples(header.provenance) for header in shards}) > 1:
            shards = [header for header in shards if _bad_samples(header.provenance) == _bad_samples(provenance)]
        noises = _noises(shards)
        noise = provenance.get("noise") or (noises[0] if len(noises) == 1 else None)
        shards = [header for header in shards if _noise(header.provenance) in (None, noise)]
        of_shards: dict[str, Any] = next((h.provenance["described"] for h in shards if "described" in h.provenance), {})
        size = int(rows["n"].max()) if len(rows) else int(dataset["n"])
        return cls(folder, name, {**of_shards, **described}, dataset, noise, size, shards, results, say)

    @property
    def paths(self) -> list[Path]:
        """The files of the shards."""
        return [shard.path for shard in self.shards]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the model."""
        return tuple(self.described.get("modalities") or ())

    @property
    def way_out(self) -> str:
        """How predictions that lack are added, for a message."""
        if self.described.get("method") == IMPORTED:
            return f"add the missing ones with: {import_command(self.name, self.folder)}"
        return "run the same mmrobust eval again to make the missing ones"

    @property
    def _rows(self) -> pd.DataFrame:
        """The results of the model."""
        assert self.results is not None
        return self.results.frame[self.results.frame["checkpoint"] == self.name]

    def read(self) -> Predictions:
        """Read all predictions.

        Raises:
            DataError: a shard cannot be read, or together they do not cover every sample.
        """
        if self.size > (rows := sum(header.rows for header in self.shards)):  # before memory for them is allocated
            raise DataError(
                f"{self.folder}: holds {rows} predictions of '{self.name}', which is evaluated on {self.size} samples; "
                f"{self.way_out}"
            )
        if "task" not in self.dataset:
            raise DataError(f"{self.folder}: its results do not name the task of their data; run mmrobust eval again")
        samples, logits = dict[int, _Sample](), LogitMatrices(self.size, len(self.dataset["classes"]))
        places = None
        if not all(header.placed for header in self.shards):
            places = schema_1.places_of(self.paths, self.size, f"predictions of '{self.name}'")
        for shard in readable(self.paths, read_shard, self.say):
            if shard.logits.shape[1] != logits.classes:
                raise DataError(f"{shard.path}: holds {shard.logits.shape[1]} logits per sample, not {logits.classes}")
            needed = (shard if places is None else shard.placed(places)).within(self.size)
            samples |= _further_samples(needed, samples, logits.classes, self.dataset["task"] == REGRESSION)
            logits.fill(needed.by_case())
            del shard, needed  # or they would be in memory beside the next shard
            pa.default_memory_pool().release_unused()
        if len(samples) < self.size:
            raise DataError(
                f"{self.folder}: holds predictions of {len(samples)} of the {self.size} samples that "
                f"'{self.name}' is evaluated on; {self.way_out}"
            )
        ids, labels, cases, groups = zip(*(samples[place] for place in range(self.size)), strict=True)
        by_name = {name: Case.parse(name, self.modalities) for name in set(cases)}
        natural = None if set(by_name) == {"complete"} else tuple(by_name[name] for name in cases)
        if places is not None:
            natural = schema_1.natural_cases(self._rows, self.modalities, self.size, logits.by_key)
        truth = SplitTruth(
            ids,
            labels,
            self.modalities,
            logits.classes,
            self.dataset["task"],
            natural,
            groups=None if None in groups else groups,
            names=tuple(self.dataset["classes"]),
        )
        return self._predictions(truth, logits.by_key)

    def _predictions(self, truth: SplitTruth, logits: Logits) -> Predictions:
        """``logits`` with the metadata of the results."""
        cells: tuple[Cell, ...] = ()
        if self.results is not None:
            cells = cells_of(self._rows)
            given = [scenario for scenario in self._rows["scenario"].unique() if is_given(scenario)]
            tables = (kept_table(self.folder, s, truth.ids, truth.modalities, truth.natural) for s in given)
            truth = replace(truth, tables=tuple(tables))
        # Results from before this was recorded have concat cells without concat predictions.
        concat_cells = any(cell.prompting == CONCAT for cell in cells)
        concat_predicted = any(prompting == CONCAT for _, prompting in logits)
        depends = self.described.get("depends_on_prompting", concat_predicted or not concat_cells)
        return Predictions(
            truth,
            logits,
            cells,
            PROMPTINGS if depends else (SITUATION,),
            metric_settings(self.results.provenance) if self.results else MetricSettings(),
            self.name,
            self.described,
            self.dataset,
            self.noise,
        )


def _further_samples(shard: Shard, known: Container[int], classes: int, numbers: bool) -> dict[int, _Sample]:
    """The samples of a shard that are not ``known`` yet, by position; their labels are classes, or ``numbers``."""
    assert shard.position is not None
    places, first = (found.tolist() for found in np.unique(shard.position, return_index=True))
    new = {place: row for place, row in zip(places, first, strict=True) if place not in known}
    rows = pa.array(new.values(), pa.int64())
    natural = ["complete"] * len(new) if shard.natural is None else shard.natural.take(rows).to_pylist()
    ids, labels = shard.id.take(rows).to_pylist(), shard.label.take(rows).to_pylist()
    for sample, label in zip(ids, labels, strict=True):
        if numbers:
            if not all(map(math.isfinite, label)):
                raise DataError(f"{shard.path}: the label of sample '{sample}' is not a finite number")
        elif label and not 0 <= min(label) <= max(label) < classes:
            raise DataError(f"{shard.path}: sample '{sample}' has class {max(label)}, but there are {classes} classes")
    if not numbers and pa.types.is_floating(shard.label.type.value_type):
        raise DataError(f"{shard.path}: its labels are numbers, but its data set has classes")
    groups = [None] * len(new) if shard.group is None else shard.group.take(rows).to_pylist()
    return dict(zip(new, zip(ids, map(tuple, labels), natural, groups, strict=True), strict=True))


def read_predictions(folder: Path, results: Results | None = None, say: Say = say_nothing) -> Iterator[Predictions]:
    """Read the predictions in ``folder``, model by model.

    The ``results`` there name the models; if there are none, every model is read. ``say`` is called with a message for
    each shard that cannot be used, which is left out.

    Raises:
        DataError: there are no predictions, or a model has none or not all.
    """
    headers = shard_headers(folder, say)
    if not headers:
        raise DataError(
            f"{folder}: holds no predictions; make them with: mmrobust eval CHECKPOINT --data DIR --out {folder}"
        )
    if results is None:
        schema_1.refuse(headers)
        return (store.read() for store in PredictionStore.every(folder, headers, say))
    names = results.provenance["checkpoints"]
    stores = [PredictionStore.behind(folder, results, name, headers, say) for name in names]
    for store in stores:
        if not store.shards:
            raise DataError(f"{folder}: holds no predictions of '{store.name}'; run mmrobust eval again with it")
        schema_1.refuse(store.shards)
    return (store.read() for store in stores)


def predictions_behind(path: Path, results: Results, name: str) -> Predictions:
    """Read the predictions from which the results of one model were made; see :meth:`PredictionStore.behind`.

    Raises:
        NoPredictionsError: there are none.
        DataError: they cannot be read, or they are of other samples or of another checkpoint than the results.
    """
    headers = shard_headers(path if path.is_dir() else path.parent)
    store = PredictionStore.behind(path, results, name, headers)
    if store.shards:
        return store.read()
    shards = store.folder / PREDICTIONS_FOLDER
    names = dict.fromkeys(results.frame["checkpoint"])
    known = {shard.path for of in names for shard in PredictionStore.behind(path, results, of, headers).shards}
    if strangers := sorted(header.path for header in headers if header.path not in known):
        # Whoever alters the fingerprint in a table must not thereby get rid of the predictions behind it.
        raise DataError(
            f"{strangers[0]}: no checkpoint of the results made these predictions, and there are none of '{name}': "
            "fingerprint, data, split, dtype or noise differ; evaluate again, or remove what belongs to other results"
        )
    raise NoPredictionsError(f"{shards}: holds no predictions of '{name}'")


def import_command(name: str, folder: Path) -> str:
    """The command that adds predictions to those of an imported model."""
    return f"mmrobust import predictions FILE --data DIR --name {shlex.quote(name)} --out {folder}"


def cells_of(rows: pd.DataFrame) -> tuple[Cell, ...]:
    """The cells of some rows of results, sorted."""
    keys = rows[["scenario", "missing_rate", "seed", "prompting"]].drop_duplicates()
    return tuple(sorted(Cell(*key) for key in keys.itertuples(index=False, name=None)))


def shard_headers(folder: Path, say: Say | None = None) -> list[ShardHeader]:
    """The headers of all shards in a results folder; ``say`` as for :func:`readable`."""
    return list(readable(files_in(folder / PREDICTIONS_FOLDER, "*.parquet"), read_shard_header, say))


def readable(paths: Iterable[Path], reader: Callable[[Path], _T], say: Say | None) -> Iterator[_T]:
    """Read each file. A damaged one is left out with a message to ``say``, or raises without ``say``.

    Raises:
        ReadError: the system did not read one: without it, only some of the predictions would be scored.
    """
    for path in sorted(paths):
        try:
            yield reader(path)
        except NewerFormatError:  # not damaged: without it, only some of the samples would be scored
            raise
        except DataError as cause:
            if say is None:
                raise
            say(f"{cause}; it is left out")


def _identity(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(provenance.get(key)) for key in _IDENTITY)


def _bad_samples(provenance: Mapping[str, Any]) -> str:
    """The samples that could not be read, as JSON; empty where there are none."""
    bad = provenance.get("bad_samples") or {}
    return json.dumps(bad, sort_keys=True) if bad.get("number") else ""


def _noise(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """Profile and seed of the noise in a shard; ``None`` for a shard of cases without noise."""
    if "noise_profile" not in provenance:
        return None
    return {"profile": provenance["noise_profile"], "seed": provenance["noise_seed"]}


def _noises(shards: Iterable[ShardHeader]) -> list[dict[str, Any]]:
    found = {tuple(noise.values()): noise for shard in shards if (noise := _noise(shard.provenance))}
    return [found[key] for key in sorted(found)]
