"""The checks: each is a question about a model, and a function that answers it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mmrobust.audit.checkpoint_subject import CheckpointSubject
from mmrobust.audit.leakage import fill_leakage
from mmrobust.audit.subject import FAILED, INFORMATIONAL, NOT_APPLICABLE, PASSED, Check, Finding, Subject, judged
from mmrobust.errors import check_name
from mmrobust.scoring.calibration import confidences, expected_calibration_error

ROUNDING = 1e-4
"""The most that logits may differ by float32 rounding, relative to the largest one (or to 1 if that is smaller). Other
batch sizes and threads choose other kernels, which sum in another order: on the checkpoints that we tried this changes
logits by less than 1e-5. A real dependence on a neighbour changes them by 1e-2 and more."""
MOST_DRIFT = 0.05
LEAST_CHANGE = 1e-3


def _moved(before: Tensor, after: Tensor) -> float:
    """Return the largest difference of logits, relative to the largest logit, or to 1 if that is smaller.

    Infinite if a logit is NaN or infinite.
    """
    if not (before.isfinite().all() and after.isfinite().all()):
        return math.inf
    return float((before - after).abs().max() / before.abs().max().clamp(min=1.0))


@partial(
    Check,
    "batch-independence",
    "Do a sample's logits depend on the other samples of its batch?",
    "If so, accuracy depends on the batch size and the order of the data. Alone, in another order and beside "
    "neighbours that are extreme (1,000 times too large, in negative), logits may differ by float32 rounding: "
    f"{ROUNDING:g} of the largest.",
)
def batch_independence(subject: Subject) -> Finding:
    """Prompt the Missing's release fails this: its fusion block attends over the batch.

    Padding is held fixed (rows of one batch are compared with each other), so that padding independence alone tests it.
    """
    worst = dict.fromkeys(("alone", "permuted", "beside extremes"), 0.0)

    def compare(name: str, before: Tensor, after: Tensor) -> None:
        worst[name] = max(worst[name], _moved(before, after))

    size = len(subject.few)
    order = np.random.default_rng(subject.seed).permutation(size).tolist()
    for case, prompting in subject.conditions:
        inputs = subject.inputs(subject.few, case)
        together = subject.run(inputs, case, prompting)
        alone = [subject.run(subject.rows(inputs, [i]), case, prompting) for i in range(size)]
        compare("alone", together, torch.cat(alone))
        compare("permuted", together[order], subject.run(subject.rows(inputs, order), case, prompting))
        for unchanged in (range(0, size, 2), range(1, size, 2)):
            beside = subject.run(subject.with_extreme_neighbours(inputs, unchanged), case, prompting)
            compare("beside extremes", together[unchanged], beside[unchanged])
    said = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    return judged(max(worst.values()), ROUNDING, f"logits move, relative to the largest: {said}", worst)


@partial(
    Check,
    "padding-independence",
    "Do a sample's logits depend on how far its batch was padded?",
    "If so, they depend on the longest text and the largest image beside it. What is masked must not be seen: logits "
    f"may differ by float32 rounding, {ROUNDING:g} of the largest.",
)
def padding_independence(subject: Subject) -> Finding:
    """Beside a longer text and a larger image, a sample has the logits that it has alone."""
    worst, padded = 0.0, False
    for case, prompting in subject.conditions:
        for position in subject.few:
            logits = subject.alone_and_padded(position, case, prompting)
            if logits:
                padded, worst = True, max(worst, _moved(*logits))
    if not padded:
        said = "this backbone's inputs all have one size: nothing is ever padded"
        if not subject.open:
            said = "predict takes no sample beside a larger picture and a longer text or recording"
        return Finding(NOT_APPLICABLE, said)
    return judged(worst, ROUNDING, f"logits move, relative to the largest: padded {worst:.1e}", {"padded": worst})


@partial(
    Check,
    "determinism",
    "Does the same input give the same logits twice?",
    "If not, no number can be reproduced: dropout was left on, noise is drawn, or state is kept. On one machine "
    f"no bit may differ; other threads sum in another order, which may move logits by {ROUNDING:g} of the largest.",
)
def determinism(subject: Subject) -> Finding:
    """The same input gives bit-identical logits; on another number of threads, equal up to rounding."""
    batches = {case: subject.inputs(subject.few, case) for case in subject.cases}
    usual, threads = torch.get_num_threads(), 0.0

    def logits(on: int) -> list[Tensor]:
        torch.set_num_threads(on)
        try:
            return [subject.run(batches[case], case, prompting) for case, prompting in subject.conditions]
        finally:
            torch.set_num_threads(usual)

    again = max(map(_moved, logits(usual), logits(usual)))
    said = f"logits move, relative to the largest: run twice {again:.1e}"
    if subject.on_cpu:
        threads = max(map(_moved, logits(1), logits(2)))
        said += f", on 1 and 2 threads {threads:.1e}"
    on_threads = threads if subject.on_cpu else None
    details = {"twice": again, "twice_limit": 0.0, "threads": on_threads, "threads_limit": ROUNDING}
    # The figure is that of running twice, the stricter test, unless only the threads fail.
    figure, limit = (again, 0.0) if again or threads <= ROUNDING else (threads, ROUNDING)
    return judged(figure, limit, said, details)


@partial(
    Check,
    "dtype-drift",
    "Are the probabilities in bfloat16 those in float32?",
    "If not, results from a GPU (bfloat16) and a CPU (float32) differ. bfloat16 keeps three decimal digits, so sound "
    f"models move by 0.001 to 0.01: over {MOST_DRIFT:g}, as the mean over samples of the largest change of a class's "
    "probability, something cancels or overflows.",
    own="the number format is this model's own affair",
)
def dtype_drift(subject: Subject) -> Finding:
    """How far probabilities in bfloat16, the default on a GPU, differ from those in float32."""
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
        f"{subject.moved[0]} by {drifts[worst]:.4f} on average in case {worst}; {changed[worst]:.1%} "
        f"{subject.moved[1]}; {subject.headline} {here['float32']:.3f} becomes {here['bfloat16']:.3f}"
    )
    return judged(drifts[worst], MOST_DRIFT, said, {"drift": drifts, "decisions_changed": changed, "scores": scores})


@partial(
    Check,
    "case-sensitivity",
    "Do the prompts or prototypes for the wrong case change anything?",
    "If not, they are not missing-aware, whatever the table calls them: they never trained, or are the same for all "
    f"cases. Some wrong case must move probabilities by {LEAST_CHANGE:g} on average; rounding moves them by 1e-6. For "
    "methods and heads that know no case this is informational.",
)
def case_sensitivity(subject: Subject) -> Finding:
    """Does it matter which case the model is told?"""
    if len(subject.cases) < 2:
        return Finding(NOT_APPLICABLE, f"there is only one case: {subject.cases[0]}")
    if not (subject.open or subject.tells_cases_apart):
        return Finding(NOT_APPLICABLE, "this model is never told the case (knows_case=False)")
    changes, decisions, scores = {}, {}, {}
    for case in subject.cases:
        right = subject.logits(case)
        scores[case] = {"told the right case": subject.score(right)}
        for wrong in subject.cases:
            if wrong == case:
                continue
            logits = subject.logits(case, told=wrong)
            pair = f"{case} told {wrong}"
            changes[pair], decisions[pair] = subject.change(right, logits)
            scores[case][f"told {wrong}"] = subject.score(logits.nan_to_num())
    most = max(changes, key=lambda pair: changes[pair])
    said = (
        f"{subject.moved[0]} by up to {changes[most]:.4f} on average ({most}); {decisions[most]:.1%} {subject.moved[1]}"
    )
    details = {"change": changes, "decisions_changed": decisions, "scores": scores}
    if not subject.tells_cases_apart:
        reason = "{method} + {head} has nothing that was trained for a case".format(**subject.made_of)
        return Finding(INFORMATIONAL, f"{reason}; {said}", changes[most], details=details)
    return judged(changes[most], LEAST_CHANGE, said, details, at_least=True)


@partial(
    Check,
    "calibration",
    "Is the model right as often as its confidence says?",
    "Accuracy does not need it, thresholds and abstaining do. Informational: what is tolerable depends on the use.",
)
def calibration(subject: Subject) -> Finding:
    """The expected calibration error in each case."""
    if subject.numbers:
        return Finding(NOT_APPLICABLE, "numbers have no confidence")
    if not all(subject.logits(case).isfinite().all() for case in subject.cases):
        return Finding(INFORMATIONAL, "not defined: some logits are NaN or infinite")
    errors, says, right = {}, {}, {}
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


@partial(
    Check,
    "frozen-backbone",
    "Are the backbone's weights those that method and head were trained on?",
    "On other weights, prompts and heads mean nothing, and two checkpoints of one table are not comparable. The "
    "fingerprint covers every bit. It runs last, so it also shows that evaluation changes nothing.",
    own="the weights of this model cannot be seen; its version stands for them",
)
def frozen_backbone(subject: Subject) -> Finding:
    """Compare the fingerprint of the backbone with the one in the checkpoint's config."""
    assert isinstance(subject, CheckpointSubject)
    expected = str(subject.checkpoint.config.backbone["fingerprint"])
    found = subject.classifier.backbone.fingerprint()
    same = found == expected
    said = " as it was trained on" if same else f", but it was trained on {expected[:12]}"
    details = {"expected": expected, "found": found}
    return Finding(PASSED if same else FAILED, f"fingerprint {found[:12]}{said}", details=details)


CHECKS = {
    check.name: check
    for check in (
        batch_independence,
        padding_independence,
        determinism,
        dtype_drift,
        case_sensitivity,
        fill_leakage,
        calibration,
        frozen_backbone,  # last, so it shows that no other check changed a weight
    )
}
"""Name → check, in the order in which they run."""


def find_check(name: str) -> Check:
    """Return the check called ``name``.

    Raises:
        UsageError: there is no such check.
    """
    check_name("check", name, CHECKS)
    return CHECKS[name]
