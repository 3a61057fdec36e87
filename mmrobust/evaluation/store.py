"""Predictions on disk: shards that appear whole or not at all, and what of a plan they hold already.

A shard is a Parquet file ``predictions/{identity}-{first sample}-{what}.parquet`` of one checkpoint on one split. Its
identity is a hash of all that decides a logit beside the case and the prompting, which stand in its rows; so shards of
several checkpoints share a folder and none is ever taken for another's. Its name says what is in it: the same
predictions made again replace themselves. Only what is there is kept in memory; the logits are read when all is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmrobust.errors import DataError, NewerFormatError
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scoring.truth import Plan, PredictedRows, SplitTruth
from mmrobust.storage.fingerprints import fingerprint_settings, new_digest
from mmrobust.storage.shards import (
    PREDICTIONS_FOLDER,
    PREDICTIONS_SCHEMA,
    Shard,
    read_shard,
    read_shard_header,
    write_shard,
)

_Row = tuple[tuple[str, str], npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""(case, prompting), positions, logits."""

FLUSH_SECONDS = 5.0
FLUSH_ROWS = 2**15
"""A shard is written when this much time has passed since the last, or when it has this many rows: what a killed run
loses, and how many files a fast one makes."""


class PredictionStore:
    """The predictions of one checkpoint on one split.

    Args:
        folder: the results folder; shards lie in ``predictions/`` under it.
        identity: what decides a logit (checkpoint and data fingerprints, split, dtype …): plain values. That of
            predictions in degraded cases says ``noise_profile`` and ``noise_seed``; others are of any noise.
        provenance: more that a reader may want to know; goes into every shard.
        truth: the samples.
        say: told of each shard that cannot be used, in one line.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        provenance: Mapping[str, Any],
        truth: SplitTruth,
        say: Say = say_nothing,
    ) -> None:
        self.folder = folder / PREDICTIONS_FOLDER
        self.identity = fingerprint_settings(identity)
        self._provenance = {"identity": self.identity, **provenance, **identity}
        self._noise_seed = identity.get("noise_seed")
        self._truth, self._ids = truth, pa.array(truth.ids, pa.string())
        self._there: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
        self._waiting: list[PredictedRows] = []
        self._flushed = time.monotonic()
        for path in self._paths():
            try:
                shard = self._read(path)
            except NewerFormatError:  # good for whoever wrote it
                raise
            except DataError as cause:
                say(f"{cause}; its predictions are made again")
                path.unlink(missing_ok=True)
                continue
            for key, (positions, _) in shard.by_case():
                self._put(key, positions)
            # Schema 1: what scoring by itself asks for is put in. Not where --limit leaves samples out: they are kept.
            if shard.natural is None and len(shard.id) == read_shard_header(path).rows:
                rows = [(key, positions, logits) for key, (positions, logits) in shard.by_case()]
                write_shard(path, self._table(rows), self._provenance)

    def missing(self, plan: Plan) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
        """What of ``plan`` is not there yet."""
        rest = {key: p[~self._there[key][p]] if key in self._there else p for key, p in plan.items()}
        return {key: positions for key, positions in rest.items() if len(positions)}

    def add(self, predictions: PredictedRows) -> None:
        """Take predictions; they are on disk after the next :meth:`flush`, which comes by itself in a while."""
        self._waiting.append(predictions)
        rows = sum(len(positions) for p in self._waiting for positions, _ in p.values())
        if rows >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was taken as one shard."""
        if self._waiting:
            rows = [(key, p, z) for part in self._waiting for key, (p, z) in part.items()]
            write_shard(self._path(rows), self._table(rows), self._provenance)
            for key, positions, _ in rows:
                self._put(key, positions)
            self._waiting = []
        self._flushed = time.monotonic()

    def read(self) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
        """(case, prompting) → logits [N, classes] of everything on disk; a row is NaN where there is no prediction.

        Raises:
            DataError: a shard that was good when the store was opened, and is so no more.
        """
        shape = len(self._truth.ids), self._truth.classes
        logits: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
        for path in self._paths():
            for key, (positions, values) in self._read(path).by_case():
                if key not in logits:
                    logits[key] = np.full(shape, np.nan, dtype=np.float32)
                logits[key][positions] = values
        return logits

    def forget(self) -> None:
        """Remove every shard: all is to be made again."""
        for path in self._paths():
            path.unlink()
        self._there.clear()

    def _paths(self) -> Iterator[Path]:
        return iter(sorted(self.folder.glob(f"{self.identity}-*.parquet")))

    def _path(self, rows: Sequence[_Row]) -> Path:
        digest = new_digest()
        for key, positions, _ in rows:
            digest.update(f"{key}".encode() + positions.tobytes())
        first = min(int(positions.min()) for _, positions, _ in rows)
        return self.folder / f"{self.identity}-{first:07d}-{digest.hexdigest()[:8]}.parquet"

    def _table(self, rows: Sequence[_Row]) -> pa.Table:
        positions = np.concatenate([positions for _, positions, _ in rows])
        logits = np.ascontiguousarray(np.concatenate([values for _, _, values in rows]), dtype=np.float32)
        natural = self._truth.natural
        offsets = np.arange(0, logits.size + 1, self._truth.classes, dtype=np.int32)
        return pa.table(
            {
                "id": self._ids.take(pa.array(positions)),
                "position": positions,
                "natural": ["complete" if natural is None else natural[p].name for p in positions],
                "case": [case for (case, _), p, _ in rows for _ in p],
                "prompting": [prompting for (_, prompting), p, _ in rows for _ in p],
                "noise_seed": [self._noise_seed] * len(positions),
                "label": [list(self._truth.labels[p]) for p in positions],
                "logits": pa.ListArray.from_arrays(offsets, logits.ravel()),
            },
            schema=PREDICTIONS_SCHEMA,
        )

    def _read(self, path: Path) -> Shard:
        """One shard, as far as it is about these samples.

        Raises:
            DataError: it is torn, or of something else than its name says.
        """
        shard = read_shard(path)
        if shard.provenance.get("identity") != self.identity:
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

    def _put(self, key: tuple[str, str], positions: npt.NDArray[np.int64]) -> None:
        self._there.setdefault(key, np.zeros(len(self._truth.ids), dtype=np.bool_))[positions] = True
