"""Methods: how the frozen backbone is adapted. One module each, and one line in :data:`METHODS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mmrobust.errors import unknown_name

if TYPE_CHECKING:
    from mmrobust.methods.base import Method

METHODS = {
    "none": "mmrobust.methods.base:NoMethod",
    "full": "mmrobust.methods.full:FullFineTuning",
    "mmp": "mmrobust.methods.mmp:MissingAwarePrompts",
    "dcp": "mmrobust.methods.dcp:DeepCorrelatedPrompts",
    "msp": "mmrobust.methods.msp:ModalitySpecificPrompts",
    "ptm": "mmrobust.methods.ptm:PromptTheMissing",
    "lora": "mmrobust.methods.lora:Lora",
    "adapter": "mmrobust.methods.adapter:Adapters",
}
"""Name → ``module:class``; imported when it is asked for, so that listing the names costs no torch."""


def method_class(name: str) -> type[Method]:
    """The class of the method ``name``.

    Raises:
        UsageError: there is no such method.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    module, _, attribute = METHODS[name].partition(":")
    cls: type[Method] = getattr(importlib.import_module(module), attribute)
    return cls
