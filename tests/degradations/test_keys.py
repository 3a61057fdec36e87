"""A degraded sample is a function of its key: pinned, and the same whatever else is degraded, where and when."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrobust.cases import CAUSES, Case
from mmrobust.data import Dataset
from mmrobust.data.decoding import SplitRecordings, decode
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.degradations import CORRUPTIONS, SEVERITIES, Noise, check_noise, degradation_of
from mmrobust.degradations.keys import Draws
from mmrobust.errors import DataError, UsageError

from .conftest import MadeRecordings, digest

EVERY = [(modality, name) for modality, names in CORRUPTIONS.items() for name in names]
PINNED = {"image": "24a65b63e6fc98a9", "audio": "cb2d19dc9e763fc9", "text": "408ae3da75003701"}
LATER = {
    ("image", "rain"): "6da87ba103ec65ca",
    ("image", "wind"): "896371f8fe74cad2",
    ("image", "crowd"): "ee80867bd970f223",
    ("image", "impact"): "80ab09f598f5f1f9",
    ("audio", "rain"): "eaef7685b7abb057",
    ("audio", "wind"): "76e0b3370dbbd7d5",
    ("audio", "crowd"): "11c4d8e787964fe8",
    ("audio", "low-bandwidth"): "81d77d6c10b979cb",
    ("audio", "impact"): "d69a77aeba7c6dc8",
    ("audio", "gap"): "4ae7bfb67f4ebbba",
    ("text", "gap"): "fa0f03d966dcd147",
    ("features", "gaussian"): "d4d1618ef23debd3",
    ("features", "gap"): "d6eac6ffcef44512",
    ("features", "dimension-drop"): "ed8a1d20786746c0",
}


@pytest.mark.parametrize("modality", PINNED)
def test_degraded_samples_are_the_same_on_every_machine_and_in_every_version(
    modality: str, corrupt: Callable[..., Any]
) -> None:
    """All but JPEG, and what is sent as such, whose last bit is libjpeg's."""
    later = ("jpeg", "low-bandwidth", *(n for m, n in LATER if m == modality))
    names = [name for name in CORRUPTIONS[modality] if name not in later]
    degraded = [corrupt(modality, name, s, sample=f"s{s}", seed=7) for name in names for s in SEVERITIES]
    assert digest(*degraded) == PINNED[modality]


@pytest.mark.parametrize(("modality", "name"), LATER)
def test_later_corruptions_are_the_same_on_every_machine_too(
    modality: str, name: str, corrupt: Callable[..., Any]
) -> None:
    degraded = [corrupt(modality, name, s, sample=f"s{s}", seed=7) for s in SEVERITIES]
    assert digest(*degraded) == LATER[modality, name]


@pytest.mark.parametrize(("modality", "name"), EVERY)
def test_a_corruption_is_a_pure_function(modality: str, name: str, corrupt: Callable[..., Any], media: Any) -> None:
    before = digest(media[modality])
    first = digest(corrupt(modality, name, 4))
    corrupt(modality, name, 2, sample="s5")
    assert digest(corrupt(modality, name, 4)) == first != before
    assert digest(media[modality]) == before


UNDRAWN = (
    *("blur", "pixelate", "jpeg", "brightness", "contrast", "black"),
    *("clipping", "band-pass", "silence", "truncation", "empty"),
)
"""They draw nothing: the same for every sample."""


@pytest.mark.parametrize(("modality", "name"), [pair for pair in EVERY if pair[1] not in UNDRAWN])
def test_sample_and_seed_each_matter(modality: str, name: str, corrupt: Callable[..., Any]) -> None:
    samples = {digest(corrupt(modality, name, 4, sample=f"s{i}")) for i in range(8)}
    seeds = {digest(corrupt(modality, name, 4, seed=i)) for i in range(8)}
    assert len(samples) > 1 and len(seeds) > 1


def test_name_severity_and_modality_are_of_the_key() -> None:
    def drawn(case: str, modality: str) -> list[int]:
        draws = degradation_of(Case.parse(case, ("image", "audio")), modality, "a", Noise()).draws
        return [draws.between(0, 10**9) for _ in range(3)]

    cases = [("noisy-image:shot@2", "image"), ("noisy-image:shot@3", "image"), ("noisy-image:gaussian@3", "image")]
    assert len({tuple(drawn(*case)) for case in [*cases, ("noisy-audio:gaussian@3", "audio")]}) == 4


@pytest.mark.parametrize("cause", CAUSES)
def test_one_cause_is_as_strong_in_both_modalities(cause: str) -> None:
    def forces(modality: str) -> list[float]:
        case = Case.parse(f"noisy-both:{cause}@3", ("image", "audio"))
        return [degradation_of(case, modality, f"s{i}", Noise()).draws.force() for i in range(20)]

    assert forces("image") == forces("audio")
    assert len(set(forces("image"))) > 5 and 0.75 <= min(forces("image")) <= max(forces("image")) <= 1.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set with three modalities, of which 64 samples are degraded."""
    folder = tmp_path_factory.mktemp("keys") / "digits"
    prepare_digits(folder, limit=64)
    return str(folder)


WORKER = """
import hashlib, json, sys
import numpy as np
from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.decoding import decode
from mmrobust.data.decoding import SplitRecordings
from mmrobust.degradations import CORRUPTIONS, Noise, degradation_of

