"""PTM: Prompt the Missing (Park, CVPRW 2025), on a backbone with a stream per modality and layers where they meet.

For each case and modality one set of P tokens [P, D]; nothing else trains, unless the head is asked to.

*Input level*: the tokens of a modality go in front of its embedded tokens, before its encoder, and stay.

*Attention level*: the same tokens are extra keys and values where the streams meet. They pass through the layer's own
norm and projections first, as the released code puts them in front of what its cross-attentions take keys and values
from; MMP's raw keys and values are another thing. With a fusion block, audio queries see [image's prompts; image] and
the reverse; without one, the joint layers see the tokens of both modalities.

Prompts are left out of the pooling. Under concat prompting the cases' tokens stand side by side on the token axis.

The released code can be neither built nor trained (its prompts never receive a gradient), so this follows the paper and
the release's documentation: the fine-tuned backbone AND its head stay frozen. Since each case has prompts of its own
and shares nothing that trains, training the cases in turn is what the paper does in one training per case.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Backbone
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.sequence import TokenSequence

INPUT, ATTENTION, BOTH = LEVELS = ("input", "attention", "both")
INIT_STD = 0.02


@dataclass(frozen=True)
class PtmConfig(MethodConfig):
    """Settings of Prompt the Missing.

    Raises:
        UsageError: a value out of range.
    """

    level: str = ATTENTION
    """Where the tokens enter; the released code's is the attention level."""
    length: int = 16
    """P: tokens per case and modality."""
    train_head: bool = False
    """Whether the head trains too; else it is the fine-tuned backbone's, frozen."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown_name("prompt level", self.level, LEVELS)
        if self.length < 1:
            raise UsageError(f"--prompt-length {self.length}: must be 1 or more")


class PromptTheMissing(Method):
    """``ptm``: tokens per (modality, case), the same at every place where they enter."""

    name = "ptm"
    config_class = PtmConfig
    has_prompts = True
    keeps_head = True
    default_scenario = "noisy-both"

    def __init__(self, config: PtmConfig, backbone: Backbone, cases: Sequence[str]) -> None:
        super().__init__(config, backbone, cases)
        if not set(backbone.modalities) <= set(backbone.streams):
            raise UsageError(
                f"method ptm wants a stream for each modality, as CAV-MAE has; {backbone.family} has "
                f"{', '.join(backbone.streams)} only"
            )
        if config.level != INPUT and not backbone.meetings:
            raise UsageError(
                f"method ptm at the {config.level} level wants streams that meet, as CAV-MAE's do; those of "
                f"{backbone.family} do not: take --prompt-level input"
            )
        self.trains_head = config.train_head
        self._meetings = {} if config.level == INPUT else dict(backbone.meetings)
        self.tokens: Any = nn.ModuleDict(  # modality → case → parameter [P, D]
            {
                modality: nn.ParameterDict(
                    {
                        case: nn.Parameter(torch.randn(config.length, backbone.width[modality]) * INIT_STD)
                        for case in cases
                    }
                )
                for modality in backbone.modalities
            }
        )

    def first_changed(self, stream: str) -> int | None:
        """See :meth:`Method.first_changed`: at the attention level nothing changes before the streams meet."""
        entered = stream in self._meetings or (stream in self.tokens and self.config.level != ATTENTION)
        return 0 if entered else None

    def prompts(self, stream: str, layer: int, cases: Sequence[str], sequence: TokenSequence) -> Prompts | None:
        """See :meth:`Method.prompts`."""
        del sequence
        if stream in self._meetings:
            return Prompts(context_PD=torch.cat([self._of(modality, cases) for modality in self._meetings[stream]]))
        if layer == 0 and self._enters(stream):
            return Prompts(tokens_PD=self._of(stream, cases))
        return None

    def prompts_key(self, stream: str, cases: Sequence[str]) -> Hashable:
        """See :meth:`Method.prompts_key`: at the attention level nothing is added before the streams meet."""
        return tuple(cases) if stream in self._meetings or self._enters(stream) else ()

    def _enters(self, stream: str) -> bool:
        """Whether the tokens enter at the stream's input."""
        return stream in self.tokens and self.config.level != ATTENTION

    def _of(self, modality: str, cases: Sequence[str]) -> Tensor:
        """The modality's tokens of the ``cases`` side by side [len(cases) · P, D]."""
        return torch.cat([self.tokens[modality][case] for case in cases])
