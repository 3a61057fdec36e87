"""A dry run: what a source holds, and its first samples as they were understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

    kinds: Mapping[str, str] = field(default_factory=dict)
    """The kind of each modality that is not called as its kind."""

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
                kind, path = self.kinds.get(modality, modality), sample.paths.get(modality)
                yield f"    {modality}: {_shown(sample.media.get(modality), path, kind, sample.id)}"


def _shown(content: Any, path: str | None, kind: str, sample_id: str) -> str:
    """A modality of a sample: a picture's size, a recording's length, a text's beginning, the shape of features."""
    if content is None:
        return "missing"
    if kind == "text":
        words = " ".join(content.split())
        return words if len(words) <= MAX_CHARACTERS else f"{words[:MAX_CHARACTERS]}…"
    named = f"{path}, " if path else ""
    if kind == "features":
        return f"{named}{'×'.join(map(str, content.shape))} numbers"
    if kind == "image":
        picture = decode_image(content, sample_id)
        return f"{named}{picture.width}×{picture.height}"
    waveform, rate = decode_audio(content, sample_id)
    return f"{named}{len(waveform) / rate:.2f} s at {rate:,} Hz"
