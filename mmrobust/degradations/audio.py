"""Common corruptions of recordings: noise and babble at a signal-to-noise ratio, and faults of microphones and lines.

The ratios are Aurora-2's (Hirsch & Pearce 2000): 20, 15, 10, 5 and 0 dB. A recording is (waveform float32 [n], rate in
Hz). Sums are in float64, and values are only clipped by the corruption that clips.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmrobust.degradations.keys import GAP, Draws

Wave = npt.NDArray[np.float64]
Recording = tuple[npt.NDArray[np.float32], int]

SNR_DB = (20, 15, 10, 5, 0)
NOISE_LEVEL = (0.1, 0.1778279410038923, 0.31622776601683794, 0.5623413251903491, 1.0)
"""10^(-dB / 20) of the ratios, written out because powers round differently across platforms."""
BABBLERS = 4
"""Number of recordings that babble is made of."""
SHIFTED = MASKED = (0.1, 0.2, 0.3, 0.4, 0.5)
CLIPPED = (0.02, 0.05, 0.1, 0.2, 0.4)
BAND_HZ = ((100, 7000), (200, 5000), (300, 3400), (400, 2500), (500, 2000))
"""Severity 3 is the telephone's band (ITU-T G.712)."""


def gaussian(recording: Recording, severity: int, draws: Draws) -> Recording:
    """White noise at 20 to 0 dB."""
    waveform, rate = recording
    return at_ratio(waveform, draws.normal(waveform.shape), NOISE_LEVEL[severity - 1]), rate


def babble(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Four other recordings of the split, equally loud, at 20 to 0 dB together.

    Each is repeated from a random place in it. Which recordings they are depends on the ids of the whole split.
    """
    waveform, rate = recording
    return at_ratio(waveform, babble_of(len(waveform), rate, draws), NOISE_LEVEL[severity - 1]), rate


def time_shift(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Rolled along time, in either direction, by 10 to 50 % of its length."""
    waveform, rate = recording
    by = round(len(waveform) * SHIFTED[severity - 1])
    return np.roll(waveform, by if draws.happens(0.5) else -by), rate


def time_mask(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Silence over 10 to 50 % of its length, in one piece (SpecAugment, Park et al. 2019, on the waveform)."""
    waveform, rate = recording
    width = round(len(waveform) * MASKED[severity - 1])
    start = draws.between(0, len(waveform) - width)
    masked = waveform.copy()
    masked[start : start + width] = 0.0
    return masked, rate


def gap(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Silence over 10 to 90 % of its length, in one piece: a line that is lost and comes back."""
    waveform, rate = recording
    start, end = draws.stretch(len(waveform), GAP[severity - 1])
    holed = waveform.copy()
    holed[start:end] = 0.0
    return holed, rate


def clipping(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Clipped at the level that the loudest 2 to 40 % of the samples exceed."""
    waveform, rate = recording
    loud = np.sort(np.abs(waveform))
    level = loud[int((len(loud) - 1) * (1 - CLIPPED[severity - 1]))]
    return np.clip(waveform, -level, level), rate


def band_pass(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Only frequencies from 100–500 Hz up to 7,000–2,000 Hz."""
    waveform, rate = recording
    low, high = BAND_HZ[severity - 1]
    return pass_band(waveform.astype(np.float64), rate, low, high).astype(np.float32), rate


def silence(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Silence, at any severity: a dead microphone."""
    waveform, rate = recording
    return np.zeros_like(waveform), rate


def babble_of(length: int, rate: int, draws: Draws) -> Wave:
    """Other recordings of the split, equally loud, each repeated from a random place in it to this length."""
    voices = np.zeros(length, dtype=np.float64)
    for other in draws.others(BABBLERS, rate):
        voice = other.astype(np.float64)
        start = draws.between(0, len(voice) - 1)
        if loudness := _loudness(voice):
            voices += np.resize(np.roll(voice, -start), length) / loudness
    return voices


def pass_band(wave: Wave, rate: int, low: float, high: float) -> Wave:
    """Only the frequencies of a wave from ``low`` to ``high`` Hz."""
    spectrum = np.fft.rfft(wave)
    pitch = np.arange(len(spectrum)) * (rate / len(wave))
    spectrum[(pitch < low) | (pitch > high)] = 0
    return np.fft.irfft(spectrum, len(wave))


def at_ratio(waveform: npt.NDArray[np.float32], noise: Wave, strength: float) -> npt.NDArray[np.float32]:
    """``waveform`` + ``noise``, ``strength`` times as loud as it; silence stays silence."""
    signal, level = waveform.astype(np.float64), _loudness(noise)
    if not level:
        return waveform
    return np.asarray(signal + noise * (_loudness(signal) * strength / level), dtype=np.float32)


def _loudness(wave: Wave) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(wave))))
