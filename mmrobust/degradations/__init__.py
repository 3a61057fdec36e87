"""Degradations: noise that is a pure function of (sample id, modality, degradation, severity, seed).

Two kinds. *Common corruptions* have a name and a severity from 1 to 5 and act on decoded media (a picture, a waveform,
a string), before the backbone's processor: one function each, and one line in :data:`CORRUPTIONS`. A *noise profile*
draws one of its kinds for each sample; it is what a case that names no corruption is under. ``default`` is what Prompt
the Missing's paper describes (audio shifted and masked along time, images under one of four kinds), and texts under one
of the common corruptions. ``released`` is what its released code does: it shifts and masks the MEL axis and always
blacks the image. Both act on the processor's tensors, except on texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrobust.cases import Case
from mmrobust.configuration import look_up
from mmrobust.degradations.keys import Draws, Recordings
from mmrobust.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT, RELEASED = "default", "released"
SEVERITIES = (1, 2, 3, 4, 5)
FULL, MILD = 5, 1
"""The severities of a noise profile where one modality is noisy, and where several are."""

CORRUPTIONS: Mapping[str, Mapping[str, str]] = {
    "image": {
        "gaussian": "mmrobust.degradations.image:gaussian",
        "shot": "mmrobust.degradations.image:shot",
        "impulse": "mmrobust.degradations.image:impulse",
        "blur": "mmrobust.degradations.image:blur",
        "pixelate": "mmrobust.degradations.image:pixelate",
        "jpeg": "mmrobust.degradations.image:jpeg",
        "brightness": "mmrobust.degradations.image:brightness",
        "contrast": "mmrobust.degradations.image:contrast",
        "occlusion": "mmrobust.degradations.image:occlusion",
        "black": "mmrobust.degradations.image:black",
    },
    "audio": {
        "gaussian": "mmrobust.degradations.audio:gaussian",
        "babble": "mmrobust.degradations.audio:babble",
        "time-shift": "mmrobust.degradations.audio:time_shift",
        "time-mask": "mmrobust.degradations.audio:time_mask",
        "clipping": "mmrobust.degradations.audio:clipping",
        "band-pass": "mmrobust.degradations.audio:band_pass",
        "silence": "mmrobust.degradations.audio:silence",
    },
    "text": {
        "character-slips": "mmrobust.degradations.text:character_slips",
        "word-drop": "mmrobust.degradations.text:word_drop",
        "truncation": "mmrobust.degradations.text:truncation",
        "ocr": "mmrobust.degradations.text:ocr",
        "empty": "mmrobust.degradations.text:empty",
    },
}
"""Modality → name → function of (picture, recording or text; severity; draws) → the same, degraded."""

ENCODED: Mapping[str, str] = {
    "audio-gaussian": "mmrobust.degradations.ptm:audio_gaussian",
    "time-shift": "mmrobust.degradations.ptm:time_shift",
    "time-mask": "mmrobust.degradations.ptm:time_mask",
    "mel-shift": "mmrobust.degradations.ptm:mel_shift",
    "mel-mask": "mmrobust.degradations.ptm:mel_mask",
    "image-gaussian": "mmrobust.degradations.ptm:image_gaussian",
    "box-blur": "mmrobust.degradations.ptm:box_blur",
    "pixelate": "mmrobust.degradations.ptm:pixelate",
    "black": "mmrobust.degradations.ptm:black",
}
"""Name → function of (encoded input, severity, draws) → degraded input of the same shape."""

PROFILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DEFAULT: {
        "audio": ("audio-gaussian", "time-shift", "time-mask"),
        "image": ("image-gaussian", "box-blur", "pixelate", "black"),
        "text": ("character-slips", "word-drop", "truncation", "ocr"),
    },
    RELEASED: {"audio": ("audio-gaussian", "mel-shift", "mel-mask"), "image": ("black",)},
}
"""Profile → modality → kinds, one of them drawn for each sample: of :data:`ENCODED`, or common corruptions of texts."""


@dataclass(frozen=True)
class Noise:
    """Which noise: what, beside the sample and its case, decides a degraded input.

    Raises:
        UsageError: an unknown profile.
    """

    profile: str = DEFAULT
    seed: int = 0

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise unknown_name("noise profile", self.profile, PROFILES)


@dataclass(frozen=True)
class Degradation:
    """What becomes of one modality of one sample: a function of its own, of the medium or of the encoded input."""

    modality: str
    name: str
    severity: int
    draws: Draws
    encoded: bool
    """Whether it acts on the processor's tensor, and not on the decoded medium."""

    def on_medium(self, medium: Any) -> Any:
        """The decoded ``medium``, degraded: a picture (RGB), a recording (waveform float32 [n], rate) or a text."""
        function = look_up(CORRUPTIONS[self.modality], self.name, f"corruption of {self.modality}")
        return function(medium, self.severity, self.draws)

    def on_tensor(self, tensor: Tensor) -> Tensor:
        """A filter bank [frames, mel] or image [3, H, W], degraded: a new tensor of the same shape, type and device."""
        import torch

        values: Any = tensor.detach().to("cpu", torch.float32).numpy()
        degraded = look_up(ENCODED, self.name, "noise")(values, self.severity, self.draws)
        return torch.from_numpy(np.ascontiguousarray(degraded)).to(tensor.device, tensor.dtype)


