"""Opening a reference's checkpoint file: tensors and settings come out, no code of the file's ever runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.storage.files import read_json
from mmrobust.storage.untrusted import check_archive


class _Bookkeeping(dict[Any, Any]):
    """Stands for Lightning's own classes: an inert mapping, which keeps nothing that it is called with."""

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
"""Classes that every Lightning 1.1 checkpoint may name: it keys its callbacks' states by the callbacks' classes."""


@dataclass(frozen=True)
class ReferenceFile:
    """What a reference's checkpoint file holds."""

    state: dict[str, Tensor]
    """On the CPU, by the reference's names, as they stand in the file."""
    settings: dict[str, Any]
    """The reference's own configuration: what the file says, and over it what the ``--config`` file says."""


def read_reference(file: Path, config: Path | None = None) -> ReferenceFile:
    """Read a ``.ckpt``, ``.pth``, ``.pt`` or ``.safetensors``.

    Understood are Lightning's layout (``state_dict`` beside ``hyper_parameters``, which hold the configuration itself
    or below ``config``) and a plain state dict.

    Args:
        file: the checkpoint.
        config: JSON with the reference's own configuration names; what it says goes before what the file says.

    Raises:
        CheckpointError: no such file, cut off, no checkpoint, one that would run code, or tensors that are no weights.
        UsageError: ``config`` cannot be read.
    """
    told = {} if config is None else read_json(config, "reference's configuration (--config)", UsageError)
    if not file.is_file():
        said = "is a folder; name the checkpoint file in it" if file.is_dir() else "no such file"
        raise CheckpointError(f"{file}: {said}")
    held = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    state, found = _parts(held)
    if not state:
        raise CheckpointError(f"{file}: holds no weights: neither a state dict nor one below 'state_dict'")
    for name, tensor in state.items():
        _check_tensor(file, name, tensor)
    return ReferenceFile(dict(state), {**found, **told})


def _read_safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({_short(cause)})") from cause


def _read_pickle(file: Path) -> Any:
    """What ``torch.load`` gives without running code of the file's."""
    check_archive(file)
    known: list[Any] = [(_Bookkeeping, name) for name in LIGHTNING]
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles it warns before it refuses them: the refusal is enough
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as cause:  # what a broken or hostile pickle raises has no common type
        asked = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)|unrecognized function (.+)", str(cause))
        if asked is None:
            raise CheckpointError(f"{file}: is no file that PyTorch wrote, or is cut off ({_short(cause)})") from cause
        raise CheckpointError(
            f"{file}: refused, since reading it would run code: it asks for {asked[1] or asked[2]}. "
            "Where you trust it, load it once with torch.load(FILE, weights_only=False), save what lies below its "
            "'state_dict' alone with torch.save, and import that, with --config"
        ) from cause


def _parts(held: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """State dict and settings of what lay in the file; empty where it is something else."""
    if not isinstance(held, Mapping):
        return {}, {}
    if isinstance(held.get("state_dict"), Mapping):
        settings = held.get("hyper_parameters")
        settings = settings if isinstance(settings, Mapping) else {}
        inner = settings.get("config")
        return held["state_dict"], inner if isinstance(inner, Mapping) else settings
    return (held, {}) if any(isinstance(value, Tensor) for value in held.values()) else ({}, {})


def _check_tensor(file: Path, name: object, tensor: object) -> None:
    """Raise where an entry of a state dict is no weight that a model could hold."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise CheckpointError(f"{file}: entry {name!r} of its state dict is no tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        raise CheckpointError(f"{file}: weight {name} is of an unusual kind ({tensor.dtype}, {tensor.layout})")
    # A view can claim any shape over a few bytes; copying it would fill the memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{file}: weight {name} claims {tensor.numel():,} values, more than the file holds")
    if not tensor.isfinite().all():
        raise CheckpointError(f"{file}: weight {name} holds values that are not finite (NaN or infinite)")


def _short(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:120] or type(cause).__name__
