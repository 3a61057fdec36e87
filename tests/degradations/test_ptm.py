"""Noise profiles: a pure function of the sample, and the kinds that Prompt the Missing names."""

from __future__ import annotations

import hashlib
import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.degradations import ENCODED, PROFILES, Degradation, Noise, degradation_of
from mmrobust.degradations.keys import Draws
from mmrobust.errors import UsageError

BANK = (torch.arange(96 * 64) / 2048 - 1).view(96, 64)  # exact in float32
IMAGE = (torch.arange(3 * 64 * 48) / 4096 - 1).view(3, 64, 48)
INPUTS = {"audio": BANK, "image": IMAGE}


BOTH = ("audio", "image")


def apply(name: str, tensor: torch.Tensor, severity: int = 5, key: str = "k") -> torch.Tensor:
    return Degradation("any", name, severity, Draws(key), encoded=True).on_tensor(tensor)


def of(modality: str, sample: str, noise: Noise, mild: bool = False) -> Degradation:
    return degradation_of(Case.parse("noisy-both" if mild else f"noisy-{modality}", BOTH), modality, sample, noise)


def degrade(tensor: torch.Tensor, modality: str, sample: str, noise: Noise, *, mild: bool = False) -> torch.Tensor:
    return of(modality, sample, noise, mild).on_tensor(tensor)


def digest(tensor: torch.Tensor) -> str:
    return hashlib.blake2b(tensor.numpy().tobytes(), digest_size=8).hexdigest()


PINNED = {
    ("audio", "default"): "5d6fb6e54c85ed8b",
    ("audio", "released"): "6849e43ebbe8e6d8",
    ("image", "default"): "ba7373e6e8d26077",
    ("image", "released"): "dc847cf919c0c757",
}


@pytest.mark.parametrize(("modality", "profile"), PINNED)
def test_noise_is_the_same_on_every_machine_and_in_every_version(modality: str, profile: str) -> None:
    """Ten samples, so that every kind of noise is among them."""
    noise = Noise(profile, 3)
    noisy = [degrade(INPUTS[modality], modality, f"sample-{i}", noise, mild=i % 2 > 0) for i in range(10)]
    assert {of(modality, f"sample-{i}", noise).name for i in range(10)} == set(PROFILES[profile][modality])
    assert digest(torch.stack(noisy)) == PINNED[modality, profile]


@given(st.text(), st.integers(0, 2**40), st.sampled_from(["audio", "image"]), st.sampled_from(list(PROFILES)))
@settings(max_examples=30, deadline=None)
def test_noise_is_a_pure_function(sample: str, seed: int, modality: str, profile: str) -> None:
    given_tensor, noise = INPUTS[modality].clone(), Noise(profile, seed)
    first = degrade(given_tensor, modality, sample, noise)
    degrade(given_tensor, modality, "another", noise)
    torch.manual_seed(seed % 1000)
    assert torch.equal(degrade(given_tensor, modality, sample, noise), first)
    assert torch.equal(given_tensor, INPUTS[modality])
    assert first.shape == given_tensor.shape and first.dtype == given_tensor.dtype and first.isfinite().all()


def test_seed_sample_profile_and_modality_each_matter() -> None:
    def drawn(sample: str, noise: Noise, modality: str = "audio") -> str:
        return digest(torch.from_numpy(of(modality, sample, noise).draws.normal((4,))))

    usual = drawn("a", Noise("default", 0))
    others = [
        drawn("b", Noise()),
        drawn("a", Noise(seed=1)),
        drawn("a", Noise("released")),
        drawn("a", Noise(), "image"),
    ]
    assert len({usual, *others}) == 5


def test_white_noise_is_white() -> None:
    draws = Draws("any").normal((100_000,))
    assert abs(draws.mean()) < 0.02 and abs(draws.std() - 1) < 0.02
    assert 0.95 < np.mean(np.abs(draws) < 2) < 0.96


@pytest.mark.parametrize("mild", [False, True])
def test_gaussian_noise_is_milder_where_both_are_noisy(mild: bool) -> None:
    audio = apply("audio-gaussian", BANK, 1 if mild else 5) - BANK
    assert audio.std().item() == pytest.approx(1 if mild else 10, rel=0.05)
    image = apply("image-gaussian", torch.zeros(3, 64, 64), 1 if mild else 5)
    assert image.abs().max() <= 3
    assert image.std().item() == pytest.approx(0.5 if mild else 2.6, rel=0.05)


@pytest.mark.parametrize(("name", "axis"), [("time-shift", 0), ("mel-shift", 1)])
def test_a_shift_rolls_its_own_axis(name: str, axis: int) -> None:
    shifted = apply(name, BANK)
    rolls = [by for by in range(BANK.shape[axis]) if torch.equal(BANK.roll(by, axis), shifted)]
    assert len(rolls) == 1 and rolls != [0]


