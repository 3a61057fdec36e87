"""MMP: missing-aware prompts (Lee et al., CVPR 2023), input and attention level.

One prompt tensor [layers, P, D] per case; prompts, the pooler and the head train.

*Input level*: in front of each prompted layer, the case's P tokens are put in front of the sequence, before norm1 and
without position or type embedding. They act as queries, keys and values, and stay in the sequence: after six layers of
16 tokens each it is 96 tokens longer.

*Attention level*: the first P/2 of the case's rows are put in front of the layer's keys and the last P/2 in front of
its values, without a projection. They are not queries, and the length of the sequence does not change.

On a backbone with several streams (CAV-MAE) each stream has its own prompts, and layers are counted from the network's
input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmrobust.configuration import check_size
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Injection, Method, MethodConfig, one_set_per_case
from mmrobust.models.sequence import TokenSequence

INPUT, ATTENTION = "input", "attention"
LEVELS = (INPUT, ATTENTION)
INITS = ("released", "normal")


@dataclass(frozen=True)
class MmpConfig(MethodConfig):
    """Settings of missing-aware prompts; the defaults are the paper's."""

    level: str = INPUT
    """Where prompts are added: ``input`` (tokens in front of the sequence) or ``attention`` (keys and values)."""
    length: int = 16
    """P: rows per case and layer; at the attention level half of them are keys and half values."""
    depth: int = 6
    """Number of prompted layers, counted from the network's input."""
    init: str = "released"
    """``released``: zeros with one row of ones, as in the paper's code; ``normal``: N(0, 0.02²)."""
    layers: tuple[int, ...] = ()
    """Indices of the prompted layers, counted from the network's input; empty: the first ``depth``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.level not in LEVELS:
            raise unknown_name("prompt level", self.level, LEVELS)
        if self.init not in INITS:
            raise unknown_name("prompt init", self.init, INITS)
        check_size("--prompt-length", self.length)
        check_size("--prompt-depth", self.depth)
        if self.level == ATTENTION and self.length % 2:
            raise UsageError(
                f"--prompt-length {self.length}: must be even at the attention level, "
                "where half of the rows are keys and half are values"
            )
        if min(self.layers, default=0) < 0 or len(set(self.layers)) < len(self.layers):
            raise UsageError(f"prompt layers {list(self.layers)}: each must be 0 or more and named once")


class MissingAwarePrompts(Method):
    """Prompts, one set per (stream, case)."""

    name = "mmp"
    config_class = MmpConfig
    trains_pooling = True

    def __init__(self, config: MmpConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self.tokens: Any = nn.ModuleDict()  # stream → case → parameter [layers, P, D]
        for stream in backbone.streams:
            first, layers = backbone.layers_before(stream), range(len(backbone.layers(stream)))
            wanted = config.layers or [first + layer for layer in layers if first + layer < config.depth]
            prompted = [layer - first for layer in wanted if layer - first in layers]
            if not prompted:
                continue
            self.injections[stream] = Injection(prompted, one_set_per_case(cases))
            shape = (len(prompted), config.length, backbone.width[stream])
            self.tokens[stream] = nn.ParameterDict(
                {case: nn.Parameter(_initial(shape, index, config)) for index, case in enumerate(cases)}
            )
        deepest = max(backbone.layers_before(s) + len(backbone.layers(s)) for s in backbone.streams)
        if max(config.layers, default=0) >= deepest:
            raise UsageError(
                f"prompt layers {list(config.layers)}: {backbone.family} has {deepest} layers; name others with "
                f"--method-set layers=[0,1], or the first ones with --prompt-depth {deepest}; in a study, its method's "
                f"settings: {{depth: {deepest}}}"
            )

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts:
        """See :meth:`Method.prompts`: the rows of the cases, side by side."""
        index = self.injections[stream].layers.index(layer)
        chosen = [self.tokens[stream][case][index] for case in sets]
        if self.config.level == INPUT:
            return Prompts(tokens_PD=torch.cat(chosen))
        half = self.config.length // 2
        return Prompts(
            keys_PD=torch.cat([rows_PD[:half] for rows_PD in chosen]),
            values_PD=torch.cat([rows_PD[half:] for rows_PD in chosen]),
        )


def _initial(shape: tuple[int, int, int], row: int, config: MmpConfig) -> torch.Tensor:
    """Initial values [layers, P, D]. The reference sets row 0, 1 or 2 (by case) to ones, and all others to zeros.

    At the attention level it also sets the same row of the half that becomes values.
    """
    if config.init == "normal":
        return torch.randn(shape) * 0.02
    prompts = torch.zeros(shape)
    half = shape[1] // 2 if config.level == ATTENTION else shape[1]
    for start in range(0, shape[1], half):
        prompts[:, start + row % half] = 1.0
    return prompts
