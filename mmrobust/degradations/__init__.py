"""Degradations: noise that is a pure function of (sample id, modality, degradation, severity, seed).

There are two kinds. *Common corruptions* have a name and a severity from 1 to 5 and act on decoded media (a picture, a
waveform, a string), before the backbone's processor: one function each, and one line in :data:`CORRUPTIONS`. A *noise
profile* draws one of its kinds of noise for each sample, where a case names no corruption. ``default`` is what Prompt
the Missing's paper describes (audio shifted and masked along time, images with one of four kinds), with one of the
common corruptions for texts. ``released`` is what its released code does: it shifts and masks the MEL axis and always
blacks the image. Both act on the processor's tensors, except for texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrobust.cases import Case
from mmrobust.configuration import look_up
from mmrobust.degradations.keys import Draws, Recordings
from mmrobust.errors import UsageError, check_name

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

DEFAULT, RELEASED = "default", "released"
SEVERITIES = (1, 2, 3, 4, 5)
FULL, MILD = 5, 1
"""The severities of a noise profile where one modality is noisy, and where several are."""


def _functions(module: str, *names: str) -> dict[str, str]:
    """Name of a degradation → its function, which has the same name in ``module``."""
    return {name: f"mmrobust.degradations.{module}:{name.replace('-', '_')}" for name in names}


CORRUPTIONS: Mapping[str, Mapping[str, str]] = {
    "image": _functions(
        "image",
        *("gaussian", "shot", "impulse", "blur", "pixelate", "jpeg", "brightness", "contrast", "occlusion", "black"),
    ),
    "audio": _functions("audio", "gaussian", "babble", "time-shift", "time-mask", "clipping", "band-pass", "silence"),
    "text": _functions("text", "character-slips", "word-drop", "truncation", "ocr", "empty"),
}
"""Modality → name → function of (picture, recording or text; severity; draws) that returns it degraded."""

ENCODED: Mapping[str, str] = _functions(
    "ptm",
    *("audio-gaussian", "time-shift", "time-mask", "mel-shift", "mel-mask"),
    *("image-gaussian", "box-blur", "pixelate", "black"),
)
"""Name → function of (encoded input, severity, draws) that returns a degraded input of the same shape."""

PROFILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DEFAULT: {
        "audio": ("audio-gaussian", "time-shift", "time-mask"),
        "image": ("image-gaussian", "box-blur", "pixelate", "black"),
        "text": ("character-slips", "word-drop", "truncation", "ocr"),
    },
    RELEASED: {"audio": ("audio-gaussian", "mel-shift", "mel-mask"), "image": ("black",)},
}
"""Profile → modality → kinds of noise, of which one is drawn for each sample: of :data:`ENCODED`, or corruptions of
texts."""


@dataclass(frozen=True)
class Noise:
    """The settings that decide a degraded input, besides sample and case. An unknown profile is a ``UsageError``."""

    profile: str = DEFAULT
    seed: int = 0

    def __post_init__(self) -> None:
        check_name("noise profile", self.profile, PROFILES)


@dataclass(frozen=True)
class Degradation:
    """What is done to one modality of one sample, on the decoded medium or on the encoded input."""

    modality: str
    name: str
    severity: int
    draws: Draws
    encoded: bool
    """Whether it acts on the processor's tensor instead of the decoded medium."""

    def on_medium(self, medium: Any) -> Any:
        """Degrade the decoded ``medium``: a picture (RGB), a recording (waveform float32 [n], rate) or a text."""
        function = look_up(CORRUPTIONS[self.modality], self.name, f"corruption of {self.modality}")
        return function(medium, self.severity, self.draws)

    def on_tensor(self, tensor: Tensor) -> Tensor:
        """Degrade a filter bank [frames, mel] or image [3, H, W], as a new tensor of the same type and device."""
        import torch

        values: Any = tensor.detach().to("cpu", torch.float32).numpy()
        degraded = look_up(ENCODED, self.name, "noise")(values, self.severity, self.draws)
        return torch.from_numpy(np.ascontiguousarray(degraded)).to(tensor.device, tensor.dtype)

    def on_picture(self, picture: Picture) -> Picture:
        """Degrade a picture by noise for encoded images, for a model whose own tensors are out of reach.

        The noise acts on the pixels, in −1 … 1, at the picture's own size; the result is cut to what 8 bits can hold.
        """
        from PIL import Image

        normal = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
        noisy = look_up(ENCODED, self.name, "noise")(normal, self.severity, self.draws)
        pixels = np.clip((noisy.transpose(1, 2, 0) + 1) * 127.5, 0, 255)
        return Image.fromarray(pixels.astype(np.uint8))


def degradation_of(
    case: Case, modality: str, sample_id: str, noise: Noise, recordings: Recordings | None = None
) -> Degradation:
    """What ``case`` does to a ``modality`` of a sample that it calls degraded. To be applied once.

    The profile of ``noise`` counts where the case names no corruption. Babble is made of the ``recordings``.

    Raises:
        UsageError: a corruption or severity does not exist, or the profile has no noise for the modality.
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
    """Raise a ``UsageError`` if the noise profile has none for a modality for which one of the ``cases`` needs it."""
    for case in cases:
        for modality in case.degraded:
            if case.corruption(modality)[0] is None and modality not in PROFILES[noise.profile]:
                raise UsageError(
                    f"noise profile {noise.profile} has {' and '.join(PROFILES[noise.profile])}, but no noise for "
                    f"{modality}, as case '{case.name}' needs it; --noise-profile {DEFAULT} has all"
                )


def check_on_media(case: Case) -> None:
    """Check that the media of a sample can be degraded, for a model that encodes them itself.

    Raises:
        UsageError: a noise profile would degrade a recording: its noise is for filter banks.
    """
    if "audio" in case.degraded and case.corruption("audio")[0] is None:
        raise UsageError(
            f"case '{case.name}': a noise profile degrades a checkpoint's filter bank, and your own model has none; "
            "name a corruption, as in noisy-audio:babble@3"
        )


def check_noise(case: Case) -> None:
    """Raise a ``UsageError`` if a corruption or severity that ``case`` names does not exist."""
    for modality in case.degraded:
        name, severity = case.corruption(modality)
        if name is not None:
            check_name(f"corruption of {modality}", name, CORRUPTIONS[modality])
        if severity not in (*SEVERITIES, None) or (severity is None and name is not None):
            found = "no severity" if severity is None else f"severity {severity}"
            example = f"noisy-{modality}{':' + name if name else ''}@3"
            raise UsageError(f"'{case.name}' has {found}: give one from 1 to 5, as in {example}")
