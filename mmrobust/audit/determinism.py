"""Determinism: the same input gives bit-identical logits; on another number of threads, equal up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmrobust.audit.base import FAILED, PASSED, ROUNDING, Check, Finding, moved
from mmrobust.audit.subject import Subject


def _run(subject: Subject) -> Finding:
    batches = {case: subject.inputs(subject.few, case) for case in subject.cases}

    def logits() -> list[Tensor]:
        return [subject.run(batches[case], case, prompting) for case, prompting in subject.conditions]

    again, threads = _largest_move(logits(), logits()), 0.0
    if subject.on_cpu:
        with _threads(1):
            one = logits()
        with _threads(2):
            two = logits()
        threads = _largest_move(one, two)
    said = f"logits move, relative to the largest: run twice {again:.1e}"
    said += f", on 1 and 2 threads {threads:.1e}" if subject.on_cpu else ""
    on_threads = threads if subject.on_cpu else None
    details = {"twice": again, "twice_limit": 0.0, "threads": on_threads, "threads_limit": ROUNDING}
    passes = again == 0 and threads <= ROUNDING
    # The figure is that of running twice, the stricter test, unless only the threads fail.
    figure, limit = (again, 0.0) if passes or again else (threads, ROUNDING)
    return Finding(PASSED if passes else FAILED, said, figure, limit, details=details)


def _largest_move(before: list[Tensor], after: list[Tensor]) -> float:
    return max(moved(a, b) for a, b in zip(before, after, strict=True))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


CHECK = Check(
    "determinism",
    "Does the same input give the same logits twice?",
    "If not, no number can be reproduced: dropout was left on, noise is drawn, or state is kept. On one machine "
    f"no bit may differ; other threads sum in another order, which may move logits by {ROUNDING:g} of the largest.",
    _run,
)
