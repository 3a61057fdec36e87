"""Every combination on a device that is not there: fake CUDA tensors have a shape, a type and a device, but no values.

So an operation that mixes devices raises, and so does one that must know a value (``tolist``, ``if tensor``, boolean
indexing), for which a real device would have to be waited for. Tensors that a forward pass makes on the CPU are
counted: each of them would have to be copied to the device first. A PyTorch without CUDA has no backward pass for its
fake tensors; whole training steps run on meta tensors, of which the same is true.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmrobust.cases import PROMPTINGS, Case
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import HEADS
from mmrobust.models.methods import METHODS
from mmrobust.training.distributed import ProcessGroup
from mmrobust.training.objective import make_optimizer
from mmrobust.training.recipe import Recipe
from mmrobust.training.trainer import Trainer

BACKBONES: list[tuple[str, dict[str, Any]]] = [
    ("tiny-vilt", {}),
    ("tiny-vilt", {"max_text_length": 96}),
    ("tiny-clip", {}),
    ("tiny-cavmae", {}),
    ("tiny-cavmae", {"missing_path": "single"}),
    ("tiny-cavmae-fusion", {}),
    ("tiny-towers", {}),
]


_INDEXED = torch.Tensor.__getitem__


def indexed(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """``tensor[index]`` by single operations: indexing sets the current device, and a PyTorch without CUDA cannot."""
    if not isinstance(tensor, FakeTensor):
        return _INDEXED(tensor, index)
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [each for each in index if not isinstance(each, torch.Tensor)]:
        place = [each is Ellipsis for each in index].index(True)
        taken = sum(each is not None and each is not Ellipsis for each in index)
        index = (*index[:place], *[slice(None)] * (tensor.ndim - taken), *index[place + 1 :])
    dim, tensors = 0, []
    for each in index:
        if isinstance(each, int):
            tensor = tensor.select(dim, each)
            continue
        if each is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(each, slice) and each != slice(None):
            tensor = torch.ops.aten.slice(tensor, dim, each.start, each.stop, each.step or 1)
        tensors.append(each if isinstance(each, torch.Tensor) else None)
        dim += 1
    return tensor if all(each is None for each in tensors) else torch.ops.aten.index(tensor, tensors)


class MadeOnCpu(TorchDispatchMode):
    """Collects the operations that return a CPU tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in tree_leaves(result)):
            self.found.append(str(func))
        return result


def on_fake_gpu(module: nn.Module) -> None:
    """Replace all weights and buffers by fake ones; call it within a ``FakeTensorMode``."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
                part._parameters[name] = nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")


@pytest.fixture
def no_gpu_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sets the current device goes another way; see :func:`indexed`."""
    monkeypatch.setattr(torch.Tensor, "__getitem__", indexed)
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda tensor: tensor.clone(memory_format=torch.contiguous_format))
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # whose grid_sample has no fake form


@pytest.fixture
def batch(samples: Callable[..., Any]) -> Callable[[Classifier, str], dict[str, torch.Tensor]]:
    """Three samples, of different lengths and sizes where the backbone has such."""

    def make(built: Classifier, backbone: str) -> dict[str, torch.Tensor]:
        if backbone == "tiny-clip":
            texts = [{"text": torch.arange(1, 6 + i), "image": torch.randn(3, 64, 64)} for i in range(3)]
            return dict(built.backbone.processor.collate(texts))
        return dict(built.backbone.processor.collate(samples(backbone, 3)))

    return make


@pytest.mark.skipif(torch.__version__ < "2.7", reason="fake tensors of PyTorch 2.6 call the driver")
@pytest.mark.parametrize(
    ("method", "head"),
    [*((method, "linear") for method in METHODS), *product(("none", "mmp"), sorted(HEADS.keys() - {"linear"}))],
)
@pytest.mark.parametrize(("backbone", "settings"), BACKBONES, ids=str)
def test_a_forward_pass_stays_on_the_device(
    classifier: Callable[..., Classifier],
    batch: Any,
    no_gpu_needed: None,
    backbone: str,
    settings: dict[str, Any],
    method: str,
    head: str,
) -> None:
    try:
        built = classifier(backbone, method, head, backbone_set=settings, scrambled=False)
    except UsageError as refused:
        pytest.skip(str(refused))
    inputs = batch(built, backbone)
    with FakeTensorMode(), torch.inference_mode():
        on_fake_gpu(built)
        inputs = {key: torch.empty(value.shape, dtype=value.dtype, device="cuda") for key, value in inputs.items()}
        with MadeOnCpu() as made:
            for case in built.cases:
                for prompting in PROMPTINGS:
                    assert built(inputs, case, prompting).device.type == "cuda"
    assert not made.found


@pytest.mark.parametrize(
    ("method", "head"),
    [*((method, "linear") for method in METHODS), *product(("mmp",), sorted(HEADS.keys() - {"linear"}))],
)
@pytest.mark.parametrize("backbone", ["tiny-vilt", "tiny-clip", "tiny-cavmae-fusion", "tiny-towers"])
def test_a_training_step_stays_on_the_device(
    classifier: Callable[..., Classifier],
    batch: Any,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    method: str,
    head: str,
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for meta tensors
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    try:
        built = classifier(backbone, method, head, scrambled=False)
    except UsageError as refused:
        pytest.skip(str(refused))
    inputs = {name: tensor.to("meta") for name, tensor in batch(built, backbone).items()}
    built.to("meta").train()
    recipe = Recipe()
    optimizer = make_optimizer(built, recipe)

    def features(positions: Any, case: Any, noise: Noise) -> Any:
        return built.features(inputs, (case.name,))

    trainer: Any = SimpleNamespace(
        classifier=built,
        recipe=recipe,
        device=torch.device("meta"),
        processes=ProcessGroup(),
        positive_weight=None,
        train_source=SimpleNamespace(features=features),
        _case=lambda name: Case.parse(name, built.modalities),
    )
    split: Any = SimpleNamespace(targets=OneHot())
    parts = [(case, np.arange(3)) for case in (built.cases[0], built.cases[-1])]
    with MadeOnCpu() as made:
        optimizer.step = lambda: None  # counts its steps on the CPU, unless it is fused
        assert Trainer._step(trainer, split, parts, 3, optimizer, Noise()).device.type == "meta"
    assert not made.found
    gradients = [parameter.grad for parameter in built.trained().values() if parameter.grad is not None]
    assert {gradient.device.type for gradient in gradients} == {"meta"}
    del optimizer.step
    optimizer.step()


class OneHot:
    """Targets that are on the device already."""

    def __getitem__(self, positions: Any) -> torch.Tensor:
        return torch.empty(len(positions), 3, device="meta")
