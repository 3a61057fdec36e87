"""Whether the numbers of a checkpoint can be trusted: one module per check, and one line each in :data:`CHECKS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmrobust.configuration import look_up

if TYPE_CHECKING:
    from mmrobust.audit.base import Check

CHECKS = {
    "batch-independence": "mmrobust.audit.batch:CHECK",
    "padding-independence": "mmrobust.audit.padding:CHECK",
    "determinism": "mmrobust.audit.determinism:CHECK",
    "dtype-drift": "mmrobust.audit.dtype:CHECK",
    "case-sensitivity": "mmrobust.audit.case_sensitivity:CHECK",
    "fill-leakage": "mmrobust.audit.leakage:CHECK",
    "calibration": "mmrobust.audit.calibration:CHECK",
    "frozen-backbone": "mmrobust.audit.frozen:CHECK",  # last, so it shows that no other check changed a weight
}
"""Name → ``module:CHECK``, in the order in which they run; imported on first use."""


def find_check(name: str) -> Check:
    """Return the check called ``name``.

    Raises:
        UsageError: there is no such check.
    """
    check: Check = look_up(CHECKS, name, "check")
    return check
