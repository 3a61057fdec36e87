"""Dtype drift: how far probabilities in bfloat16, the default on a GPU, differ from those in float32."""

from __future__ import annotations

import math

from mmrobust.audit.base import Check, Finding, judged
from mmrobust.audit.checkpoint_subject import CheckpointSubject
from mmrobust.audit.subject import Subject

LIMIT = 0.05


def _run(subject: Subject) -> Finding:
    assert isinstance(subject, CheckpointSubject)
    drifts, changed, scores = {}, {}, {}
    for case in subject.cases:
        exact = subject.logits(case)
        subject.classifier.dtype = "bfloat16"
        try:
            rough = subject.logits(case)
        finally:
            subject.classifier.dtype = "float32"
        drift, changed[case] = subject.change(exact, rough)
        drifts[case] = drift if math.isfinite(drift) else math.inf
        scores[case] = {"float32": subject.score(exact), "bfloat16": subject.score(rough.nan_to_num())}
    worst = max(drifts, key=lambda case: drifts[case])
    here = scores[worst]
    said = (
        f"probabilities move by {drifts[worst]:.4f} on average in case {worst}; {changed[worst]:.1%} of the decisions "
        f"change; {subject.headline} {here['float32']:.3f} becomes {here['bfloat16']:.3f}"
    )
    return judged(drifts[worst], LIMIT, said, {"drift": drifts, "decisions_changed": changed, "scores": scores})


CHECK = Check(
    "dtype-drift",
    "Are the probabilities in bfloat16 those in float32?",
    f"If not, results from a GPU (bfloat16) and a CPU (float32) differ. bfloat16 keeps three decimal digits, so sound "
    f"models move by 0.001 to 0.01: over {LIMIT:g}, as the mean over samples of the largest change of a class's "
    "probability, something cancels or overflows.",
    _run,
    own="the number format is this model's own affair",
)
