"""Registries: a dict from a name to ``module:attribute``, imported when it is asked for.

So that listing the names, for a help text or a message, costs no torch, and adding one more is a line.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from mmrobust.errors import unknown_name


def look_up(registry: Mapping[str, str], name: str, kind: str) -> Any:
    """What ``registry`` has under ``name``.

    Raises:
        UsageError: nothing of that name; ``kind`` says what was sought, and the nearest right name is given.
    """
    if name not in registry:
        raise unknown_name(kind, name, registry)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
