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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

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
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE, BatchSize, copied, out_of_memory
from mmrobust.runtime.machine import free_memory
from mmrobust.runtime.progress import Advance
from mmrobust.runtime.threads import in_background
from mmrobust.scoring.truth import Key, PredictedRows

CPU_STRETCH_BYTES, GPU_STRETCH_BYTES = 32 * 2**20, 2**30
"""Largest size of a stretch of encoded samples; it has at least two batches, however large they are. On a GPU it leaves
room for the batch size to grow."""
HOST_SHARE = 1 / 16
"""Largest share of the free memory that a stretch may take beside a GPU, where four are in memory at a time."""


class _Stretch(NamedTuple):
    """A stretch of the split that is being predicted."""

    wanted: Mapping[Key, Positions]
    places: Mapping[Key, npt.NDArray[np.int64]]
    """Key → index among its positions of each sample of the stretch; −1 if it is not there."""
    batch_size: int
    even: bool
    """Whether its samples have one length: no batch size pads them."""
    done: list[tuple[Key, npt.NDArray[np.int64], Tensor]]
    """Key, where in its logits, logits on the device."""


class _Batch(NamedTuple):
    """Samples of a stretch, and all that their forward passes need."""

    rows: npt.NDArray[np.int64]
    """Indices of the samples in the stretch [B]."""
    wanted: Mapping[Key, Rows]
    inputs: Mapping[InputKey, Inputs]
    arrival: torch.cuda.Event | None
    """Happens once the inputs are on the GPU."""

    def half(self, rows: slice) -> _Batch:
        """The samples in ``rows``."""
        wanted = {key: chosen[rows] for key, chosen in self.wanted.items()}
        inputs = {}
        for of, (some, tensors) in self.inputs.items():
            before, kept = int(some[: rows.start].sum()), int(some[rows].sum())
            if kept:
                inputs[of] = some[rows], {name: all_[before : before + kept] for name, all_ in tensors.items()}
        here = {key: chosen for key, chosen in wanted.items() if chosen.any()}
        return _Batch(self.rows[rows], here, inputs, self.arrival)


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
        # While a GPU computes, batches are prepared and copied, and the next stretch is loaded.
        self.ahead = self.device.type != "cpu"
        on_gpu = self.device.type == "cuda"
        self._copies = torch.cuda.Stream(self.device) if on_gpu else None  # type: ignore[no-untyped-call]  # PyTorch's
        self._passes = Passes(classifier, self._fill)

    def stretches(self, plan: Mapping[Key, Positions], advance: Advance | None = None) -> Iterator[PredictedRows]:
        """All planned predictions, one stretch of the split at a time; memory does not grow with the split.

        A sample is read and decoded once for all its cases. The positions under each key of ``plan`` must ascend;
        ``advance`` is called with the number of predictions made.

        Raises:
            DataError: a sample cannot be read; the message names it.
            UsageError: not even one sample fits into memory.
        """
        union = np.unique(np.concatenate(list(plan.values()))) if plan else np.empty(0, np.int64)
        size = self._stretch_size()
        blocks = np.split(union, np.flatnonzero(np.diff(union // STRETCH_SAMPLES)) + 1)
        stretches = (block[start : start + size] for block in blocks for start in range(0, len(block), size))
        steps = (
            {key: chosen for key, p in plan.items() if len(chosen := p[(p >= stretch[0]) & (p <= stretch[-1])])}
            for stretch in stretches
        )
        with closing(self.encoded.prefetch(steps, _by_case, ahead=self.ahead)) as loaded:
            yield from self._predicted(loaded, advance)

    def __call__(
        self, wanted: Mapping[Key, Positions], advance: Advance | None = None
    ) -> dict[Key, npt.NDArray[np.float32]]:
        """Logits [n, classes] under each key for the samples at its positions [n], in that order."""
        (predicted,) = self._predicted([wanted], advance)
        return {key: logits for key, (_, logits) in predicted.items()}

    def _stretch_size(self) -> int:
        """The most samples of a stretch."""
        encoded_bytes = sum(fill.nbytes for fill in self.encoded.fills.values())
        room = CPU_STRETCH_BYTES
        if self.device.type != "cpu":
            free = free_memory()
            room = GPU_STRETCH_BYTES if free is None else min(GPU_STRETCH_BYTES, int(HOST_SHARE * free))
        return max(2 * self.batch_size.now, min(STRETCH_SAMPLES, room // encoded_bytes))

    def _predicted(self, steps: Iterable[Mapping[Key, Positions]], advance: Advance | None) -> Iterator[PredictedRows]:
        """The predictions of each step."""
        with in_background(self._batches(steps), self.ahead) as following:
            for stretch, batch in following:
                if batch is not None:
                    self._run(batch, stretch, advance)
                    del batch  # its memory is the next one's
                    continue
                # It shows what batches of this size need. Where lengths differ, larger ones would be padded more.
                if stretch.even and stretch.batch_size == self.batch_size.now:
                    self.batch_size.grow(self.device)
                shape = len(self.classifier.classes)
                logits = {key: np.empty((len(p), shape), np.float32) for key, p in stretch.wanted.items()}
                for key, place, values in stretch.done:
                    logits[key][place] = values.float().cpu().numpy()
                yield {key: (positions, logits[key]) for key, positions in stretch.wanted.items()}

    def _batches(self, steps: Iterable[Mapping[Key, Positions]]) -> Iterator[tuple[_Stretch, _Batch | None]]:
        """The batches of each step; ``None`` after its last."""
        for wanted in steps:
            modalities = self.encoded.request(_by_case(wanted))
            modalities = {position: modalities[position] for position in sorted(modalities)}
            positions = np.asarray(list(modalities), dtype=np.int64)
            places = {key: _places(positions, chosen) for key, chosen in wanted.items()}
            lengths = self.encoded.lengths(modalities)
            stretch = _Stretch(wanted, places, self.batch_size.now, len({*lengths}) == 1, [])
            for rows in group_by_length(lengths, stretch.batch_size):
                chosen = {key: place[rows] >= 0 for key, place in places.items()}
                here = {key: some for key, some in chosen.items() if some.any()}
                inputs = self._inputs(positions[rows], here)
                arrival = None if self._copies is None else self._copies.record_event()
                yield stretch, _Batch(rows, here, inputs, arrival)
            yield stretch, None

    def _run(self, batch: _Batch, stretch: _Stretch, advance: Advance | None) -> None:
        """Run a batch, in halves for as long as it does not fit into memory."""
        left = [batch]
        while left:
            batch = left.pop()
            rows, wanted = batch.rows, batch.wanted
            if len(rows) > self.batch_size.now:
                middle = len(rows) // 2
                left += [batch.half(slice(middle, len(rows))), batch.half(slice(0, middle))]
                continue
            logits: dict[Key, Tensor] | None = None
            try:
                with torch.inference_mode(), self.classifier.autocast():
                    logits = self._passes.logits(wanted, self._unpacked(batch))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            if logits is None:  # outside the handler, which keeps the failed batch's tensors alive
                self.batch_size.halve(self.device)
                left.append(batch)
                continue
            for key, values in logits.items():
                place = stretch.places[key][rows]
                stretch.done.append((key, place[place >= 0], values))
            if advance is not None:
                advance(sum(len(values) for values in logits.values()))

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
            tensors = self.encoded.packed(positions[some].tolist(), of.modality, cases[of])
            inputs[of] = some, self._on_device(of.modality, tensors)
        return inputs

    def _on_device(self, modality: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """A batch of packed samples, on the device if it fits there beside what is computed now."""
        collate, samples = self.encoded.processor.collate, [{modality: tensor} for tensor in tensors]
        if self.ahead:
            try:
                with torch.cuda.stream(self._copies):
                    batch = collate(samples, pinned=True)
                    return {name: copied(tensor, self.device) for name, tensor in batch.items()}
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
        return collate(samples)

    def _unpacked(self, batch: _Batch) -> dict[InputKey, Inputs]:
        """The backbone's inputs, on the device."""
        inputs = batch.inputs
        if batch.arrival is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(batch.arrival)
            for tensor in (tensor for _, tensors in inputs.values() for tensor in tensors.values() if tensor.is_cuda):
                tensor.record_stream(computing)  # freed, it is not copied to again before it was computed with
        unpack = self.encoded.processor.unpack
        return {
            of: (some, {name: unpack(of.modality, tensor.to(self.device)) for name, tensor in tensors.items()})
            for of, (some, tensors) in inputs.items()
        }

    def _fill(self, modality: str) -> dict[str, Tensor]:
        """The backbone's inputs for a sample without this modality."""
        batch = self.encoded.processor.collate([{modality: self.encoded.fills[modality]}])
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


def _by_case(step: Mapping[Key, Positions]) -> Iterator[tuple[str, Positions]]:
    return ((case, positions) for (case, _), positions in step.items())


def _places(union: Positions, positions: Positions) -> npt.NDArray[np.int64]:
    """Index in ``positions`` of each position of ``union``; −1 if it is not there."""
    places = np.full(len(union), -1, dtype=np.int64)
    places[np.searchsorted(union, positions)] = np.arange(len(positions))
    return places
