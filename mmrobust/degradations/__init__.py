"""Degradations: noise that is a pure function of (sample id, modality, degradation, severity, seed).

There are two kinds. *Common corruptions* have a name and a severity from 1 to 5 and act on decoded media (a picture, a
waveform, a string, an array of features), before the backbone's processor: one function each, and one line in
:data:`CORRUPTIONS`. A *noise profile* draws one of its kinds of noise for each sample, where a case names no
corruption. ``default`` is what Prompt the Missing's paper describes (audio shifted and masked along time, images with
one of four kinds), with one of the common corruptions for texts and features. ``released`` is what its released code
does: it shifts and masks the MEL axis and always blacks the image. Both act on the processor's tensors, except for
texts and features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import CAUSES, KINDS, Case
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
    )
    | _functions("image_causes", *CAUSES),
    "audio": _functions(
        "audio", "gaussian", "babble", "time-shift", "time-mask", "gap", "clipping", "band-pass", "silence"
    )
    | _functions("audio_causes", *CAUSES),
    "text": _functions("text", "character-slips", "word-drop", "gap", "truncation", "ocr", "empty"),
    "features": _functions("features", "gaussian", "gap", "dimension-drop"),
}
"""Kind of modality → name → function of (picture, recording, text or standardised features; severity; draws) that
returns it degraded."""

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
        "features": ("gaussian", "gap", "dimension-drop"),
    },
    RELEASED: {"audio": ("audio-gaussian", "mel-shift", "mel-mask"), "image": ("black",)},
}
"""Profile → kind of modality → kinds of noise, of which one is drawn for each sample: of :data:`ENCODED`, or
corruptions of texts and features."""


@dataclass(frozen=True)
class Noise:
    """The settings that decide a degraded input, besides sample and case. An unknown profile is a ``UsageError``."""

    profile: str = DEFAULT
    seed: int = 0

    def __post_init__(self) -> None:
        check_name("noise profile", self.profile, PROFILES)


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of each dimension of features [D], over the training split."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    """1 where a dimension never varies."""

    def of(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Standardise features [D] or [T, D]."""
        return (values - self.mean) / self.std

    def undo(self, standardised: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """The features that were standardised."""
        return np.asarray(standardised * self.std + self.mean, dtype=np.float32)


@dataclass(frozen=True)
class Degradation:
    """What is done to one modality of one sample, on the decoded medium or on the encoded input."""

    kind: str
    """The kind of the modality."""
    name: str
    severity: int
    draws: Draws
    encoded: bool
    """Whether it acts on the processor's tensor instead of the decoded medium."""
    standard: Standard | None = None
    """What features are standardised by."""

    def on_medium(self, medium: Any) -> Any:
        """Degrade the decoded ``medium``: picture (RGB), recording (waveform float32 [n], rate), text or features."""
        function = look_up(CORRUPTIONS[self.kind], self.name, f"corruption of {self.kind}")
        if self.standard is None:
            return function(medium, self.severity, self.draws)
        return self.standard.undo(function(self.standard.of(medium), self.severity, self.draws))

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
    case: Case,
    modality: str,
    sample_id: str,
    noise: Noise,
    recordings: Recordings | None = None,
    *,
    kind: str | None = None,
    standard: Standard | None = None,
) -> Degradation:
    """What ``case`` does to a ``modality`` of a sample that it calls degraded. To be applied once.

    Args:
        case: of the sample.
        modality: one that the case calls degraded.
        sample_id: of the sample.
        noise: its profile counts where the case names no corruption.
        recordings: those of the modality in the whole split, of which babble is made.
        kind: of the modality; ``None``: it is called as its kind.
        standard: of the modality, for features.

    Raises:
        UsageError: a corruption or severity does not exist, or the profile has no noise for the modality.
    """
    kinds = {} if kind is None else {modality: kind}
    check_noise(case, kinds)
    name, severity = case.corruption(modality)
    if name is not None:
        assert severity is not None
        # What one cause does to several modalities begins with the same draws.
        what = name if name in CAUSES else f"{name}@{severity}/{modality}"
        key = f"{noise.seed}/{what}/{sample_id}"
        drawn = Draws(key, sample_id, recordings)
        return Degradation(kind or modality, name, severity, drawn, encoded=False, standard=standard)
    check_profile([case], noise, kinds)
    of_profile = PROFILES[noise.profile][kind or modality]
    under = noise.profile if severity is None else f"{noise.profile}@{severity}"
    draws = Draws(f"{noise.seed}/{under}/{modality}/{sample_id}", sample_id, recordings)
    chosen = of_profile[draws.between(0, len(of_profile) - 1)]
    strength = severity or (MILD if len(case.degraded) > 1 else FULL)
    return Degradation(kind or modality, chosen, strength, draws, chosen in ENCODED, standard)


def check_profile(cases: Iterable[Case], noise: Noise, kinds: Mapping[str, str] | None = None) -> None:
    """Raise a ``UsageError`` if the noise profile has none for a modality for which one of the ``cases`` needs it.

    ``kinds`` are by modality; one that is not there is called as its kind, or of a kind that is not known here.
    """
    for case in cases:
        for modality in case.degraded:
            kind = (kinds or {}).get(modality, modality)
            if case.corruption(modality)[0] is None and kind in KINDS and kind not in PROFILES[noise.profile]:
                raise UsageError(
                    f"noise profile {noise.profile} has {' and '.join(PROFILES[noise.profile])}, but no noise for "
                    f"{modality}, as case '{case.name}' needs it; --noise-profile {DEFAULT} has all"
                )


def check_recordings(case: Case, recordings: Collection[str], whose: str) -> None:
    """Check that ``recordings``, modalities of which a model makes no filter bank of ours, can be degraded.

    Raises:
        UsageError: a noise profile would degrade one: its noise is for our filter banks; ``whose`` model it is.
    """
    for modality in case.degraded:
        if modality in recordings and case.corruption(modality)[0] is None:
            raise UsageError(
                f"case '{case.name}': a noise profile degrades a filter bank, and {whose} makes none of {modality}; "
                f"name a corruption, as in noisy-{modality}:babble@3"
            )


def check_noise(case: Case, kinds: Mapping[str, str] | None = None) -> None:
    """Raise a ``UsageError`` if a corruption or severity that ``case`` names does not exist.

    ``kinds`` are by modality; one that is not there is called as its kind. Of a kind that is not known here, any
    corruption will do: whoever has the data knows it, and checks again.
    """
    for modality in case.degraded:
        name, severity = case.corruption(modality)
        if name is not None:
            kind = (kinds or {}).get(modality, modality)
            every = [corruption for names in CORRUPTIONS.values() for corruption in names]
            known = CORRUPTIONS[kind] if kind in CORRUPTIONS else dict.fromkeys(every)
            check_name(f"corruption of {modality}", name, known)
        if severity not in (*SEVERITIES, None) or (severity is None and name is not None):
            found = "no severity" if severity is None else f"severity {severity}"
            example = f"noisy-{modality}{':' + name if name else ''}@3"
            raise UsageError(f"'{case.name}' has {found}: give one from 1 to 5, as in {example}")
