"""A method of your own in one file, which runs the mmrobust command line with the method added.

    python examples/own_method.py train --data data/digits --backbone runs/full --method bias --out runs/bias
    python examples/own_method.py eval runs/bias --data data/digits --out runs/results
    mmrobust report runs/results                  # results are results: reports and checks need no method

The method: BitFit (Ben Zaken et al., ACL 2022) for missing modalities. Each case has one bias vector per layer, which
is added to the output of the attention; nothing else in the backbone changes. Under situation prompting, a sample gets
the bias of its case; under concat, the mean of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods import METHODS
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.sequence import TokenSequence

METHODS["bias"] = "own_method:CaseBias"  # name → module:class, as for the built-in ones


@dataclass(frozen=True)
class CaseBiasConfig(MethodConfig):
    """Settings: each can be set by --method-set, and is written into the checkpoint."""

    depth: int = 6
    """How many layers of each stream get a bias."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UsageError(f"bias method: depth {self.depth} must be 1 or more")


class CaseBias(Method):
    """``bias``: one vector per (stream, case, layer)."""

    name = "bias"
    config_class = CaseBiasConfig
    has_prompts = True  # what it adds depends on the case
    trains_pooling = True

    def __init__(self, config: CaseBiasConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self.bias = nn.ModuleDict(  # stream → case → parameter [layers, D]
            {
                stream: nn.ParameterDict(
                    {
                        case: nn.Parameter(
                            torch.zeros(min(config.depth, len(backbone.layers(stream))), backbone.width[stream])
                        )
                        for case in cases
                    }
                )
                for stream in backbone.streams
            }
        )

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """The bias of the case, or the mean over the cases that are offered."""
        if stream not in self.bias or layer >= len(self.bias[stream][cases[0]]):
            return None
        bias_D = torch.stack([self.bias[stream][case][layer] for case in cases]).mean(0)
        return Prompts(after_attention=lambda x_BLD: x_BLD + bias_D)


if __name__ == "__main__":
    from mmrobust.cli.app import main

    main()
