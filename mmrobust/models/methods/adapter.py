"""Bottleneck adapters (Houlsby et al., ICML 2019): a baseline that adapts every layer, whatever the case.

After the attention and after the feed-forward half of every layer, the output h becomes h + up(gelu(down(h))) before it
is added to the residual. ``up`` begins at zero, so the training begins at the frozen model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class AdapterConfig(MethodConfig):
    """Settings of bottleneck adapters.

    Raises:
        UsageError: a value out of range.
    """

    bottleneck: int = 64
    """Size of the narrow middle."""

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise UsageError(f"adapter method: bottleneck {self.bottleneck} must be 1 or more")


class Bottleneck(nn.Module):
    """[B, L, D] → [B, L, D] through a narrow middle, around which a residual leads."""

    def __init__(self, size: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, bottleneck), nn.Linear(bottleneck, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """H + up(gelu(down(h)))."""
        changed: Tensor = x_BLD + self.up(F.gelu(self.down(x_BLD)))
        return changed


class Adapters(Method):
    """``adapter``: two bottlenecks per layer of every stream."""

    name = "adapter"
    config_class = AdapterConfig
    trains_pooling = True

    def __init__(self, config: AdapterConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self.bottlenecks: Any = nn.ModuleDict(  # stream → layer → (after the attention, after the feed-forward half)
            {
                stream: nn.ModuleList(
                    nn.ModuleList(Bottleneck(backbone.width[stream], config.bottleneck) for _ in range(2))
                    for _ in backbone.layers(stream)
                )
                for stream in backbone.streams
            }
        )

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """See :meth:`Method.prompts`: the layer's two bottlenecks, the same in every case."""
        del cases, sequence
        if stream not in self.bottlenecks:  # a fusion block between streams is no layer of one
            return None
        after_attention, after_mlp = self.bottlenecks[stream][layer]
        return Prompts(after_attention=after_attention, after_mlp=after_mlp)
