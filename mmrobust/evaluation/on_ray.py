"""Prediction with Ray Data: stretches of the split go to actors that hold the model, logits to the caller's store.

An actor is sent where a stretch begins and ends, and reads it itself: of the data nothing lies in Ray's object store.
Stretches are those of the local engine, whichever actor has one, and so are batches and logits. Actors that die are
restarted and their stretches predicted again; predictions that arrived are in the store. Checkpoint and data must be
readable at the same paths on every node, and mmrobust importable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmrobust.data.dataset import Dataset
from mmrobust.data.selection import STRETCH_SAMPLES, BadSamples, SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.errors import DataError
from mmrobust.evaluation.model import IdentifiedModel
from mmrobust.evaluation.plan import PredictionSettings
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.machine import available_cores
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.runtime.ray_cluster import SPARE_CPUS, connected, cpus_per_gpu, reason
from mmrobust.scoring.truth import Plan, PredictedRows

STRETCHES_AT_ONCE = 8
"""Stretches of a call on a GPU: one is decoded while another is computed. Predictions of a call arrive together."""


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
        UsageError: Ray is not installed, its cluster cannot be reached, or lacks the GPU that the model is on.
        DataError: a worker fails, other than by being killed.
    """
    cache = samples.split.dataset.cache
    device = model.device.partition(":")[0]
    on_gpu = device == "cuda"
    cpus = ((None if on_gpu else settings.ray_workers) or available_cores()) + SPARE_CPUS
    total = sum(len(positions) for positions in plan.values())
    with connected(settings.ray_address, cpus) as ray, progress("predict", total) as advance:
        cores = cpus_per_gpu(ray) if on_gpu else 1
        slots = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
        workers = settings.ray_workers or max(1, slots if on_gpu else slots - SPARE_CPUS)
        needed = np.unique(np.concatenate(list(plan.values())) // STRETCH_SAMPLES)
        together = STRETCHES_AT_ONCE if on_gpu else 1
        calls = np.array_split(needed, max(min(workers, len(needed)), math.ceil(len(needed) / together)))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        blocks = ray.data.from_items(
            [{"start": int(n[0]) * STRETCH_SAMPLES, "stop": (int(n[-1]) + 1) * STRETCH_SAMPLES} for n in calls],
            override_num_blocks=len(calls),
        ).map_batches(
            _Worker,
            fn_constructor_kwargs={
                "load": model.loader(),
                "data": str(samples.split.dataset.folder.resolve()),
                "cache": cache and str(cache.resolve()),
                "split": samples.split.name,
                "size": samples.size,
                "bad": samples.bad,
                "plan": dict(plan),
                "noise": noise,
                "batch_size": settings.batch_size,
                "device": device,
            },
            batch_size=1,  # with GPUs, Ray refuses to go by blocks
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(calls))),
            num_cpus=cores,
            num_gpus=1 if on_gpu else 0,
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
    """A copy of the model, called with a few stretches of the split at a time."""

    def __init__(
        self,
        *,
        load: Callable[[str], IdentifiedModel],
        data: str,
        cache: str | None,
        split: str,
        size: int,
        bad: BadSamples,
        plan: Plan,
        noise: Noise,
        batch_size: int | BatchSize,
        device: str,
    ) -> None:
        self._model = load(device)
        self._split, self._size = bad.apply(Dataset(data, cache).split(split)), size
        self._plan, self._noise, self._batch_size = plan, noise, batch_size

    def __call__(self, block: pa.Table) -> pa.Table:
        samples, size = SelectedSamples(self._split, self._size), self._batch_size
        (ends,) = block.to_pylist()
        inside = {key: slice(*np.searchsorted(p, (ends["start"], ends["stop"]))) for key, p in self._plan.items()}
        plan = {key: part for key, where in inside.items() if len(part := self._plan[key][where])}
        pieces = self._model.predict(samples, plan, self._noise, batch_size=size, workers=0, progress=no_progress)
        return pa.concat_tables([_EMPTY, *(_table(key, *rows) for piece in pieces for key, rows in piece.items())])


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