@pytest.mark.parametrize(("name", "axis"), [("time-mask", 0), ("mel-mask", 1)])
def test_a_mask_covers_up_to_a_quarter_of_its_own_axis(name: str, axis: int) -> None:
    widths = set()
    for key in range(200):
        masked = (apply(name, torch.ones_like(BANK), key=str(key)) == 0).all(1 - axis)
        assert (apply(name, torch.ones_like(BANK), key=str(key)) == 0).sum() == masked.sum() * BANK.shape[1 - axis]
        widths.add(int(masked.sum()))
    quarter = BANK.shape[axis] // 4
    assert widths == (set(range(1, quarter + 1)) if name == "time-mask" else set(range(quarter)))


@pytest.mark.parametrize(("mild", "side", "kernel"), [(False, 224, 51), (True, 224, 7), (False, 64, 15), (True, 64, 3)])
def test_the_blur_is_the_releases_box_at_224_and_scaled_elsewhere(mild: bool, side: int, kernel: int) -> None:
    image = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    box = torch.full((3, 1, kernel, kernel), 1 / kernel**2)
    expected = F.conv2d(image[None], box, padding=kernel // 2, groups=3)[0]
    torch.testing.assert_close(apply("box-blur", image, 1 if mild else 5), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mild", [False, True])
def test_pixelating_is_the_releases_interpolation(mild: bool) -> None:
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(image[None], scale_factor=0.3 if mild else 0.05, mode="bilinear")
    expected = F.interpolate(small, size=(64, 64), mode="nearest")[0]
    ours = apply("pixelate", image, 1 if mild else 5)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)  # it scales in float32


def test_inputs_as_small_as_they_get() -> None:
    for profile in PROFILES:
        for sample in "abcdefgh":
            assert degrade(torch.ones(1, 1), "audio", sample, Noise(profile)).shape == (1, 1)
            assert degrade(torch.ones(3, 1, 1), "image", sample, Noise(profile)).shape == (3, 1, 1)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match="unknown noise profile 'relaesed': did you mean 'released'"):
        Noise("relaesed")
    with pytest.raises(UsageError, match=r"released has audio and image, but no noise for text, .* default has all"):
        degradation_of(Case.parse("noisy-text", ("image", "text")), "text", "a", Noise("released"))


def test_a_severity_between_the_papers_two_is_between_them() -> None:
    """Severity 1 is the paper's mild noise, 5 its full one, and a case may ask for any."""
    strengths = [(apply("audio-gaussian", BANK, severity) - BANK).std().item() for severity in range(1, 6)]
    assert strengths == sorted(strengths)
    for severity in (1, 3, 5):
        case = Case.parse(f"noisy-image@{severity}", BOTH)
        assert degradation_of(case, "image", "a", Noise()).severity == severity
    assert degradation_of(Case.parse("noisy-both@4", BOTH), "image", "a", Noise()).severity == 4
    assert (of("image", "a", Noise()).severity, of("image", "a", Noise(), mild=True).severity) == (5, 1)


def test_a_text_gets_one_of_the_common_corruptions() -> None:
    drawn = [degradation_of(Case.parse("noisy-text", ("image", "text")), "text", f"s{i}", Noise()) for i in range(40)]
    assert {d.name for d in drawn} == set(PROFILES["default"]["text"]) and not any(d.encoded for d in drawn)
    assert all(d.on_medium("the quick brown fox jumps over it") != "the quick brown fox jumps over it" for d in drawn)


@pytest.mark.parametrize("path", ENCODED.values())
def test_what_is_registered_is_there(path: str) -> None:
    module, _, name = path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_a_split_degrades_alike_in_any_order_and_company(tiny: object, digits: Dataset) -> None:
    processor = tiny("tiny-cavmae").processor  # type: ignore[operator]
    split = digits.split("test")
    case = Case.parse("noisy-both", ("audio", "image"))

    def fresh(noise: Noise | None = None) -> EncodedSplit:
        return EncodedSplit(split, processor, ("audio", "image"), "ones", noise)

    whole = fresh().samples(range(20), case)
    encoded = fresh()
    backwards = [encoded.samples([position], case)[0] for position in reversed(range(20))][::-1]
    for left, right in zip(whole, backwards, strict=True):
        assert all(torch.equal(left[m], right[m]) for m in left)
    clean = encoded.samples([3], Case.complete(("audio", "image")))[0]
    assert torch.equal(whole[3]["audio"], degrade(clean["audio"], "audio", split.ids[3], Noise(), mild=True))
    alone = encoded.samples([3], Case.parse("noisy-audio", ("audio", "image")))[0]
    assert torch.equal(alone["image"], clean["image"]) and not torch.equal(alone["audio"], clean["audio"])
    black = fresh(Noise("released")).samples([3], case)[0]["image"]
    assert torch.equal(black, torch.zeros_like(black))
    again = encoded.samples([3], case, Noise("released"))[0]["image"]
    assert torch.equal(again, black)
