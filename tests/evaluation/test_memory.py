"""Batches that do not fit into memory are run in halves, and nothing that is done is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrobust.cases import PROMPTINGS
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
        def limited(alone: Any, prompts: Any, partial: Any) -> Any:
            size = len(alone["text"].tokens_BLD)
            if size > room:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} GiB")
            ran.append(size)
            return fuse(alone, prompts, partial)

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


@pytest.mark.parametrize(("backbone", "method", "kinds"), [("tiny-vilt", "none", 1), ("tiny-cavmae", "mmp", 4)])
def test_layers_compile_once_whatever_the_case_and_the_batch(
    classifier: Callable[..., Classifier],
    samples: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    method: str,
    kinds: int,
) -> None:
    import torch._dynamo

    from mmrobust.models.classifier import compile_model

    graphs: list[Any] = []

    def traced(function: Any, **settings: Any) -> Any:  # the compiler's front end alone: code generation takes minutes
        return compile_(function, backend=lambda graph, _: (graphs.append(graph), graph.forward)[1], **settings)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    built = classifier(backbone, method)
    batches = [built.backbone.processor.collate(samples(backbone, size)) for size in (2, 5)]
    asked = [(batch, case, prompting) for batch in batches for case in built.cases for prompting in PROMPTINGS]
    with torch.inference_mode():
        expected = [built(*each) for each in asked]
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compile_model(built)
        for each, logits in zip(asked, expected, strict=True):
            torch.testing.assert_close(built(*each), logits, rtol=0, atol=1e-5)
    assert len(graphs) == kinds
    if torch.__version__ >= "2.7":  # before, a dataclass is a break, between layers
        assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's compiler
def test_without_a_compiler(
    cli: Callable[..., Any], trained: Callable[..., Path], digits: Dataset, tmp_path: Path, monkeypatch: Any
) -> None:
    import torch._inductor.config

    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/bin/false"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    out = cli("eval", trained("none", "linear"), "--data", digits.folder, "--limit", 4, "--compile", "--out", tmp_path)
    assert out.code == 2 and "cannot be compiled here" in out.err and "leave out --compile" in out.err
