"""Running a classifier over samples: the predictions that are wanted of them go in, logits in input order come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions
from mmrobust.data.encoded_split import EncodedSplit, group_by_length
from mmrobust.data.selection import STRETCH_SAMPLES
from mmrobust.models.backbone import PromptSource
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.shared_batch import Batch, Rows
from mmrobust.models.prediction.sharing import Alone, Parts, parts_of
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize, out_of_memory
from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import in_background
from mmrobust.scoring.truth import Key, PredictedRows

STRETCH_BYTES = 32 * 2**20
"""How large they may be, encoded; of larger samples a stretch has fewer, but two batches."""


class Predictor:
    """Predicts with one classifier on one split; what several predictions have in common is computed once.

    See :mod:`mmrobust.models.prediction.sharing`. The classifier must be in evaluation mode, and stay as it is.

    Args:
        classifier: the classifier.
        encoded: the samples.
        batch_size: samples per forward pass. Where they do not fit into memory, fewer are taken from then on.
    """

    def __init__(
        self, classifier: Classifier, encoded: EncodedSplit, batch_size: int | BatchSize = DEFAULT_BATCH_SIZE
    ) -> None:
        self.classifier, self.encoded = classifier, encoded
        self.batch_size = BatchSize(batch_size) if isinstance(batch_size, int) else batch_size
        self.device = next(classifier.parameters()).device
        self._parts: dict[Key, Parts] = {}
        self._sources: dict[tuple[str, ...], PromptSource] = {}
        self._fills: dict[Alone, TokenSequence] = {}

    def stretches(self, plan: Mapping[Key, Positions], advance: Advance | None = None) -> Iterator[PredictedRows]:
        """All that is planned, a stretch of the split at a time.

        A sample is read and decoded once for all its cases. Memory does not grow with the split.

        Args:
            plan: key → positions, ascending.
            advance: told how many predictions were made.

        Raises:
            DataError: a sample that cannot be read, named.
            UsageError: not even one sample fits into memory.
        """
        union = np.unique(np.concatenate(list(plan.values()))) if plan else np.empty(0, np.int64)
        encoded_bytes = sum(fill.nbytes for fill in self.encoded.fills.values())
        size = max(2 * self.batch_size.now, min(STRETCH_SAMPLES, STRETCH_BYTES // encoded_bytes))
        blocks = np.split(union, np.flatnonzero(np.diff(union // STRETCH_SAMPLES)) + 1)
        parts = (block[start : start + size] for block in blocks for start in range(0, len(block), size))
        steps = (
            {key: chosen for key, p in plan.items() if len(chosen := p[(p >= part[0]) & (p <= part[-1])])}
            for part in parts
        )
        for step in self.encoded.prefetch(steps, _by_case):
            logits = self(step, advance)
            yield {key: (positions, logits[key]) for key, positions in step.items()}

    def __call__(
        self, wanted: Mapping[Key, Positions], advance: Advance | None = None
    ) -> dict[Key, npt.NDArray[np.float32]]:
        """Logits [n, classes] under each key, of the samples at its positions [n], in their order."""
        modalities = self.encoded.request(_by_case(wanted))
        modalities = {position: modalities[position] for position in sorted(modalities)}
        positions = np.asarray(list(modalities), dtype=np.int64)
        places = {key: _places(positions, chosen) for key, chosen in wanted.items()}
        lengths = self.encoded.lengths(modalities)
        done: list[tuple[Key, npt.NDArray[np.int64], Tensor]] = []  # key, where in its logits, logits on the device
        left = np.arange(len(positions))
        with torch.inference_mode(), self.classifier.autocast():
            while len(left):
                batches = (left[rows] for rows in group_by_length([lengths[row] for row in left], self.batch_size.now))
                finished = self._run(batches, positions, places, done, advance)
                left = np.setdiff1d(left, finished, assume_unique=True)
        self.batch_size.grow(self.device)
        logits = {key: np.empty((len(p), len(self.classifier.classes)), np.float32) for key, p in wanted.items()}
        for key, place, values in done:
            logits[key][place] = values.float().cpu().numpy()
        return logits

    def _run(
        self,
        batches: Iterator[npt.NDArray[np.int64]],
        positions: Positions,
        places: Mapping[Key, npt.NDArray[np.int64]],
        done: list[tuple[Key, npt.NDArray[np.int64], Tensor]],
        advance: Advance | None,
    ) -> npt.NDArray[np.int64]:
        """Run batches until all are done, or one does not fit into memory. Gives the rows that are done."""
        finished = [np.empty(0, np.int64)]

        def prepared() -> Iterator[tuple[npt.NDArray[np.int64], Batch]]:
            for rows in batches:
                chosen = {key: place[rows] >= 0 for key, place in places.items()}
                yield rows, self._batch(positions[rows], {key: some for key, some in chosen.items() if some.any()})

        try:
            # What a GPU computes next is put together and copied to it while it computes.
            with in_background(prepared(), self.device.type != "cpu") as following:
                for rows, batch in following:
                    logits = batch.logits(self.classifier, self._parts, self.source, self._fill)
                    for key, values in logits.items():
                        place = places[key][rows]
                        done.append((key, place[place >= 0], values))
                    finished.append(rows)
                    if advance is not None:
                        advance(sum(len(values) for values in logits.values()))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            too_many = True
        else:
            too_many = False
        if too_many:  # out of the handler, which holds the failed batch's tensors
            self.batch_size.halve(self.device)
        return np.concatenate(finished)

    def _batch(self, positions: Positions, wanted: Mapping[Key, Rows]) -> Batch:
        """The samples at ``positions`` with the inputs that the keys want of some of them."""
        rows: dict[Alone, Rows] = {}
        cases: dict[Alone, Case] = {}
        for key, chosen in wanted.items():
            parts = self.parts(key)
            for alone in parts.alone.values():
                if not alone.is_fill:
                    rows[alone] = rows.get(alone, np.zeros(len(positions), dtype=bool)) | chosen
                    cases[alone] = parts.case
        inputs = {
            alone: (some, self._collated(alone.modality, positions[some], cases[alone])) for alone, some in rows.items()
        }
        return Batch(wanted, inputs)

    def parts(self, key: Key) -> Parts:
        """What the predictions under ``key`` are made of."""
        if key not in self._parts:
            self._parts[key] = parts_of(self.classifier, key)
        return self._parts[key]

    def source(self, told: tuple[str, ...]) -> PromptSource:
        """What the method adds where the model is told these cases: what it makes once for all layers, once for all."""
        if told not in self._sources:
            self._sources[told] = self.classifier.method.source(told)
        return self._sources[told]

    def _fill(self, alone: Alone, told: tuple[str, ...]) -> TokenSequence:
        """What the fill of a missing modality becomes [1, L, D]: once for all samples."""
        if alone not in self._fills:
            inputs = self._on_device(alone.modality, [self.encoded.fills[alone.modality]])
            self._fills[alone] = self.classifier.backbone.alone(alone.modality, inputs, self.source(told))
        return self._fills[alone]

    def _collated(self, modality: str, positions: Positions, case: Case) -> dict[str, Tensor]:
        return self._on_device(modality, self.encoded.inputs(positions.tolist(), modality, case))

    def _on_device(self, modality: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        batch = self.encoded.processor.collate([{modality: tensor} for tensor in tensors])
        if self.device.type == "cpu":
            return batch
        return {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in batch.items()}


def _by_case(step: Mapping[Key, Positions]) -> Iterator[tuple[str, Positions]]:
    return ((case, positions) for (case, _), positions in step.items())


def _places(union: Positions, positions: Positions) -> npt.NDArray[np.int64]:
    """Where in ``positions`` each of ``union`` stands; −1 where it does not."""
    places = np.full(len(union), -1, dtype=np.int64)
    places[np.searchsorted(union, positions)] = np.arange(len(positions))
    return places
