"""MaPLe: multi-modal prompt learning (Khattak et al., CVPR 2023), for CLIP.

The text tower has P learned prompts for each of its first ``depth`` layers. A linear map of each layer's own projects
them to the image tower's prompts of that layer, so that the two towers are prompted together:

    text tower, layer l:    [T^l ; text tokens]
    image tower, layer l:   [T^l W^l + b^l ; CLS, patches]

The prompts of a layer replace those of the layer before (deep prompts); above ``depth``, the last ones stay as ordinary
tokens. They do not know the case. Besides them, both towers' last norms, the image's projection and the head train, as
with ``dcp``.

MaPLe's own code classifies by the texts of class names, and puts the text's prompts behind the start token; here a head
classifies, and they stand in front of the tokens, as all prompts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmrobust.configuration import check_size
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Injection, Method, MethodConfig, check_towers
from mmrobust.models.sequence import TokenSequence

TEXT, IMAGE = "text", "image"


@dataclass(frozen=True)
class MapleConfig(MethodConfig):
    """Settings of multi-modal prompts; the defaults are those of the paper's code.

    Raises:
        UsageError: a value out of range.
    """

    length: int = 2
    """P: prompts per layer in each tower."""
    depth: int = 9
    """Number of prompted layers, counted from the input; at most the depth of the shallower tower."""

    def __post_init__(self) -> None:
        check_size("--prompt-length", self.length)
        check_size("--prompt-depth", self.depth)


class MultiModalPrompts(Method):
    """Deep text prompts, projected into the image tower."""

    name = "maple"
    config_class = MapleConfig
    trains_pooling = True

    def __init__(self, config: MapleConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        check_towers(self.name, backbone, (IMAGE, TEXT))
        depth = min(config.depth, *(len(backbone.layers(tower)) for tower in (IMAGE, TEXT)))
        self.injections = dict.fromkeys(backbone.streams, Injection(range(depth)))
        text, image = backbone.width[TEXT], backbone.width[IMAGE]
        self.tokens = nn.Parameter(torch.randn(depth, config.length, text) * 0.02)  # [layers, P, D of text]
        self.projections = nn.ModuleList(nn.Linear(text, image) for _ in range(depth))

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts:
        """See :meth:`Method.prompts`: in front of the first layer's tokens, then in place of the last ones."""
        rows_PD: Tensor = self.tokens[layer] if stream == TEXT else self.projections[layer](self.tokens[layer])
        return Prompts(replaced_PD=rows_PD) if layer else Prompts(tokens_PD=rows_PD)
