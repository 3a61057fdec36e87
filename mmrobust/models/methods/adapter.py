"""Bottleneck adapters (Houlsby et al., ICML 2019): a baseline that adapts every layer, independent of the case.

After the attention and after the feed-forward half of every layer, the output h becomes h + up(gelu(down(h))) before it
is added to the residual. ``up`` starts at zero, so training starts from the frozen model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.configuration import check_size
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Injection, Method, MethodConfig
from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class AdapterConfig(MethodConfig):
    """Settings of bottleneck adapters."""

    bottleneck: int = 64
    """Size of the bottleneck between the two dense layers."""

    def __post_init__(self) -> None:
        check_size("adapter method: bottleneck", self.bottleneck)


class Bottleneck(nn.Module):
    """Two dense layers with a bottleneck between them and a residual connection around them."""

    def __init__(self, size: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, bottleneck), nn.Linear(bottleneck, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] → [B, L, D]: x + up(gelu(down(x)))."""
        changed: Tensor = x_BLD + self.up(F.gelu(self.down(x_BLD)))
        return changed


class Adapters(Method):
    """``adapter``: two bottlenecks per layer of every stream."""

    name = "adapter"
    config_class = AdapterConfig
    trains_pooling = True
    # The learning rate of prompts is too large for what changes every layer.
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3, "betas": (0.9, 0.999)}

    def __init__(self, config: AdapterConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        layers = {stream: range(len(backbone.layers(stream))) for stream in backbone.streams}
        self.injections = {stream: Injection(some) for stream, some in layers.items() if some}
        self.bottlenecks: Any = nn.ModuleDict()  # stream → layer → (after the attention, after the feed-forward half)
        for stream, injection in self.injections.items():
            sizes = (backbone.width[stream], config.bottleneck)
            pairs = ((Bottleneck(*sizes), Bottleneck(*sizes)) for _ in injection.layers)
            self.bottlenecks[stream] = nn.ModuleList(nn.ModuleList(pair) for pair in pairs)

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts:
        """See :meth:`Method.prompts`: the layer's two bottlenecks."""
        after_attention, after_mlp = self.bottlenecks[stream][layer]
        return Prompts(after_attention=after_attention, after_mlp=after_mlp)
