"""Audio-visual releases that lie in folders: recordings and pictures, each in the folder of its class.

How the folders above are called does not matter (``Dataset_v3_sound`` and ``Dataset_v3_vision``, ``audio_dataset``,
``train/visual`` …): a file belongs to the class that its folder is named after, and a recording to the picture of the
same name in the same class. A folder on the way that is called train, val or test gives the split.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.intake import Intake, Unusable, read_media
from mmrobust.data.prepare.splits import SPLIT_NAMES, split_by_class
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import DataError

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Key = tuple[str, str]
"""The split that the folders tell (empty: none), and the class."""


@dataclass(frozen=True)
class Pair:
    """A recording and its picture; ``None`` for the one that is not there."""

    id: str
    label: str
    split: str
    """Empty where the folders tell none."""
    sound: Path | None
    picture: Path | None


def write_class_folders(
    source: Path,
    out: Path,
    classes: Sequence[str],
    intake: Intake,
    *,
    licence: str,
    described_as: str,
    group: Callable[[str], str],
) -> DatasetInfo:
    """Write the pairs that lie below ``source`` to the folder ``out``.

    Args:
        source: the folder to look in, at any depth.
        out: the folder to make.
        classes: names of the class folders (``dog bark`` and ``dog-bark`` are ``dog_bark``).
        intake: takes the samples in.
        licence: for ``dataset.json``.
        described_as: the source, for ``dataset.json``.
        group: sample id → what must stay in one split, where the folders tell none.

    Raises:
        DataError: no such folder, nothing in it, or files of which two would be the same sample.
    """
    pairs = list(find_pairs(source, classes, intake))
    if not any(pair.split for pair in pairs):
        splits = split_by_class({pair.id: pair.label for pair in pairs}, intake.name, group)
        intake.note("no folder tells the split: of each class 63/7/30 % to train, validation and test, by a hash")
    else:
        stray = next((pair for pair in pairs if not pair.split), None)
        if stray is not None:
            raise DataError(f"{stray.sound or stray.picture}: lies in no split's folder, but others do")
        splits = {pair.id: pair.split for pair in pairs}

    def read(pair: Pair) -> Sequence[Row]:
        if pair.sound is None or pair.picture is None:
            there, lacking = (pair.sound, "picture") if pair.picture is None else (pair.picture, "recording")
            raise Unusable(f"{there}: no {lacking} of that name in class {pair.label}", f"no {lacking}")
        row = Row(
            split=splits[pair.id],
            id=pair.id,
            label=(classes.index(pair.label),),
            audio=read_media("audio", pair.sound),
            audio_path=pair.sound.name,
            image=read_media("image", pair.picture),
            image_path=pair.picture.name,
        )
        return (row,)

    return write_dataset(
        out,
        intake.rows(((splits[pair.id], functools.partial(read, pair)) for pair in pairs), len(pairs)),
        name=intake.name,
        modalities=("audio", "image"),
        classes=classes,
        task="single-label",
        headline_metric="accuracy",
        licence=licence,
        source=described_as,
        record=intake.record,
    )


def find_pairs(source: Path, classes: Sequence[str], intake: Intake) -> Iterator[Pair]:
    """The pairs below ``source``, class by class, in the order of their names.

    Where no recording of a class bears a picture's name, the two are paired in the order of their names: in these sets
    any picture of the class goes with any of its recordings. That is noted.
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
            yield Pair(f"{prefix}/{name}", label, split, heard.get(name), seen.get(name))
    if renamed:
        intake.note("recordings and pictures bear different names: paired by class, in the order of their names")


def _find(source: Path, classes: Sequence[str], endings: Sequence[str]) -> dict[Key, dict[str, Path]]:
    """The files below ``source`` that lie in a class's folder and have one of the ``endings``, by name."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; --source names the folder of the release")
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
