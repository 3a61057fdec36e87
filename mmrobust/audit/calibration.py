"""Calibration: is the model right as often as its confidence says? Informational: it depends on the use."""

from __future__ import annotations

from mmrobust.audit.base import INFORMATIONAL, Check, Finding
from mmrobust.audit.subject import Subject
from mmrobust.scoring.calibration import confidences, expected_calibration_error


def _run(subject: Subject) -> Finding:
    errors, says, right = {}, {}, {}
    if not all(subject.logits(case).isfinite().all() for case in subject.cases):
        return Finding(INFORMATIONAL, "not defined: some logits are NaN or infinite")
    for case in subject.cases:
        confidence, hits = confidences(subject.logits(case).numpy(), subject.labels, subject.task)
        errors[case] = expected_calibration_error(confidence, hits)
        says[case], right[case] = float(confidence.mean()), float(hits.mean())
    worst = max(errors, key=lambda case: errors[case])
    said = (
        f"expected calibration error up to {errors[worst]:.3f}, in case {worst}: it says {says[worst]:.3f} and "
        f"{'finds' if subject.multi_label else 'is right in'} {right[worst]:.3f} ({len(subject.positions)} samples)"
    )
    return Finding(INFORMATIONAL, said, errors[worst], details={"ece": errors, "says": says, "is": right})


CHECK = Check(
    "calibration",
    "Is the model right as often as its confidence says?",
    "Accuracy does not need it, thresholds and abstaining do. Informational: what is tolerable depends on the use.",
    _run,
)
