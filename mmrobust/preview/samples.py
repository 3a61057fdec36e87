"""What the gallery shows of a sample: each modality before and after, as media that a browser has."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from mmrobust.cases import Case
from mmrobust.data.affected_split import AffectedSplit
from mmrobust.data.dataset import Sample
from mmrobust.data.decoding import SplitRecordings, decode, resample
from mmrobust.degradations import Degradation, Noise, degradation_of
from mmrobust.runtime.progress import Progress, no_progress

SIDE = 224
"""The longer side of a picture on the page; of what a model sees, where the noise acts on that."""
RATE = 16_000
MEL_BINS = 128
BANK_MEAN, BANK_STD = -5.081, 4.4849
"""CAV-MAE's normalisation of its filter banks, which a noise profile's strengths are for."""
SOUND_BYTES, PICTURE_BYTES = 1_000_000, 900_000
"""What all sounds and all pictures of a page may take, before base64: the page stays below 3 MB."""
TEXT_SHOWN = 800
PALETTE = ((13, 8, 60), (114, 31, 129), (205, 64, 113), (253, 159, 108), (252, 253, 191))
"""From quiet to loud."""


@dataclass(frozen=True)
class Shown:
    """One modality of one sample, before or after."""

    picture: str | None = None
    """Data URI of a picture, or of a recording's filter bank."""
    small: bool = False
    """Whether the picture is of few pixels, to be shown enlarged."""
    sound: str | None = None
    """Data URI of a recording."""
    text: str | None = None
    note: str = ""
    """What to know about it: missing, unchanged, cut."""


@dataclass(frozen=True)
class ShownSample:
    """One sample of the gallery."""

    id: str
    classes: tuple[str, ...]
    case: str
    before: dict[str, Shown] = field(repr=False)
    """Modality → it as it is in the data."""
    after: dict[str, Shown] = field(repr=False)
    """Modality → it as the model gets it."""


def preview_samples(
    affected: AffectedSplit, noise: Noise, count: int, progress: Progress = no_progress
) -> list[ShownSample]:
    """The first ``count`` affected samples, and unaffected ones where fewer are.

    Raises:
        DataError: one of them that cannot be decoded, named.
        UsageError: noise that the profile does not have.
    """
    others = np.setdiff1d(np.arange(len(affected.split)), affected.affected)
    chosen = [*affected.affected.tolist(), *others.tolist()][:count]
    studio = _Studio(affected, noise, len(chosen))
    with progress("preview", len(chosen)) as advance:
        shown = []
        for position in chosen:
            shown.append(studio.show(position))
            advance(1)
    return shown


