"""DPL: decoupled prototypes (Lu et al., arXiv 2505.08283), a head that replaces the linear one under any method.

For class k and case c a prototype w_k^c, split into one part per modality; the features h are split likewise. A missing
modality's part is the zero vector in h AND in w, so the decision depends on what is present alone (a noisy modality is
present). Class score z_k = s · cos(h, w_k^c). Under concat prompting the case is unknown: the prototypes of all cases
are offered and a class scores by its best one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.backbones.base import Features
from mmrobust.cases import Case
from mmrobust.errors import UsageError, unknown_name
from mmrobust.heads.base import Head, HeadConfig, HeadSizes

INITS = ("means", "random")


@dataclass(frozen=True)
class PrototypeConfig(HeadConfig):
    """Settings of the prototype head.

    Raises:
        UsageError: a value out of range.
    """

    scale: float = 16.0
    """s: what cosines are multiplied with; where it begins if it is learned."""
    learned_scale: bool = True
    per_class: int = 1
    """M: prototypes per class and case; a class scores by its best one."""
    init: str = "means"
    """``means``: class means of the frozen features of the training split per case; ``random``: N(0, 1)."""

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise unknown_name("prototype init", self.init, INITS)
        if self.scale <= 0 or self.per_class < 1:
            raise UsageError(f"prototype head: scale {self.scale} and per_class {self.per_class} must be positive")


class PrototypeHead(Head):
    """``prototype``: cosine to class- and case-wise prototypes, split by modality."""

    name = "prototype"
    config_class = PrototypeConfig
    reads_parts = True
    knows_case = True

    def __init__(self, config: PrototypeConfig, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__(config, sizes, classes, cases)
        self.present = {case.name: case.present for case in cases}
        self.prototypes: Any = nn.ModuleDict(  # case → modality → parameter [classes, M, D]
            {
                case.name: nn.ParameterDict(
                    {m: nn.Parameter(torch.randn(classes, config.per_class, sizes.parts[m])) for m in case.present}
                )
                for case in cases
            }
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=config.learned_scale)

    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """See :meth:`Head.forward`."""
        scores = torch.stack([self._cosines(features.parts_BD, case) for case in cases])
        return scores.amax(0) * torch.exp(self.log_scale)

    def _cosines(self, parts: Mapping[str, Tensor], case: str) -> Tensor:
        """cos(h, w_k^c) [B, classes], the best of each class's prototypes; zero parts are simply left out."""
        present = self.present[case]
        h_BD = torch.cat([parts[m] for m in present], dim=-1)
        w_KMD = torch.cat([self.prototypes[case][m] for m in present], dim=-1).to(h_BD.dtype)
        cosines = torch.einsum("bd,kmd->bkm", F.normalize(h_BD, dim=-1), F.normalize(w_KMD, dim=-1))
        return cosines.amax(-1)

    @torch.no_grad()
    def start_from(self, seen: Mapping[str, tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """See :meth:`Head.start_from`: w_k^c = mean of h over the samples of class k in case c.

        More than one prototype per class begin around that mean, a tenth of the features' spread apart.
        """
        if self.config.init == "random":
            return
        for case, prototypes in self.prototypes.items():
            parts, labels = seen[case]
            weights = labels / labels.sum(0, keepdim=True).clamp(min=1)
            for modality, prototype in prototypes.items():
                spread = torch.randn_like(prototype) * parts[modality].std(0) * 0.1
                means = (weights.T @ parts[modality])[:, None]
                prototype.copy_(means if prototype.shape[1] == 1 else means + spread)
