"""Log mel filter banks as in Kaldi (``feat/feature-fbank.cc``, ``feat/mel-computations.cc``), in double precision.

Kaldi itself computes in single precision. Where a filter holds little of a loud recording, as under a pure tone, that
loses four digits, so it is its formula that is followed, not its rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.data.resampling import resample
from mmrobust.errors import CheckpointError

FRAME_SECONDS = 0.025
SHIFT_SECONDS = 0.010
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
LOG_FLOOR = 1.192092955078125e-07
"""Float32 epsilon: Kaldi's floor under the logarithm."""
FRAMES_AT_ONCE = 512
"""Frames that are transformed at a time: 3 MB at 16 kHz."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AudioSettings:
    """How a waveform is turned into a filter bank. The default mean and std are the reference's on VGGSound."""

    sampling_rate: int = 16_000
    frames: int = 1024
    mel_bins: int = 128
    mean: float = -5.081
    std: float = 4.4849

    def __post_init__(self) -> None:
        ranges = (("sampling_rate", 1, 10**6), ("frames", 1, 10**6), ("mel_bins", 1, 10**4), ("std", 1e-6, 1e6))
        check_range(dataclasses.asdict(self), (*ranges, ("mean", -1e6, 1e6)), "audio settings")


def encode_filterbank(raw: tuple[npt.NDArray[np.float32], int], settings: AudioSettings) -> Tensor:
    """The filter bank [frames, mel] of a recording, cut or padded with zeros, then normalised."""
    waveform, rate = raw
    bank = log_mel_filterbank(waveform, rate, settings.sampling_rate, settings.mel_bins, settings.frames)
    padded = np.zeros((settings.frames, settings.mel_bins), dtype=np.float32)
    padded[: len(bank)] = bank
    return torch.from_numpy((padded - settings.mean) / settings.std)


def log_mel_filterbank(
    waveform: npt.NDArray[np.float32], rate: int, target_rate: int, mel_bins: int, frames: int | None = None
) -> npt.NDArray[np.float32]:
    """Kaldi's filter bank of a mono waveform: [frames, mel_bins], natural logarithm, not normalised.

    The call of CAV-MAE: ``kaldi.fbank(waveform - waveform.mean(), htk_compat=True, use_energy=False,
    window_type="hanning", num_mel_bins=…, dither=0.0, frame_shift=10)``. A recording shorter than one frame gives no
    frames.

    Args:
        waveform: samples in [-1, 1], float32 [n].
        rate: its sampling rate in Hz.
        target_rate: rate in Hz to resample to first.
        mel_bins: filters from 20 Hz to half the target rate.
        frames: number of frames to keep; the rest affects only the mean that is subtracted. ``None``: all.
    """
    waveform = resample(waveform, rate, target_rate)
    frame, shift = int(target_rate * FRAME_SECONDS), int(target_rate * SHIFT_SECONDS)
    if len(waveform) < frame:
        return np.zeros((0, mel_bins), dtype=np.float32)
    count = 1 + (len(waveform) - frame) // shift
    count = count if frames is None else min(count, frames)
    length, window, filters = _constants(target_rate, frame, mel_bins)
    centred = waveform[: frame + (count - 1) * shift].astype(np.float64) - waveform.mean(dtype=np.float64)
    framed_TN = np.lib.stride_tricks.sliding_window_view(centred, frame)[::shift]
    bank = np.empty((count, mel_bins), dtype=np.float32)
    for start in range(0, count, FRAMES_AT_ONCE):
        some = framed_TN[start : start + FRAMES_AT_ONCE]
        some = some - some.mean(axis=1, keepdims=True)
        emphasised = some - PREEMPHASIS * np.concatenate([some[:, :1], some[:, :-1]], axis=1)
        spectrum = np.fft.rfft(emphasised * window, length)
        power = spectrum.real**2 + spectrum.imag**2
        bank[start : start + len(some)] = np.log(np.maximum(power @ filters, LOG_FLOOR))
    return bank


@functools.lru_cache(maxsize=8)
def _constants(rate: int, frame: int, mel_bins: int) -> tuple[int, Floats, Floats]:
    """FFT length (the frame rounded up to a power of two), window [frame] and mel filters [frequencies, mel_bins].

    Filters are triangles on the mel scale. The lowest of many are so narrow that they hold no frequency of the FFT, and
    are empty, in Kaldi as well.
    """
    length = 1 << (frame - 1).bit_length()
    low, high = _mel(LOWEST_HZ), _mel(rate / 2)
    edges = low + (high - low) / (mel_bins + 1) * np.arange(mel_bins + 2)
    pitch_F = _mel(np.arange(length // 2 + 1) * (rate / length))[:, None]
    rising = (pitch_F - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - pitch_F) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[-1] = 0.0  # Kaldi leaves out half the sampling rate
    window = 0.5 - 0.5 * np.cos(2 * np.pi / (frame - 1) * np.arange(frame))
    return length, window, filters


def _mel(hertz: npt.ArrayLike) -> Floats:
    """Kaldi's mel scale."""
    return 1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0)


def check_range(values: Mapping[str, Any], ranges: Iterable[tuple[str, float, float]], source: object) -> None:
    """Raise a ``CheckpointError`` if one of the values is not a number in its range (name, least, most)."""
    for name, least, most in ranges:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise CheckpointError(f"{source}: {name} = {value!r}: must be a number from {least:g} to {most:g}")