class _Studio:
    """Shows samples, each within its share of the page's bytes."""

    def __init__(self, affected: AffectedSplit, noise: Noise, count: int) -> None:
        self._affected, self._noise = affected, noise
        self._recordings = SplitRecordings(affected.split)
        sounds = 2 * count * ("audio" in affected.modalities)
        pictures = 2 * count * sum(m in ("image", "audio") for m in affected.modalities)
        self._seconds = min(10.0, SOUND_BYTES / max(1, sounds) / (2 * RATE))
        self._picture_bytes = PICTURE_BYTES // max(1, pictures)

    def show(self, position: int) -> ShownSample:
        split = self._affected.split
        (sample,) = split.read([position])
        case = Case.parse(self._affected.cases[position], self._affected.modalities)
        before, after = {}, {}
        for modality in self._affected.modalities:
            before[modality], after[modality] = self._both(sample, modality, case)
        classes = tuple(split.info.classes[label] for label in sample.label)
        return ShownSample(sample.id, classes, case.name, before, after)

    def _both(self, sample: Sample, modality: str, case: Case) -> tuple[Shown, Shown]:
        """A modality of a sample, before and after."""
        if getattr(sample, modality) is None:
            absent = Shown(note="missing by nature")
            return absent, absent
        medium = decode(sample, modality)
        if case.is_missing(modality):
            return self._shown(medium, modality), Shown(note="missing: the model gets the same fill for every sample")
        if modality not in case.degraded:
            return self._shown(medium, modality), Shown(note="unchanged")
        degradation = degradation_of(case, modality, sample.id, self._noise, self._recordings)
        said = f"{degradation.name}, severity {degradation.severity}"
        if degradation.encoded:
            return self._on_tensor(medium, modality, degradation, said)
        return self._shown(medium, modality), self._shown(degradation.on_medium(medium), modality, said)

    def _on_tensor(self, medium: Any, modality: str, degradation: Degradation, said: str) -> tuple[Shown, Shown]:
        """Before and after noise that acts on the processor's tensor: as a model with the usual settings sees them."""
        import torch

        said = f"{said}; acts on what the processor gives"
        if modality == "image":
            medium = medium.copy()
            medium.thumbnail((SIDE, SIDE))
            normal = np.asarray(medium, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
            noisy = degradation.on_tensor(torch.from_numpy(normal)).numpy()
            pixels = np.clip((noisy.transpose(1, 2, 0) + 1) * 127.5, 0, 255)
            return self._shown(medium, modality), self._shown(Image.fromarray(pixels.astype(np.uint8)), modality, said)
        bank = (_filter_bank(medium) - BANK_MEAN) / BANK_STD
        noisy = degradation.on_tensor(torch.from_numpy(bank)).numpy()
        before = self._shown(medium, modality)
        picture = self._picture(_spectrogram(noisy, bank))
        return before, Shown(picture=picture, note=f"{said}, so there is nothing to hear")

    def _shown(self, medium: Any, modality: str, note: str = "") -> Shown:
        if modality == "text":
            cut = f"the first {TEXT_SHOWN} of {len(medium):,} characters" if len(medium) > TEXT_SHOWN else ""
            empty = "empty" if not medium else ""
            return Shown(text=medium[:TEXT_SHOWN], note="; ".join(filter(None, (note, cut, empty))))
        if modality == "image":
            return Shown(picture=self._picture(medium), small=max(medium.size) < SIDE // 2, note=note)
        waveform, rate = medium
        seconds = len(waveform) / rate
        cut = f"the first {self._seconds:.1f} of {seconds:.1f} seconds" if seconds > self._seconds else ""
        bank = _filter_bank(medium)
        return Shown(
            picture=self._picture(_spectrogram(bank, bank)),
            sound=_wave(waveform[: int(self._seconds * rate)], rate),
            note="; ".join(filter(None, (note, cut))),
        )

    def _picture(self, picture: Image.Image) -> str:
        """``picture`` as a data URI: as it is where it is small, else JPEG as good as there is room for."""
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
    """The log mel filter bank [frames, mel] of a recording; one frame where it is shorter than that."""
    from mmrobust.models.backbones.filterbank import log_mel_filterbank

    waveform, rate = recording
    bank = log_mel_filterbank(waveform, rate, RATE, MEL_BINS)
    return bank if len(bank) else np.full((1, MEL_BINS), bank.dtype.type(BANK_MEAN))


def _spectrogram(bank: npt.NDArray[np.float32], like: npt.NDArray[np.float32]) -> Image.Image:
    """A filter bank as a picture, time to the right, pitch upwards, in the colours that ``like`` has in its range."""
    low, high = np.percentile(like, (5, 100))
    level = np.clip((bank.T[::-1] - low) / max(high - low, 1e-6), 0, 1) * (len(PALETTE) - 1)
    colours = np.asarray(PALETTE, dtype=np.float64)
    below = np.minimum(level.astype(np.int64), len(PALETTE) - 2)
    share = (level - below)[..., None]
    pixels = colours[below] * (1 - share) + colours[below + 1] * share
    return Image.fromarray(pixels.astype(np.uint8)).resize((2 * SIDE, MEL_BINS), Image.Resampling.BILINEAR)


def _wave(waveform: npt.NDArray[np.float32], rate: int) -> str:
    """A recording as a data URI: 16 bit, at most 16 kHz; turned down where it is louder than a file can hold."""
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
