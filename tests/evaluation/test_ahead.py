"""What is loaded and prepared while the device computes: the same predictions, to the last bit, and no waiting."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.loading import Loader
from mmrobust.degradations import Noise
from mmrobust.errors import DataError
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction import predictor as module
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.devices import LARGEST_BATCH, BatchSize
from mmrobust.runtime.machine import MemoryBudget

CASES = ("complete", "missing-text", "noisy-image:blur@3")  # the last is decoded again, batch by batch
PLAN = {(case, "situation"): np.arange(60) for case in CASES}


@pytest.fixture(autouse=True)
def five_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve samples each. No memory is pinned where there is no GPU."""
    monkeypatch.setattr(module, "STRETCH_SAMPLES", 12)
    monkeypatch.setattr("mmrobust.data.encoded_split.PREFETCH_BYTES", 1)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    new_empty = torch.Tensor.new_empty

    def unpinned(tensor: torch.Tensor, *shape: int, pin_memory: bool = False) -> torch.Tensor:
        return new_empty(tensor, *shape)

    monkeypatch.setattr(torch.Tensor, "new_empty", unpinned)


@pytest.fixture(scope="module")
def built(classifier: Callable[..., Classifier]) -> Classifier:
    return classifier("tiny-vilt")


@pytest.fixture
def predictor(built: Classifier, digits: Dataset) -> Callable[..., Predictor]:
    """A predictor that works ahead, as on a GPU, or does not."""

    def make(ahead: bool = True, split: Any = None, size: int | BatchSize = 4) -> Predictor:
        split = split or digits.split("test")
        encoded = EncodedSplit(
            split, built.backbone.processor, built.modalities, "ones", Noise(), memory=MemoryBudget(0)
        )
        made = Predictor(built, encoded, size)
        made.ahead = ahead
        return made

    return make


def test_the_same_predictions_to_the_last_bit(predictor: Callable[..., Predictor]) -> None:
    ahead, alone = (list(predictor(each).stretches(PLAN)) for each in (True, False))
    assert len(ahead) == len(alone) == 5
    for ours, theirs in zip(ahead, alone, strict=True):
        assert ours.keys() == theirs.keys() == PLAN.keys()
        for key, (positions, logits) in ours.items():
            assert (positions == theirs[key][0]).all() and (logits == theirs[key][1]).all()


def test_the_next_stretch_is_loaded_while_one_is_computed(
    predictor: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[bool] = []
    second = threading.Event()
    load = Loader.load

    def watched(self: Loader, requests: Any) -> Iterator[Any]:
        for number, encoded in enumerate(load(self, requests)):
            if number == 1:
                second.set()
            yield encoded

    monkeypatch.setattr(Loader, "load", watched)
    for _ in predictor(size=1).stretches(PLAN, lambda _: waited.append(second.wait(0 if False in waited else 20))):
        pass
    assert all(waited)


def test_what_cannot_be_read_is_named_and_all_threads_end(
    predictor: Callable[..., Predictor], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    done = []
    split = digits.split("test")
    read = type(split).read

    def failing(self: Any, positions: Any) -> Any:
        if 50 in positions:
            raise DataError("row 50 is damaged")
        return read(self, positions)

    monkeypatch.setattr(type(split), "read", failing)
    monkeypatch.setattr("mmrobust.data.loading.WINDOW_SAMPLES", 12)
    with pytest.raises(DataError, match="row 50 is damaged"):
        done.extend(predictor(split=split).stretches(PLAN))
    assert threading.active_count() == before


def test_all_threads_end_with_the_computation(
    predictor: Callable[..., Predictor], built: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    pieces = predictor().stretches(PLAN)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # as Ctrl-C does
    assert threading.active_count() == before

    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(built.backbone, "fuse", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as raised:
        list(predictor().stretches(PLAN))
    assert threading.active_count() == before, raised  # though the error holds all frames


def test_what_does_not_fit_beside_the_batches_before_is_copied_later(
    predictor: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(predictor().stretches(PLAN))

    def full(_: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", full)
    size = BatchSize(4)
    for ours, theirs in zip(predictor(size=size).stretches(PLAN), expected, strict=True):
        assert all((ours[key][1] == theirs[key][1]).all() for key in PLAN)
    assert size.now == 4


def test_copies_have_a_stream_of_their_own_that_is_waited_for(
    predictor: Callable[..., Predictor], built: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their memory is not copied to again before it was computed with."""
    expected = list(predictor().stretches(PLAN))
    events: list[str] = []

    class Stream:
        copied: Any = None

        def record_event(self) -> Any:
            self.copied = object()
            return self.copied

        def wait_event(self, event: Any) -> None:
            assert event is not None and made._copies.copied is not None
            events.append("wait")

    @contextmanager
    def copying(stream: Any) -> Iterator[None]:
        assert stream is made._copies
        yield

    def embedded(modality: str, *arguments: Any) -> Any:
        events.append("compute")
        return embed(modality, *arguments)

    made, computing, embed = predictor(), Stream(), built.backbone.embed
    made._copies = Stream()  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "stream", copying)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: events.append(f"note {stream is computing}"))
    monkeypatch.setattr(built.backbone, "embed", embedded)
    for ours, theirs in zip(made.stretches(PLAN), expected, strict=True):
        assert all((ours[key][1] == theirs[key][1]).all() for key in PLAN)
    text = " ".join(event for event, last in zip(events, ["", *events], strict=False) if event != last)
    assert re.fullmatch("(wait note True compute ?)+", text)


def test_a_size_grows_once_batches_of_it_have_run(
    predictor: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of the size before may be ahead: what memory they take says nothing of larger ones."""
    size = BatchSize(1, grows=True)
    monkeypatch.setattr(size, "grow", lambda _: setattr(size, "now", 2 * size.now))
    run, ran = Predictor._run, []

    def watched(self: Predictor, batch: Any, stretch: Any, advance: Any) -> None:
        ran.append(len(batch.rows))
        run(self, batch, stretch, advance)

    monkeypatch.setattr(Predictor, "_run", watched)
    list(predictor(size=size).stretches({("complete", "situation"): np.arange(60)}))
    assert sum(ran) == 60 and size.now <= 2 * max(ran)


def test_stretches_have_room_for_large_batches_beside_a_gpu(
    predictor: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRETCH_SAMPLES", LARGEST_BATCH)
    made = predictor(size=BatchSize(64, grows=True))
    made.device = torch.device("cuda")
    made.encoded.fills["image"] = torch.zeros(3, 384, 384)
    monkeypatch.setattr(module, "free_memory", lambda: 2**36)
    assert made._stretch_size() == LARGEST_BATCH
    monkeypatch.setattr(module, "free_memory", lambda: 2**32)  # 256 MiB of it
    assert made._stretch_size() == 2**28 // (3 * 384 * 384 * 4 + made.encoded.fills["text"].nbytes)
    monkeypatch.setattr(module, "free_memory", lambda: 2**20)
    assert made._stretch_size() == 2 * 64
