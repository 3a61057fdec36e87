"""Recordings under one cause that also changes the picture: rain, wind, a crowd, a line of low bandwidth, an impact.

:mod:`mmrobust.degradations.image_causes` has the pictures, and says after whom. Both begin with the same draws, so that
the rain of a sample is as heavy in one as in the other.
"""

from __future__ import annotations

import numpy as np

from mmrobust.degradations.audio import NOISE_LEVEL, Recording, at_ratio, babble_of, pass_band
from mmrobust.degradations.keys import Draws

WIND_HZ = 200
GUSTS_PER_SECOND = 2
LINE_HZ = (4000, 3400, 2600, 1900, 1300)
LINE_LOST = (0.02, 0.06, 0.12, 0.2, 0.3)
"""Share of the packets of 20 ms that never arrive."""
BANG = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The loudness of the bang over that of the recording."""
BANG_SECONDS = 0.25


def rain(recording: Recording, severity: int, draws: Draws) -> Recording:
    """A hiss of high frequencies, and drops that hit the microphone."""
    (waveform, rate), force = recording, draws.force()
    noise = np.diff(draws.normal((len(waveform) + 1,)))
    hits = draws.words(waveform.shape) < int(min(1.0, 40 * severity / rate) * 2**32)
    return at_ratio(waveform, noise + 12 * noise * hits, NOISE_LEVEL[severity - 1] * force), rate


def wind(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Rumble below 200 Hz that comes in gusts, 6 dB louder than other noise of its severity."""
    (waveform, rate), force = recording, draws.force()
    rumble = pass_band(draws.normal(waveform.shape), rate, 0, WIND_HZ)
    knots = 2 + len(waveform) * GUSTS_PER_SECOND // rate
    gusts = draws.words((knots,)) / 2**32 * 0.9 + 0.1
    along = np.arange(len(waveform)) * ((knots - 1) / len(waveform))
    rumble *= np.interp(along, np.arange(knots), gusts)
    return at_ratio(waveform, rumble, 2 * NOISE_LEVEL[severity - 1] * force), rate


def crowd(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Babble: other recordings of the split, as :func:`mmrobust.degradations.audio.babble` has them."""
    (waveform, rate), force = recording, draws.force()
    return at_ratio(waveform, babble_of(len(waveform), rate, draws), NOISE_LEVEL[severity - 1] * force), rate


def low_bandwidth(recording: Recording, severity: int, draws: Draws) -> Recording:
    """Only frequencies below 4,000 to 1,300 Hz, and 2 to 30 % of its packets of 20 ms are lost."""
    (waveform, rate), force = recording, draws.force()
    sent = pass_band(waveform.astype(np.float64), rate, 0, LINE_HZ[severity - 1] * (2 - force))
    packet = max(1, rate // 50)
    lost = draws.words((-(-len(waveform) // packet),)) < int(LINE_LOST[severity - 1] * force * 2**32)
    sent[lost.repeat(packet)[: len(waveform)]] = 0
    return sent.astype(np.float32), rate


def impact(recording: Recording, severity: int, draws: Draws) -> Recording:
    """A bang at some moment that dies away within a quarter of a second, 1 to 16 times as loud as the recording.

    It overloads the microphone: beyond ±1, or the recording's own peak, it is clipped.
    """
    (waveform, rate), force = recording, draws.force()
    length = min(len(waveform), max(1, int(rate * BANG_SECONDS)))
    start = draws.between(0, len(waveform) - length)
    thud = np.convolve(draws.normal((length,)), np.ones(max(1, rate // 400)), mode="same")[:length]
    burst = np.zeros(len(waveform))
    burst[start : start + length] = thud * (1 - np.arange(length) / length) ** 2
    # ``at_ratio`` speaks of the whole recording, the bang of its own stretch.
    share = float(np.sqrt(length / len(waveform)))
    banged, loudest = (
        at_ratio(waveform, burst, BANG[severity - 1] * force * share),
        max(1.0, float(np.abs(waveform).max())),
    )
    return np.clip(banged, -loudest, loudest), rate
