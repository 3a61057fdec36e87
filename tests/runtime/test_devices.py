"""What a device's errors and number formats mean."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mmrobust.errors import DeviceError
from mmrobust.runtime.devices import device_errors, resolve_dtype


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 is as PyTorch sets it, before and after."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("CUDA error: out of memory\nCUDA kernel errors might be reported later", "has too little memory"),
        ("CUDA driver error: out of memory", "has too little memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "has too little memory"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "has too little memory"),
        ("Unable to find a valid cuDNN algorithm to run convolution", "has too little memory"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes", "has too little memory"),
        ("CUDA error: an illegal memory access was encountered", "failed"),
        ("CUDA error: device-side assert triggered", "failed"),
    ],
)
def test_a_lack_of_memory_is_told_from_a_device_that_failed(said: str, means: str) -> None:
    with (
        pytest.raises(DeviceError, match=f"device cuda:0 {means}"),
        device_errors("cuda:0", "take less", "go on"),
    ):
        raise RuntimeError(said)


@pytest.mark.usefixtures("tf32")
def test_float32_on_a_gpu_is_no_tf32() -> None:
    gpu = torch.device("cuda")
    assert resolve_dtype("auto", gpu) == "bfloat16"
    assert torch.backends.cudnn.allow_tf32
    assert resolve_dtype("float32", gpu) == "float32"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
