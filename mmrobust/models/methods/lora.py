"""LoRA (Hu et al., ICLR 2022) through PEFT: a baseline that adapts attention projections, independent of the case.

Each target W becomes W + (alpha / rank) · B A, with A [rank, in] and B [out, rank] trained and B starting at zero. PEFT
puts A and B into the backbone's model, next to the weight that they adapt, which itself stays frozen.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from mmrobust.configuration import check_size
from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.methods.base import Injection, Method, MethodConfig


@dataclass(frozen=True)
class LoraConfig(MethodConfig):
    """Settings of LoRA.

    Raises:
        UsageError: a value is out of range, or PEFT is not installed.
    """

    rank: int = 8
    """Rank of the change of each adapted weight."""
    alpha: float = 16.0
    """The change is scaled by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Dense layers to adapt, given by the ends of their names; empty: the defaults of the backbone's family."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        check_size("lora method: rank", self.rank)
        if self.alpha <= 0:
            raise UsageError(f"lora method: alpha {self.alpha:g} must be positive")
        # Here, not where the method is made, so that a study says so before its first training.
        if importlib.util.find_spec("peft") is None:
            raise UsageError('method lora needs PEFT: pip install "mmrobust[peft]"')


class Lora(Method):
    """``lora``: low-rank changes of dense layers, made inside the backbone's model.

    Raises:
        UsageError: the backbone has none of the targets, or it is adapted already.
    """

    name = "lora"
    config_class = LoraConfig
    trains_pooling = True
    # The learning rate of prompts is too large for what changes every layer.
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3, "betas": (0.9, 0.999)}

    def __init__(self, config: LoraConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        layers = {stream: range(len(backbone.layers(stream))) for stream in backbone.streams}
        self.injections = {stream: Injection(some) for stream, some in layers.items() if some}
        peft: Any = importlib.import_module("peft")
        if any(".lora_" in name for name, _ in backbone.model.named_parameters()):
            raise UsageError(f"lora method: backbone {backbone.source} has LoRA weights already; load it again")
        targets = list(config.targets or backbone.lora_targets)
        # PEFT's LoraConfig asks for an integer alpha, but only ever divides it by the rank.
        settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets)
        try:
            peft.inject_adapter_in_model(settings, backbone.model)
        except ValueError as cause:
            raise UsageError(f"lora method: {backbone.family} has no dense layers {', '.join(targets)}") from cause
        # Registered here as well, so that they train with the method's own parameters.
        self.weights = nn.ParameterList(p for name, p in backbone.model.named_parameters() if ".lora_" in name)
