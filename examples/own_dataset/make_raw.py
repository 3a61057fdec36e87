"""Make a folder of raw data such as you might be given: pictures, and a CSV file that describes them.

    python examples/own_dataset/make_raw.py raw --samples 800

The pictures are real: handwritten digits from UCI's data set, which scikit-learn includes. The texts are the noisy
transcriptions of mmrobust's embedded data set. As in most raw data, something is missing: every 25th text is empty.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mmrobust.data.prepare.digits import assign_splits, digit_text


def make_raw(folder: Path, samples: int) -> None:
    """Write ``folder/manifest.csv`` and ``folder/images/*.png``."""
    raw = load_digits()
    digits = [str(label) for label in raw.target[:samples]]
    ids = [f"digit-{i:04d}" for i in range(len(digits))]
    (folder / "images").mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "text", "label", "split"])
        for i, (name, digit, split) in enumerate(zip(ids, digits, assign_splits(ids, digits), strict=True)):
            pixels = np.rint(raw.images[i] * 255 / 16).astype(np.uint8)  # 8 × 8, given as 0 to 16
            Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
            text = "" if i % 25 == 0 else digit_text(name, digit)
            table.writerow([name, f"images/{name}.png", text, digit, split])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=800)
    arguments = parser.parse_args()
    try:
        make_raw(arguments.folder, arguments.samples)
    except FileExistsError as taken:
        parser.exit(2, f"{taken.filename}: is there already; name another folder\n")
