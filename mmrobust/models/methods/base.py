"""The interface of a method: what it adds to the frozen backbone, and what of the backbone it trains."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone, PromptSource
from mmrobust.models.layers import Prompts
from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class MethodConfig:
    """Settings of a method; one with settings subclasses it, and raises a ``UsageError`` for a value out of range."""


@dataclass(frozen=True)
class Injection:
    """Where a method changes one stream of the backbone, and what the change depends on."""

    layers: Sequence[int]
    """The layers of the stream to which it adds something, or in which it trains weights."""
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Case → names of the prompt sets that are added in this case, in order; empty if all cases get the same."""

    def chosen(self, cases: Sequence[str]) -> tuple[str, ...]:
        """The prompt sets for the told ``cases``, each once: those of one case (situation) or of all (concat)."""
        return tuple(dict.fromkeys(name for case in cases if self.sets for name in self.sets[case]))


class Method(nn.Module):
    """Base of all methods. A subclass makes its parameters, declares its :attr:`injections` and gives :meth:`prompts`.

    Args:
        config: an instance of :attr:`config_class`.
        backbone: what the method is added to. Most methods only read its sizes; LoRA puts its weights into the
            backbone's model, next to the backbone's own.
        cases: names of the cases that the method distinguishes.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    trains_backbone: ClassVar[bool] = False
    trains_pooling: bool = False
    """Whether it trains the modules that the pooling names for it, on a copy of its own."""
    reuses_head: ClassVar[bool] = False
    """Whether it starts from the head of the fine-tuned checkpoint that the backbone comes from."""
    trains_head: bool = True
    """Whether the head trains; otherwise it is the fine-tuned checkpoint's head, unchanged."""
    default_scenario: ClassVar[str] = "missing-both"
    """The scenario to train under if none is named."""
    recipe: ClassVar[Mapping[str, Any]] = {}
    """Training settings (fields of ``Recipe``) that differ from the defaults, which are MMP's for training prompts."""

    injections: dict[str, Injection]
    """Stream, or fusion point of the backbone → what the method does to it. Nothing is added anywhere else."""

    def __init__(self, config: Any, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.injections = {}

    @classmethod
    def default_recipe(cls, random_weights: bool) -> Mapping[str, Any]:
        """The :attr:`recipe` for a backbone whose weights are random (a tiny one) or pretrained."""
        return cls.recipe

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """What to add at one of the layers that :attr:`injections` names; ``None``: nothing.

        Args:
            stream: a stream or fusion point of the backbone.
            layer: index of the layer within the stream.
            sets: the prompt sets to add: :meth:`Injection.chosen` of the cases that the model is told.
            sequence: the layer's input. Each sample may depend on its own row alone.
        """
        return None

    def source(self, cases: Sequence[str]) -> PromptSource:
        """What to add in a forward pass in which the model is told ``cases``: :meth:`prompts` at the declared layers.

        A method whose layers share work overrides this to do it once.
        """
        chosen = {stream: injection.chosen(cases) for stream, injection in self.injections.items()}

        def added(stream: str, layer: int, sequence: TokenSequence) -> Prompts | None:
            if stream not in chosen or layer not in self.injections[stream].layers:
                return None
            return self.prompts(stream, layer, chosen[stream], sequence)

        return added

    @property
    def knows_case(self) -> bool:
        """Whether what it adds depends on the case, so that situation and concat prompting differ."""
        return any(injection.sets for injection in self.injections.values())

    def first_changed(self, stream: str) -> int | None:
        """The first layer of ``stream`` that the method changes; ``None`` if it changes none.

        Below it, a frozen backbone gives a sample the same result in every step, so training computes it once.
        """
        return min(self.injections[stream].layers, default=None) if stream in self.injections else None

    def prompts_key(self, stream: str, cases: Sequence[str]) -> Hashable:
        """What determines the prompts of ``stream`` when ``cases`` are told: with equal keys, it is run only once."""
        return self.injections[stream].chosen(cases) if stream in self.injections else ()


def one_set_per_case(cases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """:attr:`Injection.sets` for a method that has one prompt set per case, named after it."""
    return {case: (case,) for case in cases}


def check_towers(method: str, backbone: Backbone, towers: Sequence[str] = ()) -> None:
    """Raise unless the backbone has one tower per modality, and among them ``towers``.

    Raises:
        UsageError: it has not.
    """
    if not backbone.late_fusion or not set(towers) <= set(backbone.streams):
        raise UsageError(
            f"method {method} needs one tower per modality, as clip has; {backbone.family} has the streams "
            f"{', '.join(backbone.streams)}: use another --backbone or another --method"
        )


@dataclass(frozen=True)
class NoMethodConfig(MethodConfig):
    """Settings of ``none``."""

    train_pooling: bool = False
    """Whether the backbone's pooling trains as well, on a copy, as with prompts (CLIP: both towers' last norms and the
    image's projection; ViLT: the pooler)."""


class NoMethod(Method):
    """``none``: the frozen backbone as it is; only the head trains."""

    name = "none"
    config_class = NoMethodConfig

    def __init__(self, config: NoMethodConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self.trains_pooling = config.train_pooling
