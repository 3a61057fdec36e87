"""``mmrobust doctor``: what works on this machine, and how to fix what does not. Everything is really tried."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import io
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmrobust.runtime.machine import available_cores, free_memory, total_memory
from mmrobust.storage.provenance import versions

WORKS, ABSENT, BROKEN = "works", "absent", "broken"

EXTRAS = {"report": ("altair", "vl_convert"), "peft": ("peft",), "ray": ("ray",)}
"""Extra → the modules that it installs."""

LEAST_MEMORY = 4 * 2**30
"""Bytes of free memory below which a base-size backbone may not fit beside its data."""


@dataclass(frozen=True)
class Trial:
    """The outcome of trying one thing."""

    name: str
    state: str
    """``works``, ``absent`` (optional, can be added) or ``broken`` (required)."""
    said: str
    remedy: str = ""
    """How to fix it."""


def examine() -> dict[str, Any]:
    """Return ``versions``, ``machine``, ``trials``, and ``well``: whether nothing is broken."""
    trials = [
        *_dependencies(),
        _attempt("CPU", _cpu, "reinstall PyTorch: https://pytorch.org/get-started/locally"),
        *_gpus(),
        *_extras(),
        _attempt("images", _images, "pip install --force-reinstall Pillow"),
        _attempt("audio", _audio, "pip install --force-reinstall soundfile, or install libsndfile"),
        _attempt("working folder", _writing, "name a folder that can be written with --out", ABSENT),
        _attempt("Hub cache", _hub, "set HF_HOME to a folder that can be written", ABSENT),
        _memory(),
    ]
    return {
        "well": all(trial.state != BROKEN for trial in trials),
        "versions": versions(),
        "machine": {
            "system": platform.platform(),
            "cores": available_cores(),
            "memory_bytes": total_memory(),
            "memory_free_bytes": free_memory(),
            "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        },
        "trials": [asdict(trial) for trial in trials],
    }


def _attempt(name: str, trial: Callable[[], str], remedy: str, otherwise: str = BROKEN) -> Trial:
    """Run a trial; the text of any exception is what it says."""
    try:
        return Trial(name, WORKS, trial())
    except Exception as cause:  # a broken installation raises anything
        return Trial(name, otherwise, " ".join(str(cause).split())[:160] or type(cause).__name__, remedy)


def _dependencies() -> list[Trial]:
    """Check that every declared dependency is installed in an accepted version."""
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("mmrobust") or []
    except importlib.metadata.PackageNotFoundError:
        return [Trial("dependencies", ABSENT, "mmrobust itself is not installed", "pip install -e .")]
    wrong, known = [], 0
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        known += 1
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is not installed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, not {requirement.specifier}")
    if wrong:
        return [Trial("dependencies", BROKEN, "; ".join(wrong), "pip install --upgrade mmrobust")]
    return [Trial("dependencies", WORKS, f"all {known}, in accepted versions")]


def _cpu() -> str:
    import torch

    layer = torch.nn.Linear(8, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(2, 8))
    return f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32 and bfloat16"


def _gpus() -> list[Trial]:
    try:
        import torch
    except Exception:  # reported by the CPU's trial
        return []
    if not torch.cuda.is_available():
        built = torch.version.cuda
        if built is None:
            return [Trial("GPU", ABSENT, "this PyTorch is built without CUDA", "for a GPU: install a CUDA build")]
        return [Trial("GPU", ABSENT, f"PyTorch (CUDA {built}) sees none", "check the driver with nvidia-smi")]

    def trial(index: int) -> str:
        device = f"cuda:{index}"
        (torch.ones(8, 8, device=device, dtype=torch.bfloat16) @ torch.ones(8, 8, device=device).bfloat16()).cpu()
        free, total = torch.cuda.mem_get_info(index)
        return f"{torch.cuda.get_device_name(index)}, {_gib(free)} of {_gib(total)} free, bfloat16"

    remedy = "check it with nvidia-smi; meanwhile use --device cpu"
    return [_attempt(f"GPU {i}", functools.partial(trial, i), remedy) for i in range(torch.cuda.device_count())]


def _extras() -> list[Trial]:
    def trial(modules: tuple[str, ...]) -> str:
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            raise ImportError(f"not installed: {', '.join(absent)}")
        packages = importlib.metadata.packages_distributions()
        return ", ".join(f"{module} {importlib.metadata.version(packages[module][0])}" for module in modules)

    return [
        _attempt(f"extra {extra}", functools.partial(trial, modules), f'pip install "mmrobust[{extra}]"', ABSENT)
        for extra, modules in EXTRAS.items()
    ]


def _images() -> str:
    from PIL import Image, features

    from mmrobust.data.decoding import decode_image

    kinds = ["PNG", "JPEG", *(["WEBP"] if features.check("webp") else [])]
    for kind in kinds:
        stored = io.BytesIO()
        Image.new("RGB", (8, 8), "white").save(stored, kind)
        decode_image(stored.getvalue(), kind)
    return ", ".join(kinds)


def _audio() -> str:
    import numpy as np
    import soundfile

    from mmrobust.data.decoding import decode_audio

    kinds = [kind for kind in ("WAV", "FLAC", "OGG", "MP3") if kind in soundfile.available_formats()]
    for kind in kinds:
        stored = io.BytesIO()
        soundfile.write(stored, np.zeros(8000, dtype=np.float32), 8000, format=kind)
        decode_audio(stored.getvalue(), kind)
    return f"{', '.join(kinds)} (libsndfile {soundfile.__libsndfile_version__})"


def _writing() -> str:
    with tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".mmrobust-doctor-"):
        return f"{Path.cwd()}, {_gib(shutil.disk_usage(Path.cwd()).free)} free"


def _hub() -> str:
    """Check the cache of backbones from the Hub, without downloading anything."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    nearest = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    if not os.access(nearest, os.W_OK):
        raise OSError(f"{cache} cannot be written")
    offline = "; offline: nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    return f"{models} models in {cache}{offline}"


def _memory() -> Trial:
    free = free_memory()
    if free is None:
        return Trial("memory", WORKS, f"not known on {sys.platform}")
    if free < LEAST_MEMORY:
        return Trial("memory", ABSENT, f"{_gib(free)} free", "smaller --batch-size; a base-size backbone may not fit")
    return Trial("memory", WORKS, f"{_gib(free)} free")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
