"""MMP: missing-aware prompts (Lee et al., CVPR 2023), input level.

One prompt tensor [layers, P, D] per case. Before layer l of the prompted ones, the case's P tokens go in front of the
sequence, before norm1, without position or type embedding. They are queries, keys and values, and stay: after six
layers of 16 there are 96 more tokens. Prompts, the pooler and the head train.

On a backbone of several streams (CAV-MAE) each stream has its own prompts, and a layer counts from the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmrobust.backbones.base import Backbone
from mmrobust.backbones.layers import Prompts
from mmrobust.backbones.sequence import TokenSequence
from mmrobust.errors import UsageError, unknown_name
from mmrobust.methods.base import Method, MethodConfig

LEVELS = ("input",)
INITS = ("released", "normal")


@dataclass(frozen=True)
class MmpConfig(MethodConfig):
    """Settings of missing-aware prompts; the defaults are the paper's.

    Raises:
        UsageError: a value out of range.
    """

    level: str = "input"
    length: int = 16
    """P: tokens per case and layer."""
    depth: int = 6
    """How many layers are prompted, from the network's input."""
    init: str = "released"
    """``released``: zeros with one constant row, as the paper's code begins; ``normal``: N(0, 0.02²)."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown_name("prompt level", self.level, LEVELS)
        if self.init not in INITS:
            raise unknown_name("prompt init", self.init, INITS)
        for name in ("length", "depth"):
            if getattr(self, name) < 1:
                raise UsageError(f"--prompt-{name} {getattr(self, name)}: must be 1 or more")


class MissingAwarePrompts(Method):
    """Input-level prompts, one set per (stream, case)."""

    name = "mmp"
    config_class = MmpConfig
    has_prompts = True
    trains_pooling = True

    def __init__(self, config: MmpConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self.tokens: Any = nn.ModuleDict()  # stream → case → parameter [layers, P, D]
        for stream in backbone.streams:
            layers = min(config.depth - backbone.first_layer(stream), len(backbone.layers(stream)))
            if layers > 0:
                shape = (layers, config.length, backbone.width[stream])
                self.tokens[stream] = nn.ParameterDict(
                    {case: nn.Parameter(_initial(shape, index, config.init)) for index, case in enumerate(cases)}
                )

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """See :meth:`Method.prompts`: the case's P tokens, or those of all cases side by side."""
        del sequence
        if stream not in self.tokens or layer >= len(self.tokens[stream][self.cases[0]]):
            return None
        return Prompts(tokens_PD=torch.cat([self.tokens[stream][case][layer] for case in cases]))


def _initial(shape: tuple[int, int, int], row: int, init: str) -> torch.Tensor:
    """First values [layers, P, D]: the reference fills row 0, 1 or 2 (by case) of zeros with ones."""
    if init == "normal":
        return torch.randn(shape) * 0.02
    prompts = torch.zeros(shape)
    prompts[:, row % shape[1]] = 1.0
    return prompts
