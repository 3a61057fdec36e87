"""DCP: deep correlated prompting (Hu et al., NeurIPS 2024), for backbones with one tower per modality (CLIP).

Each tower gets n = length / 3 rows of each of three kinds in front of its tokens, [correlated | common | dynamic |
features]:

- *correlated*: each modality has rows for being present and rows for being missing. The rows of a tower at a layer are
  computed from both towers' rows of the previous layer, side by side on the feature axis, by a LayerNorm and a
  bottleneck. In the first ``depth`` layers they replace those of the previous layer; all other rows stay in the
  sequence as ordinary tokens.
- *common*: one set per case, in the width of the last tower, projected once into each tower.
- *dynamic*: one set of queries per (tower, case), which attend (one head, no norm, no residual) to the input tokens of
  the tower's first layer, including the padding of texts. The queries are parameters; in the released code they are
  plain tensors, neither trained nor saved.

The correlated rows of a tower depend on the other tower's prompts but not on its output, so the tower of a missing
modality is not run. Besides the prompts, the towers' last norms, the image's projection and the head train.

Under concat prompting the rows of all cases stand side by side, kind by kind: [correlated of every case | common of
every case | dynamic of every case | features]. The correlated rows are computed row by row, so those of a case are the
same as under situation prompting. In a causal tower the rows of a case attend to those of earlier cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.cases import Case
from mmrobust.configuration import check_size
from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone, PromptSource
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Injection, Method, MethodConfig, check_towers, one_set_per_case
from mmrobust.models.sequence import TokenSequence

KINDS = 3
"""Correlated, common and dynamic rows: each a third of the prompt."""
BOTTLENECK = 16
"""Factor by which the inner layer of a projection is narrower."""
PRESENT, MISSING = "present", "missing"


@dataclass(frozen=True)
class DcpConfig(MethodConfig):
    """Settings of deep correlated prompting; the defaults are the paper's."""

    length: int = 36
    """L: rows in front of each tower, a third of each kind; must be a multiple of 3."""
    depth: int = 6
    """Number of layers with correlated rows of their own; at most the depth of the shallower tower."""

    def __post_init__(self) -> None:
        if self.length < KINDS or self.length % KINDS:
            nearest = max(KINDS, self.length - self.length % KINDS)
            raise UsageError(
                f"--prompt-length {self.length}: dcp divides it by 3 (correlated, common and dynamic prompts); "
                f"use a multiple of 3, such as {nearest} or {nearest + KINDS}"
            )
        check_size("--prompt-length", self.length)
        check_size("--prompt-depth", self.depth)


class DeepCorrelatedPrompts(Method):
    """Correlated, common and dynamic prompts for each tower."""

    name = "dcp"
    config_class = DcpConfig
    trains_pooling = True

    def __init__(self, config: DcpConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        check_towers(self.name, backbone)
        self.depth = min(config.depth, *(len(backbone.layers(tower)) for tower in backbone.streams))
        self.injections = dict.fromkeys(backbone.streams, Injection(range(self.depth), one_set_per_case(cases)))
        self.rows = config.length // KINDS
        self.states = {name: _states(name, backbone.modalities) for name in cases}
        width, joint, common = backbone.width, sum(backbone.width.values()), backbone.width[backbone.streams[-1]]
        self.correlated: Any = nn.ModuleDict()  # tower → state → parameter [n, D]
        self.chain: Any = nn.ModuleDict()  # tower → layer → module: both towers' rows [n, sum of D] to its own [n, D]
        self.common = nn.ParameterDict({case: self._initial(common) for case in cases})
        self.common_projection: Any = nn.ModuleDict()
        self.dynamic: Any = nn.ModuleDict()  # tower → case → parameter [n, D]
        self.attention: Any = nn.ModuleDict()
        for tower in backbone.streams:
            size, states = width[tower], sorted({self.states[case][tower] for case in cases})
            self.correlated[tower] = nn.ParameterDict({state: self._initial(size) for state in states})
            self.chain[tower] = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(joint), *_bottleneck(joint, size)) for _ in range(self.depth)
            )
            self.common_projection[tower] = nn.Sequential(*_bottleneck(common, size))
            self.dynamic[tower] = nn.ParameterDict({case: self._initial(size) for case in cases})
            self.attention[tower] = nn.MultiheadAttention(size, 1, batch_first=True)

    def _initial(self, size: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(self.rows, size) * 0.02)

    def source(self, cases: Sequence[str]) -> PromptSource:
        """See :meth:`Method.source`: the correlated rows of all layers are computed once."""
        correlated = self.correlated_rows(cases)

        def added(stream: str, layer: int, sequence: TokenSequence) -> Prompts | None:
            if layer >= self.depth:
                return None
            if layer > 0:
                return Prompts(replaced_PD=correlated[layer][stream])
            dynamic = self.dynamic_rows(stream, cases, sequence)
            shared = torch.cat([correlated[0][stream], self.common_rows(stream, cases)])
            return Prompts(tokens_PD=torch.cat([shared.expand(len(dynamic), -1, -1), dynamic], dim=1))

        return added

    def correlated_rows(self, cases: Sequence[str]) -> list[dict[str, Tensor]]:
        """Per layer: tower → its correlated rows [cases · n, D]."""
        rows = {
            tower: torch.cat([states[self.states[case][tower]] for case in cases])
            for tower, states in self.correlated.items()
        }
        layers: list[dict[str, Tensor]] = []
        for layer in range(self.depth):
            both = torch.cat(list(rows.values()), dim=-1)
            rows = {tower: chain[layer](both) for tower, chain in self.chain.items()}
            layers.append(rows)
        return layers

    def common_rows(self, tower: str, cases: Sequence[str]) -> Tensor:
        """The common rows [cases · n, D] in front of the tower's first layer."""
        projected: Tensor = self.common_projection[tower](torch.cat([self.common[case] for case in cases]))
        return projected

    def dynamic_rows(self, tower: str, cases: Sequence[str], sequence: TokenSequence) -> Tensor:
        """The dynamic rows [B, cases · n, D] in front of the tower's first layer, whose input is ``sequence``."""
        tokens = sequence.padded_content()
        queries = torch.cat([self.dynamic[tower][case] for case in cases]).expand(len(tokens), -1, -1)
        attended: Tensor = self.attention[tower](queries, tokens, tokens, need_weights=False)[0]
        return attended


def _states(name: str, modalities: Sequence[str]) -> dict[str, str]:
    """Modality → its state in the case ``name``, which selects its correlated rows."""
    case = Case.parse(name, modalities)
    return {modality: MISSING if case.is_missing(modality) else PRESENT for modality in modalities}


def _bottleneck(size: int, out: int) -> tuple[nn.Module, ...]:
    inside = max(1, size // BOTTLENECK)
    return nn.Linear(size, inside), nn.GELU(), nn.Linear(inside, out)
