"""Verifying a data set: every sample is read and decoded, and whatever is wrong is named."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mmrobust.data.dataset import Dataset, Sample, Split
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.format import INFO_FILE
from mmrobust.data.writing import Fingerprint
from mmrobust.errors import DataError
from mmrobust.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a data set; as text, the line that says so."""

    split: str
    """Empty where it is the whole data set's."""
    id: str
    """Of the sample; empty where it is a part of a file that cannot be read."""
    part: str
    """What of it: ``image``, ``audio``, ``id``, ``label``, ``modalities``, ``file`` or ``fingerprint``."""
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Verification:
    """What was found."""

    folder: str
    samples: int
    """How many were read."""
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it in values that JSON can hold."""
        return {"ok": not self.faults, **dataclasses.asdict(self)}


def verify(dataset: Dataset, progress: Progress = no_progress) -> Verification:
    """Read and decode every sample of ``dataset``, a row group at a time.

    Besides media that cannot be decoded, a fault is an id that is there twice, a label that is no class, a sample
    without any modality, a part of a file that cannot be read, and a fingerprint that is not what ``dataset.json``
    says: then the files are not those that were prepared. Missing modalities and empty texts are none.
    """
    faults: list[Fault] = []
    fingerprint, ids = Fingerprint(dataset.info.modalities), set[str]()
    declared = sum(dataset.info.splits.values())
    with progress(f"verify {dataset.info.name}", declared) as advance:
        for name in dataset.splits:
            try:
                split = dataset.split(name)
            except DataError as error:
                faults.append(Fault(name, "", "file", str(error)))
                continue
            for group in range(split.row_groups):
                try:
                    for position, sample in zip(split.rows_of_group(group), split.read_row_group(group), strict=True):
                        faults += _faults(split, position, sample, ids)
                        if sample.id is None:  # which the type says it never is; the file may be anybody's
                            continue
                        fingerprint.add(name, sample)
                        ids.add(sample.id)
                except DataError as error:
                    faults.append(Fault(name, "", "file", str(error)))
                advance(len(split.rows_of_group(group)))
    samples = sum(fingerprint.rows.values())
    if samples == declared and fingerprint.hexdigest() != dataset.info.fingerprint:
        message = f"{dataset.folder}: its content is not what {INFO_FILE} has the fingerprint of; prepare it again"
        faults.append(Fault("", "", "fingerprint", message))
    return Verification(str(dataset.folder), samples, tuple(faults))


def _faults(split: Split, position: int, sample: Sample, ids: set[str]) -> list[Fault]:
    """What is wrong with the sample at ``position``."""
    origin = f"sample '{sample.id}' of {sample.origin}"
    said: list[tuple[str, str]] = []
    if sample.id is None:
        said.append(("id", f"{sample.origin}: has no id"))
    elif sample.id in ids:
        said.append(("id", f"{origin}: another sample has that id"))
    classes = len(split.info.classes)
    wrong = [label for label in sample.label if label is None or not 0 <= label < classes]
    if wrong:
        said.append(("label", f"{origin}: label {wrong[0]} is none of the {classes} classes"))
    if all(getattr(sample, modality) is None for modality in split.info.modalities):
        said.append(("modalities", f"{origin}: has no {' and no '.join(split.info.modalities)}"))
    for part, media, decode in (("image", sample.image, decode_image), ("audio", sample.audio, decode_audio)):
        try:
            if media is not None:
                decode(media, origin)
            elif part in split.info.modalities and split.presence[part][position]:
                said.append((part, f"{origin}: its {part} holds no bytes, a path alone"))
        except DataError as error:
            said.append((part, str(error)))
    return [Fault(split.name, sample.id or "", part, message) for part, message in said]
