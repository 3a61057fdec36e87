"""What a model gets that encodes its inputs itself: the media that a checkpoint's processor gets, in every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.decoded_split import DecodedSplit
from mmrobust.data.decoding import decode
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.processor import Processor
from mmrobust.degradations import Noise, check_recordings
from mmrobust.errors import UsageError

MODALITIES = ("image", "text", "audio")
CASES = (
    "complete",
    "missing-image",
    "missing-text",
    "noisy-image:blur@3",
    "noisy-image:jpeg@5+noisy-text:ocr@4",
    "missing-text+noisy-audio:babble@2",
    "noisy-text",
)


class Plain(Processor):
    """A medium as numbers, nothing more."""

    def encode(self, modality: str, raw: Any) -> Tensor:
        if modality == "text":
            return torch.tensor(list(raw.encode()) or [0])
        return torch.from_numpy(np.array(raw[0] if modality == "audio" else raw))

    def fill(self, modality: str, fill: str) -> Tensor:
        return torch.zeros(1)

    def collate(self, samples: Sequence[Mapping[str, Tensor]], *, pinned: bool = False) -> dict[str, Tensor]:
        return {}

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (1,)

    def save(self, folder: Path) -> None:
        """Nothing is stored."""


def decoded(digits: Dataset, fills: dict[str, Any] | None = None, **settings: Any) -> DecodedSplit:
    return DecodedSplit(digits.split("test"), MODALITIES, fills or {}, Noise(seed=4), **settings)


@pytest.mark.parametrize("name", CASES)
def test_they_are_those_that_a_checkpoint_gets(digits: Dataset, name: str) -> None:
    split, case, positions = decoded(digits), Case.parse(name, MODALITIES), [3, 0, 7]
    encoded = EncodedSplit(digits.split("test"), Plain(), MODALITIES, "ones", Noise(seed=4))
    theirs = encoded.samples(positions, case)
    (loaded,) = split.load([dict.fromkeys(positions, case.present)])
    assert list(loaded) == sorted(positions)
    for position, tensors in zip(positions, theirs, strict=True):
        ours = split.in_case(position, loaded[position], case)
        assert tuple(ours) == MODALITIES
        for modality in MODALITIES:
            if case.is_missing(modality):
                assert ours[modality] is None
            else:
                assert torch.equal(Plain().encode(modality, ours[modality]), tensors[modality])


def test_workers_change_nothing(digits: Dataset) -> None:
    requests = [dict.fromkeys(range(start, start + 20), MODALITIES) for start in (0, 20, 40)]
    parts = []
    for workers in (0, 2):
        split = decoded(digits, workers=workers)
        parts.append([sample for part in split.load(requests) for sample in part.items()])
        split.release()
    for (place, one), (other_place, other) in zip(*parts, strict=True):
        assert place == other_place and one["text"] == other["text"]
        assert one["image"].tobytes() == other["image"].tobytes()
        np.testing.assert_array_equal(one["audio"][0], other["audio"][0])


def test_whoever_changes_a_sample_changes_no_other(digits: Dataset) -> None:
    fill = np.zeros(3)
    split, complete = decoded(digits, {"audio": fill}), Case.parse("complete", MODALITIES)
    (loaded,) = split.load([{0: MODALITIES}])
    before = loaded[0]["image"].tobytes(), loaded[0]["audio"][0].copy()
    sample = split.in_case(0, loaded[0], complete)
    sample["image"].paste("red", (0, 0, 8, 8))
    sample["audio"][0][:] = 7
    split.in_case(0, loaded[0], Case.parse("missing-audio", MODALITIES))["audio"][:] = 7
    assert before[0] == loaded[0]["image"].tobytes()
    np.testing.assert_array_equal(before[1], loaded[0]["audio"][0])
    assert not fill.any()


def test_a_noise_profile_degrades_pictures_by_their_pixels(digits: Dataset) -> None:
    split, seen = decoded(digits), set()
    case = Case.parse("missing-text+missing-audio+noisy-image", MODALITIES)
    (loaded,) = split.load([dict.fromkeys(range(20), ("image",))])
    for position, media in loaded.items():
        noisy, again = (split.in_case(position, media, case) for _ in range(2))
        assert noisy["image"].size == media["image"].size
        assert noisy["image"].tobytes() != media["image"].tobytes()
        assert again["image"].tobytes() == noisy["image"].tobytes()
        seen.add(noisy["image"].tobytes())
    assert len(seen) > 10


def test_it_cannot_degrade_a_recording(digits: Dataset) -> None:
    check_recordings(Case.parse("noisy-audio:babble@3+noisy-image", MODALITIES), ("audio",), "it")
    with pytest.raises(
        UsageError, match=r"case 'noisy-audio': a noise profile .* name a corruption, as in noisy-audio:"
    ):
        check_recordings(Case.parse("noisy-audio", MODALITIES), ("audio",), "it")


def test_what_is_there_is_as_in_the_data(digits: Dataset) -> None:
    split = decoded(digits)
    (loaded,) = split.load([{5: MODALITIES}])
    (sample,) = digits.split("test").read([5])
    assert loaded[5]["text"] == sample.text
    assert loaded[5]["image"].tobytes() == decode(sample, "image").tobytes()
