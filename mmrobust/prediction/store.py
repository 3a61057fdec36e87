"""Predictions on disk: shards that appear whole or not at all, and what of a plan they hold already.

A shard is a Parquet file ``predictions/{identity}-{number}.parquet`` of one checkpoint on one split. Its identity is a
hash of all that decides a logit, so shards of several checkpoints share a folder and none is ever taken for another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.errors import DataError
from mmrobust.fingerprints import fingerprint_settings
from mmrobust.prediction.plan import Plan
from mmrobust.results import PREDICTIONS_SCHEMA, PREDICTIONS_VERSION, read_provenance, write_table

PREDICTIONS_FOLDER = "predictions"


class PredictionStore:
    """The predictions of one checkpoint on one split.

    Args:
        folder: the results folder; shards lie in ``predictions/`` under it.
        identity: what decides a logit (checkpoint and data fingerprints, split, dtype …): plain values. That of
            predictions in degraded cases says ``noise_profile`` and ``noise_seed``; others are of any noise.
        provenance: more that a reader may want to know; goes into every shard.
        sample_ids: the ids of the split, in its order.
        labels: the class, or the classes, of each sample.
        classes: number of classes.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        provenance: Mapping[str, Any],
        sample_ids: Sequence[str],
        labels: Sequence[Sequence[int]],
        classes: int,
    ) -> None:
        self.folder = folder / PREDICTIONS_FOLDER
        self.identity = fingerprint_settings(identity)
        self._provenance = {
            "kind": "predictions",
            "schema_version": PREDICTIONS_VERSION,
            "identity": self.identity,
            **identity,
            **provenance,
        }
        self._noise_seed = identity.get("noise_seed")
        self._ids, self._labels, self._classes = sample_ids, labels, classes
        self._position = {sample_id: position for position, sample_id in enumerate(sample_ids)}
        self.logits: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
        """(case, prompting) → logits [N, classes]; a row is NaN where the sample is not predicted."""
        self.damaged: list[Path] = []
        """Shards that could not be read; their predictions are made again."""
        for shard in self._shards():
            self._take(shard)

    def missing(self, plan: Plan) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
        """What of ``plan`` is not there yet."""
        rest = {}
        for key, positions in plan.items():
            new = positions
            if key in self.logits:
                new = positions[np.isnan(self.logits[key][positions, 0])]
            if len(new):
                rest[key] = new
        return rest

    def add(self, predictions: Mapping[tuple[str, str], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]) -> None:
        """Write one shard: (case, prompting) → positions [n] and logits [n, classes]."""
        rows: dict[str, list[Any]] = {name: [] for name in PREDICTIONS_SCHEMA.names}
        for (case, prompting), (positions, logits) in predictions.items():
            rows["id"] += [self._ids[position] for position in positions]
            rows["label"] += [list(self._labels[position]) for position in positions]
            rows["logits"] += list(logits)
            rows["case"] += [case] * len(positions)
            rows["prompting"] += [prompting] * len(positions)
            rows["noise_seed"] += [self._noise_seed] * len(positions)
            self._put(case, prompting, positions, logits)
        number = len(list(self._shards()))
        while (path := self.folder / f"{self.identity}-{number:05d}.parquet").exists():
            number += 1
        write_table(path, pa.table(rows, schema=PREDICTIONS_SCHEMA), self._provenance)

    def _shards(self) -> Iterator[Path]:
        return iter(sorted(self.folder.glob(f"{self.identity}-*.parquet")))

    def _take(self, shard: Path) -> None:
        """Read a shard into :attr:`logits`; one that is torn is set aside as damaged and removed."""
        try:
            table = pq.read_table(shard, schema=PREDICTIONS_SCHEMA)
            read_provenance(pq.read_schema(shard), shard, "predictions", PREDICTIONS_VERSION)
            positions = np.asarray([self._position[i] for i in table["id"].to_pylist()], dtype=np.int64)
            logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(-1, self._classes)
            keys = list(zip(table["case"].to_pylist(), table["prompting"].to_pylist(), strict=True))
            if len(logits) != len(positions):
                raise DataError(f"{shard}: logits are not {self._classes} for each sample")
        except (pa.ArrowException, OSError, ValueError, KeyError, DataError):
            self.damaged.append(shard)
            shard.unlink(missing_ok=True)
            return
        for case, prompting in dict.fromkeys(keys):
            rows = np.asarray([key == (case, prompting) for key in keys])
            self._put(case, prompting, positions[rows], logits[rows])

    def _put(
        self, case: str, prompting: str, positions: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
    ) -> None:
        empty = np.full((len(self._ids), self._classes), np.nan, dtype=np.float32)
        self.logits.setdefault((case, prompting), empty)[positions] = logits
