"""Resampling recordings: a polyphase filter whose stop band begins at the Nyquist frequency of the lower rate."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import numpy.typing as npt

RESAMPLING = 2
"""Version of the filter, which decides what models hear. 1 was scipy's default, 6 dB down at the Nyquist frequency."""
STOP_DB = 120.0
"""Attenuation from the Nyquist frequency of the lower rate on, beyond the 96 dB of 16 bits."""
PASS = 0.913
"""Share of that frequency up to which the spectrum is kept: that of soxr's high quality."""
LARGEST = 5000
"""Largest term of the ratio of two rates. One that has larger terms, such as 16,000 : 44,099, is rounded to a ratio
with such terms: it is off by 4e-8 at most, or 2 samples in an hour at 16 kHz. Its filter would be of millions of
taps."""


def resample(waveform: npt.NDArray[np.float32], rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """Resample ``waveform`` [n] from ``rate`` to ``target_rate`` Hz [⌈n · target_rate / rate⌉].

    A linear-phase polyphase filter (``scipy.signal.resample_poly``) with a Kaiser window.

    Raises:
        ValueError: a rate is not positive.
    """
    if rate <= 0 or target_rate <= 0:
        raise ValueError(f"rates of {rate} Hz and {target_rate} Hz: both must be positive")
    if rate == target_rate:
        return waveform
    from scipy.signal import resample_poly

    up, down = _ratio(rate, target_rate)
    resampled = resample_poly(waveform.astype(np.float64), up, down, window=_filter(up, down))
    exact = np.zeros(-(-len(waveform) * target_rate // rate), dtype=np.float32)
    exact[: len(resampled)] = resampled[: len(exact)]
    return exact


def _ratio(rate: int, target_rate: int) -> tuple[int, int]:
    """By what ``rate`` is multiplied and divided to come to ``target_rate``, rounded where that is :data:`LARGEST`."""
    ratio = Fraction(target_rate, rate)
    if ratio < 1:
        ratio = max(ratio.limit_denominator(LARGEST), Fraction(1, LARGEST))
    else:
        ratio = 1 / max((1 / ratio).limit_denominator(LARGEST), Fraction(1, LARGEST))
    return ratio.numerator, ratio.denominator


@functools.lru_cache(maxsize=8)
def _filter(up: int, down: int) -> npt.NDArray[np.float64]:
    """The low-pass filter at ``up`` times the source's rate, with unit gain; its length is odd."""
    from scipy.signal import firwin, kaiser_beta, kaiserord

    nyquist = 1 / max(up, down)  # of the lower rate, as a share of that of the filter
    taps, _ = kaiserord(STOP_DB, (1 - PASS) * nyquist)
    coefficients = firwin(taps | 1, (1 + PASS) / 2 * nyquist, window=("kaiser", kaiser_beta(STOP_DB)))
    return np.asarray(coefficients, dtype=np.float64)
