"""What a method is: what it adds to the frozen backbone, and what of the backbone it trains."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from mmrobust.models.backbone import Backbone, PromptSource
from mmrobust.models.layers import Prompts
from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class MethodConfig:
    """Settings of a method; a method with settings has its own subclass."""


class Method(nn.Module):
    """Base of all methods.

    Args:
        config: an instance of :attr:`config_class`.
        backbone: what it will be added to. Most methods read its sizes and keep nothing; LoRA puts its weights into
            the backbone's model, beside the backbone's own.
        cases: names of the cases that it tells apart.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    has_prompts: ClassVar[bool] = False
    """Whether what it adds depends on the case: then situation and concat prompting differ."""
    trains_backbone: ClassVar[bool] = False
    trains_pooling: ClassVar[bool] = False
    """Whether it trains the pooling's ``trained_names``, on a copy of its own."""

    keeps_head: ClassVar[bool] = False
    """Whether it begins with the head of the fine-tuned checkpoint that its backbone comes from."""
    trains_head: bool = True
    """Whether the head trains; one that does not is the fine-tuned checkpoint's."""
    default_scenario: ClassVar[str] = "missing-both"
    """What it trains under where nothing else is said."""

    def __init__(self, config: Any, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.cases = tuple(cases)

    def first_changed(self, stream: str) -> int | None:
        """The first layer of ``stream`` to which it ever adds anything, or of which it trains a weight.

        Below it, a frozen backbone gives a sample the same in every step, so that training computes it once.

        Returns:
            ``None`` where it changes no layer of the stream. Unless a method says otherwise, the first.
        """
        del stream
        return 0

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """What to add at ``layer`` of ``stream``.

        Args:
            stream: a stream of the backbone.
            layer: index of the layer within the stream.
            cases: the case that the model is told (situation), or all of them (concat).
            sequence: the layer's input.
        """
        return None

    def prompts_key(self, stream: str, cases: Sequence[str]) -> Hashable:
        """What decides the prompts of ``stream``: where it is the same for two sets of cases, so are all its prompts.

        Evaluation then runs the stream once for both. A method with prompts for a part of the streams only, or with the
        same ones in several cases, overrides this.
        """
        del stream
        return tuple(cases) if self.has_prompts else ()

    def source(self, cases: Sequence[str]) -> PromptSource:
        """What to add in one forward pass in which the model is told ``cases``.

        :meth:`prompts` at every layer; a method whose layers share work overrides this, to do it once.
        """
        return lambda stream, layer, sequence: self.prompts(stream, layer, cases, sequence)


class NoMethod(Method):
    """``none``: the frozen backbone as it is; only the head trains."""

    name = "none"

    def first_changed(self, stream: str) -> int | None:
        """See :meth:`Method.first_changed`: none."""
        del stream
        return None
