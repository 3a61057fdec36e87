"""The embedded data set ``digits``: handwritten digits, a transcription of each, and its keypad tone.

Needs no download, has three modalities, and is small enough for a demonstration and for tests:

- ``image``: the 1,797 real 8×8 handwritten digits that scikit-learn ships (UCI, Optical Recognition of Handwritten
  Digits), as grey pictures.
- ``text``: the number as a word of one of five languages in a short phrase, with spelling slips. About one in ten does
  not reveal the digit: it says that the writing is illegible, or is garbled beyond recognition.
- ``audio``: the key's tone on a telephone (DTMF, a pair of frequencies) in noise, 8 kHz WAV of 0.2 to 0.3 s. About one
  tone in ten is replaced by noise.

So text alone and audio alone suffice for about nine samples in ten, independently of each other, and the image for
nearly all: a model that loses the image has something to fall back on, and something to lose.

Text and audio are pure functions of (sample id, digit), drawn from blake2b: the same on every machine, in any order,
with any limit.
"""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.writing import SampleRow

CLASSES = tuple("0123456789")
DESCRIPTION = Description(
    name="digits",
    modalities=("image", "text", "audio"),
    classes=CLASSES,
    licence="images: UCI Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak), CC BY 4.0; "
    "texts and tones: made by mmrobust, CC0",
    source="sklearn.datasets.load_digits, with texts and tones drawn by mmrobust",
)

TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1

SILENT_TEXT_SHARE = 0.10
SLIP_SHARE = 0.3
"""The share of texts whose number word has one spelling slip."""

