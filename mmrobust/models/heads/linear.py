"""Heads on the pooled vector: ``linear``, and MMP's ``mlp``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.cases import Case
from mmrobust.models.heads.base import Head, HeadSizes
from mmrobust.models.pooling import Features


class LinearHead(Head):
    """``linear``: one dense layer on the pooled vector, with a LayerNorm in front on CAV-MAE."""

    name = "linear"
    adds_glance = True
    predicts_numbers = True

    def __init__(self, config: Any, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__(config, sizes, classes, cases)
        self.norm = nn.LayerNorm(sizes.pooled) if sizes.normed else nn.Identity()
        self.dense = nn.Linear(sizes.pooled, classes)

    @torch.no_grad()
    def start_at(self, logits: Tensor) -> None:
        """See :meth:`Head.start_at`."""
        self.dense.bias.copy_(logits)

    @torch.no_grad()
    def start_at_glance(self, modalities: int, unit: float, biases: Tensor) -> None:
        """See :meth:`Head.start_at_glance`; of the network's own features, none counts yet."""
        classes = len(biases)
        self.dense.weight.zero_()
        self.dense.weight[:, -modalities * classes :] = unit * torch.eye(classes).repeat(1, modalities)
        self.dense.bias.copy_(biases)

    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """See :meth:`Head.forward`."""
        return self.in_unit(self.dense(self.norm(features.pooled_BD)))


class MlpHead(Head):
    """``mlp``: Linear(D, 2D), LayerNorm, GELU, Linear(2D, classes), as in MMP (and ViLT before it)."""

    name = "mlp"
    predicts_numbers = True

    def __init__(self, config: Any, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__(config, sizes, classes, cases)
        size = sizes.pooled
        self.layers = nn.Sequential(
            nn.Linear(size, 2 * size), nn.LayerNorm(2 * size), nn.GELU(), nn.Linear(2 * size, classes)
        )

    @torch.no_grad()
    def start_at(self, logits: Tensor) -> None:
        """See :meth:`Head.start_at`."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(logits)

    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """See :meth:`Head.forward`."""
        return self.in_unit(self.layers(features.pooled_BD))
