"""DPL: decoupled prototypes (Lu et al., arXiv 2505.08283), a head that replaces the linear one under any method.

Class k has a prototype in each case c, made of one vector w_{k,m}^c for each modality m that is present in c, as the
features h are (a noisy modality is present). Its logit is z_k = s · mean over these modalities of cos(h_m, w_{k,m}^c).

In training, the true classes score s · cos(θ + m_c), where cos θ is that mean and m_c the case's angular margin
(ArcFace, Deng et al., CVPR 2019), and a supervised contrastive loss (Khosla et al., NeurIPS 2020) draws the prototypes
of one class in different cases and modalities together, and those of different classes apart.

The defaults are those of the authors' code (OverfitFlow/DPL, commit 3698b21, ``DecoupledType4``), where they are those
for MM-IMDb under ``missing-both``; ``normalise: joint`` is the head that their ablation calls un-decomposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.cases import Case
from mmrobust.configuration import check_size
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.heads.base import Head, HeadConfig, HeadSizes
from mmrobust.models.heads.prototype_losses import supervised_contrast, with_margin
from mmrobust.models.pooling import Features

PARTS, JOINT = NORMALISATIONS = ("parts", "joint")
XAVIER, MEANS, RANDOM = INITS = ("xavier", "means", "random")
BEST, ENTROPY = UNKNOWNS = ("best", "entropy")
ALL, ONE = ANCHORS = ("all", "one")

VERSION_0_1: Mapping[str, Any] = {
    "normalise": JOINT,
    "scale": 16.0,
    "learned_scale": True,
    "init": MEANS,
    "margin": 0.0,
    "margins": {},
    "prototype_loss": 0.0,
}
"""What 0.1 meant by a setting that its checkpoints do not name; none of them names ``normalise``."""


@dataclass(frozen=True)
class PrototypeConfig(HeadConfig):
    """Settings of the prototype head.

    Raises:
        UsageError: a value out of range.
    """

    normalise: str = PARTS
    """``parts``: every modality's vector has length 1, so that each has the same say; ``joint``: the vectors of the
    modalities present have length 1 together, so that the longest has the most."""
    scale: float = 32.0
    """s: factor of the cosines, or its initial value if it is learned."""
    learned_scale: bool = False
    """Whether s is learned."""
    margin: float = 0.15
    """m: radians that are added to the angle to the true class in training, in every case that ``margins`` does not
    name; 0: no margin."""
    margins: dict[str, float] = field(default_factory=lambda: {"complete": 0.1})
    """Case → its own margin, like ``{complete: 0.1, missing-text: 0.2}``."""
    prototype_loss: float = 0.9
    """Weight of the contrastive loss over the prototypes of all cases that training can produce; 0: no such loss."""
    prototype_temperature: float = 1.0
    """τ of the loss over prototypes: similarities are divided by it."""
    prototype_anchors: str = ALL
    """``all``: the loss is the mean over all prototypes; ``one``: over those of the first modality when complete."""
    init: str = XAVIER
    """``xavier``: N(0, 2 / (D + classes)); ``means``: class means of the frozen features of the training split per
    case; ``random``: N(0, 1)."""
    per_class: int = 1
    """M: prototypes per class and case; a class scores by its best one."""
    unknown: str = BEST
    """What counts where the case is unknown (concat): ``best``: for each class its best case; ``entropy``: for each
    sample the case whose softmax has the least entropy."""
    contrastive: float = 0.0
    """Weight of a supervised contrastive loss over the samples of a forward pass; 0: no such loss."""
    temperature: float = 0.1
    """τ of the loss over samples."""

    def __post_init__(self) -> None:
        known = {"normalise": NORMALISATIONS, "init": INITS, "unknown": UNKNOWNS, "prototype_anchors": ANCHORS}
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise unknown_name(f"value of the prototype head's {name}", getattr(self, name), allowed)
        check_size("prototype head: per_class", self.per_class)
        if not 0 < self.scale < math.inf:
            raise UsageError(f"prototype head: scale {self.scale} must be positive")
        for name, margin in {"margin": self.margin, **self.margins}.items():
            if not 0 <= margin < math.pi / 2:
                where = "" if name == "margin" else f" of {name}"
                raise UsageError(f"prototype head: margin {margin}{where} must be at least 0 and below π/2 radians")
        for weight, temperature in (("contrastive", "temperature"), ("prototype_loss", "prototype_temperature")):
            if not 0 <= getattr(self, weight) < math.inf or not 0 < getattr(self, temperature) < math.inf:
                raise UsageError(
                    f"prototype head: {weight} {getattr(self, weight)} must not be negative, "
                    f"and {temperature} {getattr(self, temperature)} must be positive"
                )

    @classmethod
    def of_checkpoint(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :meth:`HeadConfig.of_checkpoint`: 0.1 had other defaults, and ``joint`` alone."""
        return settings if "normalise" in settings else {**VERSION_0_1, **settings}


