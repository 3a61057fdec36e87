"""Media that are the same on every machine, and the recordings of a made-up split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mmrobust.cases import Case
from mmrobust.degradations import Noise, Standard, degradation_of
from mmrobust.errors import DataError

MODALITIES = ("image", "text", "audio", "features")
STANDARD = Standard(np.arange(10) * 3.0 - 12, np.array([0.5, 1, 2, 4, 8] * 2))


class MadeRecordings:
    """Tones of different pitches; ``broken`` ones cannot be read."""

    def __init__(self, ids: Sequence[str], broken: Sequence[str] = ()) -> None:
        self.ids, self.broken = sorted(ids), broken

    def read(self, sample_id: str, rate: int) -> npt.NDArray[np.float32]:
        if sample_id in self.broken:
            raise DataError(f"sample '{sample_id}' is damaged")
        pitch = 100 + 50 * self.ids.index(sample_id)
        return np.sin(np.arange(rate // 4) * 2 * np.pi * pitch / rate).astype(np.float32)


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A colourful 96 × 64 picture with edges, from whole numbers."""
    y, x = np.mgrid[:64, :96]
    channels = (x * 5 + y) % 256, (x * y) % 256, np.where((x // 16 + y // 16) % 2, 220, 30)
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


@pytest.fixture(scope="session")
def recording() -> tuple[npt.NDArray[np.float32], int]:
    """Half a second at 8 kHz: a sawtooth that swells, from whole numbers."""
    steps = np.arange(4000)
    return (((steps * 37) % 256 - 128) * steps / 4000 / 256).astype(np.float32), 8000


@pytest.fixture(scope="session")
def sentence() -> str:
    """A sentence with all that the corruptions of texts act on."""
    return "The old clown Ben reads 10 little stories; five of them rhyme, and modern ones do not."


@pytest.fixture(scope="session")
def media(picture: Image.Image, recording: Any, sentence: str) -> dict[str, Any]:
    features = STANDARD.undo(((np.arange(20)[:, None] * 7 + np.arange(10) * 3) % 11 - 4.5) / 3)  # 20 time steps
    return {"image": picture, "text": sentence, "audio": recording, "features": features}


@pytest.fixture(scope="session")
def corrupt(media: dict[str, Any]) -> Callable[..., Any]:
    """``corrupt("image", "blur", 3)``: the medium under a common corruption."""
    recordings = MadeRecordings([f"s{i}" for i in range(20)])

    def run(modality: str, name: str, severity: int, *, of: Any = None, sample: str = "s0", seed: int = 0) -> Any:
        case = Case.parse(f"noisy-{modality}:{name}@{severity}", MODALITIES)
        standard = STANDARD if modality == "features" else None
        degradation = degradation_of(case, modality, sample, Noise(seed=seed), recordings, standard=standard)
        return degradation.on_medium(media[modality] if of is None else of)

    return run


def as_bytes(medium: Any) -> bytes:
    """What a model could see of a medium: 8-bit pixels, 16-bit samples, characters."""
    if isinstance(medium, str):
        return medium.encode()
    if isinstance(medium, tuple):
        return np.rint(medium[0].astype(np.float64) * 32767).astype("<i4").tobytes() + str(medium[1]).encode()
    return np.asarray(medium).tobytes() + str(medium.size).encode()


def digest(*media: Any) -> str:
    joined = hashlib.blake2b(digest_size=8)
    for medium in media:
        joined.update(as_bytes(medium))
    return joined.hexdigest()
