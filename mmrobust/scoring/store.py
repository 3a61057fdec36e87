"""The predictions in a results folder, for whoever writes or reads them. No model, no data set, no torch.

A shard is a Parquet file ``predictions/{identity}-{first sample}-{content}.parquet`` with predictions of one model on
one split. Its identity is a hash of everything that decides a logit apart from the case and the prompting, which stand
in its rows, so shards of several models share a folder and none is ever mistaken for another's. The rest of its name
says what is in it: the same predictions made again replace themselves.

Whoever predicts knows the identity and finds the shards by their names (:class:`PredictionWriter`). Whoever reads knows
only what results say of a model, and finds the shards by what they say of themselves (:meth:`PredictionStore.behind`).
Logits stay on disk until :meth:`PredictionStore.read`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from mmrobust.cases import CONCAT, PROMPTINGS, SITUATION, Case
from mmrobust.errors import DataError, NewerFormatError
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import is_given, kept_table
from mmrobust.scoring.metrics import MetricSettings, metric_settings
from mmrobust.scoring.predictions import LogitMatrices, Predictions
from mmrobust.scoring.truth import Key, SplitTruth
from mmrobust.storage.results import (
    PREDICTIONS_FOLDER,
    Results,
    Shard,
    ShardHeader,
    read_shard,
    read_shard_header,
)

_IDENTITY = ("checkpoint", "dataset", "split", "dtype")
"""What the shards of one model on one split have in common, as they say it."""
_T = TypeVar("_T")


class PredictionStore:
    """The predictions of one model on one split that a results folder holds.

    Args:
        folder: the results folder; the shards lie in ``predictions/`` under it.
        name: under which the model was evaluated.
        described: the model, as the provenance of results describes it.
        dataset: the data, as the provenance of results describes them.
        noise: profile and seed behind the degraded cases, if there are any.
        size: how many samples of the split are asked for, from the first.
        shards: what its shards say of themselves.
        results: the results that the predictions are behind; ``None``: there are none.
        say: told of shards that cannot be read, which are left out; ``None``: such a shard is an error.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        described: Mapping[str, Any],
        dataset: Mapping[str, Any],
        noise: Mapping[str, Any] | None,
        size: int,
        shards: Sequence[ShardHeader] = (),
        results: Results | None = None,
        say: Say | None = None,
    ) -> None:
        self.folder, self.name, self.described, self.dataset = folder, name, described, dataset
        self.noise, self.size, self.shards, self.results, self._say = noise, size, shards, results, say

    @classmethod
    def every(cls, folder: Path, headers: Iterable[ShardHeader], say: Say | None = None) -> list[PredictionStore]:
        """One store for each model that the shards of a folder without results are of, as they themselves say it.

        Runs with and without ``--limit`` share predictions; the longest knows the most.

        Raises:
            DataError: those of one model are under several noises.
        """
        groups: dict[tuple[str, ...], list[ShardHeader]] = {}
        for header in headers:
            key = (*_identity(header.provenance), _bad_samples(header.provenance))
            groups.setdefault(key, []).append(header)
        stores = []
        for _, shards in sorted(groups.items()):
            said = max((shard.provenance for shard in shards), key=lambda said: int(said["about"]["n"]))
            if len(noises := _noises(shards)) > 1:
                listed = ", ".join(f"{profile} with seed {seed}" for profile, seed in noises)
                raise DataError(
                    f"{folder}: holds predictions of '{said['name']}' under several noises ({listed}), and no results "
                    "that say which one is meant; run the mmrobust eval that is"
                )
            about = {"name": said["name"], "described": said["described"], "dataset": said["about"]}
            noise = {"profile": noises[0][0], "seed": noises[0][1]} if noises else None
            stores.append(cls(folder, **about, noise=noise, size=int(said["about"]["n"]), shards=shards, say=say))
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
        """The store behind the results of one model: of the same checkpoint, data, split, dtype, bad samples and noise.

        Args:
            path: the results file, or its folder.
            results: what was read from it.
            name: of the model in the results.
            headers: of the folder's shards, if they were read before.
            say: as for the class.

        Raises:
            DataError: a shard cannot be read.
        """
        folder = path if path.is_dir() else path.parent
        provenance, rows = results.provenance, results.frame[results.frame["checkpoint"] == name]
        described = provenance.get("checkpoints", {}).get(name) or {}
        dataset = provenance.get("dataset") or {}
        wanted = _identity(
            {
                "checkpoint": described.get("fingerprint"),
                "dataset": dataset.get("fingerprint"),
                "split": dataset.get("split"),
                "dtype": described.get("dtype") or provenance.get("dtype"),
            }
        )
        there = shard_headers(folder) if headers is None else headers
        own = [header for header in there if _identity(header.provenance) == wanted]
        # Positions are of the samples that could be read. The results speak of the last evaluation's; where a model has
        # but one kind, that is its own.
        if len({_bad_samples(header.provenance) for header in own}) > 1:
            own = [header for header in own if _bad_samples(header.provenance) == _bad_samples(provenance)]
        noise, noises = provenance.get("noise"), _noises(own)
        if not noise and len(noises) == 1:
            noise = {"profile": noises[0][0], "seed": noises[0][1]}
        asked = (noise["profile"], noise["seed"]) if noise else None
        own = [header for header in own if _noise(header.provenance) in (None, asked)]
        said: dict[str, Any] = next((h.provenance["described"] for h in own if "described" in h.provenance), {})
        return cls(
            folder,
            name=name,
            described={**said, **described},
            dataset=dataset,
            noise=noise,
            size=int(rows["n"].max()) if len(rows) else int(dataset["n"]),
            shards=own,
            results=results,
            say=say,
        )

    @property
    def paths(self) -> list[Path]:
        """The files of the shards."""
        return [shard.path for shard in self.shards]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the model."""
        return tuple(self.described.get("modalities") or ())

    def read(self) -> Predictions:
        """All predictions.

        Raises:
            DataError: a shard cannot be read, or together they do not hold every sample.
        """
        if self.size > (rows := sum(header.rows for header in self.shards)):  # before room is made for as many
            raise DataError(
                f"{self.folder}: holds {rows} predictions of '{self.name}', which is evaluated on {self.size} samples; "
                "run the same mmrobust eval again: it makes those that are missing"
            )
        if "task" not in self.dataset:
            raise DataError(f"{self.folder}: its results do not name the task of their data; run mmrobust eval again")
        samples, logits = _Samples(self), LogitMatrices(self.size, len(self.dataset["classes"]))
        places = None if all(header.placed for header in self.shards) else _places_of_schema_1(self)
        for read in readable(self.paths, read_shard, self._say):
            if read.logits.shape[1] != logits.classes:
                raise DataError(f"{read.path}: holds {read.logits.shape[1]} logits of a sample, not {logits.classes}")
            shard = (read if places is None else read.placed(places)).within(self.size)
            samples.take(shard)
            logits.take(dict(shard.by_case()))
        natural = samples.natural if places is None else _most_present(self, logits.by_key)
        return self._predictions(samples.truth(natural), logits)

    def _predictions(self, truth: SplitTruth, logits: LogitMatrices) -> Predictions:
        """``logits`` with what the results say of them."""
        cells: tuple[Cell, ...] = ()
        if self.results is not None:
            rows = self.results.frame[self.results.frame["checkpoint"] == self.name]
            cells = cells_of(rows)
            given = [scenario for scenario in rows["scenario"].unique() if is_given(scenario)]
            tables = (kept_table(self.folder, s, truth.ids, truth.modalities, truth.natural) for s in given)
            truth = replace(truth, tables=tuple(tables))
        # Results from before this was recorded have cells under a prompting that nothing was predicted under.
        unsaid = any(cell.prompting == CONCAT for cell in cells) and all(told != CONCAT for _, told in logits.by_key)
        depends = self.described.get("depends_on_prompting", not unsaid)
        return Predictions(
            truth,
            logits.by_key,
            cells,
            PROMPTINGS if depends else (SITUATION,),
            metric_settings(self.results.provenance) if self.results else MetricSettings(),
            self.name,
            self.described,
            self.dataset,
            self.noise,
        )


class _Samples:
    """What shards say of the samples: collected as they are read."""

    def __init__(self, store: PredictionStore) -> None:
        self._store, size = store, store.size
        self._classes = len(store.dataset["classes"])
        self._ids = [""] * size
        self._labels: list[tuple[int, ...]] = [()] * size
        self._natural = ["complete"] * size
        self._known = np.zeros(size, dtype=np.bool_)

    def take(self, shard: Shard) -> None:
        """Learn about the samples of a shard that are new."""
        assert shard.position is not None
        places, first = np.unique(shard.position, return_index=True)
        fresh = ~self._known[places]
        places, rows = places[fresh], pa.array(first[fresh])
        self._known[places] = True
        natural = ["complete"] * len(places) if shard.natural is None else shard.natural.take(rows).to_pylist()
        ids, labels = shard.id.take(rows).to_pylist(), shard.label.take(rows).to_pylist()
        for place, sample, label, case in zip(places.tolist(), ids, labels, natural, strict=True):
            if label and not 0 <= min(label) <= max(label) < self._classes:
                raise DataError(
                    f"{shard.path}: sample '{sample}' is of class {max(label)}, and there are {self._classes}"
                )
            self._ids[place], self._labels[place], self._natural[place] = sample, tuple(label), case

    @property
    def natural(self) -> tuple[Case, ...] | None:
        """The case of each sample before any scenario; ``None`` where all are complete."""
        cases = {name: Case.parse(name, self._store.modalities) for name in set(self._natural)}
        return None if set(cases) == {"complete"} else tuple(cases[name] for name in self._natural)

    def truth(self, natural: tuple[Case, ...] | None) -> SplitTruth:
        """The samples, all of which must be known."""
        store = self._store
        if not self._known.all():
            raise DataError(
                f"{store.folder}: holds predictions of {self._known.sum()} of the {store.size} samples that "
                f"'{store.name}' is evaluated on; run the same mmrobust eval again: it makes those that are missing"
            )
        return SplitTruth(
            tuple(self._ids), tuple(self._labels), store.modalities, self._classes, store.dataset["task"], natural
        )


def read_predictions(folder: Path, results: Results | None = None, say: Say = say_nothing) -> Iterator[Predictions]:
    """The predictions under ``folder``, model by model: of every one that the results name.

    Args:
        folder: a results folder.
        results: what it holds; ``None``: there are none, and the predictions of every model are read.
        say: told of shards that cannot be used, which are left out.

    Raises:
        DataError: there are none, some model has none, or what is there is incomplete.
    """
    headers = shard_headers(folder, say)
    if not headers:
        raise DataError(
            f"{folder}: holds no predictions; make them with: mmrobust eval CHECKPOINT --data DIR --out {folder}"
        )
    if results is None:
        _refuse_schema_1(headers)
        return (store.read() for store in PredictionStore.every(folder, headers, say))
    names = results.provenance["checkpoints"]
    stores = [PredictionStore.behind(folder, results, name, headers, say) for name in names]
    for store in stores:
        if not store.shards:
            raise DataError(f"{folder}: holds no predictions of '{store.name}'; run mmrobust eval again with it")
        _refuse_schema_1(store.shards)
    return (store.read() for store in stores)


def predictions_behind(
    path: Path, results: Results, name: str, headers: Iterable[ShardHeader] | None = None
) -> Predictions:
    """The predictions behind the results of one model. Arguments as for :meth:`PredictionStore.behind`.

    Raises:
        DataError: there are none, they cannot be read, or they are of other samples than the results.
    """
    store = PredictionStore.behind(path, results, name, headers)
    if not store.shards:
        raise DataError(f"{store.folder / PREDICTIONS_FOLDER}: holds no predictions of '{name}'")
    return store.read()


def cells_of(rows: pd.DataFrame) -> tuple[Cell, ...]:
    """The cells that rows of results are of, sorted."""
    keys = rows[["scenario", "missing_rate", "seed", "prompting"]].drop_duplicates()
    return tuple(sorted(Cell(*key) for key in keys.itertuples(index=False, name=None)))


def shard_headers(folder: Path, say: Say | None = None) -> list[ShardHeader]:
    """What every shard under a results folder says of itself; without ``say``, one that cannot be read is an error."""
    return list(readable((folder / PREDICTIONS_FOLDER).glob("*.parquet"), read_shard_header, say))


def readable(paths: Iterable[Path], reader: Callable[[Path], _T], say: Say | None) -> Iterator[_T]:
    """What ``reader`` makes of each file; ``say`` is told of files that it cannot read, which are left out."""
    for path in sorted(paths):
        try:
            yield reader(path)
        except NewerFormatError:  # not damaged: leaving it out would score a part only
            raise
        except DataError as cause:
            if say is None:
                raise
            say(f"{cause}; it is left out")


def _identity(said: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(said.get(key)) for key in _IDENTITY)


def _bad_samples(said: Mapping[str, Any]) -> str:
    """What could not be read of the split, as one text; empty where everything could."""
    bad = said.get("bad_samples") or {}
    return json.dumps(bad, sort_keys=True) if bad.get("number") else ""


def _noise(said: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Profile and seed behind the degraded cases of a shard; ``None`` for one of cases without noise."""
    return (said["noise_profile"], said.get("noise_seed")) if "noise_profile" in said else None


