"""A model that knows nothing of mmrobust: it reads a digit from its word, and hears it from its telephone tone.

    python model.py plan > predictions.csv

``plan`` is a folder made by ``mmrobust plan --inputs``. For every row of its plan.csv (a sample in a case), the model
opens the files that are there, and prints a row with a score for each class. Nothing but Python's standard library is
needed, and it may run anywhere.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import functools
import math
import struct
import sys
from pathlib import Path

CLASSES = "0123456789"
WORDS = [
    ("zero", "null", "zéro", "cero"),
    ("one", "eins", "un", "uno"),
    ("two", "zwei", "deux", "dos", "due"),
    ("three", "drei", "trois", "tres", "tre"),
    ("four", "vier", "quatre", "cuatro", "quattro"),
    ("five", "fünf", "cinq", "cinco", "cinque"),
    ("six", "sechs", "seis", "sei"),
    ("seven", "sieben", "sept", "siete", "sette"),
    ("eight", "acht", "huit", "ocho", "otto"),
    ("nine", "neun", "neuf", "nueve", "nove"),
]
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)
KEYS = [(3, 1), *((key // 3, key % 3) for key in range(9))]
"""The row and column of each digit on a telephone's keypad."""


@functools.cache
def read(file: Path) -> list[float]:
    """The likeness, from 0 to 1, of a text to each digit's words."""
    words = file.read_text(encoding="utf-8").lower().replace(",", " ").split()
    return [
        max((difflib.SequenceMatcher(None, word, name).ratio() for word in words for name in names), default=0.0)
        for names in WORDS
    ]


@functools.cache
def hear(file: Path, most: int) -> list[float]:
    """The share, from 0 to 1, of a recording's loudness that each digit's pair of frequencies has."""
    wave, rate = samples(file)
    rows, columns = ([loudness(wave[:most], rate, hertz) for hertz in group] for group in (ROWS, COLUMNS))
    every = sum(rows) + sum(columns) or 1.0
    return [(rows[row] + columns[column]) / every for row, column in KEYS]


def samples(file: Path) -> tuple[list[float], int]:
    """The samples and the rate of a WAV file of one channel, of 16-bit whole or 32-bit real numbers."""
    content, place, form = file.read_bytes(), 12, ()
    while True:
        name, size = struct.unpack_from("<4sI", content, place)
        if name == b"fmt ":
            form = struct.unpack_from("<HHIIHH", content, place + 8)
        if name == b"data":
            kind, step = ("f", 4) if form[0] == 3 else ("h", 2)
            return list(struct.unpack_from(f"<{size // step}{kind}", content, place + 8)), form[2]
        place += 8 + size + size % 2


def loudness(wave: list[float], rate: int, hertz: int) -> float:
    """How loud one frequency is (Goertzel's algorithm)."""
    turn = 2 * math.cos(2 * math.pi * hertz / rate)
    before = last = 0.0
    for value in wave:
        before, last = last, value + turn * last - before
    return math.sqrt(max(0.0, before * before + last * last - turn * before * last))


def main() -> None:
    """Print the predictions of every row of the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--hasty", action="store_true", help="listen to the first fiftieth of a second only")
    options = parser.parse_args()
    written = csv.writer(sys.stdout, lineterminator="\n")
    written.writerow(["id", "case", *CLASSES])
    with (options.plan / "plan.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            likeness = read(options.plan / row["text"]) if row["text"] else [0.0] * 10
            heard = hear(options.plan / row["audio"], 160 if options.hasty else 4000) if row["audio"] else [0.0] * 10
            scores = (8 * a + 8 * b for a, b in zip(likeness, heard, strict=True))
            written.writerow([row["id"], row["case"], *(f"{score:.6f}" for score in scores)])


if __name__ == "__main__":
    main()
