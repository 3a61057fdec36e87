"""Batch independence: a sample's logits do not depend on the other samples of its batch.

Prompt the Missing's release fails this: its fusion block attends over the batch, so its accuracy depends on the batch
size and on the order of the samples. Padding is held fixed (rows of one batch are compared with each other), so that
:mod:`mmrobust.audit.padding` alone tests padding.
"""

from __future__ import annotations

import numpy as np
import torch

from mmrobust.audit.base import ROUNDING, Check, Finding, judged, moved
from mmrobust.audit.subject import Subject


def _run(subject: Subject) -> Finding:
    worst = dict.fromkeys(("alone", "permuted", "beside extremes"), 0.0)
    for case, prompting in subject.conditions:
        inputs = subject.inputs(subject.few, case)
        size = len(subject.few)
        together = subject.run(inputs, case, prompting)
        alone = torch.cat([subject.run(subject.rows(inputs, [i]), case, prompting) for i in range(size)])
        order = np.random.default_rng(subject.seed).permutation(size)
        permuted = subject.run(subject.rows(inputs, order.tolist()), case, prompting)
        others = {"alone": (together, alone), "permuted": (together[torch.from_numpy(order)], permuted)}
        for name, (before, after) in others.items():
            worst[name] = max(worst[name], moved(before, after))
        for unchanged in (range(0, size, 2), range(1, size, 2)):
            beside = subject.run(subject.with_extreme_neighbours(inputs, unchanged), case, prompting)
            worst["beside extremes"] = max(worst["beside extremes"], moved(together[unchanged], beside[unchanged]))
    figure = max(worst.values())
    said = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    return judged(figure, ROUNDING, f"logits move, relative to the largest: {said}", worst)


CHECK = Check(
    "batch-independence",
    "Do a sample's logits depend on the other samples of its batch?",
    "If so, accuracy depends on the batch size and the order of the data. Alone, in another order and beside "
    "neighbours that are extreme (1,000 times too large, in negative), logits may differ by float32 rounding: "
    f"{ROUNDING:g} of the largest.",
    _run,
)
