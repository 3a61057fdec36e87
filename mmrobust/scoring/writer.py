"""The predictions of one model while they are made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmrobust.cases import Case
from mmrobust.errors import DataError, NewerFormatError
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scoring.predictions import LogitMatrices, Predictions
from mmrobust.scoring.store import PredictionStore
from mmrobust.scoring.truth import Key, Plan, PredictedRows, SplitTruth
from mmrobust.storage.fingerprints import fingerprint_settings, new_digest
from mmrobust.storage.results import (
    PREDICTIONS_FOLDER,
    PREDICTIONS_SCHEMA,
    Shard,
    read_shard,
    read_shard_header,
    write_shard,
)

FLUSH_SECONDS = 5.0
FLUSH_ROWS = 2**15
"""Predictions are written when this much time has passed since the last time, or when there are this many: what a
killed run loses, and how many files a fast one makes."""


class PredictionWriter(PredictionStore):
    """A store to which predictions are added while they are made.

    Predictions in degraded cases depend on the noise, all others are valid under any: a shard holds one kind or the
    other.

    Args:
        folder: the results folder.
        truth: the samples.
        identity: everything that decides a logit apart from case, prompting and noise (fingerprints of checkpoint and
            data, split, dtype …): plain values.
        name: as for :class:`PredictionStore`, and so for ``described``, ``dataset`` and ``noise``.
        described: see ``name``.
        dataset: see ``name``.
        noise: see ``name``.
        say: told of each shard that cannot be used, whose predictions are made again.
    """

    def __init__(
        self,
        folder: Path,
        truth: SplitTruth,
        identity: Mapping[str, Any],
        *,
        name: str,
        described: Mapping[str, Any],
        dataset: Mapping[str, Any],
        noise: Mapping[str, Any] | None = None,
        say: Say = say_nothing,
    ) -> None:
        super().__init__(folder, name=name, described=described, dataset=dataset, noise=noise, size=len(truth.ids))
        self._truth, self._report = truth, say
        under = {f"noise_{key}": value for key, value in (noise or {}).items()}
        self._identities: dict[bool, Mapping[str, Any]] = {False: identity, True: {**identity, **under}}
        self._names = {degraded: fingerprint_settings(said) for degraded, said in self._identities.items()}
        self._waiting: dict[bool, list[PredictedRows]] = {False: [], True: []}
        self._flushed = time.monotonic()
        self._ids = pa.array(truth.ids, pa.string())
        self.refresh()

    def refresh(self) -> None:
        """Look at what the folder holds: other processes may have added predictions.

        Raises:
            NewerFormatError: a shard was written by a newer mmrobust.
        """
        self._there: dict[Key, npt.NDArray[np.bool_]] = {}
        for path, degraded in self._paths():
            try:
                shard = self._read(path, degraded)
            except NewerFormatError:  # good for whoever wrote it
                raise
            except DataError as cause:
                self._report(f"{cause}; its predictions are made again")
                path.unlink(missing_ok=True)
                continue
            rows = dict(shard.by_case())
            for key, (positions, _) in rows.items():
                self._mark(key, positions)
            # Schema 1: add what scoring alone asks for. Not where --limit leaves samples out: they are kept.
            if shard.natural is None and len(shard.id) == read_shard_header(path).rows:
                self._write(path, degraded, [rows])

    def missing(self, plan: Plan) -> dict[Key, npt.NDArray[np.int64]]:
        """The part of ``plan`` that has not been predicted yet."""
        rest = {key: p[~self._there[key][p]] if key in self._there else p for key, p in plan.items()}
        return {key: positions for key, positions in rest.items() if len(positions)}

    def add(self, predicted: PredictedRows) -> None:
        """Take predictions; they are on disk after the next :meth:`flush`, which comes by itself in a while."""
        for degraded in (False, True):
            rows = {key: found for key, found in predicted.items() if self._degraded(key[0]) is degraded}
            if rows:
                self._waiting[degraded].append(rows)
        waiting = (rows for several in self._waiting.values() for rows in several)
        count = sum(len(positions) for rows in waiting for positions, _ in rows.values())
        if count >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added, one shard for each kind."""
        for degraded, waiting in self._waiting.items():
            if waiting:
                self._write(self._path(waiting, degraded), degraded, waiting)
                for rows in waiting:
                    for key, (positions, _) in rows.items():
                        self._mark(key, positions)
                waiting.clear()
        self._flushed = time.monotonic()

    def read(self) -> Predictions:
        """All predictions.

        Raises:
            DataError: a shard that was good when it was first read has become unreadable.
        """
        logits = LogitMatrices(self.size, self._truth.classes)
        for path, degraded in self._paths():
            logits.take(dict(self._read(path, degraded).by_case()))
        return self._predictions(self._truth, logits)

    def forget(self) -> None:
        """Remove every shard, so that all predictions are made again."""
        for path, _ in self._paths():
            path.unlink()
        self._there.clear()

    def _degraded(self, case: str) -> bool:
        return bool(Case.parse(case, self._truth.modalities).degraded)

    def _paths(self) -> list[tuple[Path, bool]]:
        shards = self.folder / PREDICTIONS_FOLDER
        return sorted((path, kind) for kind, name in self._names.items() for path in shards.glob(f"{name}-*.parquet"))

    def _path(self, waiting: Sequence[PredictedRows], degraded: bool) -> Path:
        digest, first = new_digest(), len(self._truth.ids)
        for rows in waiting:
            for key, (positions, _) in rows.items():
                digest.update(f"{key}".encode() + positions.tobytes())
                first = min(first, int(positions.min()))
        return (
            self.folder / PREDICTIONS_FOLDER / f"{self._names[degraded]}-{first:07d}-{digest.hexdigest()[:8]}.parquet"
        )

    def _write(self, path: Path, degraded: bool, waiting: Sequence[PredictedRows]) -> None:
        rows = [(key, p, z) for several in waiting for key, (p, z) in several.items()]
        positions = np.concatenate([positions for _, positions, _ in rows])
        logits = np.ascontiguousarray(np.concatenate([values for _, _, values in rows]), dtype=np.float32)
        natural, identity = self._truth.natural, self._identities[degraded]
        offsets = np.arange(0, logits.size + 1, self._truth.classes, dtype=np.int32)
        table = pa.table(
            {
                "id": self._ids.take(pa.array(positions)),
                "position": positions,
                "natural": ["complete" if natural is None else natural[p].name for p in positions],
                "case": [case for (case, _), p, _ in rows for _ in p],
                "prompting": [prompting for (_, prompting), p, _ in rows for _ in p],
                "noise_seed": [identity.get("noise_seed")] * len(positions),
                "label": [list(self._truth.labels[p]) for p in positions],
                "logits": pa.ListArray.from_arrays(offsets, logits.ravel()),
            },
            schema=PREDICTIONS_SCHEMA,
        )
        facts = {"name": self.name, "about": self.dataset, "described": self.described}
        write_shard(path, table, {"identity": self._names[degraded], **facts, **identity})

    def _read(self, path: Path, degraded: bool) -> Shard:
        """One shard, without samples that the evaluation leaves out.

        Raises:
            DataError: it is torn, or holds other predictions than its name says.
        """
        shard = read_shard(path)
        if shard.provenance.get("identity") != self._names[degraded]:
            raise DataError(f"{path}: is of other predictions than its name says")
        if shard.position is None:
            shard = shard.placed({sample: position for position, sample in enumerate(self._truth.ids)})
        # With --limit, samples beyond the first ones may be there; they are of no interest now.
        shard = shard.within(len(self._truth.ids))
        if shard.logits.shape[1] != self._truth.classes or not shard.id.equals(
            self._ids.take(pa.array(shard.position))
        ):
            raise DataError(f"{path}: is of other samples or classes than its name says")
        return shard

    def _mark(self, key: Key, positions: npt.NDArray[np.int64]) -> None:
        self._there.setdefault(key, np.zeros(len(self._truth.ids), dtype=np.bool_))[positions] = True
