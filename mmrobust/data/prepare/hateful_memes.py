"""The data set ``hateful-memes``: memes and the text on them, hateful or not, binary (Kiela et al., NeurIPS 2020).

Where to get it: https://hatefulmemeschallenge.com, after agreeing to Meta's licence. Terms: research use only, no
redistribution, and the terms of Getty Images, whose pictures the memes are made from. The source is a folder with::

    img/01235.png …
    train.jsonl                             8,500 memes
    dev.jsonl or dev_seen.jsonl             500
    test_seen.jsonl, test_unseen.jsonl      1,000, 2,000; or test.jsonl

or one with a folder ``data`` that holds them. A line is an object with ``id``, ``img`` (``img/01235.png``), ``text``
and ``label`` (1: hateful).

Test splits differ between releases: ``test.jsonl`` of the first one has no labels, and papers report on
``test_seen`` or ``test_unseen`` without always saying which. So ``dataset.json`` says which file was used, and has its
hash. By default that is the first with labels of ``test_seen.jsonl``, ``test.jsonl``, ``test_unseen.jsonl``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.annotations import find_root
from mmrobust.data.prepare.intake import Intake, Listed, Remark, no_remark, read_media
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import DataError
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import refuse_to_overwrite
from mmrobust.storage.text_tables import json_lines

CLASSES = ("not hateful", "hateful")
DEV_FILES = ("dev_seen.jsonl", "dev.jsonl")
TEST_FILES = ("test_seen.jsonl", "test.jsonl", "test_unseen.jsonl")
FILE_SIZES = {
    "train.jsonl": 8_500,
    "dev.jsonl": 500,
    "dev_seen.jsonl": 500,
    "test.jsonl": 1_000,
    "test_seen.jsonl": 1_000,
    "test_unseen.jsonl": 2_000,
}
LICENCE = "Hateful Memes Dataset License Agreement (Meta AI): research only, no redistribution"
SOURCE = "the Hateful Memes Challenge, https://hatefulmemeschallenge.com"


def prepare_hateful_memes(
    source: Path,
    out: Path,
    *,
    test_file: str | None = None,
    limit: int | None = None,
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
) -> DatasetInfo:
    """Write the data set ``hateful-memes`` to the folder ``out``.

    Args:
        source: the folder with ``img`` and the JSONL files, or the one above it.
        out: the folder to make.
        test_file: the file of the test split; default: the first of :data:`TEST_FILES` that has labels.
        limit: keep the first ``limit`` memes of each split.
        allow_incomplete: leave out memes whose picture is not there or cannot be decoded.
        progress: told of each meme.
        remark: told which test file is used, of sizes that are not the release's, of each meme that is left out.

    Raises:
        UsageError: ``out`` holds something already.
        DataError: a file is not there or broken, or a line without a label.
    """
    refuse_to_overwrite(out, "data set")
    root = find_root(source, "train.jsonl", "data", "hateful_memes")
    files = {"train": root / "train.jsonl", "validation": _dev_file(root), "test": _test_file(root, test_file)}
    intake = Intake(
        "hateful-memes",
        sizes={split: FILE_SIZES[file.name] for split, file in files.items() if file.name in FILE_SIZES},
        limit=limit,
        allow_incomplete=allow_incomplete,
        progress=progress,
        remark=remark,
    )
    for file in files.values():
        intake.keep_hash(file)
    intake.note(f"the test split is {files['test'].name}")

    def read(split: str, meme: dict[str, Any], where: str) -> Sequence[Row]:
        for key in ("img", "text"):
            if not isinstance(meme.get(key), str):
                raise DataError(f"{where}: has no '{key}'")
        if meme.get("label") not in (0, 1):
            raise DataError(f"{where}: label {meme.get('label')!r} is neither 0 nor 1")
        row = Row(
            split=split,
            id=Path(meme["img"]).stem,  # the number of the meme, as its file is named: 01235
            label=(int(meme["label"]),),
            image=read_media("image", root / meme["img"], where),
            image_path=meme["img"],
            text=meme["text"].strip() or None,
        )
        return (row,)

    def listed() -> Iterator[Listed]:
        for split, file in files.items():
            for where, meme in json_lines(file):
                yield split, functools.partial(read, split, meme, where)

    return write_dataset(
        out,
        intake.rows(listed(), sum(1 for file in files.values() for _ in json_lines(file))),
        name="hateful-memes",
        modalities=("image", "text"),
        classes=CLASSES,
        task="binary",
        headline_metric="auroc",
        licence=LICENCE,
        source=SOURCE,
        record=intake.record,
    )


def _dev_file(root: Path) -> Path:
    for name in DEV_FILES:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: holds neither {' nor '.join(DEV_FILES)}")


def _test_file(root: Path, wanted: str | None) -> Path:
    """The file of the test split: the wanted one, or the first of the release's that has labels."""
    there = [name for name in TEST_FILES if (root / name).is_file()]
    if wanted is not None:
        if not (root / wanted).is_file():
            raise DataError(f"{root / wanted}: no such file; --test-file names one of: {', '.join(there) or 'none'}")
        there = [wanted]
    for name in there:
        if all("label" in meme for _, meme in json_lines(root / name)):
            return root / name
    if there:
        raise DataError(f"{root / there[0]}: has no labels, as it was first released; --test-file names one that has")
    raise DataError(f"{root}: holds none of {', '.join(TEST_FILES)}")
