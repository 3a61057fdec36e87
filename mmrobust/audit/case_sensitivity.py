"""Case sensitivity: does it matter which case the model is told?"""

from __future__ import annotations

from mmrobust.audit.base import INFORMATIONAL, NOT_APPLICABLE, Check, Finding, judged
from mmrobust.audit.subject import Subject

LIMIT = 1e-3


def _run(subject: Subject) -> Finding:
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
        f"probabilities move by up to {changes[most]:.4f} on average ({most}); "
        f"{decisions[most]:.1%} of the decisions change"
    )
    details = {"change": changes, "decisions_changed": decisions, "scores": scores}
    if not subject.tells_cases_apart:
        reason = "{method} + {head} has nothing that was trained for a case".format(**subject.made_of)
        return Finding(INFORMATIONAL, f"{reason}; {said}", changes[most], details=details)
    return judged(changes[most], LIMIT, said, details, at_least=True)


CHECK = Check(
    "case-sensitivity",
    "Do the prompts or prototypes for the wrong case change anything?",
    "If not, they are not missing-aware, whatever the table calls them: they never trained, or are the same for all "
    f"cases. Some wrong case must move probabilities by {LIMIT:g} on average; rounding moves them by 1e-6. For methods "
    "and heads that know no case this is informational.",
    _run,
)
