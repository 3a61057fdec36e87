"""Frozen backbone: its weights are those that the checkpoint was trained on, even after all other checks."""

from __future__ import annotations

from mmrobust.audit.base import FAILED, PASSED, Check, Finding
from mmrobust.audit.checkpoint_subject import CheckpointSubject
from mmrobust.audit.subject import Subject


def _run(subject: Subject) -> Finding:
    assert isinstance(subject, CheckpointSubject)
    expected = str(subject.checkpoint.config.backbone["fingerprint"])
    found = subject.classifier.backbone.fingerprint()
    same = found == expected
    said = " as it was trained on" if same else f", but it was trained on {expected[:12]}"
    details = {"expected": expected, "found": found}
    return Finding(PASSED if same else FAILED, f"fingerprint {found[:12]}{said}", details=details)


CHECK = Check(
    "frozen-backbone",
    "Are the backbone's weights those that method and head were trained on?",
    "On other weights, prompts and heads mean nothing, and two checkpoints of one table are not comparable. The "
    "fingerprint covers every bit. It runs last, so it also shows that evaluation changes nothing.",
    _run,
    own="the weights of this model cannot be seen; its version stands for them",
)
