"""What a head is: features in, logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mmrobust.cases import Case
from mmrobust.models.backbone import Features


@dataclass(frozen=True)
class HeadConfig:
    """Settings of a head; a head with settings has its own subclass."""


@dataclass(frozen=True)
class HeadSizes:
    """What a head must know of its surroundings."""

    pooled: int
    """Size of the pooled vector."""
    parts: Mapping[str, int]
    """Modality → size of its part."""
    normed: bool
    """Whether the family puts a LayerNorm in front of a linear head."""


class Head(nn.Module, ABC):
    """Base of all heads.

    Args:
        config: an instance of :attr:`config_class`.
        sizes: sizes of the features.
        classes: number of classes.
        cases: the cases that the classifier tells apart.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[HeadConfig]] = HeadConfig
    reads_parts: ClassVar[bool] = False
    """Whether it reads the modalities' own features instead of the pooled vector."""
    knows_case: ClassVar[bool] = False
    """Whether its logits depend on the case: then situation and concat prompting differ."""

    def __init__(self, config: Any, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """Logits [B, classes] for the case that the model is told (situation), or for all of them (concat)."""

    def learn(self, features: Features, cases: Sequence[str], targets: Tensor) -> tuple[Tensor, Tensor]:
        """What a training step needs of a batch; a head with an objective of its own overrides it.

        Args:
            features: of the batch.
            cases: as for :meth:`forward`.
            targets: labels as ones in [B, classes].

        Returns:
            The logits [B, classes] that the task's loss is taken of, and the head's own term of the loss, a scalar,
            summed over the batch.
        """
        logits = self(features, cases)
        return logits, logits.new_zeros(())

    @property
    def starts_from_features(self) -> bool:
        """Whether :meth:`start_from` is to be called: where a head overrides it, unless its settings say otherwise.

        The features of the whole training split are computed for it.
        """
        return type(self).start_from is not Head.start_from

    def start_from(self, seen: Mapping[str, tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Initial values from the features of the training split, before the first step.

        Random numbers come from PyTorch's global generator on the CPU, which training seeds.

        Args:
            seen: case → (modality → features [N, D], labels as ones in [N, classes]), over the samples that have, by
                nature, what the case calls present.
        """
