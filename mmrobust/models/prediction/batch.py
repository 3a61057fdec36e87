"""The forward passes of one batch under all its keys, in which every step that several of them share runs once."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.models.backbone import PartialStream
from mmrobust.models.classifier import Classifier
from mmrobust.models.pooling import Features
from mmrobust.models.prediction.forward_pass import (
    EncodingKey,
    ForwardPass,
    InputKey,
    forward_pass,
    unchanged_layers,
)
from mmrobust.models.sequence import TokenSequence
from mmrobust.runtime.devices import copied
from mmrobust.scoring.truth import Key

Rows = npt.NDArray[np.bool_]
"""Mask of the samples of a batch [B]."""
Inputs = tuple[Rows, dict[str, Tensor]]
"""The samples of a batch that need a modality in some state, and the backbone's inputs for them."""
T = TypeVar("T", TokenSequence, Features)


class Passes:
    """The forward passes of one classifier.

    Args:
        classifier: in evaluation mode; it must not change.
        fill: gives the backbone's inputs for one sample whose modality, which is named, is missing.
    """

    def __init__(self, classifier: Classifier, fill: Callable[[str], dict[str, Tensor]]) -> None:
        self.classifier, self._fill_inputs = classifier, fill
        self.of = functools.cache(functools.partial(forward_pass, classifier))
        self.source = functools.cache(classifier.method.source)  # what a method's layers share is computed once
        self._unchanged = unchanged_layers(classifier)
        self._fills: dict[EncodingKey, TokenSequence] = {}

    def logits(self, wanted: Mapping[Key, Rows], inputs: Mapping[InputKey, Inputs]) -> dict[Key, Tensor]:
        """Logits [n, classes] under each key, for the samples of a batch that it is ``wanted`` for."""
        batch = _Batch(self, wanted, inputs)
        joining: dict[Hashable, dict[Hashable, list[Key]]] = {}
        for key in wanted:
            steps = self.of(key)
            joining.setdefault(steps.joined, {}).setdefault(steps.features, []).append(key)
        logits = {}
        for sharing in joining.values():
            begun = batch.begun(list(sharing.values()))
            for keys in sharing.values():
                rows = batch.rows(keys)
                features = batch.features(self.of(keys[0]), rows, begun)
                for key in keys:
                    chosen = batch.select(features, rows, wanted[key])
                    logits[key] = self.classifier.head(chosen, self.of(key).told)
        return logits

    def fill(self, encoding: EncodingKey, told: tuple[str, ...]) -> TokenSequence:
        """The encoded fill of a missing modality [1, L, D], computed once for all samples."""
        if encoding not in self._fills:
            modality = encoding.input.modality
            inputs = self._fill_inputs(modality)
            self._fills[encoding] = self.classifier.backbone.encode_modality(modality, inputs, self.source(told))
        return self._fills[encoding]

    def unchanged(self, stream: str | None) -> int:
        """How many of the first layers of ``stream`` are the same under all prompts."""
        return self._unchanged.get(stream, 0) if stream else 0


class _Batch:
    """What has been computed of one batch so far."""

    def __init__(self, passes: Passes, wanted: Mapping[Key, Rows], inputs: Mapping[InputKey, Inputs]) -> None:
        self.passes, self.wanted, self.inputs = passes, wanted, inputs
        self.backbone = passes.classifier.backbone
        self.device = next(passes.classifier.parameters()).device
        distinct = {encoding for key in wanted for encoding in passes.of(key).encodings.values()}
        self._uses = Counter(encoding.input for encoding in distinct if not encoding.is_fill)
        self._encoded: dict[EncodingKey, TokenSequence] = {}
        self._first_layers: dict[InputKey, PartialStream] = {}

    def rows(self, keys: list[Key]) -> Rows:
        """The samples that any of the ``keys`` is wanted for."""
        return np.asarray(np.any([self.wanted[key] for key in keys], axis=0))

    def begun(self, sharing: list[list[Key]]) -> tuple[Rows, PartialStream] | None:
        """The layers of the joint stream that passes with the same encodings share, and for which samples.

        ``None`` where there is nothing to share.
        """
        stream, steps = self.backbone.joint_stream, self.passes.of(sharing[0][0])
        layers = self.passes.unchanged(stream)
        if len(sharing) == 1 or not layers or len(steps.encodings) < len(self.backbone.modalities):
            return None
        rows = self.rows([key for keys in sharing for key in keys])
        return rows, self.backbone.run_first_joint_layers(self._sequences(steps, rows), layers)

    def features(self, steps: ForwardPass, rows: Rows, begun: tuple[Rows, PartialStream] | None) -> Features:
        """What the head reads of the samples in ``rows``, continuing from what was ``begun``."""
        partial: dict[str, PartialStream] | None = None
        if begun is not None and self.backbone.joint_stream is not None:
            available, start = begun
            partial = {
                self.backbone.joint_stream: replace(start, sequence=self.select(start.sequence, available, rows))
            }
        sequences = self._sequences(steps, rows)
        streams = self.backbone.fuse(sequences, self.passes.source(steps.told), partial)
        return self.passes.classifier.pool(streams)

    def select(self, values: T, available: Rows, rows: Rows) -> T:
        """Restrict ``values``, which belong to the ``available`` samples of the batch, to those in ``rows``."""
        if (available == rows).all():
            return values
        return values.rows(copied(torch.from_numpy((np.cumsum(available) - 1)[rows]), self.device))

    def _sequences(self, steps: ForwardPass, rows: Rows) -> dict[str, TokenSequence]:
        """Modality → its encoding for the samples in ``rows``."""
        sequences = {}
        for modality, encoding in steps.encodings.items():
            if encoding.is_fill:
                same = torch.zeros(int(rows.sum()), dtype=torch.long, device=self.device)
                sequences[modality] = self.passes.fill(encoding, steps.told).rows(same)
                continue
            available, _ = self.inputs[encoding.input]
            if encoding not in self._encoded:
                self._encoded[encoding] = self._encode(encoding, steps.told)
            sequences[modality] = self.select(self._encoded[encoding], available, rows)
        return sequences

    def _encode(self, encoding: EncodingKey, told: tuple[str, ...]) -> TokenSequence:
        """The encoding of one modality, for all samples that need it in this state."""
        of, source = encoding.input, self.passes.source(told)
        _, tensors = self.inputs[of]
        layers = self.passes.unchanged(of.modality)
        if self._uses[of] == 1 or not layers:
            return self.backbone.encode_modality(of.modality, tensors, source)
        if of not in self._first_layers:
            self._first_layers[of] = self.backbone.run_first_layers(of.modality, tensors, layers)
        return self.backbone.encode_modality(of.modality, tensors, source, self._first_layers[of])
