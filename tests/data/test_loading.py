"""What is read ahead, in windows and in worker processes, is what is read one by one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrobust.cases import Case
from mmrobust.data import Dataset, encoded_split, loading
from mmrobust.data.decoding import decode
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.loading import Loader, resolve_workers
from mmrobust.data.prepare.digits import CLASSES
from mmrobust.data.processor import Processor
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import DataError, UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.runtime.machine import MemoryBudget

MODALITIES = ("audio", "image")


@pytest.fixture(scope="module")
def processor(tiny: Callable[[str], Backbone]) -> Any:
    return tiny("tiny-cavmae").processor


def same(left: dict[Any, torch.Tensor], right: dict[Any, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_workers_threads_and_windows_change_nothing(
    digits: Dataset, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = digits.split("train")
    order = np.random.default_rng(0).permutation(60)
    requests = [dict.fromkeys(part.tolist(), MODALITIES) for part in np.split(order, 4)] + [{}, {3: ("image",)}]
    expected = list(Loader(split, processor).load(requests))
    assert [set(part) for part in expected] == [{(p, m) for p in r for m in r[p]} for r in requests]
    monkeypatch.setattr(loading, "WINDOW_BYTES", 1)
    monkeypatch.setattr(loading, "CHUNK_SAMPLES", 4)
    for workers, threads in ((0, 1), (0, 3), (2, 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        loader = Loader(split, processor, workers)
        again = list(loader.load(requests))
        loader.close()
        assert len(again) == len(expected) and all(map(same, again, expected))


class Plain:
    """A processor that gives the numbers of a medium, however many."""

    def pack(self, modality: str, raws: Any) -> list[torch.Tensor]:
        numbers = {"audio": lambda raw: raw[0], "text": lambda raw: bytearray(raw.encode())}.get(modality, np.array)
        return [torch.from_numpy(np.array(numbers(raw))) for raw in raws]


@pytest.fixture
def ragged(digits: Dataset, tmp_path: Path) -> Dataset:
    """Texts, sounds and features of any length, beside pictures."""
    rng = np.random.default_rng(0)
    rows = [
        SampleRow(name, s.id, s.label, image=s.image, audio=s.audio, text="ab" * i, others={"imu": rng.random((i, 3))})
        for name in ("train", "validation", "test")
        for i, s in enumerate(digits.split(name).read(range(40)), 1)
    ]
    about = {"classes": CLASSES, "task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    kinds, steps = {"imu": "features"}, {"imu": True}
    modalities = ("image", "text", "audio", "imu")
    write_dataset(tmp_path / "ragged", rows, name="digits", modalities=modalities, kinds=kinds, steps=steps, **about)
    return Dataset(tmp_path / "ragged")


@pytest.mark.parametrize("slabs", [(128, 2**20), (3, 2**14), None], ids=["large", "small", "none"])
def test_every_kind_of_input_is_the_same_from_any_number_of_workers(
    ragged: Dataset, slabs: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where results do not fit into the shared memory."""
    if slabs is None:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    else:
        monkeypatch.setattr("mmrobust.runtime.slabs.SLABS", slabs[0])
        monkeypatch.setattr("mmrobust.runtime.slabs.SLAB_BYTES", slabs[1])
    monkeypatch.setattr(loading, "CHUNK_SAMPLES", 4)
    split = ragged.split("test")
    requests = [dict.fromkeys(range(start, start + 8), split.info.modalities) for start in range(0, 40, 8)]
    alone = list(Loader(split, Plain()).load(requests))  # type: ignore[arg-type]
    for workers in (1, 2) if slabs is None else (2,):  # each is started anew
        loader = Loader(split, Plain(), workers)  # type: ignore[arg-type]
        try:
            assert all(map(same, loader.load(requests), alone))  # each is used while later ones are loaded
            assert all(map(same, list(loader.load(requests)), alone))
        finally:
            loader.close()


