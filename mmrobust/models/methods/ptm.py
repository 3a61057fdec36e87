"""PTM: Prompt the Missing (Park, CVPRW 2025), for backbones with a stream per modality and layers that fuse them.

For each case and modality there is one set of P tokens [P, D]; nothing else trains, except the head if asked for.

*Input level*: the tokens of a modality are put in front of its embedded tokens, before its encoder, and stay there.

*Attention level*: the same tokens are extra keys and values where the modalities are fused. Unlike MMP's, they pass
through the layer's own norm and projections first: the released code prepends them to the sequence from which its
cross-attentions take keys and values. With a fusion block, audio queries attend to [image prompts; image] and vice
versa; without one, the joint layers attend to the prompts of both modalities.

Prompts are left out of the pooling. Under concat prompting the tokens of all cases stand side by side.

The released code can be neither built nor trained (its prompts never receive a gradient), so this follows the paper and
the release's documentation: the fine-tuned backbone AND its head stay frozen. Each case has prompts of its own and the
cases share no trained weight, so training them in turn equals the paper's one training per case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from mmrobust.configuration import check_size
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Injection, Method, MethodConfig, one_set_per_case
from mmrobust.models.sequence import TokenSequence

INPUT, ATTENTION, BOTH = LEVELS = ("input", "attention", "both")
INIT_STD = 0.02


@dataclass(frozen=True)
class PtmConfig(MethodConfig):
    """Settings of Prompt the Missing."""

    level: str = ATTENTION
    """Where the tokens are added: ``input``, ``attention`` (as in the released code) or ``both``."""
    length: int = 16
    """P: tokens per case and modality."""
    train_head: bool = False
    """Train the head as well; otherwise it is the fine-tuned checkpoint's head, frozen."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown_name("prompt level", self.level, LEVELS)
        check_size("--prompt-length", self.length)


class PromptTheMissing(Method):
    """``ptm``: one set of tokens per (modality, case), used wherever that modality's tokens are added."""

    name = "ptm"
    config_class = PtmConfig
    reuses_head = True
    default_scenario = "noisy-both"
    # The released recipe, except for the loss.
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 5,
        "batch_size": 128,
        "lr": 1e-3,
        "optimizer": "adam",
        "weight_decay": 5e-7,
        "betas": (0.9, 0.999),
        "warmup": 0.0,
        "schedule": "constant",  # the release creates a scheduler but never steps it
        # The loss that the head was fine-tuned with. In the paper that is BCE throughout, but training a frozen softmax
        # head with BCE pulls its scores towards sigmoids, which lowers the loss and the accuracy together.
        "loss": "head",
        "label_smoothing": 0.1,
        "batching": "case-wise",
        "share": 0.3,  # the release uses 30 % of each batch and discards the rest
        "clip": 0.0,
    }

    def __init__(self, config: PtmConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        if not set(backbone.modalities) <= set(backbone.streams):
            raise UsageError(
                f"method ptm needs a stream for each modality, as CAV-MAE has; {backbone.family} has only "
                f"{', '.join(backbone.streams)}"
            )
        if config.level != ATTENTION and not all(backbone.layers(modality) for modality in backbone.modalities):
            raise UsageError(
                f"method ptm at the {config.level} level puts tokens in front of layers of each modality's own, and "
                f"{backbone.family} has none: use --prompt-level {ATTENTION}"
            )
        if config.level != INPUT and not backbone.fusion_points:
            raise UsageError(
                f"method ptm at the {config.level} level needs layers that fuse the modalities, as CAV-MAE has; "
                f"{backbone.family} has none: use --prompt-level input"
            )
        self.trains_head, sets = config.train_head, one_set_per_case(cases)
        if config.level != ATTENTION:
            self.injections |= {modality: Injection([0], sets) for modality in backbone.modalities}
        self._attended = {} if config.level == INPUT else dict(backbone.fusion_points)
        for stream in self._attended:  # a fusion block is no stream: it counts as one layer
            layers = range(len(backbone.layers(stream)) if stream in backbone.streams else 1)
            self.injections[stream] = Injection(layers, sets)
        self.tokens: Any = nn.ModuleDict()  # modality → case → parameter [P, D]
        for modality in backbone.modalities:
            shape = (config.length, backbone.width[modality])
            self.tokens[modality] = nn.ParameterDict({c: nn.Parameter(torch.randn(shape) * INIT_STD) for c in cases})

    def prompts(self, stream: str, layer: int, sets: Sequence[str], sequence: TokenSequence) -> Prompts:
        """See :meth:`Method.prompts`: context where modalities are fused, tokens in front of a modality's stream."""
        tokens_PD = torch.cat(
            [self.tokens[modality][case] for modality in self._attended.get(stream, (stream,)) for case in sets]
        )
        return Prompts(context_PD=tokens_PD) if stream in self._attended else Prompts(tokens_PD=tokens_PD)
