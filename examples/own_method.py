"""A method of your own: this file registers it and calls the command line, which then knows it.

    python examples/own_method.py train --data data/digits --backbone runs/full --method bias --out runs/bias
    python examples/own_method.py eval runs/bias --data data/digits --out runs/results
    mmrobust report runs/results                  # reports and checks need no method

The method is BitFit (Ben Zaken et al., ACL 2022) for missing modalities. Each case has one bias vector per layer, which
is added to the output of the attention; nothing else in the backbone changes. If the model is told the case
(situation), the bias of this case is added; otherwise (concat), the mean of all.
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
from mmrobust.models.methods.base import Injection, Method, MethodConfig, one_set_per_case
from mmrobust.models.sequence import TokenSequence

METHODS["bias"] = "own_method:CaseBias"  # name → module:class, as for the built-in ones


@dataclass(frozen=True)
class CaseBiasConfig(MethodConfig):
    """Settings: each can be set with --method-set, and is written into the checkpoint."""

    depth: int = 6
    """Number of layers of each stream that get a bias."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UsageError(f"bias method: depth {self.depth} must be 1 or more")


class CaseBias(Method):
    """``bias``: one vector per (stream, case, layer)."""

    name = "bias"
    config_class = CaseBiasConfig
    trains_pooling = True

    def __init__(self, config: CaseBiasConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self.bias = nn.ModuleDict()  # stream → case → parameter [layers, D]
        for stream in backbone.streams:
            layers = range(min(config.depth, len(backbone.layers(stream))))
            # Declares where the method adds something, and that it depends on the case.
            self.injections[stream] = Injection(layers, one_set_per_case(cases))
            shape = (len(layers), backbone.width[stream])
            self.bias[stream] = nn.ParameterDict({case: nn.Parameter(torch.zeros(shape)) for case in cases})

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts:
        """The bias of the case, or the mean over the cases that the model is told."""
        bias_D = torch.stack([self.bias[stream][case][layer] for case in sets]).mean(0)
        return Prompts(after_attention=lambda x_BLD: x_BLD + bias_D)


if __name__ == "__main__":
    from mmrobust.cli.app import main

    main()