class PrototypeHead(Head):
    """``prototype``: cosine similarity to one prototype per class and case, with one vector per modality.

    Raises:
        UsageError: ``margins`` names a case that is not among ``cases``.
    """

    name = "prototype"
    config_class = PrototypeConfig
    score_settings = ("normalise", "scale", "learned_scale")
    reads_modalities = True
    knows_case = True

    def __init__(self, config: PrototypeConfig, sizes: HeadSizes, classes: int, cases: Sequence[Case]) -> None:
        super().__init__(config, sizes, classes, cases)
        self.present = {case.name: case.present for case in cases}
        for name in config.margins:
            if name not in self.present and name != "complete":
                raise unknown_name("case in the prototype head's margins", name, self.present)
        self.trained_cases = tuple(self.present)
        self.prototypes: Any = nn.ModuleDict(  # case → modality → parameter [classes, M, D]
            {
                case.name: nn.ParameterDict(
                    {
                        m: nn.Parameter(_drawn(config.init, classes, config.per_class, sizes.by_modality[m]))
                        for m in case.present
                    }
                )
                for case in cases
            }
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=config.learned_scale)

    def forward(self, features: Features, cases: Sequence[str]) -> Tensor:
        """See :meth:`Head.forward`."""
        logits_CBK = torch.stack([self._cosines(features.by_modality, case) for case in cases])
        logits_CBK = logits_CBK * torch.exp(self.log_scale)
        return logits_CBK.amax(0) if self.config.unknown == BEST else _of_least_entropy(logits_CBK)

    def train_under(self, cases: Sequence[str]) -> None:
        """See :meth:`Head.train_under`: the loss over prototypes leaves out those of other cases."""
        self.trained_cases = tuple(case for case in self.present if case in cases)

    def learn(self, features: Features, cases: Sequence[str], targets: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Head.learn`: the margin changes the scores of the true classes, the loss term is contrastive.

        The loss over prototypes depends on no sample; it counts once per sample, as training divides by their number.
        The loss over samples covers those of one forward pass, which are all in one case: each process, and each part
        into which ``accumulate`` splits a batch, has its own.
        """
        (case,) = cases
        config = self.config
        cosines_BK = self._cosines(features.by_modality, case)
        own = cosines_BK.new_zeros(())
        if config.prototype_loss:
            own = own + config.prototype_loss * len(targets) * self._prototype_contrast()
        if config.contrastive:
            h_BD = self._unit(features.by_modality, case)
            own = own + config.contrastive * supervised_contrast(h_BD, targets, config.temperature)
        margin = config.margins.get(case, config.margin)
        if margin:
            cosines_BK = torch.where(targets > 0, with_margin(cosines_BK, margin), cosines_BK)
        return cosines_BK * torch.exp(self.log_scale), own

    def _cosines(self, by_modality: Mapping[str, Tensor], case: str) -> Tensor:
        """The mean cosines [B, classes] in ``case``, float32: the highest over each class's prototypes."""
        h_BD, w_KMD = self._unit(by_modality, case), self._unit(self.prototypes[case], case)
        with torch.autocast(h_BD.device.type, enabled=False):  # s is large: bfloat16's rounding would show
            return torch.einsum("bd,kmd->bkm", h_BD, w_KMD).amax(-1)

    def _unit(self, by_modality: Mapping[str, Tensor], case: str) -> Tensor:
        """The vectors of the modalities present in ``case``, one behind the other, as one vector of length 1.

        Of two such vectors, normalised in ``parts``, the product is the mean of the modalities' cosines.
        """
        parts = [by_modality[m].float() for m in self.present[case]]
        if self.config.normalise == JOINT:
            return F.normalize(torch.cat(parts, dim=-1), dim=-1)
        return torch.cat([F.normalize(part, dim=-1) for part in parts], dim=-1) / math.sqrt(len(parts))

    def _prototype_contrast(self) -> Tensor:
        """The mean over all prototypes, or those of the first view, of their contrastive loss; a scalar.

        A view is a modality in one of the cases that training shows. A prototype's positives are those of its class (if
        there are several, also of its number) in the other views. Vectors of different sizes have no cosine: modalities
        whose features differ in size are contrasted separately.
        """
        views: dict[int, list[Tensor]] = {}  # size D → views [classes · M, D]
        for modality in dict.fromkeys(m for case in self.trained_cases for m in self.present[case]):
            for case in self.trained_cases:
                if modality in self.present[case]:
                    w_ND = self.prototypes[case][modality].flatten(0, 1)
                    views.setdefault(w_ND.shape[-1], []).append(F.normalize(w_ND, dim=-1))
        groups = list(views.values())[:1] if self.config.prototype_anchors == ONE else views.values()
        total = torch.zeros((), device=self.log_scale.device)
        anchors = 0
        for group in groups:
            number = len(group[0])
            asked = number if self.config.prototype_anchors == ONE else number * len(group)
            same = torch.eye(number, device=total.device).repeat(len(group), 1)
            total = total + supervised_contrast(torch.cat(group), same, self.config.prototype_temperature, asked)
            anchors += asked
        return total / max(1, anchors)

    @property
    def starts_from_features(self) -> bool:
        """See :attr:`Head.starts_from_features`: with ``init: means`` it must."""
        return bool(self.config.init == MEANS)

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


def _drawn(init: str, classes: int, per_class: int, size: int) -> Tensor:
    """First values of a modality's prototypes [classes, M, D]; with ``means`` they are overwritten before training."""
    deviation = math.sqrt(2 / (size + classes)) if init == XAVIER else 1.0
    return torch.randn(classes, per_class, size) * deviation


def _of_least_entropy(logits_CBK: Tensor) -> Tensor:
    """Each sample's logits [B, classes] in the case whose softmax has the least entropy."""
    shares = logits_CBK.log_softmax(-1)
    chosen_B = -(shares.exp() * shares).sum(-1)
    return logits_CBK[chosen_B.argmin(0), torch.arange(logits_CBK.shape[1], device=logits_CBK.device)]
