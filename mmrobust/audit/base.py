"""Checks and findings, and how far the logits of two runs may differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from mmrobust.audit.subject import Subject

PASSED, FAILED, INFORMATIONAL, NOT_APPLICABLE = "passed", "failed", "informational", "not applicable"

ROUNDING = 1e-4
"""The most that logits may differ by float32 rounding, relative to the largest one (or to 1 if that is smaller). Other
batch sizes and threads choose other kernels, which sum in another order: on the checkpoints that we tried this changes
logits by less than 1e-5. A real dependence on a neighbour changes them by 1e-2 and more."""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check."""

    status: str
    """``passed``, ``failed``, ``informational`` (no answer is wrong) or ``not applicable``."""
    said: str
    """One line with the figures, for people."""
    figure: float | None = None
    """What was measured."""
    limit: float | None = None
    """The largest figure that passes; the smallest if :attr:`at_least`."""
    at_least: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    """All figures, in values that JSON can hold."""


@dataclass(frozen=True)
class Check:
    """One question about a model."""

    name: str
    asks: str
    """The question."""
    why: str
    """Why it matters, and why the limit is where it is."""
    run: Callable[[Subject], Finding]
    own: str = ""
    """Why it cannot be made on a model of the user's own; empty where it can."""


def judged(figure: float, limit: float, said: str, details: Mapping[str, Any], *, at_least: bool = False) -> Finding:
    """Compare ``figure`` with its ``limit``; NaN fails."""
    passes = figure >= limit if at_least else figure <= limit
    return Finding(PASSED if passes else FAILED, said, figure, limit, at_least, details)


def moved(before: Tensor, after: Tensor) -> float:
    """Return the largest difference of logits, relative to the largest logit, or to 1 if that is smaller.

    Infinite if a logit is NaN or infinite.
    """
    if not (before.isfinite().all() and after.isfinite().all()):
        return math.inf
    return float((before - after).abs().max() / before.abs().max().clamp(min=1.0))
