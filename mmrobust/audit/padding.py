"""Padding independence: beside a longer text and a larger image, a sample has the logits that it has alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmrobust.audit.base import NOT_APPLICABLE, ROUNDING, Check, Finding, judged, moved
from mmrobust.audit.subject import Inputs, Subject, rows

LONGEST = 512
"""Most tokens of the longest neighbour: more would only cost time."""


def _run(subject: Subject) -> Finding:
    worst, padded = 0.0, False
    for case, prompting in subject.conditions:
        for sample in subject.samples(subject.few, case):
            alone = subject.collate([sample])
            beside = rows(subject.collate([sample, _larger(sample, alone, subject)]), [0])
            if all(beside[name].shape == tensor.shape for name, tensor in alone.items()):
                continue
            padded = True
            before, after = (subject.run(inputs, case, prompting) for inputs in (alone, beside))
            worst = max(worst, moved(before, after))
    if not padded:
        return Finding(NOT_APPLICABLE, "this backbone's inputs all have one size: nothing is ever padded")
    return judged(worst, ROUNDING, f"logits move, relative to the largest: padded {worst:.1e}", {"padded": worst})


def _larger(sample: Mapping[str, Tensor], alone: Inputs, subject: Subject) -> dict[str, Tensor]:
    """Return a neighbour that pads ``sample``: its own text repeated to full length, its image twice as large."""
    larger = dict(sample)
    if "text" in larger:
        ids = larger["text"]
        longest = min(getattr(subject.encoded.processor, "max_length", LONGEST), LONGEST)
        larger["text"] = ids.repeat(-(-longest // len(ids)))[:longest]
    if "pixel_mask" in alone:  # images may have any size, so they are padded
        twice_as_high = torch.cat([larger["image"]] * 2, dim=1)
        larger["image"] = torch.cat([twice_as_high] * 2, dim=2)
    return larger


CHECK = Check(
    "padding-independence",
    "Do a sample's logits depend on how far its batch was padded?",
    "If so, they depend on the longest text and the largest image beside it. What is masked must not be seen: logits "
    f"may differ by float32 rounding, {ROUNDING:g} of the largest.",
    _run,
)