NUMBER_WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "de": ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    "fr": ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    "es": ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
    "it": ("zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
}
PHRASES = {  # no phrase contains a number word of any of the languages
    "en": ("{}", "the digit {}", "this is {}", "looks like {}", "number {}", "{}, I think"),
    "de": ("{}", "die Ziffer {}", "das ist {}", "sieht aus wie {}", "Nummer {}", "{}, glaube ich"),
    "fr": ("{}", "le chiffre {}", "c'est {}", "on dirait {}", "le numéro {}", "{}, je crois"),
    "es": ("{}", "la cifra {}", "esto es {}", "parece {}", "el número {}", "{}, creo"),
    "it": ("{}", "la cifra {}", "questo è {}", "sembra {}", "il numero {}", "{}, credo"),
}
SILENT_PHRASES = {
    "en": ("illegible", "some digit or other", "hard to read", "a smudge"),
    "de": ("unleserlich", "irgendeine Ziffer", "schwer zu lesen", "nur ein Fleck"),
    "fr": ("illisible", "je ne sais pas", "difficile à lire", "une tache"),
    "es": ("ilegible", "no se sabe", "difícil de leer", "sólo tinta"),
    "it": ("illeggibile", "non si capisce", "difficile da leggere", "solo inchiostro"),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

RATE = 8000
SILENT_TONE_SHARE = 0.11
TONE_SNR_DB = (-6.0, 12.0)
"""Range of the power of the tone over the power of the noise, while the tone sounds."""
NOISE_RMS = 0.05
_ROW_HZ = (697, 770, 852, 941)
_COLUMN_HZ = (1209, 1336, 1477)
KEY_HZ = {
    "0": (_ROW_HZ[3], _COLUMN_HZ[1]),
    **{str(key): (_ROW_HZ[(key - 1) // 3], _COLUMN_HZ[(key - 1) % 3]) for key in range(1, 10)},
}
"""The two frequencies of each key (ITU-T Q.23)."""


T = TypeVar("T")


class _Draws:
    """A stream of random draws that depends only on its key."""

    def __init__(self, key: str) -> None:
        self._key, self._blocks = key, 0

    def take(self, size: int) -> bytes:
        """``size`` uniformly drawn bytes."""
        first, self._blocks = self._blocks, self._blocks - (-size // 64)
        numbers = range(first, self._blocks)
        return b"".join(hashlib.blake2b(f"{self._key}/{n}".encode()).digest() for n in numbers)[:size]

    def unit(self) -> float:
        """Draw a number in [0, 1)."""
        return int.from_bytes(self.take(6), "big") / 2**48

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[int(self.unit() * len(options))]

    def noise(self, size: int) -> npt.NDArray[np.float64]:
        """White noise [size] of mean 0 and variance 1: sums of four bytes, close enough to a normal distribution.

        Only the last division is not in integers: the stream of a normal generator changes with its library.
        """
        drawn = np.frombuffer(self.take(4 * size), dtype=np.uint8).reshape(size, 4)
        sums = drawn.sum(axis=1, dtype=np.int64) - 510
        return np.asarray(sums / np.sqrt(4 * (256**2 - 1) / 12), dtype=np.float64)


def digit_text(sample_id: str, digit: str) -> str:
    """Transcribe ``digit`` for the sample ``sample_id``."""
    draws = _Draws(f"digits/text/{sample_id}")
    language = draws.choice(tuple(NUMBER_WORDS))
    word, phrase = NUMBER_WORDS[language][int(digit)], draws.choice(PHRASES[language])
    fate = draws.unit()
    if fate < SILENT_TEXT_SHARE / 2:
        return draws.choice(SILENT_PHRASES[language])
    if fate < SILENT_TEXT_SHARE:
        # Of another length than the word, which would give the digit away.
        word = "".join(draws.choice(_LETTERS) for _ in range(3 + int(draws.unit() * 4)))
    elif draws.unit() < SLIP_SHARE:
        word = _slip(word, draws)
    return phrase.format(word)


def _slip(word: str, draws: _Draws) -> str:
    """``word`` with one spelling slip: a letter doubled, dropped or changed, or two swapped."""
    at = int(draws.unit() * len(word))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    slips = [before + letter + letter + after]
    if len(word) >= 4:  # too little would be left of a shorter word
        swapped = before + after[:1] + letter + after[1:] if after else before[:-1] + letter + before[-1:]
        slips += [before + after, before + draws.choice(_LETTERS) + after, swapped]
    return draws.choice(slips)


def digit_tone(sample_id: str, digit: str) -> npt.NDArray[np.float64]:
    """Make the keypad tone of ``digit`` in noise for the sample ``sample_id``: [n] at :data:`RATE` Hz, n 1600–2400."""
    draws = _Draws(f"digits/audio/{sample_id}")
    size = int(RATE * (0.2 + 0.1 * draws.unit()))
    start, stop = int(size * 0.2 * draws.unit()), int(size * (1 - 0.2 * draws.unit()))
    low, high = TONE_SNR_DB
    snr_db = low + (high - low) * draws.unit()
    seconds = np.arange(stop - start) / RATE
    tone = np.zeros(size)
    for hertz in KEY_HZ[digit]:
        detune, phase = 1 + 0.03 * (draws.unit() - 0.5), 2 * np.pi * draws.unit()  # ±1.5 %: a telephone's tolerance
        tone[start:stop] += np.sin(2 * np.pi * hertz * detune * seconds + phase)  # of power ½
    level = 0.5 + draws.unit()
    if draws.unit() < SILENT_TONE_SHARE:
        tone[:] = 0
    return level * NOISE_RMS * (draws.noise(size) + 10 ** (snr_db / 20) * tone)


def assign_splits(sample_ids: Sequence[str], digits: Sequence[str]) -> list[str]:
    """Assign splits: 70 / 10 / 20 % of each class, in the order of a hash of the ids."""
    splits = [""] * len(sample_ids)
    for digit in CLASSES:
        members = [i for i, d in enumerate(digits) if d == digit]
        members.sort(key=lambda i: hashlib.blake2b(f"digits/split/{sample_ids[i]}".encode()).digest())
        train = round(TRAIN_SHARE * len(members))
        validation = train + round(VALIDATION_SHARE * len(members))
        for rank, i in enumerate(members):
            splits[i] = "train" if rank < train else "validation" if rank < validation else "test"
    return splits


@preparer(source=None)
def prepare_digits(intake: Intake) -> Listing:
    """List the samples of the embedded data set ``digits``."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pictures = np.rint(np.asarray(raw.images) * 255 / 16).astype(np.uint8)  # [1797, 8, 8], given as 0 to 16
    digits = [str(label) for label in raw.target]
    sample_ids = [f"digit-{i:04d}" for i in range(len(digits))]

    def read(split: str, sample_id: str, digit: str, picture: npt.NDArray[np.uint8]) -> Iterator[SampleRow]:
        yield SampleRow(
            split=split,
            id=sample_id,
            label=(int(digit),),
            image=encode_picture(picture),
            image_path=f"{sample_id}.bmp",
            text=digit_text(sample_id, digit),
            audio=encode_wav(digit_tone(sample_id, digit), RATE),
            audio_path=f"{sample_id}.wav",
        )

    samples = zip(assign_splits(sample_ids, digits), sample_ids, digits, pictures, strict=True)
    return Listing(DESCRIPTION, read, samples, len(digits))


def encode_picture(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode the grey picture ``pixels`` [height, width] as a BMP.

    Uncompressed, so that the bytes, and with them the data set's fingerprint, do not depend on the version of zlib.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="BMP")
    return buffer.getvalue()


def encode_wav(waveform: npt.NDArray[np.float64], rate: int) -> bytes:
    """Encode the mono ``waveform`` [n] in −1 … 1 (clipped) as a 16-bit WAV of ``rate`` Hz."""
    levels = np.rint(np.clip(waveform, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(levels.tobytes())
    return buffer.getvalue()
