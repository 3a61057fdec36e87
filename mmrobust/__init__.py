"""mmrobust: how robust is a multimodal classifier when an input is missing or degraded?

The Python face, from which the command line is made::

    import mmrobust
    clf = mmrobust.load("runs/mmp")
    table = mmrobust.evaluate(clf, "data/av-digits", rates=(0.0, 0.7))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrobust.checkpoint import load as load
    from mmrobust.evaluation import evaluate as evaluate

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load"]

_HOME = {"load": "mmrobust.checkpoint", "evaluate": "mmrobust.evaluation"}


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are first asked for: ``import mmrobust`` costs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'mmrobust' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
