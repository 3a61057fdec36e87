"""Filter banks of a part of a recording."""

from __future__ import annotations

import numpy as np
import pytest

from mmrobust.models.backbones.filterbank import log_mel_filterbank


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("frames", [1, 7, 96, 150, 10_000])
def test_the_first_frames_are_those_of_the_whole(rate: int, frames: int) -> None:
    """To the bit, its mean included, though nothing behind them is transformed."""
    draws = np.random.default_rng(frames)
    waveform = (draws.normal(size=2 * rate) * 0.1 + np.linspace(-0.3, 0.5, 2 * rate)).astype(np.float32)
    whole = log_mel_filterbank(waveform, rate, 16_000, 128)
    assert len(whole) == 198
    assert np.array_equal(log_mel_filterbank(waveform, rate, 16_000, 128, frames), whole[:frames])
