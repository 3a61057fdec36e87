"""Heads: from features to class scores. One module each, and one line in :data:`HEADS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmrobust.configuration import look_up

if TYPE_CHECKING:
    from mmrobust.models.heads.base import Head

HEADS = {
    "linear": "mmrobust.models.heads.linear:LinearHead",
    "mlp": "mmrobust.models.heads.linear:MlpHead",
    "prototype": "mmrobust.models.heads.prototype:PrototypeHead",
}
"""Name → ``module:class``; imported on demand."""


def head_class(name: str) -> type[Head]:
    """The class of the head ``name``; a ``UsageError`` if there is none."""
    cls: type[Head] = look_up(HEADS, name, "head")
    return cls
