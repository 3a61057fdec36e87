"""How much of a GPU's matrix-multiply peak a bfloat16 forward pass can reach, counted kernel by kernel without a GPU.

    python benchmarks/roofline.py

A kernel takes at least as long as its products at the peak, and as its inputs and outputs through the memory. The share
is the time of all products at the peak ÷ the sum over kernels of the longer of the two. So no measurement, of the
models of ``gpu_throughput.py`` in batches of 64, can exceed it. Tensors are fake: they have shapes and types alone.
"""

from __future__ import annotations

from typing import Any

import gpu_throughput
import measuring
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.held_weights import held_in_bfloat16

BATCH = 64
PEAK, BANDWIDTH = 800e12, 3e12
"""Operations and bytes a second: a large bfloat16 product, and the memory, of a present-day data centre's GPU."""


class Kernels(TorchDispatchMode):
    """Counts the kernels of what runs in it, one for each operation that is no mere view."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.operations, self.bytes_moved, self.seconds = 0, 0.0, 0.0, 0.0

    def add(self, operations: float, read: list[Tensor], written: list[Tensor]) -> None:
        """Count one kernel."""
        moved = sum(map(_bytes, {id(tensor): tensor for tensor in read}.values())) + sum(map(_bytes, written))
        self.count += 1
        self.operations += operations
        self.bytes_moved += moved
        self.seconds += max(operations / PEAK, moved / BANDWIDTH)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read, written = ([leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)] for tree in (args, result))
        if not written or func.is_view or func is torch.ops.aten._unsafe_view.default:
            return result
        if func is torch.ops.aten.embedding.default:  # reads the rows that it returns, not the table
            read = written
        count = flop_registry.get(func.overloadpacket)
        self.add(count(*args, **kwargs, out_val=result) if count else 0, read, written)
        return result


class FusedAttention(TorchFunctionMode):
    """Counts an attention as the one kernel that it is on a GPU."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        attended = query.detach()
        mask = [] if kwargs["attn_mask"] is None else [kwargs["attn_mask"]]
        self.kernels.add(4 * query.numel() * key.shape[2], [query, key, value, *mask], [attended])
        return attended


def _bytes(tensor: Tensor) -> int:
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())  # what is expanded is read once


@torch.no_grad()  # in inference mode, linear would come as it is
def counted(classifier: Classifier, one: dict[str, Tensor]) -> Kernels:
    """The kernels of a forward pass of a batch, with weights held as an evaluation holds them."""
    batch = {name: value.expand(BATCH, *value.shape[1:]).clone() for name, value in one.items()}
    classifier.dtype = "bfloat16"
    kernels = Kernels()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with held_in_bfloat16(classifier), fake, kernels, FusedAttention(kernels):
        classifier(batch)
    return kernels


def main() -> None:
    """Count and report."""
    asked = measuring.arguments(__doc__, samples=0)
    rows = []
    for name, (classifier, one) in gpu_throughput.models().items():
        found = counted(classifier, one)
        share = 100 * found.operations / PEAK / found.seconds
        per_sample = found.operations / BATCH / 1e9, found.bytes_moved / BATCH / 1e6
        rows.append((name, found.count, *per_sample, share))
    columns = ("model", "kernels", "GFLOP a sample", "MB a sample", "% of the peak at most")
    where = f"{PEAK / 1e12:.0f} TFLOP/s and {BANDWIDTH / 1e12:.0f} TB/s"
    measuring.report(f"bfloat16, batches of {BATCH}, {where}", columns, rows, asked.json)


if __name__ == "__main__":
    main()