def test_what_is_kept_does_not_change_and_holds_no_shared_memory(
    digits: Dataset, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrobust.runtime.slabs.SLABS", 4)
    monkeypatch.setattr(encoded_split, "PREFETCH_BYTES", 1)
    split = digits.split("train")
    encoded = EncodedSplit(split, processor, MODALITIES, "ones", workers=1, memory=MemoryBudget(2_000_000))
    plain = EncodedSplit(split, processor, MODALITIES, "ones")
    for _ in encoded.prefetch(np.arange(60).reshape(-1, 4), lambda step: [("complete", step)]):
        pass
    kept = dict(encoded._cache)
    assert 0 < len(kept) < 120
    assert all(torch.equal(tensor, plain._encoded(*key)) for key, tensor in kept.items())
    assert encoded._loader._pool is not None and len(encoded._loader._pool._slabs._free) == 4
    encoded.release()


def test_a_killed_worker_is_one_line(digits: Dataset, processor: Any) -> None:
    loader = Loader(digits.split("train"), processor, 1)
    parts = loader.load([{p: MODALITIES} for p in range(60)])
    next(parts)
    assert loader._pool is not None
    for process in loader._pool.processes:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a worker that decodes samples was killed.* with fewer --workers to go on"):
        list(parts)
    loader.close()


def test_each_row_group_is_read_once_for_a_window(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    split = digits.split("train")
    reads: list[int] = []
    table = type(split)._table
    monkeypatch.setattr(type(split), "_table", lambda self, index: reads.append(index) or table(self, index))
    monkeypatch.setattr("mmrobust.data.dataset.ROW_GROUPS_BYTES", 0)
    samples = split.read([5, 1, 5, 40])
    assert [sample.id for sample in samples] == [split.ids[p] for p in (5, 1, 5, 40)]
    assert reads == sorted(set(reads))


def test_steps_come_when_their_samples_are_there_and_in_order(
    digits: Dataset, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_split, "PREFETCH_BYTES", 5 * 80_000)
    split = digits.split("test")
    encoded = EncodedSplit(split, processor, MODALITIES, "ones", memory=MemoryBudget(300_000))
    plain = EncodedSplit(split, processor, MODALITIES, "ones")
    steps = [{"complete": np.array([7, 2]), "missing-audio": np.array([9])}, {"complete": np.array([2, 30])}] * 6
    seen = []
    for _ in range(2):
        for step in encoded.prefetch(steps, dict.items):
            seen.append(step)
            known = {**encoded._prefetched, **encoded._cache}
            assert {(p, m) for c, ps in step.items() for p in ps for m in Case.parse(c, MODALITIES).present} <= set(
                known
            )
            for case, positions in step.items():
                state = Case.parse(case, MODALITIES)
                for ours, theirs in zip(
                    encoded.samples(positions, state), plain.samples(positions, state), strict=True
                ):
                    assert same(ours, theirs)
        assert not encoded._prefetched and 0 < sum(t.nbytes for t in encoded._cache.values()) <= 300_000
    assert seen == steps * 2
    encoded.release()
    assert not encoded._cache and encoded._memory.left == 300_000


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_workers("3", 10, on_cpu=True) == 3
    assert resolve_workers("auto", 100, on_cpu=False) == resolve_workers("auto", 10**6, on_cpu=True) == 0
    for cores, processes, expected in ((16, 1, 15), (16, 4, 3), (2, 4, 1), (256, 1, loading.MAX_WORKERS)):
        monkeypatch.setattr(loading, "available_cores", lambda cores=cores: cores)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert resolve_workers("auto", 10**6, on_cpu=False) == expected
    with pytest.raises(UsageError, match="--workers many: give a whole number, 0 for none, or auto"):
        resolve_workers("many", 10, on_cpu=True)


class Picky:
    """A processor that cannot stand one picture."""

    encode_all, pack = Processor.encode_all, Processor.pack

    def __init__(self, picture: Any) -> None:
        self.picture = picture

    def encode(self, modality: str, raw: Any) -> torch.Tensor:
        if np.array_equal(raw, self.picture):
            raise ValueError("height and width must be > 0")
        return torch.from_numpy(np.array(raw))


def test_what_a_processor_cannot_stand_is_named(digits: Dataset) -> None:
    """And only that, though it is given several at once."""
    split = digits.split("test")
    loader = Loader(split, Picky(decode(split.read([4])[0], "image")))  # type: ignore[arg-type]
    several = dict.fromkeys(range(2, 9), ("image",))
    with pytest.raises(DataError, match=rf"sample '{split.ids[4]}' of .*: its image cannot be processed \(height and"):
        list(loader.load([several]))
    assert [list(found) for found in loader.check([several])] == [[(4, "image")]]


@pytest.fixture
def damaged(digits: Dataset, tmp_path: Path) -> Dataset:
    """Twelve samples of each split: of test, the picture of the third and the sound of the sixth are broken."""
    rows = []
    for name in ("train", "validation", "test"):
        for i, s in enumerate(digits.split(name).read(range(12))):
            image, audio = s.image, s.audio
            if name == "test":
                image, audio = (b"no picture" if i == 2 else image), (b"no sound" if i == 5 else audio)
            rows.append(SampleRow(name, s.id, s.label, image=image, audio=audio, text=s.text))
    about = {"classes": CLASSES, "task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    write_dataset(tmp_path / "damaged", rows, name="digits", modalities=("image", "text", "audio"), **about)
    return Dataset(tmp_path / "damaged")


def test_a_split_as_if_samples_were_not_there_or_lacked_a_modality(damaged: Dataset) -> None:
    split = damaged.split("test")
    fewer = split.without([2, 5])
    assert fewer.ids == tuple(split.ids[i] for i in range(12) if i not in (2, 5)) and len(fewer) == 10
    assert [s.id for s in fewer] == list(fewer.ids) == [s.id for s in fewer.read(range(10))]
    assert fewer.labels == tuple(split.labels[i] for i in range(12) if i not in (2, 5))
    lacking = split.with_missing({"image": [2]})
    assert not lacking.presence["image"][2] and lacking.presence["image"].sum() == 11
    assert lacking.read([2])[0].image is None and lacking.read([2])[0].audio is not None
    both = lacking.without([0])
    assert not both.presence["image"][1] and both.read([1])[0].image is None
    assert split.presence["image"].all() and split.read([2])[0].image == b"no picture"
    with pytest.raises(DataError, match="no sample of split 'test' can be used"):
        split.without(range(12))
