"""Files of weights: checked before they are read, and models limited to the size of their files.

A checkpoint is data, possibly from a stranger. Reading one must not run code, hang on a pipe, read files outside its
folder, or fill the memory because a config asks for a huge model.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmrobust.errors import CheckpointError, MmrobustError
from mmrobust.storage.files import (
    atomic_file,
    check_file,
    files_in,
    is_utf8,
    read_error,
    read_json,
    system_failure,
)

SLACK = 2**24
"""Numbers that a model may have beyond the size of its files: tables that are computed and not stored."""
LEAST_PER_TENSOR = 4096
"""Numbers that every tensor counts at least, so that a billion empty layers are refused as soon as one huge one is."""
ZIP_START = b"PK\x03\x04"
"""First bytes of the files that ``torch.save`` has written since PyTorch 1.6."""

_CREATORS: tuple[Callable[..., Any], ...] = (
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn),
    *(torch.arange, torch.linspace, torch.eye),
)


def check_place(path: str | Path) -> None:
    """Raise a ``CheckpointError`` if the libraries for weights and tokenizers cannot open ``path``."""
    if not is_utf8(path):
        raise CheckpointError(
            f"{path}: weights are neither written to nor read from a path that is not UTF-8; rename it"
        )


def read_weights(file: Path, what: str, hint: str = "") -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; ``what`` names them in messages, ``hint`` says what to do.

    Raises:
        CheckpointError: no such file, not a regular one, or it is damaged.
        ReadError: the system did not read it.
    """
    check_file(file, what, CheckpointError)
    try:
        return dict(load_file(file))
    except (OSError, MemoryError, SafetensorError) as cause:
        if why := system_failure(cause):
            raise read_error(file, why) from cause
        raise CheckpointError(f"{file}: cannot be read ({one_line(cause)}){hint}") from cause


def write_weights(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically, for everyone whom the umask lets read."""
    with atomic_file(file) as partial:
        save_file(dict(tensors), partial)


def one_line(cause: BaseException) -> str:
    """The start of an error's message as one line, or its type if it has none."""
    return " ".join(str(cause).split())[:120] or type(cause).__name__


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise a ``CheckpointError`` if a weight is NaN or infinite; the message names ``source`` and the weight."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: weight {name} holds NaN or infinite numbers; its training diverged")


def folder_size(folder: Path) -> int:
    """Bytes of the weight files in ``folder``, each of which is checked.

    Raises:
        CheckpointError: one is not a regular file, or an index names one outside the folder.
    """
    for index in files_in(folder, "*.index.json"):
        names = read_json(index, "index of weights", CheckpointError).get("weight_map", {})
        for name in names.values() if isinstance(names, Mapping) else [names]:
            if not isinstance(name, str) or Path(name).name != name:
                raise CheckpointError(f"{index}: names a file outside its folder: {name!r}")
    files = [*files_in(folder, "*.safetensors"), *files_in(folder, "*.bin")]
    for file in files:
        check_file(file, "weights", CheckpointError)
    return sum(file.stat().st_size for file in files)


def check_archive(file: Path, error: type[MmrobustError] = CheckpointError) -> None:
    """Raise ``error`` if a zip archive is truncated or unpacks to more than its size: ``torch.save`` only packs."""
    with file.open("rb") as opened:
        if opened.read(len(ZIP_START)) != ZIP_START:
            return
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as cause:
        if why := system_failure(cause):
            raise read_error(file, why) from cause
        raise error(f"{file}: was not written by PyTorch or is truncated ({one_line(cause)})") from cause
    if unpacked > file.stat().st_size:
        raise error(f"{file}: refused: it unpacks to {unpacked:,} bytes, more than its own size")


class TensorLimit(TorchFunctionMode):
    """Context in which no more tensors can be created than the files that are to fill them could hold.

    The libraries build whatever model a config describes, so a huge number in it would fill the memory before any
    weight is looked at. Inside this context every new tensor is counted before it is created, and where there would be
    more than so many ``numbers``, a ``CheckpointError`` names the ``source``.
    """

    def __init__(self, numbers: int, source: str) -> None:
        super().__init__()
        self._left, self._numbers, self._source = numbers + SLACK, numbers, source

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` after counting what it creates."""
        kwargs = kwargs or {}
        if func in _CREATORS:
            try:  # on the meta device a tensor has a size but takes no memory
                size = func(*args, **{**kwargs, "device": "meta"}).numel()
            except (RuntimeError, OverflowError):  # too large to be counted
                size = self._left + 1
            self._left -= max(size, LEAST_PER_TENSOR)
            if self._left < 0:
                raise CheckpointError(
                    f"{self._source}: its config asks for a model of more numbers than its weights "
                    f"({self._numbers:,} bytes) hold"
                )
        return func(*args, **kwargs)
