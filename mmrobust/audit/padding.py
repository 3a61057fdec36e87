"""Padding independence: beside a longer text and a larger image, a sample has the logits that it has alone."""

from __future__ import annotations

from mmrobust.audit.base import NOT_APPLICABLE, ROUNDING, Check, Finding, judged, moved
from mmrobust.audit.subject import Subject


def _run(subject: Subject) -> Finding:
    worst, padded = 0.0, False
    for case, prompting in subject.conditions:
        for position in subject.few:
            logits = subject.alone_and_padded(position, case, prompting)
            if logits is not None:
                padded, worst = True, max(worst, moved(*logits))
    if not padded:
        said = "this backbone's inputs all have one size: nothing is ever padded"
        if not subject.open:
            said = "predict takes no sample beside a larger picture and a longer text or recording"
        return Finding(NOT_APPLICABLE, said)
    return judged(worst, ROUNDING, f"logits move, relative to the largest: padded {worst:.1e}", {"padded": worst})


CHECK = Check(
    "padding-independence",
    "Do a sample's logits depend on how far its batch was padded?",
    "If so, they depend on the longest text and the largest image beside it. What is masked must not be seen: logits "
    f"may differ by float32 rounding, {ROUNDING:g} of the largest.",
    _run,
)
