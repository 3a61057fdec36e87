"""A dry run: what a source holds, and its first samples as they were understood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.writing import SampleRow

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

    def lines(self) -> Iterator[str]:
        """What a user should see: the description, and each of the samples."""
        named = ", ".join(self.classes[:MAX_CLASSES]) + (", …" if len(self.classes) > MAX_CLASSES else "")
        yield f"{self.name}: {self.total:,} samples of {' + '.join(self.modalities)}"
        yield f"{self.task}, {len(self.classes):,} classes ({named}), {self.headline_metric}"
        for sample in self.samples:
            yield f"sample '{sample.id}', {sample.split}"
            classes = ", ".join(f"{self.classes[label]}" for label in sample.label)
            yield f"    label: {classes or 'no class'}"
            for modality in self.modalities:
                yield f"    {modality}: {_shown(sample, modality)}"


def _shown(sample: SampleRow, modality: str) -> str:
    """A modality of a sample: a picture's size, a recording's length, the beginning of a text."""
    if modality == "text":
        words = None if sample.text is None else " ".join(sample.text.split())
        if words is None:
            return "missing"
        return words if len(words) <= MAX_CHARACTERS else f"{words[:MAX_CHARACTERS]}…"
    content: bytes | None = getattr(sample, modality)
    if content is None:
        return "missing"
    path = getattr(sample, f"{modality}_path")
    named = f"{path}, " if path else ""
    if modality == "image":
        picture = decode_image(content, sample.id)
        return f"{named}{picture.width}×{picture.height}"
    waveform, rate = decode_audio(content, sample.id)
    return f"{named}{len(waveform) / rate:.2f} s at {rate:,} Hz"
