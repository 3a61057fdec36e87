"""MSP: modality-specific prompts.

After Jang et al., "Towards Robust Multimodal Prompting with Missing Modalities" (ICASSP 2024).

MMP keeps one prompt set per missing case, and the number of cases grows quickly with the number of modalities. Here
there are two sets per MODALITY, one for when it is present and one for when it is missing, and a case is given the set
for the state of each of its modalities: ``missing-text`` gets [image present | text missing]. Cases share sets, so each
set is trained on more of the data. Input level: as in MMP, tokens are put in front of the sequence and stay there.

This module is the worked example of "Adding a method" in CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmrobust.cases import Case
from mmrobust.configuration import check_size
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Injection, Method, MethodConfig
from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class MspConfig(MethodConfig):
    """Settings of modality-specific prompts."""

    length: int = 8
    """P: tokens per modality and layer; a case of M modalities is given M · P."""
    depth: int = 6
    """Number of prompted layers, counted from the network's input."""

    def __post_init__(self) -> None:
        check_size("--prompt-length", self.length)
        check_size("--prompt-depth", self.depth)


class ModalitySpecificPrompts(Method):
    """Two sets of prompts per (stream, modality): ``present`` and ``missing``. A degraded modality is present."""

    name = "msp"
    config_class = MspConfig
    trains_pooling = True

    def __init__(self, config: MspConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        sets = {name: _sets_of(Case.parse(name, backbone.modalities)) for name in cases}
        names = [f"{modality}-{state}" for modality in backbone.modalities for state in ("present", "missing")]
        self.tokens: Any = nn.ModuleDict()  # stream → set → parameter [layers, P, D]
        for stream in backbone.streams:
            layers = min(config.depth - backbone.layers_before(stream), len(backbone.layers(stream)))
            if layers > 0:
                self.injections[stream] = Injection(range(layers), sets)
                shape = (layers, config.length, backbone.width[stream])
                self.tokens[stream] = nn.ParameterDict({n: nn.Parameter(torch.randn(shape) * 0.02) for n in names})

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts:
        """See :meth:`Method.prompts`: the sets side by side."""
        return Prompts(tokens_PD=torch.cat([self.tokens[stream][name][layer] for name in sets]))


def _sets_of(case: Case) -> tuple[str, ...]:
    """Names of the prompt sets for ``case``, one per modality."""
    return tuple(f"{m}-{'missing' if case.is_missing(m) else 'present'}" for m in case.modalities)
