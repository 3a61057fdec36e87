"""Prediction of logits for the samples of a split, in several cases and promptings at once, sharing computations.

A forward pass has three steps: each modality is encoded on its own (by a tower, by a stream of its own layers, or only
by an embedding), the layers that fuse modalities run, and the head runs. For each step, everything that determines its
result besides the sample is collected in a key. Steps with equal keys have the same result and are run once:

- the encoding of a modality depends on its own state in the case and on the prompts of its stream. CLIP's image tower
  thus serves ``complete`` and ``missing-text`` if the prompts of the method do not depend on the case, and under concat
  prompting, where they are the same in all cases;
- the fill of a missing modality does not depend on the sample: it is encoded once for the whole data set;
- where prompts enter a stream at a later layer, the layers below give all prompts the same;
- a head that knows the case does not change the features: a prototype head on a frozen backbone needs one forward pass
  for both promptings.
"""

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
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.batch import Inputs, Passes, Rows
from mmrobust.models.prediction.forward_pass import InputKey
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize, out_of_memory
from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import in_background
from mmrobust.scoring.truth import Key, PredictedRows

CPU_STRETCH_BYTES, GPU_STRETCH_BYTES = 32 * 2**20, 2**30
"""Largest size of a stretch of encoded samples; it has at least two batches, however large they are. On a GPU it leaves
room for the batch size to grow."""


class Predictor:
    """Predicts with one classifier on one split.

    Args:
        classifier: in evaluation mode; it must not change.
        encoded: the samples.
        batch_size: samples per forward pass; reduced when they do not fit into memory.
    """

    def __init__(
        self, classifier: Classifier, encoded: EncodedSplit, batch_size: int | BatchSize = DEFAULT_BATCH_SIZE
    ) -> None:
        self.classifier, self.encoded = classifier, encoded
        self.batch_size = BatchSize(batch_size) if isinstance(batch_size, int) else batch_size
        self.device = next(classifier.parameters()).device
        self._passes = Passes(classifier, lambda modality: self._on_device(modality, [encoded.fills[modality]]))

    def stretches(self, plan: Mapping[Key, Positions], advance: Advance | None = None) -> Iterator[PredictedRows]:
        """All planned predictions, one stretch of the split at a time; memory does not grow with the split.

        A sample is read and decoded once for all its cases. The positions under each key of ``plan`` must ascend;
        ``advance`` is called with the number of predictions made.

        Raises:
            DataError: a sample cannot be read; the message names it.
            UsageError: not even one sample fits into memory.
        """
        union = np.unique(np.concatenate(list(plan.values()))) if plan else np.empty(0, np.int64)
        encoded_bytes = sum(fill.nbytes for fill in self.encoded.fills.values())
        room = CPU_STRETCH_BYTES if self.device.type == "cpu" else GPU_STRETCH_BYTES
        size = max(2 * self.batch_size.now, min(STRETCH_SAMPLES, room // encoded_bytes))
        blocks = np.split(union, np.flatnonzero(np.diff(union // STRETCH_SAMPLES)) + 1)
        stretches = (block[start : start + size] for block in blocks for start in range(0, len(block), size))
        steps = (
            {key: chosen for key, p in plan.items() if len(chosen := p[(p >= stretch[0]) & (p <= stretch[-1])])}
            for stretch in stretches
        )
        for step in self.encoded.prefetch(steps, _by_case):
            logits = self(step, advance)
            yield {key: (positions, logits[key]) for key, positions in step.items()}

    def __call__(
        self, wanted: Mapping[Key, Positions], advance: Advance | None = None
    ) -> dict[Key, npt.NDArray[np.float32]]:
        """Logits [n, classes] under each key for the samples at its positions [n], in that order."""
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
        """Run batches until all are done or one does not fit into memory. Returns the rows that are done."""
        finished = [np.empty(0, np.int64)]

        def prepared() -> Iterator[tuple[npt.NDArray[np.int64], dict[Key, Rows], dict[InputKey, Inputs]]]:
            for rows in batches:
                chosen = {key: place[rows] >= 0 for key, place in places.items()}
                wanted = {key: some for key, some in chosen.items() if some.any()}
                yield rows, wanted, self._inputs(positions[rows], wanted)

        try:
            # On a GPU, the next batch is prepared and copied while the current one is computed.
            with in_background(prepared(), self.device.type != "cpu") as following:
                for rows, wanted, inputs in following:
                    logits = self._passes.logits(wanted, inputs)
                    for key, values in logits.items():
                        place = places[key][rows]
                        done.append((key, place[place >= 0], values))
                    finished.append(rows)
                    if advance is not None:
                        advance(sum(len(values) for values in logits.values()))
            return np.concatenate(finished)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        self.batch_size.halve(self.device)  # outside the handler, which keeps the failed batch's tensors alive
        return np.concatenate(finished)

    def _inputs(self, positions: Positions, wanted: Mapping[Key, Rows]) -> dict[InputKey, Inputs]:
        """The inputs that the predictions of the samples at ``positions`` under the keys need."""
        rows: dict[InputKey, Rows] = {}
        cases: dict[InputKey, Case] = {}
        for key, chosen in wanted.items():
            steps = self._passes.of(key)
            for encoding in steps.encodings.values():
                if not encoding.is_fill:
                    of = encoding.input
                    rows[of] = rows.get(of, np.zeros(len(positions), dtype=bool)) | chosen
                    cases[of] = steps.case
        inputs = {}
        for of, some in rows.items():
            tensors = self.encoded.inputs(positions[some].tolist(), of.modality, cases[of])
            inputs[of] = some, self._on_device(of.modality, tensors)
        return inputs

    def _on_device(self, modality: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        batch = self.encoded.processor.collate([{modality: tensor} for tensor in tensors])
        if self.device.type == "cpu":
            return batch
        return {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in batch.items()}


def _by_case(step: Mapping[Key, Positions]) -> Iterator[tuple[str, Positions]]:
    return ((case, positions) for (case, _), positions in step.items())


def _places(union: Positions, positions: Positions) -> npt.NDArray[np.int64]:
    """Index in ``positions`` of each position of ``union``; −1 if it is not there."""
    places = np.full(len(union), -1, dtype=np.int64)
    places[np.searchsorted(union, positions)] = np.arange(len(positions))
    return places
