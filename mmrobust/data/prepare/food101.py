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
title is left out and counted, as MMP does (16 of the training split in the release).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.annotations import find_root, read_splits
from mmrobust.data.prepare.intake import MOST_BYTES, Gap, Intake, Remark, no_remark, read_media
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import DataError
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import read_json, refuse_to_overwrite
from mmrobust.storage.text_tables import delimited_lines

SIZES = {"train": 61_142, "validation": 6_846, "test": 22_716}
LICENCE = "no licence given: pictures and titles are their owners', for research only (Wang et al., 2015)"
SOURCE = "UPMC Food-101, https://visiir.isir.upmc.fr/explore; splits and classes of missing_aware_prompts"
MMP_FILES = "it is in MMP's repository, YiLunLee/missing_aware_prompts, under datasets/Food101"


def prepare_food101(
    source: Path,
    out: Path,
    *,
    limit: int | None = None,
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
) -> DatasetInfo:
    """Write the data set ``food101`` to the folder ``out``.

    Args:
        source: the folder with ``images``, the titles, ``class_idx.json`` and ``split.json``.
        out: the folder to make.
        limit: keep the first ``limit`` samples of each split.
        allow_incomplete: leave out samples whose picture is not there or cannot be decoded.
        progress: told of each sample.
        remark: told of sizes that are not the release's, and of each sample that is left out.

    Raises:
        UsageError: ``out`` holds something already.
        DataError: a file is not there or broken, or a class that is none.
    """
    refuse_to_overwrite(out, "data set")
    root = find_root(source, "split.json", "Food101", "food101") if source.is_dir() else source
    splits = read_splits(root / "split.json")
    classes = _read_classes(root / "class_idx.json")
    titles = _read_titles(root)
    intake = Intake(
        "food101",
        sizes=SIZES,
        limit=limit,
        allow_incomplete=allow_incomplete,
        progress=progress,
        remark=remark,
    )
    for name in ("split.json", "class_idx.json"):
        intake.keep_hash(root / name)

    def read(split: str, picture: str) -> Sequence[Row]:
        dish = picture.rpartition("_")[0]
        if dish not in classes:
            raise DataError(f"{root / 'split.json'}: '{picture}' is of no class of class_idx.json")
        if picture not in titles:
            raise Gap("no text")
        row = Row(
            split=split,
            id=Path(picture).stem,
            label=(classes[dish],),
            image=read_media("image", root / "images" / ("test" if split == "test" else "train") / dish / picture),
            image_path=picture,
            text=titles[picture],
        )
        return (row,)

    return write_dataset(
        out,
        intake.rows(
            ((split, functools.partial(read, split, name)) for split, names in splits.items() for name in names),
            sum(map(len, splits.values())),
        ),
        name="food101",
        modalities=("image", "text"),
        classes=sorted(classes, key=lambda dish: classes[dish]),
        task="single-label",
        headline_metric="accuracy",
        licence=LICENCE,
        source=SOURCE,
        record=intake.record,
    )


def _read_classes(file: Path) -> dict[str, int]:
    if not file.is_file():
        raise DataError(f"{file}: no such file; {MMP_FILES}")
    classes: dict[str, Any] = read_json(file, "numbers of the classes")
    if sorted(classes.values(), key=str) != sorted(range(len(classes)), key=str):
        raise DataError(f"{file}: the classes are not numbered from 0 to {len(classes) - 1}")
    return classes


def _read_titles(root: Path) -> dict[str, str]:
    """Picture → title, from ``text.json`` or the CSV files; blank titles are none."""
    if (root / "text.json").is_file():
        titles = read_json(root / "text.json", "titles of the pictures", most_bytes=MOST_BYTES)
        return {picture: title for picture, title in titles.items() if isinstance(title, str) and title.strip()}
    files = [root / "texts" / f"{split}_titles.csv" for split in ("train", "test")]
    if not all(file.is_file() for file in files):
        raise DataError(f"{root}: holds neither text.json nor texts/train_titles.csv and texts/test_titles.csv")
    found: dict[str, str] = {}
    for file in files:
        for line, fields in delimited_lines(file):
            if len(fields) != 3:
                raise DataError(f"{file}, line {line}: has {len(fields)} fields, not picture, title and class")
            if fields[1].strip():
                found[fields[0]] = fields[1]
    return found
