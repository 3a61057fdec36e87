"""From a backbone's streams to the features that the head reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmrobust.models.glance import UNIT
from mmrobust.models.sequence import TokenSequence

BESIDE_GLANCE = 0.5
"""What the network's vectors are multiplied with where a glance stands beside them: it learns to predict alone."""


@dataclass(frozen=True)
class Features:
    """The features of a batch that a head reads: the pooled vector, or one vector per modality."""

    pooled_BD: Tensor | None
    """One vector for the whole sample (heads ``linear`` and ``mlp``)."""
    by_modality: Mapping[str, Tensor]
    """Modality → its own vector [B, D of the modality] (head ``prototype``), at least for the modalities present."""

    def rows(self, rows: Tensor) -> Features:
        """The features of the samples at the indices ``rows`` [n] of the batch."""
        pooled = None if self.pooled_BD is None else self.pooled_BD[rows]
        return Features(pooled, {modality: vector_BD[rows] for modality, vector_BD in self.by_modality.items()})


class Pooling(nn.Module, ABC):
    """Streams to features: the part of a backbone that some methods train."""

    pooled_size: int
    modality_sizes: Mapping[str, int]
    """Modality → size of its own vector."""
    glance_sizes: Mapping[str, int] = {}
    """Modality → how many numbers of the vectors, their last, are the glance at it (``models/glance.py``)."""
    trained_if_pooled: ClassVar[tuple[str, ...]] = ()
    """Child modules that a method with ``trains_pooling`` trains under a head that reads the pooled vector."""
    trained_if_by_modality: ClassVar[tuple[str, ...]] = ()
    """Child modules that it trains under a head that reads one vector per modality."""

    def __init__(self, model: Any) -> None:
        super().__init__()

    def with_glance(self, sizes: Mapping[str, int]) -> Pooling:
        """This pooling, with the glances of these ``sizes`` beside its vectors."""
        self.glance_sizes = dict(sizes)
        self.pooled_size += sum(sizes.values())
        self.modality_sizes = {m: size + sizes.get(m, 0) for m, size in self.modality_sizes.items()}
        return self

    def pooled_with_glance(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """:meth:`pooled`, with the glances, if there are any, behind; zeros where a modality was left out."""
        pooled_BD, glances = self.pooled(streams), _glances(streams)
        if glances:
            pooled_BD = pooled_BD * BESIDE_GLANCE
        absent = {modality: pooled_BD.new_zeros(len(pooled_BD), size) for modality, size in self.glance_sizes.items()}
        return torch.cat([pooled_BD, *(glances.get(m, zeros) for m, zeros in absent.items())], dim=-1)

    def by_modality_with_glance(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """:meth:`by_modality`, each with its glance, if there is one, behind: in logits, as prototypes compare angles.

        What is as large as one of the network's many features is lost in an angle, while a linear head can enlarge it.
        """
        glances = _glances(streams)
        vectors = self.by_modality(streams)
        for modality, size in self.glance_sizes.items():
            if modality in vectors:
                own_BD = vectors[modality]
                glance_BC = glances.get(modality, own_BD.new_zeros(len(own_BD), size))
                vectors[modality] = torch.cat([own_BD * (BESIDE_GLANCE if glances else 1.0), glance_BC * UNIT], dim=-1)
        return vectors

    def pooled(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """One vector [B, D] for the sample: by default the modalities' side by side, zeros for a tower not run."""
        features = self.by_modality(streams)
        like = next(iter(features.values()))
        sizes = {m: size - self.glance_sizes.get(m, 0) for m, size in self.modality_sizes.items()}
        return torch.cat([features.get(m, like.new_zeros(len(like), size)) for m, size in sizes.items()], dim=-1)

    @abstractmethod
    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → its own vector [B, D of the modality], for the modalities whose stream was run."""


def _glances(streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
    return {modality: glance for stream in streams.values() for modality, glance in stream.glance.items()}
