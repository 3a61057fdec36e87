"""Write a data set from Python, for data that a table of paths cannot describe: here a zip and a JSON file of labels.

    python examples/own_dataset/prepare.py digits.zip digits.json data/own

Each picture is `NAME.png` in the archive; the JSON is `{"NAME": {"text": "...", "label": "three"}}`. A null text, or a
name without a picture, is a naturally missing modality. Only one sample at a time is in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

from mmrobust.data.decoding import decode_image
from mmrobust.data.writing import Row, write_dataset


def split_of(name: str) -> str:
    """80 / 10 / 10 %, by a hash of the name, so that samples added later do not change it."""
    tenth = hashlib.blake2b(name.encode()).digest()[0] * 10 // 256
    return {8: "validation", 9: "test"}.get(tenth, "train")


def rows(archive: Path, annotations: dict[str, dict[str, str | None]], classes: list[str]) -> Iterator[Row]:
    """Yield every sample, read lazily."""
    with ZipFile(archive) as file:
        there = set(file.namelist())
        for name, about in annotations.items():
            picture = file.read(f"{name}.png") if f"{name}.png" in there else None
            if picture is not None:
                decode_image(picture, f"{archive}: {name}.png")  # raises now if the picture is broken
            yield Row(
                split=split_of(name),
                id=name,
                label=(classes.index(str(about["label"])),),
                image=picture,
                image_path=f"{name}.png",
                text=about["text"],
            )


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()

    annotations = json.loads(arguments.annotations.read_text(encoding="utf-8"))
    classes = sorted({about["label"] for about in annotations.values()})
    info = write_dataset(
        arguments.out,
        rows(arguments.archive, annotations, classes),
        name="own",
        modalities=("image", "text"),
        classes=classes,
        task="single-label",
        headline_metric="accuracy",
        licence="CC BY 4.0",
        source=str(arguments.archive),
    )
    print(info.splits)


if __name__ == "__main__":
    main()
