"""The gallery: each modality of a sample before and after the scenario, as media for a browser, in one HTML page.

The template of the page is ``page.html.jinja``.
"""

from __future__ import annotations

import base64
import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from mmrobust.cases import Case
from mmrobust.data.affected_split import AffectedSplit
from mmrobust.data.dataset import Sample
from mmrobust.data.decoding import SplitDegrader, decode
from mmrobust.data.resampling import resample
from mmrobust.degradations import Degradation, Noise
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.tasks import label_names

SIDE = 224
"""Longer side, in pixels, of a picture on the page, and of what a model would see where the noise acts on that."""
RATE = 16_000
MEL_BINS = 128
BANK_MEAN, BANK_STD = -5.081, 4.4849
"""CAV-MAE's normalisation of its filter banks, for which the noise profiles are made."""
SOUND_BYTES, PICTURE_BYTES = 1_000_000, 900_000
"""Limits for all sounds and all pictures of a page, before base64: the page stays below 3 MB."""
TEXT_SHOWN = 800
"""Characters of a text on the page."""
PALETTE = ((13, 8, 60), (114, 31, 129), (205, 64, 113), (253, 159, 108), (252, 253, 191))
"""Colours of a spectrogram, from quiet to loud."""


@dataclass(frozen=True)
class PreviewInput:
    """One modality of one sample, before or after the scenario."""

    picture: str | None = None
    """Data URI of a picture, or of a recording's filter bank."""
    small: bool = False
    """Whether the picture has few pixels, and is shown enlarged."""
    sound: str | None = None
    """Data URI of a recording."""
    text: str | None = None
    note: str = ""
    """A remark: missing, unchanged, cut."""


@dataclass(frozen=True)
class PreviewSample:
    """One sample of the gallery."""

    id: str
    classes: tuple[str, ...]
    """Of a regression task, the number."""
    case: str
    before: dict[str, PreviewInput] = field(repr=False)
    """Modality → as it is in the data."""
    after: dict[str, PreviewInput] = field(repr=False)
    """Modality → as the model gets it."""


def preview_samples(
    affected: AffectedSplit, noise: Noise, count: int, progress: Progress = no_progress
) -> list[PreviewSample]:
    """Show the first ``count`` affected samples, or unaffected ones where there are fewer.

    Raises:
        DataError: a sample cannot be decoded; names it.
        UsageError: the noise profile has no noise for a modality.
    """
    others = np.setdiff1d(np.arange(len(affected.split)), affected.affected)
    chosen = [*affected.affected.tolist(), *others.tolist()][:count]
    renderer = _Renderer(affected, noise, len(chosen))
    shown = []
    with progress("preview", len(chosen)) as advance:
        for position in chosen:
            shown.append(renderer.show(position))
            advance(1)
    return shown


