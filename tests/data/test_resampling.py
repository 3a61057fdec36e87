"""The resampler: what it keeps, what it removes, and how long the result is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mmrobust.data.resampling import resample

PAIRS = [(44_100, 16_000), (48_000, 16_000), (22_050, 16_000), (96_000, 16_000), (8_000, 16_000), (48_000, 44_100)]


def tone(pitch: float, rate: int) -> npt.NDArray[np.float64]:
    """One second of a sine."""
    return np.sin(2 * np.pi * pitch * np.arange(rate) / rate)


def inner(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Without the ends, where the filter meets silence."""
    cut = len(waveform) // 10
    return waveform[cut:-cut].astype(np.float64)


@pytest.mark.parametrize(("rate", "target"), PAIRS)
def test_what_the_target_can_hold_is_kept(rate: int, target: int) -> None:
    """To 1e-6, up to nine tenths of the Nyquist frequency."""
    for share in (0.01, 0.3, 0.6, 0.9):
        pitch = share * min(rate, target) / 2
        resampled = resample(tone(pitch, rate).astype(np.float32), rate, target)
        assert resampled.dtype == np.float32
        assert len(resampled) == target
        assert np.abs(inner(resampled) - inner(tone(pitch, target).astype(np.float32))).max() < 2e-6


@pytest.mark.parametrize(("rate", "target"), [(rate, target) for rate, target in PAIRS if rate > target])
def test_what_it_cannot_hold_is_removed(rate: int, target: int) -> None:
    """By 115 dB or more from the Nyquist frequency on. It was 6 dB there."""
    for pitch in np.linspace(target / 2 * 1.001, rate / 2 * 0.98, 20):
        left = inner(resample(tone(pitch, rate).astype(np.float32), rate, target))
        assert 20 * np.log10(np.sqrt(2 * np.mean(left**2)) + 1e-12) < -115


@pytest.mark.parametrize(("rate", "target"), [(44_099, 16_000), (16_000, 44_099), (999_983, 16_000), (1_001, 16_000)])
def test_odd_pairs_of_rates(rate: int, target: int) -> None:
    """Their ratio is rounded, so that no filter has millions of taps."""
    resampled = resample(tone(100, rate).astype(np.float32), rate, target)
    assert len(resampled) == target
    assert np.abs(inner(resampled) - inner(tone(100, target).astype(np.float32))).max() < 0.02


def test_lengths() -> None:
    for count in (1, 2, 9, 100, 4_411):
        waveform = np.ones(count, dtype=np.float32)
        for rate, target in (*PAIRS, (44_099, 16_000)):
            assert len(resample(waveform, rate, target)) == -(-count * target // rate)


def test_the_same_rate_and_none() -> None:
    waveform = tone(440, 8000).astype(np.float32)
    assert resample(waveform, 8000, 8000) is waveform
    with pytest.raises(ValueError, match="must be positive"):
        resample(waveform, 8000, 0)
