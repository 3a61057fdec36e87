"""Inputs that are kept on disk between commands are those that would be encoded, to the last bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mmrobust.cases import Case
from mmrobust.data import Dataset, input_store, loading
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.runtime.machine import MemoryBudget

MODALITIES = ("image", "text")
COMPLETE = Case.complete(MODALITIES)
SOME = range(0, 60, 2)


@pytest.fixture(scope="module")
def processor(tiny: Callable[[str], Backbone]) -> Any:
    return tiny("tiny-vilt").processor


@pytest.fixture
def encoded_now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each call has decoded and encoded."""
    counted: list[int] = []
    encode = loading._encode

    def counting(*arguments: Any) -> Any:
        counted.append(sum(len(modalities) for _, modalities in arguments[-1]))
        return encode(*arguments)

    monkeypatch.setattr(loading, "_encode", counting)
    return counted


def load(folder: Path, processor: Any, cache: Path | None, positions: Any = SOME, split: Any = None) -> list[Any]:
    """The samples as a training or an evaluation asks for them, none of them in memory before."""
    split = split or Dataset(folder, cache).split("test")
    encoded = EncodedSplit(split, processor, MODALITIES, "ones", memory=MemoryBudget(0))
    steps = np.array_split(np.asarray(positions), 3)
    return [
        sample
        for step in encoded.prefetch(steps, lambda step: [("complete", step)])
        for sample in encoded.samples(step, COMPLETE)
    ]


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(one[m], other[m]) and one[m].dtype == other[m].dtype
        for one, other in zip(left, right, strict=True)
        for m in MODALITIES
    )


def test_each_sample_is_encoded_once_for_all_commands(
    digits: Dataset, processor: Any, tmp_path: Path, encoded_now: list[int]
) -> None:
    expected = load(digits.folder, processor, None)
    encoded_now.clear()
    for new in (2 * len(SOME), 0):
        assert same(load(digits.folder, processor, tmp_path), expected)
        assert sum(encoded_now) == new
        encoded_now.clear()
    load(digits.folder, processor, tmp_path, range(60))  # the rest
    assert sum(encoded_now) == 2 * 30
    encoded_now.clear()
    # A sample by itself, outside of any step; and one of a split in which others were left out.
    alone = EncodedSplit(Dataset(digits.folder, tmp_path).split("test"), processor, MODALITIES, "ones")
    assert same(alone.samples([4], COMPLETE), expected[2:3])
    fewer = Dataset(digits.folder, tmp_path).split("test").without([0, 1, 3])
    assert same(load(digits.folder, processor, None, [0, 1], fewer), expected[1:3])
    assert not sum(encoded_now)


