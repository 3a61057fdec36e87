"""Batch independence: a sample's logits do not depend on the other samples of its batch.

Prompt the Missing's release fails this: its fusion block attends over the batch, so its accuracy depends on the batch
size and on the order of the samples. Padding is held fixed (rows of one batch are compared with each other), so that
:mod:`mmrobust.audit.padding` alone tests padding.
"""

from __future__ import annotations

import numpy as np
import torch

from mmrobust.audit.base import ROUNDING, Check, Finding, judged, moved
from mmrobust.audit.subject import Inputs, Subject, rows

EXTREME = 1000.0
"""The factor on the neighbours' pixels and filter banks."""


def _run(subject: Subject) -> Finding:
    worst = dict.fromkeys(("alone", "permuted", "beside extremes"), 0.0)
    for case, prompting in subject.conditions:
        inputs = subject.collate(subject.samples(subject.few, case))
        size = len(subject.few)
        together = subject.run(inputs, case, prompting)
        alone = torch.cat([subject.run(rows(inputs, [i]), case, prompting) for i in range(size)])
        order = np.random.default_rng(subject.seed).permutation(size)
        permuted = subject.run(rows(inputs, order.tolist()), case, prompting)
        others = {"alone": (together, alone), "permuted": (together[torch.from_numpy(order)], permuted)}
        for name, (before, after) in others.items():
            worst[name] = max(worst[name], moved(before, after))
        for unchanged in (range(0, size, 2), range(1, size, 2)):
            beside = subject.run(_with_extreme_neighbours(inputs, list(unchanged)), case, prompting)
            worst["beside extremes"] = max(worst["beside extremes"], moved(together[unchanged], beside[unchanged]))
    figure = max(worst.values())
    said = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    return judged(figure, ROUNDING, f"logits move, relative to the largest: {said}", worst)


def _with_extreme_neighbours(inputs: Inputs, unchanged: list[int]) -> Inputs:
    """Give every sample but those ``unchanged`` huge values, and texts of one repeated token. Masks stay."""
    changed = {}
    for name, tensor in inputs.items():
        changed[name] = tensor
        if "mask" not in name:
            extreme = tensor * EXTREME if tensor.is_floating_point() else tensor.amax().expand_as(tensor)
            changed[name] = extreme.clone()
            changed[name][unchanged] = tensor[unchanged]
    return changed


CHECK = Check(
    "batch-independence",
    "Do a sample's logits depend on the other samples of its batch?",
    "If so, accuracy depends on the batch size and the order of the data. Alone, in another order and beside "
    f"neighbours {EXTREME:g} times too large, logits may differ by float32 rounding: {ROUNDING:g} of the largest.",
    _run,
)
