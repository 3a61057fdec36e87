"""Audio-visual releases whose recordings and pictures lie in folders named after their classes.

The names of the folders above do not matter (``Dataset_v3_sound`` and ``Dataset_v3_vision``, ``audio_dataset``,
``train/visual`` …): a file belongs to the class that its folder is named after, and a recording to the picture of the
same name in the same class. Where one of the folders above is called train, val or test, it gives the split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrobust.data.prepare.cav_mae_json import find_lists, prepare_cav_mae_json
from mmrobust.data.prepare.preparer import Description, Intake, Listing
from mmrobust.data.prepare.source_files import (
    SPLIT_NAMES,
    VALIDATION,
    UnusableSample,
    check_folder,
    read_media,
    split_by_class,
)
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Key = tuple[str, str]
"""The split that the folders name (empty: none), and the class."""


@dataclass(frozen=True)
class FilePair:
    """A recording and its picture; the one that is missing is ``None``."""

    id: str
    label: str
    split: str
    """Empty where the folders name none."""
    sound: Path | None
    picture: Path | None


def list_class_folders(
    source: Path, intake: Intake, description: Description, group: Callable[[str], str] = lambda sample_id: sample_id
) -> Listing:
    """List the pairs that lie below the folder ``source``, or those of its lists in CAV-MAE's JSON.

    A class ``dog_bark`` may also lie in a folder ``dog bark`` or ``dog-bark``. Where the folders name no splits, or
    none for validation, the samples of a ``group`` (sample id → group) stay in one split.

    Raises:
        DataError: there is no such folder, it holds nothing of the classes, or two files would be the same sample.
    """
    if find_lists(source):
        listing = prepare_cav_mae_json.list_samples(source, intake)
        return listing.described(name=description.name, licence=description.licence)
    classes = description.classes
    pairs = list(find_pairs(source, classes, intake))
    splits = {pair.id: pair.split for pair in pairs}
    strays = [pair for pair in pairs if not pair.split]
    if len(strays) == len(pairs):
        splits = split_by_class({pair.id: pair.label for pair in pairs}, description.name, group)
        intake.note("no folder names a split: 63/7/30 % of each class go to train, validation and test, by a hash")
    elif strays:
        raise DataError(f"{strays[0].sound or strays[0].picture}: lies in no split's folder, but others do")
    elif "validation" not in splits.values():
        trained = {pair.id: pair.label for pair in pairs if pair.split == "train"}
        splits |= split_by_class(trained, description.name, group, VALIDATION)
        intake.note("no folder names a validation split: a tenth of each class of train goes there, by a hash")

    def read(split: str, pair: FilePair) -> Iterator[SampleRow]:
        if pair.sound is None or pair.picture is None:
            found, missing = (pair.sound, "picture") if pair.picture is None else (pair.picture, "recording")
            raise UnusableSample(f"{found}: no {missing} of that name in class {pair.label}", f"no {missing}")
        yield SampleRow(
            split=split,
            id=pair.id,
            label=(classes.index(pair.label),),
            audio=read_media("audio", pair.sound),
            audio_path=pair.sound.name,
            image=read_media("image", pair.picture),
            image_path=pair.picture.name,
        )

    return Listing(description, read, ((splits[pair.id], pair) for pair in pairs), len(pairs), by_class=True)


def find_pairs(source: Path, classes: Sequence[str], intake: Intake) -> Iterator[FilePair]:
    """Find the pairs below ``source``, class by class, in the order of their names.

    Where no recording of a class has the name of a picture, both are paired in the order of their names, and a note
    says so: in these data sets any picture of a class goes with any of its recordings.
    """
    sounds, pictures = _find(source, classes, SOUNDS), _find(source, classes, PICTURES)
    for what, found in (("recordings", sounds), ("pictures", pictures)):
        if not found:
            raise DataError(f"{source}: no {what} in folders named after the classes ({', '.join(classes)})")
    renamed = False
    for split, label in sorted({*sounds, *pictures}):
        heard, seen = sounds.get((split, label), {}), pictures.get((split, label), {})
        prefix = f"{split}/{label}" if split else label
        if heard and seen and not heard.keys() & seen.keys():
            renamed = True
            seen = dict(zip(sorted(heard), (seen[name] for name in sorted(seen)), strict=False))
        for name in sorted({*heard, *seen}):
            yield FilePair(f"{prefix}/{name}", label, split, heard.get(name), seen.get(name))
    if renamed:
        intake.note("recordings and pictures bear different names: paired by class, in the order of their names")


def _find(source: Path, classes: Sequence[str], endings: Sequence[str]) -> dict[Key, dict[str, Path]]:
    """Find the files below ``source`` that lie in a class's folder and have one of the ``endings``, by name."""
    check_folder(source, "the folder of the release")
    found: dict[Key, dict[str, Path]] = {}
    for folder, inner, names in os.walk(source):
        inner[:] = sorted(name for name in inner if name != "__MACOSX" and not name.startswith("."))
        label = Path(folder).name.lower().replace(" ", "_").replace("-", "_")
        if label not in classes:
            continue
        parts = (part.lower() for part in Path(folder).relative_to(source).parts[:-1])
        split = next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), "")
        files = found.setdefault((split, label), {})
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith(".") or file.suffix.lower() not in endings:
                continue
            if file.stem in files:
                raise DataError(f"{file} and {files[file.stem]} would be the same sample; move one of them away")
            files[file.stem] = file
    return {key: files for key, files in found.items() if files}
