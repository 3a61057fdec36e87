"""Log mel filter banks as in Kaldi, computed by transformers' audio functions."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import numpy.typing as npt
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from mmrobust.data.decoding import resample

FRAME_SECONDS = 0.025
SHIFT_SECONDS = 0.010
LOG_FLOOR = 1.192092955078125e-07
"""Float32 epsilon: Kaldi's floor under the logarithm."""


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
    length, window, filters = _constants(target_rate, frame, mel_bins)
    end = None if frames is None else frame + (frames - 1) * shift
    bank = spectrogram(
        waveform[:end] - waveform.mean(),
        window,
        frame_length=frame,
        hop_length=shift,
        fft_length=length,
        power=2.0,
        center=False,
        preemphasis=0.97,
        remove_dc_offset=True,
        mel_filters=filters,
        mel_floor=LOG_FLOOR,
        log_mel="log",
    )
    return np.ascontiguousarray(bank.T, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _constants(rate: int, frame: int, mel_bins: int) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """FFT length (the frame rounded up to a power of two), window and mel filters."""
    length = 1 << (frame - 1).bit_length()
    with warnings.catch_warnings():
        # The lowest of CAV-MAE's 128 filters at 16 kHz are so narrow that some lie between two FFT frequencies. They
        # are empty in Kaldi as well, so the model was trained on what the library warns about.
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values", UserWarning)
        filters = mel_filter_bank(
            num_frequency_bins=length // 2 + 1,
            num_mel_filters=mel_bins,
            min_frequency=20,
            max_frequency=rate // 2,
            sampling_rate=rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return length, window_function(frame, "hann", periodic=False), filters
