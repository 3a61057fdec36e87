"""DPL: decoupled prototypes (Lu et al., arXiv 2505.08283), a head that replaces the linear one under any method.

Class k has a prototype w_k^c in each case c, made of one vector per modality, as the features h are. The vector of a
missing modality is zero in h AND in w, so the decision depends only on what is present (a noisy modality is present).
The score of a class is z_k = s · cos(h, w_k^c). Under concat prompting the case is unknown, and a class scores by the
best of its prototypes over all cases.

Two options affect training only: an additive angular margin m, with which the true class scores s · cos(θ + m)
(ArcFace, Deng et al., CVPR 2019), and a supervised contrastive term on the normalised features (Khosla et al., NeurIPS
2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.cases import Case
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Features
from mmrobust.models.heads.base import Head, HeadConfig, HeadSizes

INITS = ("means", "random")


@dataclass(frozen=True)
class PrototypeConfig(HeadConfig):
    """Settings of the prototype head.

    Raises:
        UsageError: a value out of range.
    """

    scale: float = 16.0
    """s: factor of the cosines, or its initial value if it is learned."""
    learned_scale: bool = True
    """Whether s is learned."""
    per_class: int = 1
    """M: prototypes per class and case; a class scores by its best one."""
    init: str = "means"
    """``means``: class means of the frozen features of the training split per case; ``random``: N(0, 1)."""
    margin: float = 0.0
    """m: radians that are added to the angle to the true class in training; 0: no margin."""
    contrastive: float = 0.0
    """Weight of the supervised contrastive term over the samples of a forward pass; 0: no such term."""
    temperature: float = 0.1
    """τ of the contrastive term: similarities are divided by it."""

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise unknown_name("prototype init", self.init, INITS)
        if not 0 < self.scale < math.inf or self.per_class < 1:
            raise UsageError(f"prototype head: scale {self.scale} and per_class {self.per_class} must be positive")
        if not 0 <= self.margin < math.pi / 2:
            raise UsageError(f"prototype head: margin {self.margin} must be at least 0 and below π/2 radians")
        if self.contrastive < 0 or self.temperature <= 0:
            raise UsageError(
                f"prototype head: contrastive {self.contrastive} must not be negative, "
                f"and temperature {self.temperature} must be positive"
            )


class PrototypeHead(Head):
    """``prototype``: cosine similarity to one prototype per class and case, with one vector per modality."""

    name = "prototype"
    config_class = PrototypeConfig
    reads_modalities = True
    knows_case = True

    def __init__(self, config: PrototypeConfig, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__(config, sizes, classes, cases)
        self.present = {case.name: case.present for case in cases}
        self.prototypes: Any = nn.ModuleDict(  # case → modality → parameter [classes, M, D]
            {
                case.name: nn.ParameterDict(
                    {
                        m: nn.Parameter(torch.randn(classes, config.per_class, sizes.by_modality[m]))
                        for m in case.present
                    }
                )
                for case in cases
            }
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=config.learned_scale)

    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """See :meth:`Head.forward`."""
        return self._cosines(features.by_modality, cases) * torch.exp(self.log_scale)

    def learn(self, features: Features, cases: Sequence[str], targets: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Head.learn`: the margin changes the scores of the true classes, the loss term is contrastive.

        A batch has one case, so samples are contrasted with samples that lack the same modalities. The term covers the
        samples of one forward pass: each process, and each part into which ``accumulate`` splits a batch, has its own.
        """
        cosines = self._cosines(features.by_modality, cases)
        if self.config.margin:
            cosines = torch.where(targets > 0, with_margin(cosines.float(), self.config.margin), cosines.float())
        own = cosines.new_zeros(())
        if self.config.contrastive:
            (case,) = cases
            h_BD = self._joined(features.by_modality, case)
            own = self.config.contrastive * supervised_contrast(h_BD.float(), targets, self.config.temperature)
        return cosines * torch.exp(self.log_scale), own

    def _cosines(self, by_modality: Mapping[str, Tensor], cases: Sequence[str]) -> Tensor:
        """cos(h, w_k^c) [B, classes]: the highest over each class's prototypes in ``cases``."""
        scores = []
        for case in cases:
            h_BD = self._joined(by_modality, case)
            w_KMD = self._joined(self.prototypes[case], case).to(h_BD.dtype)
            scores.append(torch.einsum("bd,kmd->bkm", h_BD, w_KMD).amax(-1))
        return torch.stack(scores).amax(0)

    def _joined(self, by_modality: Mapping[str, Tensor], case: str) -> Tensor:
        """The vectors of the modalities present in ``case`` as one vector of length 1; zero vectors are left out."""
        return F.normalize(torch.cat([by_modality[m] for m in self.present[case]], dim=-1), dim=-1)

    @property
    def starts_from_features(self) -> bool:
        """See :attr:`Head.starts_from_features`: with ``init: means`` it must."""
        return bool(self.config.init == "means")

    @torch.no_grad()
    def start_from(self, seen: Mapping[str, tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """See :meth:`Head.start_from`: w_k^c = mean of h over the samples of class k in case c.

        Several prototypes per class start around that mean, with a tenth of the features' standard deviation.
        """
        for case, prototypes in self.prototypes.items():
            by_modality, labels = seen[case]
            weights = labels / labels.sum(0, keepdim=True).clamp(min=1)
            for modality, prototype in prototypes.items():
                drawn = torch.randn(prototype.shape).to(prototype.device)  # on the CPU: the same for every device
                spread = drawn * by_modality[modality].std(0) * 0.1
                means = (weights.T @ by_modality[modality])[:, None]
                prototype.copy_(means if prototype.shape[1] == 1 else means + spread)


def with_margin(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ + m) from cos(θ), elementwise, if θ + m < π; otherwise cos(θ) − m · sin(m), which keeps decreasing.

    This is ArcFace's own continuation: cos(θ + m) alone would increase again and reward an angle close to π.
    """
    # The clamp keeps the gradient of the square root finite at θ = 0.
    sines = (1 - cosines.square()).clamp(min=1e-7).sqrt()
    moved = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), moved, cosines - margin * math.sin(margin))


def supervised_contrast(h_BD: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al., equation 2), summed over the batch; a scalar.

    L_i = −1/|P(i)| Σ_{p ∈ P(i)} log( exp(h_i·h_p / τ) / Σ_{a ≠ i} exp(h_i·h_a / τ) ), where P(i) are the other samples
    that share a label with i. A sample without such others contributes nothing.

    Args:
        h_BD: features of length 1.
        targets: multi-hot labels [B, classes].
        temperature: τ.
    """
    itself = torch.eye(len(h_BD), dtype=torch.bool, device=h_BD.device)
    with torch.autocast(h_BD.device.type, enabled=False):  # τ is small: bfloat16's rounding would show
        similar = (h_BD @ h_BD.T / temperature).masked_fill(itself, -torch.inf)
    positive = (targets @ targets.T > 0) & ~itself
    log_share = (similar - similar.logsumexp(1, keepdim=True)).masked_fill(~positive, 0.0)
    return -(log_share.sum(1) / positive.sum(1).clamp(min=1)).sum()
