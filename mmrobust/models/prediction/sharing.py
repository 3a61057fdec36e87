"""Sharing of computations between predictions of the same samples in several cases.

A forward pass has three steps: each modality is encoded on its own (by a tower, by a stream of its own layers, or only
by an embedding), the layers that fuse modalities run, and the head runs. For each step, everything that determines its
result besides the sample is collected in a key. Steps with equal keys have the same result and are run once:

- the encoding of a modality depends on its own state in the case and on the prompts of its stream. CLIP's image tower
  thus serves ``complete`` and ``missing-text`` if the prompts of the method do not depend on the case, and under concat
  prompting, where they are the same in all cases;
- the fill of a missing modality does not depend on the sample: it is encoded once for the whole data set;
- a head that knows the case does not change the features: a prototype head on a frozen backbone needs one forward pass
  for both promptings.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.cases import Case
from mmrobust.data.encoded_split import input_key
from mmrobust.models.backbone import PromptSource
from mmrobust.models.classifier import Classifier
from mmrobust.models.sequence import TokenSequence
from mmrobust.scoring.truth import Key

Rows = npt.NDArray[np.bool_]
"""Mask of the samples of a batch [B]."""


@dataclass(frozen=True)
class EncodingKey:
    """What determines the encoding of one modality, besides the sample."""

    modality: str
    input: Hashable
    """The state of its input: :func:`input_key`."""
    prompts: Hashable
    """The prompts of its stream: :meth:`Method.prompts_key`."""
    is_fill: bool
    """Whether the input is the fill, so that the result is the same for all samples."""


@dataclass(frozen=True)
class ForwardPass:
    """The steps of a forward pass in one case under one prompting."""

    case: Case
    told: tuple[str, ...]
    """The cases that the model is told."""
    encodings: Mapping[str, EncodingKey]
    """Modality → key of its encoding, for the modalities that are run."""
    features: Hashable
    """Key of the features that the head reads."""


def forward_pass(classifier: Classifier, key: Key) -> ForwardPass:
    """The steps of the predictions under ``key``, a pair (case, prompting).

    Raises:
        UsageError: as for :meth:`Classifier.told`.
    """
    case, told = Case.parse(key[0], classifier.modalities), classifier.told(*key)
    method, backbone = classifier.method, classifier.backbone
    encodings = {}
    for modality in backbone.modalities_to_run(classifier.known_missing(told)):
        prompts = method.prompts_key(modality, told) if modality in backbone.streams else ()
        encodings[modality] = EncodingKey(modality, input_key(modality, case), prompts, case.is_missing(modality))
    prompts = tuple(method.prompts_key(stream, told) for stream in method.injections)
    return ForwardPass(case, told, encodings, (tuple(encodings.values()), prompts))


@dataclass(frozen=True)
class SharedBatch:
    """A batch of samples, with everything that is to be predicted of them."""

    wanted: Mapping[Key, Rows]
    """(case, prompting) → the samples that are predicted under it."""
    inputs: Mapping[EncodingKey, tuple[Rows, dict[str, Tensor]]]
    """Encoding → the samples that need it, and their inputs."""

    def logits(
        self,
        classifier: Classifier,
        passes: Mapping[Key, ForwardPass],
        source: Callable[[tuple[str, ...]], PromptSource],
        fill: Callable[[EncodingKey, tuple[str, ...]], TokenSequence],
    ) -> dict[Key, Tensor]:
        """Logits [n, classes] under each key, for its samples.

        Args:
            classifier: in evaluation mode.
            passes: the steps of the forward pass under each key.
            source: told cases → what the method adds.
            fill: (encoding of a fill, told cases) → its tokens [1, L, D].
        """
        device = next(classifier.parameters()).device
        sharing: dict[Hashable, list[Key]] = {}
        for key in self.wanted:
            sharing.setdefault(passes[key].features, []).append(key)
        encoded: dict[EncodingKey, TokenSequence] = {}
        logits = {}
        for keys in sharing.values():
            rows = np.any([self.wanted[key] for key in keys], axis=0)
            told, sequences = passes[keys[0]].told, {}
            for modality, encoding in passes[keys[0]].encodings.items():
                if encoding.is_fill:
                    same = torch.zeros(int(rows.sum()), dtype=torch.long, device=device)
                    sequences[modality] = fill(encoding, told).rows(same)
                    continue
                encoded_rows, inputs = self.inputs[encoding]
                if encoding not in encoded:
                    encoded[encoding] = classifier.backbone.encode_modality(modality, inputs, source(told))
                sequences[modality] = _select(encoded[encoding], encoded_rows, rows, device)
            features = classifier.pool(classifier.backbone.fuse(sequences, source(told)))
            for key in keys:
                logits[key] = classifier.head(_select(features, rows, self.wanted[key], device), passes[key].told)
        return logits


class _HasRows(Protocol):
    def rows(self, rows: Tensor) -> Any: ...


T = TypeVar("T", bound=_HasRows)


def _select(values: T, available: Rows, rows: Rows, device: torch.device) -> T:
    """Restrict ``values``, which belong to the ``available`` samples of the batch, to those in ``rows``."""
    if (available == rows).all():
        return values
    fewer: T = values.rows(torch.from_numpy((np.cumsum(available) - 1)[rows]).to(device))
    return fewer
