"""Filter banks: Kaldi's formula, and a part of a recording."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from mmrobust.models.backbones.filterbank import log_mel_filterbank

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE
DRAWS = np.random.default_rng(0)
RECORDINGS = {
    "noise": DRAWS.normal(size=2 * RATE) * 0.1,
    "quiet": DRAWS.normal(size=2 * RATE) * 1e-4,
    "tone": 0.5 * np.sin(2 * np.pi * 440 * TIME),
    "chirp": 0.5 * np.sin(2 * np.pi * (100 + 2000 * TIME) * TIME),
    "click": np.where(np.arange(2 * RATE) == RATE, 0.9, 0.0),
    "offset": 0.3 + DRAWS.normal(size=2 * RATE) * 0.01,
}


def kaldi(waveform: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float64]:
    """Kaldi's filter bank, frame by frame and filter by filter, as ``feature-fbank.cc`` is written."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    frame, shift, length = 400, 160, 512
    low, high = mel(20.0), mel(RATE / 2)
    step = (high - low) / (bins + 1)
    window = [0.5 - 0.5 * math.cos(2 * math.pi * i / (frame - 1)) for i in range(frame)]
    rows = []
    for start in range(0, len(waveform) - frame + 1, shift):
        samples = waveform[start : start + frame].copy()
        samples -= samples.mean()
        samples[1:] -= 0.97 * samples[:-1].copy()
        samples[0] -= 0.97 * samples[0]
        power = np.abs(np.fft.fft(samples * window, length)) ** 2
        row = []
        for index in range(bins):
            left, centre, right = (low + (index + place) * step for place in (0, 1, 2))
            energy = 0.0
            for place in range(length // 2):
                pitch = mel(place * RATE / length)
                if left < pitch < right:
                    rising = pitch <= centre
                    weight = (pitch - left) / (centre - left) if rising else (right - pitch) / (right - centre)
                    energy += weight * float(power[place])
            row.append(math.log(max(energy, float(np.finfo(np.float32).eps))))
        rows.append(row)
    return np.asarray(rows)


@pytest.mark.parametrize("bins", [40, 64, 80, 128])
@pytest.mark.parametrize("name", RECORDINGS)
def test_it_is_kaldis_formula(name: str, bins: int) -> None:
    """To the rounding of its result to float32. Empty filters, of which 128 have some, are at the floor in both."""
    waveform = RECORDINGS[name][:6400].astype(np.float32)
    bank = log_mel_filterbank(waveform, RATE, RATE, bins)
    doubled = waveform.astype(np.float64)
    assert np.abs(bank - kaldi(doubled - doubled.mean(), bins)).max() < 2e-6


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("frames", [1, 7, 96, 150, 10_000])
def test_the_first_frames_are_those_of_the_whole(rate: int, frames: int) -> None:
    """To the bit, its mean included, though nothing behind them is transformed."""
    draws = np.random.default_rng(frames)
    waveform = (draws.normal(size=2 * rate) * 0.1 + np.linspace(-0.3, 0.5, 2 * rate)).astype(np.float32)
    whole = log_mel_filterbank(waveform, rate, 16_000, 128)
    assert len(whole) == 198
    assert np.array_equal(log_mel_filterbank(waveform, rate, 16_000, 128, frames), whole[:frames])


def test_a_recording_shorter_than_a_frame_has_none() -> None:
    assert log_mel_filterbank(np.ones(399, dtype=np.float32), RATE, RATE, 40).shape == (0, 40)
    assert log_mel_filterbank(np.ones(400, dtype=np.float32), RATE, RATE, 40).shape == (1, 40)
