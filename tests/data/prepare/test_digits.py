from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mmrobust.data.dataset import Dataset, Sample
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.prepare.digits import (
    CLASSES,
    KEY_HZ,
    NUMBER_WORDS,
    PHRASES,
    SILENT_PHRASES,
    assign_splits,
    digit_text,
    digit_tone,
    encode_picture,
    encode_wav,
    prepare_digits,
)
from mmrobust.errors import UsageError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(folder)
    return Dataset(folder)


@pytest.fixture(scope="module")
def samples(whole: Dataset) -> dict[str, list[Sample]]:
    return {split: list(whole.split(split)) for split in whole.splits}


def labels(samples: list[Sample]) -> list[int]:
    return [sample.label[0] for sample in samples]


def spectrum(sample: Sample) -> np.ndarray:
    """Log power in 25 Hz bands around the keypad's frequencies."""
    waveform, rate = decode_audio(sample.audio or b"", sample.id)
    power = np.abs(np.fft.rfft(waveform, 4096)) ** 2
    band = np.fft.rfftfreq(4096, 1 / rate) // 25
    return np.log([power[band == b].sum() for b in range(26, 62)]) - np.log(power.sum())


def pixels(sample: Sample) -> np.ndarray:
    return np.asarray(decode_image(sample.image or b"", sample.id))[:, :, 0].ravel() / 255


def test_text_alone_decides_about_nine_in_ten(samples: dict[str, list[Sample]]) -> None:
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)), LogisticRegression(C=30, max_iter=500)
    )
    model.fit([s.text for s in samples["train"]], labels(samples["train"]))
    assert 0.85 <= model.score([s.text for s in samples["test"]], labels(samples["test"])) <= 0.95


def test_audio_alone_decides_about_nine_in_ten(samples: dict[str, list[Sample]]) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit([spectrum(s) for s in samples["train"]], labels(samples["train"]))
    assert 0.85 <= model.score([spectrum(s) for s in samples["test"]], labels(samples["test"])) <= 0.95


def test_the_image_decides_nearly_all(samples: dict[str, list[Sample]]) -> None:
    model = SVC(gamma=0.1, C=10).fit([pixels(s) for s in samples["train"]], labels(samples["train"]))
    assert model.score([pixels(s) for s in samples["test"]], labels(samples["test"])) > 0.95


def test_what_the_data_set_is(whole: Dataset) -> None:
    info = whole.info
    assert (info.name, info.modalities, info.classes) == ("digits", ("image", "text", "audio"), CLASSES)
    assert (info.task, info.headline_metric) == ("single-label", "accuracy")
    assert info.splits == {"train": 1258, "validation": 179, "test": 360}
    assert "CC BY 4.0" in info.licence


def test_the_data_set_is_the_same_on_every_machine(whole: Dataset) -> None:
    """Pinned: results on `digits` can be compared between machines and versions only while this holds."""
    assert whole.info.fingerprint == "9ed7e018fc4c0f50988d34a86e04a7dc"


def test_the_pictures_are_those_of_scikit_learn(samples: dict[str, list[Sample]]) -> None:
    raw = load_digits()
    for sample in samples["validation"]:
        i = int(sample.id.removeprefix("digit-"))
        assert sample.label == (raw.target[i],)
        assert np.array_equal(np.rint(pixels(sample) * 16).reshape(8, 8), raw.images[i])


def test_splits_are_stratified() -> None:
    sample_ids = [f"x{i}" for i in range(1000)]
    digits = [str(i % 10) for i in range(1000)]
    splits = assign_splits(sample_ids, digits)
    counts = Counter(zip(digits, splits, strict=True))
    assert all(counts[d, s] == n for d in CLASSES for s, n in (("train", 70), ("validation", 10), ("test", 20)))
    assert dict(zip(sample_ids[::-1], assign_splits(sample_ids[::-1], digits[::-1]), strict=True)) == dict(
        zip(sample_ids, splits, strict=True)
    )


def test_a_limit_keeps_the_first_of_each_split(whole: Dataset, digits: Dataset) -> None:
    assert digits.info.splits == {"train": 60, "validation": 60, "test": 60}
    for split in digits.splits:
        kept = list(digits.split(split))
        for one, other in zip(kept, whole.split(split).read(range(60)), strict=True):
            assert (one.id, one.label, one.image, one.text, one.audio) == (
                other.id,
                other.label,
                other.image,
                other.text,
                other.audio,
            )


def test_texts_and_tones_depend_on_the_sample_alone() -> None:
    assert digit_text("a", "3") == digit_text("a", "3")
    assert (digit_tone("a", "3") == digit_tone("a", "3")).all()
    assert len({digit_text(str(i), "3") for i in range(100)}) > 40
    lengths = {len(digit_tone(str(i), "3")) for i in range(100)}
    assert 1600 <= min(lengths) < max(lengths) <= 2400


def test_texts_that_say_nothing_hold_no_number_word() -> None:
    words = {word for language in NUMBER_WORDS.values() for word in language}
    for language, phrases in PHRASES.items():
        for phrase in (*phrases, *SILENT_PHRASES[language]):
            assert not words & set(phrase.lower().replace(",", " ").replace("'", " ").split()), phrase
    digits_of: dict[str, set[int]] = {}
    for language in NUMBER_WORDS.values():
        for digit, word in enumerate(language):
            digits_of.setdefault(word, set()).add(digit)
    assert all(len(d) == 1 for d in digits_of.values())


def test_every_key_has_its_own_pair_of_frequencies() -> None:
    assert len(set(KEY_HZ.values())) == 10
    assert KEY_HZ["1"] == (697, 1209)
    assert KEY_HZ["5"] == (770, 1336)
    assert KEY_HZ["9"] == (852, 1477)
    assert KEY_HZ["0"] == (941, 1336)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (28, 28), (300, 400)])
def test_a_picture_is_what_was_encoded(shape: tuple[int, int]) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(encode_picture(drawn), "x"))[:, :, 0], drawn)


def test_a_wav_is_what_was_encoded() -> None:
    waveform, rate = decode_audio(encode_wav(np.array([0.0, 0.5, -0.5, 2.0]), 8000), "x")
    assert rate == 8000
    assert np.abs(waveform - [0, 0.5, -0.5, 1]).max() < 1e-4
    assert hashlib.blake2b(encode_wav(np.zeros(3), 8000), digest_size=4).hexdigest() == "bb79a76a"


def test_a_folder_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="already contains files"):
        prepare_digits(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