def _noises(shards: Iterable[ShardHeader]) -> list[tuple[Any, Any]]:
    return sorted({noise for shard in shards if (noise := _noise(shard.provenance))})


# Schema 1 says neither where a sample stands nor what it lacks by nature.


def _refuse_schema_1(headers: Sequence[ShardHeader]) -> None:
    if old := [header for header in headers if not header.placed or "described" not in header.provenance]:
        raise DataError(
            f"{old[0].path}: predictions of schema 1 do not say all that scoring needs; run the mmrobust eval that "
            "made them once more: it brings them up to date"
        )


def _places_of_schema_1(store: PredictionStore) -> dict[str, int]:
    """The samples in the order in which the shards name them.

    Raises:
        DataError: they are of another number than the results.
    """
    ids = dict.fromkeys(sample for path in store.paths for sample in read_shard(path).id.to_pylist())
    if len(ids) != store.size:
        said = f"predictions of '{store.name}' are of {len(ids)} samples, its results of {store.size}"
        raise DataError(f"{store.folder / PREDICTIONS_FOLDER}: {said}")
    return {sample: place for place, sample in enumerate(ids)}


def _most_present(store: PredictionStore, logits: Mapping[Key, npt.NDArray[np.float32]]) -> tuple[Case, ...] | None:
    """The natural case of each sample: of those that it was predicted in, the one in which most is present.

    That is right wherever some cell left the sample unaffected. Where none did, a cell scored again differs from the
    results, which whoever pairs predictions checks.
    """
    assert store.results is not None  # without results, schema 1 is refused
    rows = store.results.frame[store.results.frame["checkpoint"] == store.name]
    if not int(rows["n_naturally_missing"].max()):
        return None
    cases = {name: Case.parse(name, store.modalities) for name, _ in logits}
    natural: list[Case] = [Case.complete(store.modalities)] * store.size
    for name in sorted(cases, key=lambda name: (len(cases[name].present), not cases[name].degraded)):
        for (other, _), values in logits.items():
            if other == name:
                for position in np.flatnonzero(~np.isnan(values[:, 0])):
                    natural[position] = cases[name].without_noise()
    return tuple(natural)
