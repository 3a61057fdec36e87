"""Common corruptions of texts: errors of typing and scanning, and missing words.

The kinds are those of Belinkov & Bisk (ICLR 2018: swaps, keyboard slips), Wei & Zou (EDA, 2019: random deletion of
words) and Qiu et al. (arXiv 2212.08044: OCR); the strengths are ours. An empty text stays empty.
"""

from __future__ import annotations

from mmrobust.degradations.keys import GAP, Draws

SLIPS = (0.02, 0.05, 0.1, 0.15, 0.25)
DROPPED = (0.1, 0.2, 0.3, 0.4, 0.5)
REMAINING = (0.8, 0.6, 0.4, 0.2, 0.1)
CONFUSED = (0.1, 0.2, 0.3, 0.5, 0.8)

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    key: "".join(
        other
        for beside, letters in enumerate(_ROWS)
        for place, other in enumerate(letters)
        if abs(beside - row) <= 1 and abs(place - column) <= 1 and other != key
    )
    for row, keys in enumerate(_ROWS)
    for column, key in enumerate(keys)
}
"""Letter → the letters next to it on a QWERTY keyboard."""

CONFUSIONS = {
    "rn": "m", "cl": "d", "vv": "w", "ri": "n", "li": "h", "m": "rn", "w": "vv", "d": "cl", "h": "li",
    "0": "O", "O": "0", "o": "0", "1": "l", "l": "1", "I": "l", "i": "l", "5": "S", "S": "5", "s": "5",
    "8": "B", "B": "8", "6": "b", "b": "6", "9": "g", "g": "9", "2": "Z", "Z": "2", "z": "2", "c": "e",
    "e": "c", "n": "u", "u": "n", "a": "o", "t": "f", "f": "t", "E": "F", "D": "O", "G": "C", "C": "G",
}  # fmt: skip
"""What a scanner confuses. Pairs of letters are matched first."""


def character_slips(text: str, severity: int, draws: Draws) -> str:
    """2 to 25 % of the characters swapped with the next, left out, doubled, or replaced by the key next to it."""
    out, position = [], 0
    while position < len(text):
        character = text[position]
        position += 1
        if not draws.happens(SLIPS[severity - 1]):
            out.append(character)
            continue
        slip = draws.between(0, 3)
        if slip == 0 and position < len(text):
            out += [text[position], character]
            position += 1
        elif slip == 1:
            continue
        elif slip == 2 and character.lower() in NEIGHBOURS:
            keys = NEIGHBOURS[character.lower()]
            hit = keys[draws.between(0, len(keys) - 1)]
            out.append(hit.upper() if character.isupper() else hit)
        else:
            out += [character, character]
    return "".join(out)


def word_drop(text: str, severity: int, draws: Draws) -> str:
    """10 to 50 % of the words left out, at least one, but never all."""
    words = text.split()
    if len(words) < 2:
        return text
    count = min(len(words) - 1, max(1, round(len(words) * DROPPED[severity - 1])))
    places = list(range(len(words)))
    for _ in range(count):
        places.pop(draws.between(0, len(places) - 1))
    return " ".join(words[place] for place in places)


def gap(text: str, severity: int, draws: Draws) -> str:
    """10 to 90 % of the words left out, in one piece; at least one stays."""
    words = text.split()
    if len(words) < 2:
        return text
    start, end = draws.stretch(len(words), GAP[severity - 1])
    return " ".join(words[:start] + words[end:])


def truncation(text: str, severity: int, draws: Draws) -> str:
    """The first 80 to 10 % of the characters, at least one."""
    return text[: max(1, round(len(text) * REMAINING[severity - 1]))]


def ocr(text: str, severity: int, draws: Draws) -> str:
    """10 to 80 % of the characters that scanners confuse replaced: ``rn`` by ``m``, ``O`` by ``0``, ``l`` by ``1``."""
    out, position = [], 0
    while position < len(text):
        found = next((s for s in (text[position : position + 2], text[position]) if s in CONFUSIONS), None)
        if found is not None and draws.happens(CONFUSED[severity - 1]):
            out.append(CONFUSIONS[found])
            position += len(found)
        else:
            out.append(text[position])
            position += 1
    return "".join(out)


def empty(text: str, severity: int, draws: Draws) -> str:
    """An empty text, at any severity. Unlike with a missing text, the model is not told that it is missing."""
    return ""
