"""A dry run: what a source holds, and its first samples as they were understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmrobust.data.decoding import decode_audio, decode_image, is_transparent
from mmrobust.data.writing import SampleRow
from mmrobust.storage.tasks import REGRESSION, label_names

SHOWN = 3
"""Samples that a dry run shows."""
MAX_CLASSES = 12
MAX_CHARACTERS = 100


@dataclass(frozen=True)
class DryRun:
    """What a preparer would write."""

    name: str
    modalities: tuple[str, ...]
    task: str
    classes: Sequence[str]
    headline_metric: str
    total: int
    """Samples that the source lists."""
    samples: tuple[SampleRow, ...]
    """The first ones that can be used."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Modality → its kind; one that is not there is called as its kind."""

    def lines(self) -> Iterator[str]:
        """What a user should see: the description, and each of the samples."""
        named = ", ".join(self.classes[:MAX_CLASSES]) + (", …" if len(self.classes) > MAX_CLASSES else "")
        yield f"{self.name}: {self.total:,} samples of {' + '.join(self.modalities)}"
        what = f"of {named}" if self.task == REGRESSION else f"{len(self.classes):,} classes ({named})"
        yield f"{self.task}, {what}, {self.headline_metric}"
        for sample in self.samples:
            yield f"sample '{sample.id}', {sample.split}"
            classes = ", ".join(label_names(sample.label, self.classes, self.task))
            yield f"    label: {classes or 'no class'}"
            for modality in self.modalities:
                yield f"    {modality}: {_shown(sample, modality, self.kinds.get(modality, modality))}"


def _shown(sample: SampleRow, modality: str, kind: str) -> str:
    """A modality of a sample: a picture's size, a recording's length, the beginning of a text, features' shape."""
    medium = sample.media.get(modality)
    if medium is None:
        return "missing"
    if isinstance(medium, np.ndarray):
        shape = " × ".join(f"{size:,}" for size in medium.shape)
        return f"{shape} numbers" if medium.ndim == 1 else f"{shape} (time × numbers)"
    if isinstance(medium, str):
        words = " ".join(medium.split())
        return words if len(words) <= MAX_CHARACTERS else f"{words[:MAX_CHARACTERS]}…"
    path = sample.paths.get(modality)
    named = f"{path}, " if path else ""
    if kind == "image":
        picture = decode_image(medium, sample.id)
        over_white = ", transparency over white" if is_transparent(medium) else ""
        return f"{named}{picture.width}×{picture.height}{over_white}"
    waveform, rate = decode_audio(medium, sample.id)
    return f"{named}{len(waveform) / rate:.2f} s at {rate:,} Hz"
