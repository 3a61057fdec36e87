"""A model of your own that was never trained: it compares a sample with a description of each class.

    mmrobust eval examples/own_model_zero_shot.py:digits --data data/digits --out results/zero-shot
    mmrobust eval examples/own_model_zero_shot.py:emoji --data data/emoji --out results/zero-shot-emoji

A text is compared with words, by the groups of three letters that they share; a picture with a drawn digit, or with a
colour. It is told the case (`knows_case`): where it hears that the picture is noisy, it goes by the text alone. So
situation and concat prompting differ under noisy-image.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mmrobust

SIDE = 16
VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # there are no weights: the file is the model

DIGITS = {
    "0": "zero null zéro cero",
    "1": "one eins un uno",
    "2": "two zwei deux dos due",
    "3": "three drei trois tres tre",
    "4": "four vier quatre cuatro quattro",
    "5": "five fünf cinq cinco cinque",
    "6": "six sechs seis sei",
    "7": "seven sieben sept siete sette",
    "8": "eight acht huit ocho otto",
    "9": "nine neun neuf nueve nove",
}
EMOJI = {
    "Activities": ("sport game ball medal party music art ticket", "orange"),
    "Animals & Nature": ("animal bird fish insect flower tree leaf plant", "saddlebrown"),
    "Food & Drink": ("food drink fruit vegetable meal sweet bread cup", "tomato"),
    "Objects": ("tool clothing office light book money phone lock", "slategray"),
    "People & Body": ("person man woman hand family worker hair skin", "peru"),
    "Smileys & Emotion": ("face smile emotion heart happy sad cry love", "gold"),
    "Symbols": ("symbol sign arrow button zodiac mark square warning", "dodgerblue"),
    "Travel & Places": ("place building vehicle travel weather clock time car", "skyblue"),
}


def trigrams(text: str) -> Counter[str]:
    """How often each group of three letters occurs."""
    padded = f"  {text.lower()}  "
    return Counter(padded[at : at + 3] for at in range(len(padded) - 2))


def likeness(one: Counter[str], other: Counter[str]) -> float:
    """Cosine of two counts, 0 to 1."""
    product = sum(count * other[key] for key, count in one.items())
    return product / math.sqrt(sum(c * c for c in one.values()) * sum(c * c for c in other.values()))


def vector(picture: Image.Image) -> np.ndarray:
    """A picture as a vector of length 1."""
    values = np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), dtype=np.float64).ravel() - 127.5
    return values / max(np.linalg.norm(values), 1e-9)


def drawn(digit: str) -> Image.Image:
    """A digit in white on black."""
    picture = Image.new("RGB", (SIDE, SIDE))
    ImageDraw.Draw(picture).text((SIDE // 2, SIDE // 2), digit, "white", ImageFont.load_default(14), anchor="mm")
    return picture


def zero_shot(name: str, words: dict[str, str], pictures: dict[str, Image.Image]) -> mmrobust.Model:
    """A model of these classes."""
    texts = {label: trigrams(text) for label, text in words.items()}
    vectors = np.stack([vector(picture) for picture in pictures.values()])

    def predict(samples: list[dict[str, Any]], case: str | None) -> list[list[float]]:
        noisy = case is not None and "noisy-image" in case
        logits = []
        for sample in samples:
            row = np.zeros(len(words))
            if sample["text"]:
                found = trigrams(sample["text"])
                row += 20 * np.array([likeness(found, of_class) for of_class in texts.values()])
            if sample["image"] is not None and not (noisy and sample["text"]):
                row += 2 * vectors @ vector(sample["image"])
            logits.append(row.tolist())
        return logits

    return mmrobust.Model(
        name=name,
        version=VERSION,
        modalities=("image", "text"),
        classes=tuple(words),
        task="single-label",
        predict=predict,
        knows_case=True,
    )


digits = zero_shot("zero-shot", DIGITS, {digit: drawn(digit) for digit in DIGITS})
emoji = zero_shot(
    "zero-shot",
    {label: words for label, (words, _) in EMOJI.items()},
    {label: Image.new("RGB", (SIDE, SIDE), colour) for label, (_, colour) in EMOJI.items()},
)
