"""Reading a checkpoint file of a paper's code: its tensors and settings, without running code from it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.storage.files import read_json
from mmrobust.storage.weights import check_archive, read_weights


class _Bookkeeping(dict[Any, Any]):
    """Replaces Lightning's own classes: an inert mapping that discards its arguments."""

    def __new__(cls, *_: object, **__: object) -> _Bookkeeping:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass


LIGHTNING = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Classes that a Lightning 1.1 checkpoint may name: its callbacks' states are keyed by the callbacks' classes."""


def read_reference(file: Path, config: Path | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and settings in a ``.ckpt``, ``.pth``, ``.pt`` or ``.safetensors``, under the names in the file.

    It may have Lightning's layout (``state_dict`` beside ``hyper_parameters``, which are the configuration or hold it
    under ``config``) or be a plain state dict.

    Args:
        file: the checkpoint.
        config: JSON with settings under the paper's own names; they override those in the file.

    Raises:
        CheckpointError: no such file, a truncated one, no checkpoint, one that would run code, or invalid weights.
        UsageError: ``config`` cannot be read.
    """
    overrides = {} if config is None else read_json(config, "reference's configuration (--config)", UsageError)
    if not file.is_file():
        problem = "is a folder; name the checkpoint file in it" if file.is_dir() else "no such file"
        raise CheckpointError(f"{file}: {problem}")
    contents = read_weights(file, "checkpoint") if file.suffix == ".safetensors" else _read_pickle(file)
    state, settings = _state_and_settings(contents)
    if not state:
        raise CheckpointError(f"{file}: holds no weights: neither a state dict nor one below 'state_dict'")
    for name, tensor in state.items():
        _check_tensor(file, name, tensor)
    return dict(state), {**settings, **overrides}


def _read_pickle(file: Path) -> Any:
    """The result of ``torch.load`` without running code from the file."""
    check_archive(file)
    known: list[Any] = [(_Bookkeeping, name) for name in LIGHTNING]
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about odd pickles before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as cause:  # broken and hostile pickles raise errors of many types
        asked = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)|unrecognized function (.+)", str(cause))
        if asked is None:
            # PyTorch puts advice on weights_only around what its unpickler found.
            found = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(cause))
            reason = found[1].strip() if found else type(cause).__name__
            raise CheckpointError(f"{file}: was not written by PyTorch or is truncated ({reason})") from cause
        raise CheckpointError(
            f"{file}: refused, since reading it would run code: it asks for {asked[1] or asked[2]}. "
            "If you trust it, load it once with torch.load(FILE, weights_only=False), save only its 'state_dict' with "
            "torch.save, and import that, with --config"
        ) from cause


def _state_and_settings(contents: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """State dict and settings in the contents of the file; empty if it holds something else."""
    if not isinstance(contents, Mapping):
        return {}, {}
    if isinstance(contents.get("state_dict"), Mapping):
        settings = contents.get("hyper_parameters")
        settings = settings if isinstance(settings, Mapping) else {}
        inner = settings.get("config")
        return contents["state_dict"], inner if isinstance(inner, Mapping) else settings
    return (contents, {}) if any(isinstance(value, Tensor) for value in contents.values()) else ({}, {})


def _check_tensor(file: Path, name: object, tensor: object) -> None:
    """Raise unless an entry of a state dict can be the weight of a model."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise CheckpointError(f"{file}: entry {name!r} of its state dict is not a tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        raise CheckpointError(f"{file}: weight {name} is of an unusual kind ({tensor.dtype}, {tensor.layout})")
    # A view of a few bytes can have any shape; copying it would fill the memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{file}: weight {name} claims {tensor.numel():,} values, more than the file holds")
    if not tensor.isfinite().all():
        raise CheckpointError(f"{file}: weight {name} holds NaN or infinite numbers")
