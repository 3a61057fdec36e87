"""The shape of what a file says of itself: which keys hold words, numbers, lists. Files come from anywhere.

A shape is a type (``str``, ``int``, ``float`` for any number, ``bool``), a list of one shape (``[str]``), a mapping of
keys to shapes, or :class:`Each`. A key that ends in ``!`` must be there; the others may lack, or be null. Keys that the
shape does not name may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_NUMBER = 2**63
_NAMES = {str: "a word", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}


@dataclass(frozen=True)
class Each:
    """An object of any keys, whose values all have one shape."""

    shape: Any


def misfit(value: Any, shape: Any, place: str = "") -> str:
    """What of ``value`` has not the ``shape``, in words; empty where all has.

    >>> misfit({"dataset": {"classes": [1]}}, {"dataset": {"classes": [str]}})
    'dataset/classes/0 is not a word'
    >>> misfit({"dataset": {}}, {"dataset!": {"name!": str}})
    'dataset/name is lacking'
    """
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place} is not a list"
        parts = [(index, item, shape[0]) for index, item in enumerate(value)]
    elif isinstance(shape, Each):
        if not isinstance(value, dict):
            return f"{place or 'it'} is not an object"
        parts = [(key, item, shape.shape) for key, item in value.items()]
    elif isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return f"{place or 'it'} is not an object"
        named = [(key.rstrip("!"), key.endswith("!"), inner) for key, inner in shape.items()]
        for key, needed, _ in named:
            if needed and value.get(key) is None:
                return f"{place}/{key} is lacking".lstrip("/")
        parts = [(key, value[key], inner) for key, _, inner in named if value.get(key) is not None]
    else:
        return "" if _is(value, shape) else f"{place} is not {_NAMES[shape]}"
    found = (misfit(item, inner, f"{place}/{key}".lstrip("/")) for key, item, inner in parts)
    return next(filter(None, found), "")


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float) and not isinstance(value, bool):
        return isinstance(value, (int, kind)) and -LARGEST_NUMBER < value < LARGEST_NUMBER
    return isinstance(value, kind)


_DATASET = {
    **dict.fromkeys(("name", "fingerprint", "split", "task", "headline_metric"), str),
    "n": int,
    "classes": [str],
}
_EFFICIENCY = {
    **dict.fromkeys(("trained_parameters!", "samples_per_epoch!", "batch_size!"), int),
    **dict.fromkeys(("seconds_per_epoch!", "cache_seconds!", "peak_memory", "energy_joules"), float),
    "device!": str,
}
_CHECKPOINT = {
    **dict.fromkeys(("fingerprint", "backbone", "fill", "backbone_fingerprint", "device", "dtype"), str),
    "modalities": [str],
    "cases": [str],
    "settings": {"method": {"name": str}, "head": {"name": str}},
    "training": {
        **{"scenario": str, "missing_rate": float, "validation": float, "recipe": {}},
        "efficiency": _EFFICIENCY,
    },
    "depends_on_prompting": bool,
}


def _needing(shape: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """``shape``, in which these keys must be there."""
    return {f"{key}!" if key in keys else key: inner for key, inner in shape.items()}


_BAD_SAMPLES = {"summary": str, "number": int}
SHAPES: dict[str, dict[str, Any]] = {
    "results": {
        "dataset!": _needing(_DATASET, "name", "classes"),
        "checkpoints!": Each(_CHECKPOINT),
        "noise": {"profile!": str, "seed!": int},
        "scoring": {"threshold": float, "f1_absent": str, "resamples": int, "bootstrap_seed": int},
        "git": {"commit": str, "dirty": bool},
        "versions": Each(str),
        "bad_samples": _BAD_SAMPLES,
        **dict.fromkeys(("device", "dtype", "command", "started", "finished"), str),
    },
    "predictions": {
        **dict.fromkeys(("identity!", "checkpoint!", "dataset!", "split!", "dtype!", "noise_profile"), str),
        "noise_seed": int,
        "bad_samples": _BAD_SAMPLES,
    },
}
"""What the provenance of a file of each kind holds: see ``results.py``."""
DESCRIBED: dict[str, Any] = {
    "name!": str,
    "about!": _needing(_DATASET, *_DATASET),
    "described!": _needing(
        _CHECKPOINT, "fingerprint", "backbone", "modalities", "depends_on_prompting", "device", "dtype"
    ),
}
"""What it holds besides where predictions say of what they are; those of schema 1 do not."""
