"""The interface of a user's own model to an evaluation: its inputs, its promptings and its predictions."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmrobust.cases import PROMPTINGS, SITUATION, Case
from mmrobust.data.dataset import Positions
from mmrobust.data.decoded_split import DecodedSplit, Media
from mmrobust.data.loading import CHUNK_SAMPLES, Request
from mmrobust.data.selection import STRETCH_SAMPLES, SelectedSamples
from mmrobust.degradations import Noise, check_recordings
from mmrobust.errors import ModelError
from mmrobust.models.own.answers import logits_of
from mmrobust.models.own.model import Model, Sample
from mmrobust.models.own.source import Source, reason
from mmrobust.runtime.devices import BatchSize, out_of_memory
from mmrobust.runtime.progress import Progress
from mmrobust.runtime.threads import in_background
from mmrobust.scoring.truth import Key, Plan, PredictedRows

_Batch = tuple[Key, Positions, list[Sample]]


class OwnModel:
    """A :class:`mmrobust.Model` as :class:`mmrobust.evaluation.model.IdentifiedModel`.

    ``source`` is where it was imported from; ``None``: it was made in this process.
    """

    classes_named = True
    reorders_classes = True

    def __init__(self, model: Model, source: Source | None = None) -> None:
        self.model, self.source = model, source
        self.name, self.task, self.fingerprint = model.name, model.task, model.fingerprint
        self.modalities, self.classes = tuple(model.modalities), tuple(model.classes)
        self.device, self.dtype = model.device, model.dtype
        self.promptings = PROMPTINGS if model.knows_case else (SITUATION,)

    def described(self) -> dict[str, Any]:
        """The metadata that results and predictions keep of it."""
        model = self.model
        return {
            "fingerprint": self.fingerprint,
            "method": "own",
            "head": "own",
            "backbone": "own",
            "own": {"name": model.name, "version": model.version, "scale": model.scale, "fill": model.fill_digests},
            "modalities": list(self.modalities),
            "depends_on_prompting": model.knows_case,
            "device": self.device,
            "dtype": self.dtype,
        }

    def loader(self) -> Callable[[str], OwnModel]:
        """A function that gives the same model in another process, on a given device if it can choose."""
        return functools.partial(_given, self.model) if self.source is None else functools.partial(_loaded, self.source)

    def check(self, keys: Iterable[Key]) -> None:
        """Raise if it cannot predict under one of these (case, prompting).

        Raises:
            UsageError: a case degrades a recording by a noise profile.
        """
        for case, _ in keys:
            check_recordings(Case.parse(case, self.modalities), ("audio",), "your own model")

    def predict(
        self,
        samples: SelectedSamples,
        plan: Plan,
        noise: Noise,
        *,
        batch_size: int | BatchSize,
        workers: int,
        progress: Progress,
    ) -> Iterator[PredictedRows]:
        """The predictions of ``plan``, one batch at a time; a sample is decoded once for all its cases.

        A batch holds samples in one case and under one prompting, ascending, of one stretch of the split. While the
        function works on one, a thread decodes and degrades the next. Memory does not grow with the split.

        Args:
            samples: the samples.
            plan: which of them to predict, in which cases.
            noise: the degradation of inputs.
            batch_size: the most samples that the function gets at a time.
            workers: processes that decode samples.
            progress: counts predictions.

        Raises:
            DataError: a sample cannot be read; the message names it.
            ModelError: the function raises, or returns what is no prediction.
        """
        size = batch_size if isinstance(batch_size, int) else batch_size.now
        split = samples.split
        recordings = [modality for modality, kind in split.info.kinds.items() if kind == "audio"]
        for case, _ in plan:
            check_recordings(Case.parse(case, self.modalities), recordings, "your own model")
        decoded = DecodedSplit(split, self.modalities, self.model.fill, noise, workers)
        try:
            with (
                progress("predict", sum(len(positions) for positions in plan.values())) as advance,
                in_background(self._batches(plan, decoded, size)) as batches,
            ):
                for key, positions, batch in batches:
                    ids = [split.ids[position] for position in positions]
                    logits = self.logits(batch, key, split.info.classes, ids)
                    advance(len(positions))
                    yield {key: (positions, logits)}
        finally:
            decoded.release()

    def logits(self, batch: list[Sample], key: Key, classes: Iterable[str], ids: list[str]) -> npt.NDArray[np.float32]:
        """Logits [n, C] of a batch of samples, which are in the case of ``key``, in the order of ``classes`` [C].

        Raises:
            ModelError: as for :meth:`predict`.
        """
        case, prompting = key
        where = f"in case '{case}'" + (f" under {prompting}" if self.model.knows_case else "")
        told = (
            Case.parse(case, self.modalities).plain.name if self.model.knows_case and prompting == SITUATION else None
        )
        try:
            answer = self.model.predict(batch, told)
        except (Exception, SystemExit) as cause:
            if isinstance(cause, RuntimeError) and out_of_memory(cause):
                raise  # the command says how to use less
            lacking = [m for m in self.modalities if any(sample[m] is None for sample in batch)]
            hint = f"; {' and '.join(lacking)} may be None there, unless fill says otherwise" if lacking else ""
            raise ModelError(
                f"{self.name}: predict raised {reason(cause)} ({where}, from sample '{ids[0]}' on){hint}; "
                "--debug shows the traceback"
            ) from cause
        return logits_of(answer, self.model, tuple(classes), ids, where)

    def _batches(self, plan: Plan, decoded: DecodedSplit, size: int) -> Iterator[_Batch]:
        """The batches of ``plan``, in an order that the plan alone decides."""
        cases = {key: Case.parse(key[0], self.modalities) for key in plan}

        def request(chunk: _PlannedChunk) -> Request:
            present = {
                p: dict.fromkeys(m for key in keys for m in cases[key].present) for p, keys in chunk.keys.items()
            }
            return {position: tuple(modalities) for position, modalities in present.items()}

        def finished(key: Key) -> _Batch:
            positions, media = zip(*waiting.pop(key), strict=True)
            batch = [decoded.in_case(*one, cases[key]) for one in zip(positions, media, strict=True)]
            return key, np.asarray(positions, dtype=np.int64), batch

        chunks, ahead = itertools.tee(_chunks(plan, min(size, CHUNK_SAMPLES)))
        waiting: dict[Key, list[tuple[int, Media]]] = {}
        for chunk, loaded in zip(chunks, decoded.load(map(request, ahead)), strict=True):
            for position, keys in chunk.keys.items():
                for key in keys:
                    waiting.setdefault(key, []).append((position, loaded[position]))
                    if len(waiting[key]) == size:
                        yield finished(key)
            if chunk.last:
                for key in list(waiting):
                    yield finished(key)


class _PlannedChunk(NamedTuple):
    """A few samples of a plan, which are decoded together."""

    keys: dict[int, list[Key]]
    """Position → its (case, prompting) pairs; positions ascend."""
    last: bool
    """Whether it is the last chunk of a stretch of the split."""


def _chunks(plan: Plan, size: int) -> Iterator[_PlannedChunk]:
    """The samples of ``plan`` in chunks of at most ``size``, each within a stretch of the split."""
    union = np.unique(np.concatenate(list(plan.values()))) if plan else np.empty(0, np.int64)
    for stretch in np.split(union, np.flatnonzero(np.diff(union // STRETCH_SAMPLES)) + 1):
        keys: dict[int, list[Key]] = {position: [] for position in stretch.tolist()}
        for key, positions in plan.items():
            for position in positions[np.isin(positions, stretch, assume_unique=True)].tolist():
                keys[position].append(key)
        for start in range(0, len(stretch), size):
            some = stretch[start : start + size].tolist()
            yield _PlannedChunk({position: keys[position] for position in some}, last=start + size >= len(stretch))


def _loaded(source: Source, device: str) -> OwnModel:
    with contextlib.suppress(OSError):  # on another machine the folder may not be there
        os.chdir(source.folder)  # so that relative paths in the user's code mean what they meant to the command
    return OwnModel(source.load(device), source)


def _given(model: Model, device: str) -> OwnModel:
    del device  # it is where it was made
    return OwnModel(model)