folder, shard, of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
split = Dataset(folder).split("test")
recordings, said = SplitRecordings(split), {}
for position in reversed(range(shard, len(split), of)):
    for modality, names in ((kind, names) for kind, names in CORRUPTIONS.items() if kind != "features"):
        for name in names:
            case = Case.parse(f"noisy-{modality}:{name}@3", ("image", "text", "audio"))
            degradation = degradation_of(case, modality, split.ids[position], Noise(seed=1), recordings)
            medium = degradation.on_medium(decode(split.read([position])[0], modality))
            medium = medium[0] if isinstance(medium, tuple) else medium
            raw = medium.encode() if isinstance(medium, str) else medium.tobytes()
            said[f"{position} {modality} {name}"] = hashlib.blake2b(raw, digest_size=8).hexdigest()
print(json.dumps(said))
"""


def in_processes(folder: str, count: int) -> dict[str, str]:
    """Hashes of every corruption of every sample, each process with a shard of its own, backwards."""
    command = [sys.executable, "-c", WORKER, folder]
    started = [
        subprocess.Popen([*command, str(shard), str(count)], stdout=subprocess.PIPE, text=True)
        for shard in range(count)
    ]
    parts = [json.loads(process.communicate()[0]) for process in started]
    return {key: value for part in parts for key, value in part.items()}


def test_one_worker_and_four_with_a_shard_each_degrade_alike(folder: str) -> None:
    one, four = in_processes(folder, 1), in_processes(folder, 4)
    assert len(one) == 64 * len([modality for modality, _ in EVERY if modality != "features"])
    assert one == four


def test_a_whole_split_a_shard_and_its_first_samples_draw_the_same_babble(folder: str) -> None:
    split = Dataset(folder).split("test")
    case = Case.parse("noisy-audio:babble@3", ("image", "audio"))

    def babbled(positions: list[int]) -> list[str]:
        fresh = Dataset(folder).split("test")
        recordings = SplitRecordings(fresh)
        degraded = []
        for sample in fresh.read(positions):
            degradation = degradation_of(case, "audio", sample.id, Noise(), recordings)
            degraded.append(digest(degradation.on_medium(decode(sample, "audio"))))
        return degraded

    whole = babbled(list(range(len(split))))
    assert babbled([40, 3]) == [whole[40], whole[3]]
    assert len(set(whole)) == len(whole)


def test_babble_is_of_others_and_passes_over_what_is_damaged() -> None:
    recordings = MadeRecordings(["a", "b", "c", "d", "e"], broken=["b"])
    heard = Draws("k", "a", recordings).others(4, 8000)
    readable = {recordings.read(i, 8000).tobytes() for i in "cde"}
    assert {wave.tobytes() for wave in heard} == readable  # never a itself, never b
    assert len(Draws("k", "a", recordings).others(2, 8000)) == 2
    for alone in (MadeRecordings(["a"]), MadeRecordings(["a", "b"], broken=["b"]), None):
        with pytest.raises(DataError, match="sample 'a': its split has no other recording to make babble of"):
            Draws("k", "a", alone).others(4, 8000)


@given(st.text(), st.integers(0, 2**63))
@settings(max_examples=50, deadline=None)
def test_draws_are_within_their_bounds(key: str, seed: int) -> None:
    draws = Draws(f"{seed}/{key}")
    assert all(2 <= draws.between(2, 4) <= 4 for _ in range(20))
    assert not draws.happens(0.0) and draws.happens(1.0)
    words = draws.words((5, 7))
    assert words.shape == (5, 7) and words.max() < 2**32


def test_shares_are_met() -> None:
    draws = Draws("any")
    assert 0.28 < sum(draws.happens(0.3) for _ in range(10_000)) / 10_000 < 0.32
    assert abs(draws.words((100_000,)).mean() / 2**32 - 0.5) < 0.01


@pytest.mark.parametrize(("modality", "name"), EVERY)
def test_what_is_registered_is_there(modality: str, name: str) -> None:
    module, _, function = CORRUPTIONS[modality][name].partition(":")
    assert getattr(importlib.import_module(module), function).__name__ == name.replace("-", "_")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("noisy-image:blurr@3", "unknown corruption of image 'blurr': did you mean 'blur'? Known: gaussian, shot"),
        ("noisy-text:blur@3", "unknown corruption of text 'blur': Known: character-slips, word-drop"),
        ("noisy-image:blur", "'noisy-image:blur' has no severity: give one from 1 to 5, as in noisy-image:blur@3"),
        ("noisy-image:blur@6", "'noisy-image:blur@6' has severity 6: give one from 1 to 5, as in noisy-image:blur@3"),
        ("noisy-image@0", "'noisy-image@0' has severity 0: give one from 1 to 5, as in noisy-image@3"),
    ],
)
def test_noise_that_there_is_not(case: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_noise(Case.parse(case, ("image", "text")))
    assert message in str(raised.value)
