"""The interface of a head: features in, logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mmrobust.cases import Case
from mmrobust.models.pooling import Features


@dataclass(frozen=True)
class HeadConfig:
    """Settings of a head; a head with settings subclasses it."""

    @classmethod
    def of_checkpoint(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings that a checkpoint's ``config.json`` holds, as this version names them.

        A head whose defaults have changed overrides it, so that older checkpoints keep what they were trained as.
        """
        return settings


@dataclass(frozen=True)
class HeadSizes:
    """Sizes of the features that a head reads."""

    pooled: int
    """Size of the pooled vector."""
    by_modality: Mapping[str, int]
    """Modality → size of its own vector."""
    normed: bool
    """Whether the backbone's family puts a LayerNorm in front of a linear head."""


@dataclass(frozen=True)
class LabelScale:
    """The numbers of a regression task over the training split, by which a head's output is scaled."""

    mean: float
    std: float
    """Standard deviation, above 0."""


class Head(nn.Module, ABC):
    """Base of all heads.

    It is made from an instance of :attr:`config_class`, the sizes of the features, the number of classes and the cases
    that the classifier distinguishes.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[HeadConfig]] = HeadConfig
    reads_modalities: ClassVar[bool] = False
    """Whether it reads one vector per modality instead of the pooled vector."""
    score_settings: ClassVar[tuple[str, ...]] = ()
    """Settings without which equal weights are not the same head."""
    knows_case: ClassVar[bool] = False
    """Whether its logits depend on the case, so that situation and concat prompting differ."""

    adds_glance: ClassVar[bool] = False
    """Whether its logits are a sum in which a backbone's glance is one term (:meth:`start_at_glance`)."""
    predicts_numbers: ClassVar[bool] = False
    """Whether it can predict the number of a regression task: its output is then :meth:`in_unit`."""
    label_scale: LabelScale | None = None
    """Of a regression task; otherwise ``None``."""

    def __init__(self, config: Any, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__()
        self.config = config

    def in_unit(self, output: Tensor) -> Tensor:
        """What the last layer gives, in the labels' unit: standardised numbers are scaled, logits stay the same."""
        if self.label_scale is None:
            return output
        return output.float() * self.label_scale.std + self.label_scale.mean

    @abstractmethod
    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """Logits [B, classes] for the case that the model is told (situation), or for all of them (concat)."""

    def train_under(self, cases: Sequence[str]) -> None:
        """Take note, before training, in which of its cases training samples can be; by default it does not matter."""

    def learn(self, features: Features, cases: Sequence[str], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss term for a training step; a head with an objective of its own overrides it.

        Args:
            features: features of the batch.
            cases: as for :meth:`forward`.
            targets: multi-hot labels [B, classes]; in a regression task, the numbers [B, 1].

        Returns:
            The logits [B, classes] for the task's loss, and the head's own loss term, a scalar summed over the batch.
        """
        logits = self(features, cases)
        return logits, logits.new_zeros(())

    def start_at(self, logits: Tensor) -> None:
        """Set the biases so that, before the first step, every sample has about the ``logits`` [classes].

        By default nothing is set: the head has no biases.
        """

    def start_at_glance(self, modalities: int, unit: float, biases: Tensor) -> None:
        """Start as the probe that a backbone's glance is: logits are ``unit`` · the sum of the glances + ``biases``.

        The glances, of [C] numbers for each of so many ``modalities``, are the last of the pooled vector. By default
        nothing is set.
        """

    @property
    def starts_from_features(self) -> bool:
        """Whether :meth:`start_from` must be called, for which the features of the whole training split are computed.

        By default it must if the head overrides it.
        """
        return type(self).start_from is not Head.start_from

    def start_from(self, seen: Mapping[str, tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Set initial weights from the features of the training split, before the first step.

        Random numbers come from PyTorch's global generator on the CPU, which training seeds.

        Args:
            seen: case → (modality → features [N, D], multi-hot labels [N, classes]) of the samples that have every
                modality that is present in the case.
        """