def test_other_data_and_other_settings_have_inputs_of_their_own(
    digits: Dataset, processor: Any, tiny: Callable[[str], Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(digits.folder, processor, tmp_path, [0])
    assert len(list((tmp_path / "inputs").iterdir())) == 2  # picture and text
    larger = tiny("tiny-clip").processor
    assert not same(load(digits.folder, larger, tmp_path, [0]), load(digits.folder, processor, tmp_path, [0]))
    assert len(list((tmp_path / "inputs").iterdir())) == 4
    monkeypatch.setattr(input_store, "versions", lambda: {"Pillow": "0"})
    load(digits.folder, processor, tmp_path, [0])
    assert len(list((tmp_path / "inputs").iterdir())) == 6


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def claim(file: Path) -> None:
    """More bytes than there are, under the right names."""
    one = np.zeros(1, np.int64)
    held = {"rows": one, "starts": np.array([0, 8]), "shapes": one[:, None] + 9, "checksums": one}
    save_file({**held, "values": np.zeros(8, np.uint8)}, file, {"kind": "inputs", "version": "1", "dtype": "int64"})


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip,
        claim,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"GIF89a" * 100),
        lambda file: save_file({"rows": np.zeros(3)}, file),
        lambda file: save_file({"rows": np.zeros(3)}, file, {"kind": "inputs", "version": "99", "dtype": "int64"}),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_what_is_damaged_is_encoded_again(
    digits: Dataset, processor: Any, tmp_path: Path, encoded_now: list[int], damage: Callable[[Path], Any]
) -> None:
    expected = load(digits.folder, processor, tmp_path)
    files = list(tmp_path.glob("inputs/*/*.safetensors"))
    assert len(files) == 2
    for file in files:
        damage(file)
    encoded_now.clear()
    assert same(load(digits.folder, processor, tmp_path), expected)
    assert sum(encoded_now) > 0
    encoded_now.clear()
    assert same(load(digits.folder, processor, tmp_path), expected)
    assert not sum(encoded_now)  # the new files count


def test_several_commands_fill_a_folder_at_a_time(
    digits: Dataset, processor: Any, tmp_path: Path, encoded_now: list[int]
) -> None:
    expected = load(digits.folder, processor, None, range(60))
    splits = [Dataset(digits.folder, tmp_path).split("test") for _ in range(2)]
    both = [EncodedSplit(split, processor, MODALITIES, "ones", memory=MemoryBudget(0)) for split in splits]
    steps = ([range(0, 40), range(0, 10)], [range(20, 60), range(5, 25)])
    running = [each.prefetch(its, lambda step: [("complete", step)]) for each, its in zip(both, steps, strict=True)]
    for _ in range(2):
        for each, ours in zip(both, running, strict=True):
            step = next(ours)
            assert same(each.samples(step, COMPLETE), [expected[position] for position in step])
    assert [list(ours) for ours in running] == [[], []]
    encoded_now.clear()
    assert same(load(digits.folder, processor, tmp_path, range(60)), expected)
    assert not sum(encoded_now)


def test_a_full_disk_keeps_nothing_and_changes_nothing(
    digits: Dataset, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(input_store.shutil, "disk_usage", lambda _: usage._replace(free=usage.total // 20))
    assert same(load(digits.folder, processor, tmp_path), load(digits.folder, processor, None))
    assert not list(tmp_path.glob("inputs/*/*"))


def test_what_cannot_be_kept_is_one_line(digits: Dataset, processor: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--cache .*file: is a file; name a folder"):
        load(digits.folder, processor, tmp_path / "file")

    class Silent(type(processor)):  # type: ignore[misc]  # the class of a fixture
        def described(self) -> dict[str, Any]:
            return {}

    silent = Silent(processor.tokenizer, processor.image_processor, processor.max_length)
    with pytest.raises(UsageError, match=r"Silent does not say what its tensors depend on .* leave --cache out"):
        load(digits.folder, silent, tmp_path)


def test_commands_share_a_folder(
    cli: Callable[..., Any],
    trained: Callable[..., Path],
    digits: Dataset,
    tmp_path: Path,
    encoded_now: list[int],
) -> None:
    rates = ["--data", digits.folder, "--limit", 20, "--missing-rate", "0", "--seeds", 1]
    checkpoint, cache = trained("full", "linear"), tmp_path / "kept"
    assert cli("eval", checkpoint, *rates, "--out", tmp_path / "alone").code == 0
    assert cli("eval", checkpoint, *rates, "--out", tmp_path / "first", "--cache", cache).code == 0
    encoded_now.clear()
    assert cli("eval", checkpoint, *rates, "--out", tmp_path / "second", "--cache", cache).code == 0
    assert not sum(encoded_now)
    alone, *others = (next((tmp_path / name / "predictions").iterdir()) for name in ("alone", "first", "second"))
    assert all(other.read_bytes() == alone.read_bytes() for other in others)
    assert cli("audit", checkpoint, "--data", digits.folder, "--cache", cache, "--only", "batch-independence").code == 0
    encoded_now.clear()
    assert cli("audit", checkpoint, "--data", digits.folder, "--cache", cache, "--only", "batch-independence").code == 0
    assert not sum(encoded_now)
    train = ["train", "--data", digits.folder, "--backbone", "tiny", "--method", "full", "--modalities", "image,text"]
    for out, new in (("one", True), ("two", False)):
        encoded_now.clear()
        assert cli(*train, "--epochs", 1, "--out", tmp_path / out, "--cache", f"{cache}/").code == 0
        assert bool(sum(encoded_now)) == new
