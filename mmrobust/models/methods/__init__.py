"""Methods: how the frozen backbone is adapted. One module each, and one line in :data:`METHODS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmrobust.configuration import look_up

if TYPE_CHECKING:
    from mmrobust.models.methods.base import Method

METHODS = {
    "none": "mmrobust.models.methods.base:NoMethod",
    "full": "mmrobust.models.methods.full:FullFineTuning",
    "mmp": "mmrobust.models.methods.mmp:MissingAwarePrompts",
    "dcp": "mmrobust.models.methods.dcp:DeepCorrelatedPrompts",
    "maple": "mmrobust.models.methods.maple:MultiModalPrompts",
    "msp": "mmrobust.models.methods.msp:ModalitySpecificPrompts",
    "ptm": "mmrobust.models.methods.ptm:PromptTheMissing",
    "lora": "mmrobust.models.methods.lora:Lora",
    "adapter": "mmrobust.models.methods.adapter:Adapters",
}
"""Name → ``module:class``; imported on demand, so that listing the names does not load torch."""


def method_class(name: str) -> type[Method]:
    """The class of the method ``name``; a ``UsageError`` if there is none."""
    cls: type[Method] = look_up(METHODS, name, "method")
    return cls
