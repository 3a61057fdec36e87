"""MSP: modality-specific prompts.

After Jang et al., "Towards Robust Multimodal Prompting with Missing Modalities" (ICASSP 2024).

MMP keeps a set of prompts per missing case, of which there are more the more modalities there are. Here there are two
sets per MODALITY, one for when it is present and one for when it is missing, and a case is offered the sets of its own
modalities' states: `missing-text` gets [image present | text missing]. Cases share sets, so each set sees more of the
training data. Input level: the tokens go in front of the sequence, as MMP's do, and stay.

This module is the worked example of CONTRIBUTING.md's "Adding a method".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmrobust.cases import Case
from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class MspConfig(MethodConfig):
    """Settings of modality-specific prompts.

    Raises:
        UsageError: a value out of range.
    """

    length: int = 8
    """P: tokens per modality and layer; a case of M modalities is offered M · P."""
    depth: int = 6
    """How many layers are prompted, from the network's input."""

    def __post_init__(self) -> None:
        for name in ("length", "depth"):
            if getattr(self, name) < 1:
                raise UsageError(f"--prompt-{name} {getattr(self, name)}: must be 1 or more")


class ModalitySpecificPrompts(Method):
    """Two sets of prompts per (stream, modality): ``present`` and ``missing``. A degraded modality is present."""

    name = "msp"
    config_class = MspConfig
    has_prompts = True
    trains_pooling = True

    def __init__(self, config: MspConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        self._sets = {name: _sets_of(Case.parse(name, backbone.modalities)) for name in cases}
        names = [f"{modality}-{state}" for modality in backbone.modalities for state in ("present", "missing")]
        self.tokens: Any = nn.ModuleDict()  # stream → set → parameter [layers, P, D]
        for stream in backbone.streams:
            layers = min(config.depth - backbone.first_layer(stream), len(backbone.layers(stream)))
            if layers > 0:
                shape = (layers, config.length, backbone.width[stream])
                self.tokens[stream] = nn.ParameterDict({n: nn.Parameter(torch.randn(shape) * 0.02) for n in names})

    def first_changed(self, stream: str) -> int | None:
        """See :meth:`Method.first_changed`: the first, of a stream that is prompted at all."""
        return 0 if stream in self.tokens else None

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """See :meth:`Method.prompts`: the sets of the case's states; of several cases (concat), each set once."""
        del sequence
        if stream not in self.tokens:
            return None
        tokens, chosen = self.tokens[stream], self._chosen(cases)
        if layer >= len(tokens[next(iter(chosen))]):
            return None
        return Prompts(tokens_PD=torch.cat([tokens[name][layer] for name in chosen]))

    def prompts_key(self, stream: str, cases: Sequence[str]) -> Hashable:
        """See :meth:`Method.prompts_key`: the sets, in the order in which they stand."""
        return self._chosen(cases) if stream in self.tokens else ()

    def _chosen(self, cases: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for case in cases for name in self._sets[case]))


def _sets_of(case: Case) -> tuple[str, ...]:
    """The names of the sets that ``case`` is offered, modality by modality."""
    return tuple(f"{m}-{'missing' if case.is_missing(m) else 'present'}" for m in case.modalities)
