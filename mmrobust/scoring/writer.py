"""Writing the predictions of one model into a results folder while they are made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
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
from mmrobust.storage.files import files_in, move_aside
from mmrobust.storage.fingerprints import fingerprint_settings, new_digest
from mmrobust.storage.shards import (
    PREDICTIONS_FOLDER,
    Shard,
    predictions_schema,
    read_shard,
    read_shard_header,
    write_shard,
)
from mmrobust.storage.tasks import REGRESSION

DAMAGED = "damaged"
"""Ending of the name of a shard that was found damaged, which nothing reads any more."""
FLUSH_SECONDS = 5.0
FLUSH_ROWS = 2**15
"""Predictions are written after this much time, or this many rows: the first limits what a killed run loses, the
second the number of files of a fast run."""
_Rows = tuple[Key, npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""(case, prompting), positions [n] of samples, and their logits [n, C]."""


class PredictionWriter(PredictionStore):
    """A store to which predictions are added while they are made.

    Predictions in degraded cases depend on the noise, all others are valid under any noise: a shard holds either kind,
    never both. ``folder``, ``name``, ``described``, ``dataset`` and ``noise`` are those of :class:`PredictionStore`.

    Args:
        truth: the samples.
        identity: everything that determines a logit except case, prompting and noise (fingerprints of checkpoint and
            data, split, dtype …): plain values.
        git: the tree that makes the predictions, as :func:`mmrobust.storage.provenance.git_state` has it. It identifies
            nothing: predictions of another tree are used again, and still say where they are from.
        say: called with a message for each shard that cannot be used, whose predictions are made again.
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
        git: Mapping[str, Any] | None,
        noise: Mapping[str, Any] | None = None,
        say: Say = say_nothing,
    ) -> None:
        super().__init__(folder, name, described, dataset, noise, len(truth.ids))
        self._truth, self._git, self._report = truth, git, say
        with_noise = {**identity, **{f"noise_{key}": value for key, value in (noise or {}).items()}}
        # Each of these has one entry for predictions in degraded cases, and one for all others.
        self._identities: dict[bool, Mapping[str, Any]] = {False: identity, True: with_noise}
        self._names = {degraded: fingerprint_settings(one) for degraded, one in self._identities.items()}
        self._pending: dict[bool, list[_Rows]] = {False: [], True: []}
        self._waiting, self._flushed = 0, time.monotonic()
        self._ids = pa.array(truth.ids, pa.string())
        self.refresh()

    def refresh(self) -> None:
        """Read which predictions the folder holds: other processes may have added some.

        A damaged shard is moved aside.

        Raises:
            NewerFormatError: a shard was written by a newer mmrobust.
            ReadError: the system did not read one; it may be intact.
        """
        self._stored: dict[Key, npt.NDArray[np.bool_]] = {}
        for path, degraded in self._paths():
            try:
                shard = self._read(path, degraded)
            except NewerFormatError:  # not damaged: it must stay where it is
                raise
            except DataError as cause:
                aside = move_aside(path, DAMAGED)
                self._report(f"{cause}; it is kept as {aside.name}, and its predictions are made again")
                continue
            rows = [(key, *of_key) for key, of_key in shard.by_case()]
            self._mark(rows)
            # Upgrade schema 1, unless --limit leaves out samples of the shard, which rewriting it would lose.
            if shard.natural is None and len(shard.id) == read_shard_header(path).rows:
                self._write(path, degraded, rows, shard.provenance.get("git"))

    def missing(self, plan: Plan) -> dict[Key, npt.NDArray[np.int64]]:
        """The part of ``plan`` that has not been predicted yet."""
        rest = {key: p[~self._stored[key][p]] if key in self._stored else p for key, p in plan.items()}
        return {key: positions for key, positions in rest.items() if len(positions)}

    def add(self, predicted: PredictedRows) -> None:
        """Add predictions. They are on disk after the next :meth:`flush`, which :meth:`add` calls from time to time."""
        for (case, prompting), of_key in predicted.items():
            degraded = bool(Case.parse(case, self._truth.modalities).degraded)
            self._pending[degraded].append(((case, prompting), *of_key))
            self._waiting += len(of_key[0])
        if self._waiting >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added, as one shard of each kind."""
        for degraded, pending in self._pending.items():
            if pending:
                self._write(self._path(pending, degraded), degraded, pending, self._git)
                self._mark(pending)
                pending.clear()
        self._waiting, self._flushed = 0, time.monotonic()

    def read(self) -> Predictions:
        """Read all predictions.

        Raises:
            DataError: a shard that was valid when it was first read has become unreadable.
        """
        logits = LogitMatrices(self.size, self._truth.classes)
        for path, degraded in self._paths():
            logits.fill(self._read(path, degraded).by_case())
        return self._predictions(self._truth, logits.by_key)

    def clear(self) -> None:
        """Delete every shard, so that all predictions are made again."""
        for path, _ in self._paths():
            path.unlink()
        self._stored.clear()

    def _paths(self) -> list[tuple[Path, bool]]:
        shards = self.folder / PREDICTIONS_FOLDER
        return sorted(
            (path, kind) for kind, name in self._names.items() for path in files_in(shards, f"{name}-*.parquet")
        )

    def _path(self, rows: Sequence[_Rows], degraded: bool) -> Path:
        digest, first = new_digest(), min(int(positions.min()) for _, positions, _ in rows)
        for key, positions, _ in rows:
            digest.update(f"{key}".encode() + positions.tobytes())
        name = f"{self._names[degraded]}-{first:07d}-{digest.hexdigest()[:8]}.parquet"
        return self.folder / PREDICTIONS_FOLDER / name

    def _write(self, path: Path, degraded: bool, rows: Sequence[_Rows], git: Mapping[str, Any] | None) -> None:
        positions = np.concatenate([positions for _, positions, _ in rows])
        logits = np.ascontiguousarray(np.concatenate([values for _, _, values in rows]), dtype=np.float32)
        natural, identity = self._truth.natural, self._identities[degraded]
        offsets = np.arange(0, logits.size + 1, self._truth.classes, dtype=np.int32)
        groups = self._truth.groups
        of_group = {} if groups is None else {"group": [groups[p] for p in positions]}
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
                **of_group,
            },
            schema=predictions_schema(grouped=bool(of_group), numbers=self._truth.task == REGRESSION),
        )
        metadata = {"name": self.name, "about": self.dataset, "described": self.described, "git": git}
        write_shard(path, table, {"identity": self._names[degraded], **metadata, **identity})

    def _read(self, path: Path, degraded: bool) -> Shard:
        """Read one shard, without samples that the evaluation leaves out."""
        shard = read_shard(path)
        if shard.provenance.get("identity") != self._names[degraded]:
            raise DataError(f"{path}: its predictions are not those that its name identifies")
        if shard.position is None:
            shard = shard.placed({sample: position for position, sample in enumerate(self._truth.ids)})
        # A run without --limit may have stored more samples than this one needs.
        shard = shard.within(self.size)
        ids = self._ids.take(pa.array(shard.position))
        if shard.logits.shape[1] != self._truth.classes or not shard.id.equals(ids):
            raise DataError(f"{path}: its samples or classes are not those that its name identifies")
        return shard

    def _mark(self, rows: Iterable[_Rows]) -> None:
        for key, positions, _ in rows:
            self._stored.setdefault(key, np.zeros(self.size, dtype=np.bool_))[positions] = True
