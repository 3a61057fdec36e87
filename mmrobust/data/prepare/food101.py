"""The data set ``food101``: UPMC Food-101, pictures and page titles of dishes, 101 classes (Wang et al., 2015).

Where to get it: https://visiir.isir.upmc.fr/explore, or Kaggle's ``gianmarco96/upmcfood101`` (images and titles);
``class_idx.json`` and ``split.json`` are in MMP's repository (YiLunLee/missing_aware_prompts, ``datasets/Food101``).
Terms: gathered from web searches, for research; pictures and titles are their owners'. The source is a folder with::

    images/train/apple_pie/apple_pie_0.jpg …    images/test/apple_pie/apple_pie_103.jpg …
    class_idx.json      {"apple_pie": 71, …}
    split.json          {"train": ["apple_pie_0.jpg", …], "val": […], "test": […]}
    text.json           {"apple_pie_0.jpg": "title", …}
        or texts/train_titles.csv and texts/test_titles.csv (no header: picture, title, class)

The splits list 61,142 / 6,846 / 22,716 pictures; those for validation lie in ``images/train``. A picture without a
title is left out and counted, as in MMP (16 in the training split of the release).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import MAX_FILE_BYTES, SkipSample, find_root, read_media, read_splits
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError
from mmrobust.storage.files import read_json
from mmrobust.storage.text_tables import delimited_lines

DESCRIPTION = Description(
    name="food101",
    modalities=("image", "text"),
    classes=(),  # those of class_idx.json
    licence="no licence given: pictures and titles are their owners', for research only (Wang et al., 2015)",
    source="UPMC Food-101, https://visiir.isir.upmc.fr/explore; splits and classes of missing_aware_prompts",
    sizes={"train": 61_142, "validation": 6_846, "test": 22_716},
)
MMP_FILES = "it is in MMP's repository, YiLunLee/missing_aware_prompts, under datasets/Food101"


@preparer(source="the folder with images, titles, class_idx.json and split.json")
def prepare_food101(source: Path, intake: Intake) -> Listing:
    """List the pictures of UPMC Food-101 in the folder ``source``, or one folder below it."""
    root = find_root(source, "split.json", "Food101", "food101") if source.is_dir() else source
    splits = read_splits(root / "split.json")
    classes = _read_classes(root / "class_idx.json")
    titles = _read_titles(root)
    for name in ("split.json", "class_idx.json"):
        intake.record_hash(root / name)

    def read(split: str, picture: str) -> Iterator[SampleRow]:
        dish = picture.rpartition("_")[0]
        if dish not in classes:
            raise DataError(f"{root / 'split.json'}: '{picture}' belongs to no class of class_idx.json")
        if picture not in titles:
            raise SkipSample("no text")
        file = root / "images" / ("test" if split == "test" else "train") / dish / picture
        yield SampleRow(
            split=split,
            id=Path(picture).stem,
            label=(classes[dish],),
            image=read_media("image", file),
            image_path=picture,
            text=titles[picture],
        )

    description = replace(DESCRIPTION, classes=sorted(classes, key=lambda dish: classes[dish]))
    samples = ((split, picture) for split, pictures in splits.items() for picture in pictures)
    return Listing(description, read, samples, sum(map(len, splits.values())), by_class=True)


def _read_classes(file: Path) -> dict[str, int]:
    if not file.is_file():
        raise DataError(f"{file}: no such file; {MMP_FILES}")
    classes: dict[str, Any] = read_json(file, "numbers of the classes")
    if sorted(classes.values(), key=str) != sorted(range(len(classes)), key=str):
        raise DataError(f"{file}: the classes are not numbered from 0 to {len(classes) - 1}")
    return classes


def _read_titles(root: Path) -> dict[str, str]:
    """Picture → title, from ``text.json`` or the CSV files, without blank titles."""
    if (root / "text.json").is_file():
        titles = read_json(root / "text.json", "titles of the pictures", most_bytes=MAX_FILE_BYTES)
        return {picture: title for picture, title in titles.items() if isinstance(title, str) and title.strip()}
    files = [root / "texts" / f"{split}_titles.csv" for split in ("train", "test")]
    if not all(file.is_file() for file in files):
        raise DataError(f"{root}: holds neither text.json nor texts/train_titles.csv and texts/test_titles.csv")
    found = {}
    for file in files:
        for line, fields in delimited_lines(file):
            if len(fields) != 3:
                raise DataError(f"{file}, line {line}: has {len(fields)} fields, not picture, title and class")
            if fields[1].strip():
                found[fields[0]] = fields[1]
    return found