def render_page(affected: AffectedSplit, noise: Noise, samples: Sequence[PreviewSample]) -> str:
    """The page: a summary of the scenario, and each sample before and after it."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, keep_trailing_newline=True)
    template = environment.get_template("page.html.jinja")
    return template.render(
        affected=affected, noise=noise, default_noise=noise == Noise(), samples=samples, marked=_differences
    )


def _differences(text: str, other: str | None) -> Iterator[tuple[str, bool]]:
    """The parts of ``text``, each with whether it differs from ``other``; none does where there is no other text."""
    matcher = difflib.SequenceMatcher(None, text if other is None else other, text, autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        if end > start:
            yield text[start:end], kind != "equal"


class _Renderer:
    """Makes samples into media, each within its share of the page's bytes."""

    def __init__(self, affected: AffectedSplit, noise: Noise, count: int) -> None:
        self._affected, self._noise = affected, noise
        self._degrader = SplitDegrader(affected.split)
        self._kinds = affected.split.info.kinds
        kinds = [self._kinds[modality] for modality in affected.modalities]
        sounds = 2 * count * kinds.count("audio")
        pictures = 2 * count * (len(kinds) - kinds.count("text"))
        self._seconds = min(10.0, SOUND_BYTES / max(1, sounds) / (2 * RATE))
        self._picture_bytes = PICTURE_BYTES // max(1, pictures)

    def show(self, position: int) -> PreviewSample:
        split = self._affected.split
        (sample,) = split.read([position])
        case = Case.parse(self._affected.cases[position], self._affected.modalities)
        both = {modality: self._both(sample, position, modality, case) for modality in self._affected.modalities}
        before, after = ({modality: shown[at] for modality, shown in both.items()} for at in (0, 1))
        classes = label_names(sample.label, split.info.classes, split.info.task)
        return PreviewSample(sample.id, classes, case.name, before, after)

    def _both(self, sample: Sample, position: int, modality: str, case: Case) -> tuple[PreviewInput, PreviewInput]:
        """One modality of a sample, before and after."""
        if not self._affected.split.presence[modality][position]:
            absent = PreviewInput(note="missing by nature")
            return absent, absent
        medium = decode(sample, modality)
        before = self._shown(medium, modality)
        if case.is_missing(modality):
            return before, PreviewInput(note="missing: the model gets the same fill for every sample")
        if modality not in case.degraded:
            return before, PreviewInput(note="unchanged")
        degradation = self._degrader.degradation(case, modality, sample.id, self._noise)
        note = f"{degradation.name}, severity {degradation.severity}"
        if not degradation.encoded:
            return before, self._shown(degradation.on_medium(medium), modality, note)
        return self._on_tensor(medium, modality, degradation, f"{note}; acts on what the processor gives")

    def _on_tensor(
        self, medium: Any, modality: str, degradation: Degradation, note: str
    ) -> tuple[PreviewInput, PreviewInput]:
        """Before and after noise on the processor's tensor, shown as a model with the usual settings sees them."""
        if self._kinds[modality] == "image":
            medium = medium.copy()
            medium.thumbnail((SIDE, SIDE))
            return self._shown(medium, modality), self._shown(degradation.on_picture(medium), modality, note)
        import torch

        bank = (_filter_bank(medium) - BANK_MEAN) / BANK_STD
        noisy = degradation.on_tensor(torch.from_numpy(bank)).numpy()
        picture = self._picture(_spectrogram(noisy, bank))
        before = self._shown(medium, modality)
        return before, PreviewInput(picture=picture, note=f"{note}, so there is nothing to hear")

    def _shown(self, medium: Any, modality: str, note: str = "") -> PreviewInput:
        kind = self._kinds[modality]
        if kind == "text":
            cut = f"the first {TEXT_SHOWN} of {len(medium):,} characters" if len(medium) > TEXT_SHOWN else ""
            remarks = (note, cut, "" if medium else "empty")
            return PreviewInput(text=medium[:TEXT_SHOWN], note="; ".join(filter(None, remarks)))
        if kind == "features":
            standard = self._affected.split.info.features[modality].standard
            shape = " steps of ".join(f"{size:,}" for size in medium.shape) + " dimensions"
            picture = self._picture(_heat_map(standard.of(medium)))
            return PreviewInput(picture=picture, note="; ".join(filter(None, (note, shape))))
        if kind == "image":
            return PreviewInput(picture=self._picture(medium), small=max(medium.size) < SIDE // 2, note=note)
        waveform, rate = medium
        seconds = len(waveform) / rate
        cut = f"the first {self._seconds:.1f} of {seconds:.1f} seconds" if seconds > self._seconds else ""
        bank = _filter_bank(medium)
        sound, note = _wave(waveform[: int(self._seconds * rate)], rate), "; ".join(filter(None, (note, cut)))
        return PreviewInput(picture=self._picture(_spectrogram(bank, bank)), sound=sound, note=note)

    def _picture(self, picture: Image.Image) -> str:
        """``picture`` as a data URI: lossless where it is small, otherwise JPEG of the best quality that fits."""
        picture = picture.copy()
        if max(picture.size) < SIDE // 2:
            return _uri("image/png", _encoded(picture, "PNG"))
        picture.thumbnail((SIDE, SIDE) if picture.width <= 2 * picture.height else (2 * SIDE, SIDE))
        for quality in (92, 80, 65, 45, 25):
            data = _encoded(picture, "JPEG", quality=quality)
            if len(data) <= self._picture_bytes:
                break
        return _uri("image/jpeg", data)


def _filter_bank(recording: tuple[npt.NDArray[np.float32], int]) -> npt.NDArray[np.float32]:
    """The log mel filter bank [frames, mel] of a recording; one frame of silence where it is shorter than a frame."""
    from mmrobust.models.backbones.filterbank import log_mel_filterbank

    waveform, rate = recording
    bank = log_mel_filterbank(waveform, rate, RATE, MEL_BINS)
    return bank if len(bank) else np.full((1, MEL_BINS), bank.dtype.type(BANK_MEAN))


def _spectrogram(bank: npt.NDArray[np.float32], like: npt.NDArray[np.float32]) -> Image.Image:
    """Draw a filter bank, time to the right and pitch upwards; the range of ``like`` sets the colours."""
    low, high = np.percentile(like, (5, 100))
    level = np.clip((bank.T[::-1] - low) / max(high - low, 1e-6), 0, 1) * (len(PALETTE) - 1)
    colours = np.asarray(PALETTE, dtype=np.float64)
    below = np.minimum(level.astype(np.int64), len(PALETTE) - 2)
    share = (level - below)[..., None]
    pixels = colours[below] * (1 - share) + colours[below + 1] * share
    return Image.fromarray(pixels.astype(np.uint8)).resize((2 * SIDE, MEL_BINS), Image.Resampling.BILINEAR)


def _heat_map(standardised: npt.NDArray[np.float64]) -> Image.Image:
    """Draw features [T, D], time to the right, a row for each dimension, or [D] in one row; from −2 (dark) to 2."""
    values = standardised.reshape(1, -1) if standardised.ndim == 1 else standardised.T
    level = np.clip((values + 2) / 4, 0, 1) * (len(PALETTE) - 1)
    colours = np.asarray(PALETTE, dtype=np.float64)
    pixels = np.stack([np.interp(level, range(len(PALETTE)), colours[:, channel]) for channel in range(3)], axis=2)
    size = (2 * SIDE, min(MEL_BINS, max(24, 8 * len(values))))
    return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def _wave(waveform: npt.NDArray[np.float32], rate: int) -> str:
    """A recording as a data URI: 16 bit, at most 16 kHz, scaled down where it exceeds the range of a file."""
    if rate > RATE:
        waveform, rate = resample(waveform, rate, RATE), RATE
    loudest = float(np.abs(waveform).max(initial=0))
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform / max(loudest, 1.0), rate, format="WAV", subtype="PCM_16")
    return _uri("audio/wav", buffer.getvalue())


def _encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
