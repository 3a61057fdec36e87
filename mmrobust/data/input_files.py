"""Inputs as files that any program opens: each modality of each sample, once for everything that is done to it.

Pictures are PNG (RGB, upright), recordings WAV (mono, at their own rate: 16 bit where that is exact, else 32-bit
float), texts UTF-8, features .npy (float32). They hold what a processor of ours is given: a picture is decoded and
degraded, not resized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions, Split
from mmrobust.data.decoding import SplitDegrader, decode
from mmrobust.data.encoded_split import input_key
from mmrobust.degradations import CORRUPTIONS, ENCODED, PROFILES, Noise
from mmrobust.errors import UsageError
from mmrobust.runtime.progress import Progress, no_progress

SAMPLES_AT_ONCE = 256
"""Samples that are read at a time."""


class InputFiles:
    """The files of a split's inputs, below one folder.

    Args:
        split: the samples.
        modalities: those of the model.
        noise: how degraded modalities are degraded.
    """

    def __init__(self, split: Split, modalities: Sequence[str], noise: Noise) -> None:
        self._split, self._modalities, self._noise = split, tuple(modalities), noise

    def paths(self, positions: Positions, modality: str, case: Case) -> list[str | None]:
        """The file of one modality of each sample in a case, with ``/`` and below the folder; ``None``: missing."""
        if case.is_missing(modality):
            return [None] * len(positions)
        return [self._path(position, modality, case) for position in positions.tolist()]

    def _path(self, position: int, modality: str, case: Case) -> str:
        key = input_key(modality, case)
        done = "clean" if key == "present" else f"{key[0]}@{key[1]}" if isinstance(key, tuple) else str(key)
        return f"{modality}/{done.replace(':', '.')}/{position:07d}{self._writer(modality)[0]}"

    def _writer(self, modality: str) -> tuple[str, Callable[[Path, Any], None]]:
        return _WRITERS[self._split.info.kinds[modality]]

    def write(self, folder: Path, needed: Mapping[Case, Positions], progress: Progress = no_progress) -> int:
        """Write what the samples are in each case, each file once.

        Args:
            folder: the folder.
            needed: case → positions of the samples that are needed in it.
            progress: counts samples.

        Returns:
            The number of files.

        Raises:
            UsageError: a case has noise that acts on a model's tensors (see :func:`check_files`).
            DataError: a sample cannot be decoded; names it.
        """
        check_files(needed, self._noise, self._split.info.kinds)
        degrader, count = SplitDegrader(self._split), 0
        has = np.zeros((len(needed), len(self._split)), dtype=np.bool_)
        for row, positions in enumerate(needed.values()):
            has[row, positions] = True
        wanted, cases = np.flatnonzero(has.any(axis=0)), list(needed)
        with progress("inputs", len(wanted)) as advance:
            for start in range(0, len(wanted), SAMPLES_AT_ONCE):
                chunk = wanted[start : start + SAMPLES_AT_ONCE]
                for position, sample in zip(chunk.tolist(), self._split.read(chunk), strict=True):
                    of_sample = [cases[row] for row in np.flatnonzero(has[:, position])]
                    for modality in self._modalities:
                        present = [case for case in of_sample if not case.is_missing(modality)]
                        files = {self._path(position, modality, case): case for case in present}
                        medium = decode(sample, modality) if files else None
                        for name, case in files.items():
                            (folder / name).parent.mkdir(parents=True, exist_ok=True)
                            if modality in case.degraded:
                                degradation = degrader.degradation(case, modality, sample.id, self._noise)
                                self._writer(modality)[1](folder / name, degradation.on_medium(medium))
                            else:
                                self._writer(modality)[1](folder / name, medium)
                        count += len(files)
                    advance(1)
        return count


def check_files(cases: Iterable[Case], noise: Noise, kinds: Mapping[str, str] | None = None) -> None:
    """Check that what the ``cases`` do to their degraded modalities can be done to files; ``kinds`` are by modality.

    Raises:
        UsageError: a noise profile acts on the tensors that a processor gives; the message names a way out.
    """
    for case in cases:
        for modality in case.degraded:
            named, kind = case.corruption(modality)[0] is not None, (kinds or {}).get(modality, modality)
            if not named and any(name in ENCODED for name in PROFILES[noise.profile].get(kind, ())):
                example = next(iter(CORRUPTIONS[kind]))
                raise UsageError(
                    f"case '{case.name}': noise profile {noise.profile} degrades the tensors that a model takes, and "
                    f"no file can hold them; for --inputs name a corruption, as in noisy-{modality}:{example}@3"
                )


def _write_image(file: Path, picture: Any) -> None:
    picture.save(file, "PNG")


def _write_audio(file: Path, recording: tuple[npt.NDArray[np.float32], int]) -> None:
    waveform, rate = recording
    steps = waveform.astype(np.float64) * 2**15
    exact = bool((steps == np.rint(steps)).all() and steps.min() >= -(2**15) and steps.max() < 2**15)
    if exact:
        soundfile.write(file, steps.astype(np.int16), rate, format="WAV", subtype="PCM_16")
    else:
        soundfile.write(file, waveform, rate, format="WAV", subtype="FLOAT")


def _write_text(file: Path, text: str) -> None:
    file.write_bytes(text.encode())


def _write_features(file: Path, values: npt.NDArray[np.float32]) -> None:
    np.save(file, values, allow_pickle=False)


_WRITERS: Mapping[str, tuple[str, Callable[[Path, Any], None]]] = {
    "image": (".png", _write_image),
    "audio": (".wav", _write_audio),
    "text": (".txt", _write_text),
    "features": (".npy", _write_features),
}
"""Kind of modality → the ending of its files, and what writes one."""