def degradation_of(
    case: Case, modality: str, sample_id: str, noise: Noise, recordings: Recordings | None = None
) -> Degradation:
    """What becomes of the ``modality`` of a sample in ``case``, which calls it degraded; to be applied once.

    Args:
        case: of the sample.
        modality: one of those it calls degraded.
        sample_id: id of the sample.
        noise: profile, where the case names no corruption, and seed.
        recordings: those of the whole split, which babble is made of.

    Raises:
        UsageError: a corruption or severity that does not exist, or a modality that the profile has no noise for.
    """
    check_noise(case)
    name, severity = case.corruption(modality)
    if name is not None:
        assert severity is not None
        key = f"{noise.seed}/{name}@{severity}/{modality}/{sample_id}"
        return Degradation(modality, name, severity, Draws(key, sample_id, recordings), encoded=False)
    check_profile([case], noise)
    kinds = PROFILES[noise.profile][modality]
    under = noise.profile if severity is None else f"{noise.profile}@{severity}"
    draws = Draws(f"{noise.seed}/{under}/{modality}/{sample_id}", sample_id, recordings)
    kind = kinds[draws.between(0, len(kinds) - 1)]
    strength = severity or (MILD if len(case.degraded) > 1 else FULL)
    return Degradation(modality, kind, strength, draws, encoded=kind in ENCODED)


def check_profile(cases: Iterable[Case], noise: Noise) -> None:
    """Raise where one of the ``cases`` leaves to the noise profile what it has no noise for.

    Raises:
        UsageError: it has none for a modality.
    """
    for case in cases:
        for modality in case.degraded:
            if case.corruption(modality)[0] is None and modality not in PROFILES[noise.profile]:
                raise UsageError(
                    f"noise profile {noise.profile} has {' and '.join(PROFILES[noise.profile])}, but no noise for "
                    f"{modality}, as case '{case.name}' wants it; --noise-profile {DEFAULT} has all"
                )


def check_noise(case: Case) -> None:
    """Raise where a case speaks of noise that there is not.

    Raises:
        UsageError: a corruption or severity that does not exist; the message names the known ones.
    """
    for modality in case.degraded:
        name, severity = case.corruption(modality)
        if name is not None and name not in CORRUPTIONS[modality]:
            raise unknown_name(f"corruption of {modality}", name, CORRUPTIONS[modality])
        if severity not in (*SEVERITIES, None) or (severity is None and name is not None):
            said = "no severity" if severity is None else f"severity {severity}"
            example = f"noisy-{modality}{':' + name if name else ''}@3"
            raise UsageError(f"'{case.name}' has {said}: give one from 1 to 5, as in {example}")
