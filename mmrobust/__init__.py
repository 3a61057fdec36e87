"""mmrobust: how robust is a multimodal classifier when an input is missing or degraded?

The Python API, on which the command line is built::

    import mmrobust
    clf = mmrobust.load("runs/mmp")
    table = mmrobust.evaluate(clf, "data/av-digits", rates=(0.0, 0.7))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmrobust.version import __version__ as __version__

if TYPE_CHECKING:
    from mmrobust.evaluation.evaluate import evaluate as evaluate
    from mmrobust.models.checkpoint import load as load
    from mmrobust.models.own.model import Model as Model

__all__ = ["Model", "__version__", "evaluate", "load"]

_HOME = {
    "load": "mmrobust.models.checkpoint",
    "evaluate": "mmrobust.evaluation.evaluate",
    "Model": "mmrobust.models.own.model",
}


def __getattr__(name: str) -> Any:
    """Import public functions on first use, so that ``import mmrobust`` does not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'mmrobust' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
