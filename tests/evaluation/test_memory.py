"""Batches that do not fit into memory are run in halves, and nothing that is done is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.errors import UsageError
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.devices import CPU_BATCH_SIZE, LARGEST_BATCH, BatchSize, evaluation_batch_size, out_of_memory

KEY = ("complete", "situation")
CPU = torch.device("cpu")


@pytest.fixture
def cramped(classifier: Callable[..., Classifier], digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A predictor, and a function that leaves its device room for so many samples; what ran is written down."""
    built = classifier("tiny-vilt")
    encoded = EncodedSplit(digits.split("test"), built.backbone.processor, built.modalities, built.fill)
    ran: list[int] = []
    fuse = built.backbone.fuse

    def leave(room: int) -> list[int]:
        def limited(alone: Any, prompts: Any) -> Any:
            size = len(alone["text"].tokens_BLD)
            if size > room:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} GiB")
            ran.append(size)
            return fuse(alone, prompts)

        monkeypatch.setattr(built.backbone, "fuse", limited)
        return ran

    return built, encoded, leave


def test_what_does_not_fit_is_run_in_halves(cramped: Any) -> None:
    built, encoded, leave = cramped
    wanted = {KEY: np.arange(30)}
    expected = Predictor(built, encoded, 30)(wanted)[KEY]
    ran = leave(5)
    size, advanced = BatchSize(20, grows=True), []
    predictor = Predictor(built, encoded, size)
    np.testing.assert_allclose(predictor(wanted, advanced.append)[KEY], expected, rtol=0, atol=1e-5)
    assert size.now == 5 and sum(ran) == sum(advanced) == 30  # every sample once
    assert not size._grows
    leave(0)
    with pytest.raises(UsageError, match="device cpu has too little memory for a single sample; use another --device"):
        predictor(wanted)


def test_other_errors_are_not_taken_for_it(cramped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built, encoded, _ = cramped

    def broken(*_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(built.backbone, "fuse", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Predictor(built, encoded)({KEY: np.arange(3)})


LIMITED = """
import resource
import torch
from mmrobust.runtime.devices import out_of_memory

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    torch.empty(2**32, dtype=torch.uint8)
except RuntimeError as error:
    assert out_of_memory(error), error
    print("noticed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_a_machine_without_memory_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert done.stdout == "noticed\n", done.stderr
    assert not out_of_memory(RuntimeError("expected scalar type Float"))


def test_batch_sizes_of_an_evaluation() -> None:
    assert evaluation_batch_size("auto", CPU).now == CPU_BATCH_SIZE
    assert evaluation_batch_size("7", CPU).now == 7
    with pytest.raises(UsageError, match="batch size '0': give a positive whole number, or auto"):
        evaluation_batch_size("0", CPU)
    size = BatchSize(LARGEST_BATCH // 2, grows=True)
    assert size.has_room(peak=40, total=100) and not size.has_room(peak=43, total=100)
    size.grow(CPU)  # nothing is known of how much a CPU has left
    assert size.now == LARGEST_BATCH // 2
    assert not BatchSize(LARGEST_BATCH, grows=True).has_room(peak=1, total=100)


def test_a_compiled_model_gives_the_same(
    classifier: Callable[..., Classifier], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmrobust.models.classifier import compile_model

    compiled: list[str] = []

    def traced(function: Any, **settings: Any) -> Any:  # the compiler's front end alone: code generation takes minutes
        assert settings == {"dynamic": True}
        compiled.append(function.__name__)
        return compile_(function, backend="eager", **settings)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    built = classifier("tiny-cavmae", "mmp", method_set={"length": 2, "depth": 1})
    encoded = EncodedSplit(digits.split("test"), built.backbone.processor, built.modalities, built.fill)
    wanted = {KEY: np.arange(5)}
    expected = Predictor(built, encoded, 4)(wanted)[KEY]
    compile_model(built)
    np.testing.assert_allclose(Predictor(built, encoded, 4)(wanted)[KEY], expected, rtol=0, atol=1e-5)
    assert compiled == ["encode_modality", "fuse"]
