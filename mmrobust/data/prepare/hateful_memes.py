"""The data set ``hateful-memes``: memes and the text on them, hateful or not, binary (Kiela et al., NeurIPS 2020).

Where to get it: https://hatefulmemeschallenge.com, after agreeing to Meta's licence. Terms: research use only, no
redistribution, and the terms of Getty Images, whose pictures the memes are made from. The source is a folder with::

    img/01235.png …
    train.jsonl                             8,500 memes
    dev.jsonl or dev_seen.jsonl             500
    test_seen.jsonl, test_unseen.jsonl      1,000, 2,000; or test.jsonl

or one with a folder ``data`` that holds them. Each line is an object with ``id``, ``img`` (``img/01235.png``), ``text``
and ``label`` (1: hateful).

Test splits differ between releases: ``test.jsonl`` of the first one has no labels, and papers report on
``test_seen`` or ``test_unseen`` without always saying which. So ``dataset.json`` names the file that was used and its
hash. By default this is the first of ``test_seen.jsonl``, ``test.jsonl`` and ``test_unseen.jsonl`` that has labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import find_root, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError
from mmrobust.storage.text_tables import json_lines

DESCRIPTION = Description(
    name="hateful-memes",
    modalities=("image", "text"),
    classes=("not hateful", "hateful"),
    task="binary",
    licence="Hateful Memes Dataset License Agreement (Meta AI): research only, no redistribution",
    source="the Hateful Memes Challenge, https://hatefulmemeschallenge.com",
)
DEV_FILES = ("dev_seen.jsonl", "dev.jsonl")
TEST_FILES = ("test_seen.jsonl", "test.jsonl", "test_unseen.jsonl")
FILE_SIZES = {
    **{"train.jsonl": 8_500, "dev.jsonl": 500, "dev_seen.jsonl": 500},
    **{"test.jsonl": 1_000, "test_seen.jsonl": 1_000, "test_unseen.jsonl": 2_000},
}


@preparer(source="the folder with img and train.jsonl")
def prepare_hateful_memes(source: Path, intake: Intake, *, test_file: str | None = None) -> Listing:
    """List the memes of the Hateful Memes Challenge."""
    root = find_root(source, "train.jsonl", "data", "hateful_memes")
    files = {"train": root / "train.jsonl", "validation": _dev_file(root), "test": _test_file(root, test_file)}
    for file in files.values():
        intake.record_hash(file)
    used = files["test"].name
    passed = [name for name in TEST_FILES[: TEST_FILES.index(used)] if (root / name).is_file()] if not test_file else []
    intake.note(f"the test split is {used}" + (f", since not every line of {passed[0]} has a label" if passed else ""))

    def read(split: str, meme: dict[str, Any], where: str) -> Iterator[SampleRow]:
        for key in ("img", "text"):
            if not isinstance(meme.get(key), str):
                raise DataError(f"{where}: has no '{key}'")
        if meme.get("label") not in (0, 1):
            raise DataError(f"{where}: label {meme.get('label')!r} is neither 0 nor 1")
        yield SampleRow(
            split=split,
            id=Path(meme["img"]).stem,  # the number of the meme, as its file is named: 01235
            label=(int(meme["label"]),),
            image=read_media("image", root / meme["img"], where),
            image_path=meme["img"],
            text=meme["text"].strip() or None,
        )

    sizes = {split: FILE_SIZES[file.name] for split, file in files.items() if file.name in FILE_SIZES}
    samples = ((split, meme, where) for split, file in files.items() for where, meme in json_lines(file))
    total = sum(1 for file in files.values() for _ in json_lines(file))
    return Listing(replace(DESCRIPTION, sizes=sizes), read, samples, total)


def _dev_file(root: Path) -> Path:
    for name in DEV_FILES:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: holds neither {' nor '.join(DEV_FILES)}")


def _test_file(root: Path, asked: str | None) -> Path:
    """The file of the test split: the one asked for, or the first of the release's files that has labels."""
    found = [name for name in TEST_FILES if (root / name).is_file()]
    if asked is not None:
        if not (root / asked).is_file():
            raise DataError(f"{root / asked}: no such file; --test-file names one of: {', '.join(found) or 'none'}")
        found = [asked]
    for name in found:
        if all("label" in meme for _, meme in json_lines(root / name)):
            return root / name
    if found:
        problem = "has no labels, as it was first released"
        raise DataError(f"{root / found[0]}: {problem}; --test-file names one that has them")
    raise DataError(f"{root}: holds none of {', '.join(TEST_FILES)}")
