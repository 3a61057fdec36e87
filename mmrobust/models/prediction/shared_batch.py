"""One batch under everything that is wanted of it: each part that predictions share is computed for all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.models.backbone import PromptSource
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.sharing import Alone, Parts
from mmrobust.models.sequence import TokenSequence
from mmrobust.scoring.truth import Key

Rows = npt.NDArray[np.bool_]
"""Which samples of a batch [B]."""
Source = Callable[[tuple[str, ...]], PromptSource]
Fill = Callable[[Alone, tuple[str, ...]], TokenSequence]


@dataclass(frozen=True)
class Batch:
    """Samples that go through the model together."""

    wanted: Mapping[Key, Rows]
    """(case, prompting) → the samples that are predicted under it."""
    inputs: Mapping[Alone, tuple[Rows, dict[str, Tensor]]]
    """A modality alone → the samples for which it runs, and its inputs of those."""

    def logits(
        self, classifier: Classifier, parts: Mapping[Key, Parts], source: Source, fill: Fill
    ) -> dict[Key, Tensor]:
        """Logits [n, classes] under each key, of its samples.

        Args:
            classifier: in evaluation mode.
            parts: what the predictions under each key are made of.
            source: what the method adds where the model is told these cases.
            fill: what the fill of a missing modality becomes [1, L, D].
        """
        device = next(classifier.parameters()).device
        sharing: dict[Hashable, list[Key]] = {}
        for key in self.wanted:
            sharing.setdefault(parts[key].features, []).append(key)
        computed: dict[Alone, TokenSequence] = {}
        found = {}
        for keys in sharing.values():
            rows = np.any([self.wanted[key] for key in keys], axis=0)
            told, sequences = parts[keys[0]].told, {}
            for modality, alone in parts[keys[0]].alone.items():
                if alone.is_fill:
                    same = torch.zeros(int(rows.sum()), dtype=torch.long, device=device)
                    sequences[modality] = fill(alone, told).rows(same)
                    continue
                some, inputs = self.inputs[alone]
                if alone not in computed:
                    computed[alone] = classifier.backbone.alone(modality, inputs, source(told))
                sequences[modality] = _of(computed[alone], some, rows, device)
            features = classifier.pool(classifier.backbone.meet(sequences, source(told)))
            for key in keys:
                found[key] = classifier.head(_of(features, rows, self.wanted[key], device), parts[key].told)
        return found


class _Part(Protocol):
    """What was computed for some samples of a batch."""

    def rows(self, rows: Tensor) -> Any:
        """The same of fewer samples, by their indices among those."""


P = TypeVar("P", bound=_Part)


def _of(part: P, computed: Rows, rows: Rows, device: torch.device) -> P:
    """The ``part`` that was computed for some samples of the batch, for ``rows``, which are among them."""
    if (computed == rows).all():
        return part
    fewer: P = part.rows(torch.from_numpy((np.cumsum(computed) - 1)[rows]).to(device))
    return fewer
