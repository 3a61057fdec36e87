"""MMP: missing-aware prompts (Lee et al., CVPR 2023), input and attention level.

One prompt tensor [layers, P, D] per case; prompts, the pooler and the head train.

*Input level*: before layer l of the prompted ones, the case's P tokens go in front of the sequence, before norm1,
without position or type embedding. They are queries, keys and values, and stay: after six layers of 16 there are 96
more tokens.

*Attention level*: the first P/2 of the case's rows go in front of the layer's keys, the last P/2 in front of its
values, raw, after the projection. They are no queries, and the sequence keeps its length.

On a backbone of several streams (CAV-MAE) each stream has its own prompts, and a layer counts from the network's input.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.sequence import TokenSequence

INPUT, ATTENTION = "input", "attention"
LEVELS = (INPUT, ATTENTION)
INITS = ("released", "normal")


@dataclass(frozen=True)
class MmpConfig(MethodConfig):
    """Settings of missing-aware prompts; the defaults are the paper's.

    Raises:
        UsageError: a value out of range.
    """

    level: str = INPUT
    length: int = 16
    """P: rows per case and layer. At the attention level half of them are keys, half values."""
    depth: int = 6
    """How many layers are prompted, from the network's input."""
    init: str = "released"
    """``released``: zeros with one constant row, as the paper's code begins; ``normal``: N(0, 0.02²)."""
    layers: tuple[int, ...] = ()
    """Which layers are prompted, from the network's input; empty: the first ``depth``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.level not in LEVELS:
            raise unknown_name("prompt level", self.level, LEVELS)
        if self.init not in INITS:
            raise unknown_name("prompt init", self.init, INITS)
        for name in ("length", "depth"):
            if getattr(self, name) < 1:
                raise UsageError(f"--prompt-{name} {getattr(self, name)}: must be 1 or more")
        if self.level == ATTENTION and self.length % 2:
            raise UsageError(
                f"--prompt-length {self.length}: must be even at the attention level, "
                "where one half becomes keys and the other values"
            )
        if min(self.layers, default=0) < 0 or len(set(self.layers)) < len(self.layers):
            raise UsageError(f"prompt layers {list(self.layers)}: each is 0 or more, and named once")


class MissingAwarePrompts(Method):
    """Prompts, one set per (stream, case)."""

    name = "mmp"
    config_class = MmpConfig
    has_prompts = True
    trains_pooling = True

    def __init__(self, config: MmpConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self._rows: dict[str, dict[int, int]] = {}  # stream → its layer → row of the prompt tensor
        self.tokens: Any = nn.ModuleDict()  # stream → case → parameter [layers, P, D]
        for stream in backbone.streams:
            first, layers = backbone.first_layer(stream), range(len(backbone.layers(stream)))
            # A range is searched without being walked through, however deep it is said to be.
            wanted = config.layers or [first + layer for layer in layers if first + layer < config.depth]
            prompted = [layer - first for layer in wanted if layer - first in layers]
            if not prompted:
                continue
            self._rows[stream] = {layer: row for row, layer in enumerate(prompted)}
            shape = (len(prompted), config.length, backbone.width[stream])
            self.tokens[stream] = nn.ParameterDict(
                {case: nn.Parameter(_initial(shape, index, config)) for index, case in enumerate(cases)}
            )
        deepest = max(backbone.first_layer(s) + len(backbone.layers(s)) for s in backbone.streams)
        if max(config.layers, default=0) >= deepest:
            raise UsageError(f"prompt layers {list(config.layers)}: {backbone.family} has {deepest} layers")

    def first_changed(self, stream: str) -> int | None:
        """See :meth:`Method.first_changed`: the first prompted one."""
        return min(self._rows.get(stream, {}), default=None)

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """See :meth:`Method.prompts`: the case's rows, or those of all cases side by side."""
        del sequence
        row = self._rows.get(stream, {}).get(layer)
        if row is None:
            return None
        sets = [self.tokens[stream][case][row] for case in cases]
        if self.config.level == INPUT:
            return Prompts(tokens_PD=torch.cat(sets))
        half = self.config.length // 2
        return Prompts(
            keys_PD=torch.cat([rows_PD[:half] for rows_PD in sets]),
            values_PD=torch.cat([rows_PD[half:] for rows_PD in sets]),
        )

    def prompts_key(self, stream: str, cases: Sequence[str]) -> Hashable:
        """See :meth:`Method.prompts_key`: a stream below no prompted layer has none."""
        return tuple(cases) if stream in self._rows else ()


def _initial(shape: tuple[int, int, int], row: int, config: MmpConfig) -> torch.Tensor:
    """First values [layers, P, D]: the reference fills row 0, 1 or 2 (by case) of zeros with ones.

    At the attention level it fills the same row again in the half that becomes values.
    """
    if config.init == "normal":
        return torch.randn(shape) * 0.02
    prompts = torch.zeros(shape)
    half = shape[1] // 2 if config.level == ATTENTION else shape[1]
    for start in range(0, shape[1], half):
        prompts[:, start + row % half] = 1.0
    return prompts
