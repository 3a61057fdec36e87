"""What is looked at before a file from elsewhere is believed: that it is one, its size, and what it asks for.

A checkpoint is data. Reading one must not hang on a pipe, fill the memory because a number in a config says so, or
read what lies outside its folder.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmrobust.errors import CheckpointError, MmrobustError
from mmrobust.storage.files import check_file, read_json

SLACK = 2**24
"""Numbers that a model may have beyond what its files could hold: tables that are computed and not kept."""

EACH = 4096
"""What every tensor counts at least, so that a billion empty layers end as soon as one of a billion rows does."""

ZIP_START = b"PK\x03\x04"
"""How a file begins that ``torch.save`` has written since 1.6."""

_MAKERS: tuple[Callable[..., Any], ...] = (
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.rand,
    torch.randn,
    torch.arange,
    torch.linspace,
    torch.eye,
)


class Allowance(TorchFunctionMode):
    """Refuses to make more tensors than the files that are to fill them could hold.

    A config's numbers are believed by the code that builds a model of them, so a billion in the wrong place fills the
    memory before any weight is looked at. Inside this, every tensor that is made is measured first.

    Args:
        numbers: how many may be made.
        what: whose they are, for the message.

    Raises:
        CheckpointError: more are asked for.
    """

    def __init__(self, numbers: int, what: str) -> None:
        super().__init__()
        self._left, self._numbers, self._what = numbers + SLACK, numbers, what

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func``, after a look at how much it would make."""
        kwargs = kwargs or {}
        if func in _MAKERS:
            try:  # on the meta device a tensor has a size and no memory
                size = func(*args, **{**kwargs, "device": "meta"}).numel()
            except (RuntimeError, OverflowError):  # more than can be counted
                size = self._left + 1
            self._left -= max(size, EACH)
            if self._left < 0:
                raise CheckpointError(
                    f"{self._what}: its config asks for a model of more numbers than its weights "
                    f"({self._numbers:,} bytes) hold"
                )
        return func(*args, **kwargs)


def weights_size(folder: Path) -> int:
    """Bytes of the weight files in ``folder``, each of which is looked at.

    Raises:
        CheckpointError: one is no regular file, or an index names one outside the folder.
    """
    for index in folder.glob("*.index.json"):
        names = read_json(index, "index of weights", CheckpointError).get("weight_map", {})
        for name in names.values() if isinstance(names, Mapping) else [names]:
            if not isinstance(name, str) or Path(name).name != name:
                raise CheckpointError(f"{index}: names a file outside its folder: {name!r}")
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    for file in files:
        check_file(file, "weights", CheckpointError)
    return sum(file.stat().st_size for file in files)


def check_finite(tensors: Mapping[str, Tensor], source: object, error: type[MmrobustError] = CheckpointError) -> None:
    """Raise where a weight is not a finite number, named.

    Raises:
        MmrobustError: of the type ``error``.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise error(f"{source}: weight {name} holds NaN or infinite numbers; the training that made it diverged")


def check_range(values: Mapping[str, Any], ranges: Iterable[tuple[str, float, float]], source: object) -> None:
    """Raise where a number is none, or lies outside its range (name, least, most), both included.

    Raises:
        CheckpointError: the message names it.
    """
    for name, least, most in ranges:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise CheckpointError(f"{source}: {name} = {value!r}: must be a number from {least:g} to {most:g}")


def check_archive(file: Path, error: type[MmrobustError] = CheckpointError) -> None:
    """Raise where a zip archive is cut off, or would unpack to more than it is itself: ``torch.save`` packs nothing.

    Raises:
        MmrobustError: of the type ``error``: that.
    """
    with file.open("rb") as opened:
        if opened.read(len(ZIP_START)) != ZIP_START:
            return
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as cause:
        reason = " ".join(str(cause).split())[:120] or type(cause).__name__
        raise error(f"{file}: is no file that PyTorch wrote, or is cut off ({reason})") from cause
    if unpacked > file.stat().st_size:
        raise error(f"{file}: refused: it unpacks to {unpacked:,} bytes, more than it holds")
