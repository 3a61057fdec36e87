"""Encoded inputs kept in a folder between commands: a sample is decoded and encoded once for all of them.

``FOLDER/inputs/KEY/`` holds the inputs of one modality of one split, packed. Its key is a fingerprint of all that
decides them: the data set's own fingerprint, the processor's settings, the modality and the versions of the libraries;
so nothing in it is ever out of date. Each file is written once, under a name of its own, and moved into place when it
is complete: several commands may fill a folder at a time. Where two hold the same sample, the newer file counts. What
cannot be read, or is not what its checksum says, is encoded anew and written into a further file.
"""

from __future__ import annotations

import secrets
import shutil
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmrobust.data.dataset import Split
from mmrobust.data.loading import Encoded, Loader, Request
from mmrobust.errors import UsageError
from mmrobust.storage.files import atomic_file, write_json
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.storage.provenance import versions

if TYPE_CHECKING:
    from torch import Tensor

    from mmrobust.data.processor import Processor

FORMAT_VERSION = 2  # 1: images were float32
FOLDER, ENDING = "inputs", ".safetensors"
FILE_BYTES = 32 * 2**20
"""Inputs that are collected before a file is written."""
DISK_LEFT = 0.1
"""Share of the disk that is left free; what does not fit is encoded by each command, as without a folder."""
_DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")


class _File(NamedTuple):
    """An open file of inputs."""

    handle: Any
    dtype: np.dtype[Any]
    starts: npt.NDArray[np.int64]
    """[n + 1]: where the bytes of each input begin."""
    shapes: npt.NDArray[np.int64]
    """[n, dimensions]"""
    checksums: npt.NDArray[np.int64]
    """[n]: CRC-32 of the bytes."""


class InputStore:
    """The kept inputs of one split for one processor.

    Args:
        folder: of all kept inputs; made where there is none.
        split: the samples, known by their row in the split's files.
        processor: encodes them; must describe itself.
        modalities: those to keep.

    Raises:
        UsageError: ``folder`` is a file, or the processor says nothing of what its tensors depend on.
    """

    def __init__(self, folder: Path, split: Split, processor: Processor, modalities: Sequence[str]) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--cache {folder}: is a file; name a folder")
        described = processor.described()
        if not described:
            raise UsageError(
                f"--cache {folder}: {type(processor).__name__} does not say what its tensors depend on "
                "(Processor.described), so they cannot be kept; leave --cache out"
            )
        self._split = split
        about = {
            "format_version": FORMAT_VERSION,
            "dataset": {"name": split.info.name, "fingerprint": split.info.fingerprint, "split": split.name},
            "processor": {"class": type(processor).__name__, "settings": described},
            "versions": versions(),
        }
        self._tables = {
            modality: _Table(folder / FOLDER, {**about, "modality": modality}, split.file_rows)
            for modality in modalities
        }

    def load(self, requests: Iterable[Request], loader: Loader) -> Iterator[Encoded]:
        """Yield the tensors of each request, as :meth:`Loader.load` does, which is asked for what is not kept yet."""
        kept: deque[Encoded] = deque()

        def rest() -> Iterator[Request]:
            for request in requests:
                found = self._found(request)
                kept.append(found)
                left = {p: [m for m in some if (p, m) not in found] for p, some in request.items()}
                yield {p: some for p, some in left.items() if some}

        try:
            for encoded in loader.load(rest()):
                for (position, modality), tensor in encoded.items():
                    self._tables[modality].add(int(self._split.rows[position]), tensor.numpy())
                yield kept.popleft() | encoded
        finally:
            for table in self._tables.values():
                table.write()

    def _found(self, request: Request) -> Encoded:
        import torch

        found: dict[tuple[int, str], Tensor] = {}
        for position, some in request.items():
            for modality in some:
                values = self._tables[modality].get(int(self._split.rows[position]))
                if values is not None:
                    found[position, modality] = torch.from_numpy(values)
        return found


