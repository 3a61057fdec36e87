"""Prediction with Ray Data: ``read_parquet`` → ``map_batches`` on actors that hold the model → the caller's store.

Every stretch of the split is one block, whichever actor reads it, so batches and logits are those of the local engine.
Actors that die are restarted and their blocks predicted again; predictions that arrived are in the store. Checkpoint
and data must be readable at the same paths on every node, and mmrobust importable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmrobust.data.dataset import Dataset, Sample, Split
from mmrobust.data.selection import STRETCH_SAMPLES, BadSamples, SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.errors import DataError
from mmrobust.evaluation.model import IdentifiedModel
from mmrobust.evaluation.plan import PredictionSettings
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.machine import available_cores
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.runtime.ray_cluster import connected, reason
from mmrobust.scoring.truth import Plan, PredictedRows

SPARE_CPUS = 2
"""CPUs for the tasks that read and split blocks: actors that held every CPU would wait for them forever."""


def predict_on_ray(
    model: IdentifiedModel,
    samples: SelectedSamples,
    plan: Plan,
    noise: Noise,
    settings: PredictionSettings,
    progress: Progress,
) -> Iterator[PredictedRows]:
    """Yield the predictions of ``plan``, one stretch of the split at a time.

    Raises:
        UsageError: Ray is not installed, or its cluster cannot be reached.
        DataError: a worker fails, other than by being killed.
    """
    cpus = (settings.ray_workers or available_cores()) + SPARE_CPUS
    total = sum(len(positions) for positions in plan.values())
    with connected(settings.ray_address, cpus) as ray, progress("predict", total) as advance:
        device = model.device.partition(":")[0]
        slots = int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1))
        workers = settings.ray_workers or max(1, slots if device == "cuda" else slots - SPARE_CPUS)
        needed = np.unique(np.concatenate(list(plan.values())) // STRETCH_SAMPLES)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        blocks = (
            ray.data.read_parquet([str(file) for file in samples.split.files], ray_remote_args={"num_cpus": 0.1})
            .repartition(target_num_rows_per_block=STRETCH_SAMPLES, strict=True)
            .map_batches(
                _Worker,
                fn_constructor_kwargs={
                    "load": model.loader(),
                    "data": str(samples.split.dataset.folder.resolve()),
                    "split": samples.split.name,
                    "size": samples.size,
                    "bad": samples.bad,
                    "plan": dict(plan),
                    "noise": noise,
                    "batch_size": settings.batch_size,
                    "device": device,
                },
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(needed))),
                num_cpus=1,
                num_gpus=1 if device == "cuda" else 0,
            )
        )
        try:
            for table in blocks.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                predictions = _from_table(table)
                if predictions:
                    advance(sum(len(positions) for positions, _ in predictions.values()))
                    yield predictions
        except ray.exceptions.RayError as cause:
            raise DataError(f"a Ray worker failed: {reason(cause)}") from cause


class _Worker:
    """A copy of the model, called with one stretch of the split at a time."""

    def __init__(
        self,
        *,
        load: Callable[[str], IdentifiedModel],
        data: str,
        split: str,
        size: int,
        bad: BadSamples,
        plan: Plan,
        noise: Noise,
        batch_size: int | BatchSize,
        device: str,
    ) -> None:
        self._model = load(device)
        self._split, self._size = bad.apply(Dataset(data).split(split)), size
        self._place = {sample: position for position, sample in enumerate(self._split.ids[:size])}
        self._plan, self._noise, self._batch_size = plan, noise, batch_size

    def __call__(self, block: pa.Table) -> pa.Table:
        places = [self._place.get(sample, -1) for sample in block["id"].to_pylist()]
        in_block = {key: positions[np.isin(positions, places)] for key, positions in self._plan.items()}
        plan = {key: positions for key, positions in in_block.items() if len(positions)}
        samples, size = SelectedSamples(_Block(self._split, block, places), self._size), self._batch_size
        pieces = self._model.predict(samples, plan, self._noise, batch_size=size, workers=0, progress=no_progress)
        return pa.concat_tables([_table(key, *rows) for piece in pieces for key, rows in piece.items()] or [_EMPTY])


class _Block(Split):
    """A split that reads the samples of a block from memory."""

    def __init__(self, split: Split, block: pa.Table, places: list[int]) -> None:
        self.__dict__.update(split.__dict__)
        self._block, self._row = block, {place: row for row, place in enumerate(places) if place >= 0}

    def read(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> list[Sample]:
        """See :meth:`Split.read`. Samples outside the block (recordings for babble noise) are read from the files."""
        places = np.asarray(positions, dtype=np.int64).tolist()
        if any(place not in self._row for place in places):
            return super().read(positions)
        return [self._sample(self._block, self._row[place], int(self._rows[place])) for place in places]


_SCHEMA = pa.schema(
    [("case", pa.string()), ("prompting", pa.string()), ("position", pa.int64()), ("logits", pa.list_(pa.float32()))]
)
_EMPTY = _SCHEMA.empty_table()


def _table(key: tuple[str, str], positions: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> pa.Table:
    names = ([name] * len(positions) for name in key)
    return pa.table([*names, positions, list(logits)], schema=_SCHEMA)


def _from_table(table: pa.Table) -> dict[tuple[str, str], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    keys = list(zip(table["case"].to_pylist(), table["prompting"].to_pylist(), strict=True))
    if not keys:
        return {}
    positions = table["position"].to_numpy()
    logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(len(keys), -1)
    rows = {key: np.asarray([k == key for k in keys]) for key in dict.fromkeys(keys)}
    return {key: (positions[of_key], logits[of_key]) for key, of_key in rows.items()}
