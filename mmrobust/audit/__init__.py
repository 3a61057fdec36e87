"""The audit: can the numbers of this checkpoint be trusted? One module per check, and one line in :data:`CHECKS`."""

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
    "case-sensitivity": "mmrobust.audit.told_case:CHECK",
    "fill-leakage": "mmrobust.audit.leakage:CHECK",
    "calibration": "mmrobust.audit.calibration:CHECK",
    "frozen-backbone": "mmrobust.audit.frozen:CHECK",  # last: none of the others may have changed a weight
}
"""Name → ``module:CHECK``, in the order in which they run; imported when they are asked for."""


def find_check(name: str) -> Check:
    """The check ``name``.

    Raises:
        UsageError: there is no such check.
    """
    check: Check = look_up(CHECKS, name, "check")
    return check