class _Table:
    """The inputs of one modality, by row of the split's files."""

    def __init__(self, folder: Path, about: dict[str, Any], rows: int) -> None:
        self._folder, self._about = folder / fingerprint_settings(about), about
        self._files: list[_File | None] = []
        self._file_of, self._place_of = np.full(rows, -1, np.int32), np.zeros(rows, np.int32)
        files = [(path.stat().st_mtime_ns, path) for path in self._folder.glob(f"*{ENDING}") if path.is_file()]
        for _, path in sorted(files):
            self._open(path)
        self._waiting: dict[int, npt.NDArray[Any]] = {}
        self._bytes, self._full = 0, False

    def get(self, row: int) -> npt.NDArray[Any] | None:
        """The kept input of the sample in ``row``; ``None`` where there is none, or it is damaged."""
        number = int(self._file_of[row])
        file = self._files[number] if number >= 0 else None
        if file is None:
            return self._waiting.get(row)
        place = int(self._place_of[row])
        start, stop = file.starts[place : place + 2].tolist()
        values = file.handle.get_slice("values")[start:stop]
        if zlib.crc32(values) != file.checksums[place]:
            self._files[number] = None  # what else it holds is no surer
            return None
        return np.asarray(values.view(file.dtype).reshape(file.shapes[place]))

    def add(self, row: int, values: npt.NDArray[Any]) -> None:
        """Keep the input of the sample in ``row``."""
        if self._full or values.dtype.name not in _DTYPES:
            return
        first = next(iter(self._waiting.values()), values)
        if (first.dtype, first.ndim) != (values.dtype, values.ndim):
            self.write()
        self._waiting[row] = values.copy()  # what the others of a request lie in does not wait with it
        self._bytes += values.nbytes
        if self._bytes >= FILE_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is waiting into a new file."""
        from safetensors.numpy import save_file

        if not self._waiting:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        disk, waiting = shutil.disk_usage(self._folder), self._waiting
        size, self._waiting, self._bytes = self._bytes, {}, 0
        if disk.free - size < DISK_LEFT * disk.total:
            self._full = True
            return
        if not (self._folder / "about.json").exists():
            write_json(self._folder / "about.json", self._about)
        parts = [np.ascontiguousarray(values).reshape(-1).view(np.uint8) for values in waiting.values()]
        held = {
            "rows": np.asarray(list(waiting), np.int64),
            "starts": np.cumsum([0, *(part.nbytes for part in parts)], dtype=np.int64),
            "shapes": np.asarray([values.shape for values in waiting.values()], np.int64),
            "checksums": np.asarray([zlib.crc32(part.data) for part in parts], np.int64),
            "values": np.concatenate(parts),
        }
        dtype = next(iter(waiting.values())).dtype.name
        path = self._folder / f"{secrets.token_hex(8)}{ENDING}"
        with atomic_file(path) as partial:
            save_file(held, partial, {"kind": FOLDER, "version": str(FORMAT_VERSION), "dtype": dtype})
        self._open(path)

    def _open(self, path: Path) -> None:
        """Open a file and note what it holds; one that is damaged, or none of ours, holds nothing."""
        from safetensors import SafetensorError, safe_open

        try:
            handle: Any = safe_open(path, framework="np")
            about = handle.metadata() or {}
            rows, starts, shapes, checksums = (
                handle.get_tensor(name) for name in ("rows", "starts", "shapes", "checksums")
            )
            (size,) = handle.get_slice("values").get_shape()
        except (SafetensorError, OSError, ValueError):
            return
        if about.get("kind") != FOLDER or about.get("version") != str(FORMAT_VERSION) or about["dtype"] not in _DTYPES:
            return
        dtype, sizes = np.dtype(about["dtype"]), np.diff(starts)
        sound = (
            all(array.dtype == np.int64 for array in (rows, starts, shapes, checksums))
            and len(rows) == len(sizes) == len(shapes) == len(checksums) > 0
            and starts[0] == 0
            and starts[-1] == size
            and (shapes >= 0).all()
            and (shapes.prod(axis=1) * dtype.itemsize == sizes).all()
            and rows.min() >= 0
            and rows.max() < len(self._file_of)
        )
        if sound:
            self._file_of[rows], self._place_of[rows] = len(self._files), np.arange(len(rows))
            self._files.append(_File(handle, dtype, starts, shapes, checksums))
