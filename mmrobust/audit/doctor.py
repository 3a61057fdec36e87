"""The doctor: what works on this machine, and what to do about what does not. Everything is tried, nothing assumed."""

from __future__ import annotations

import importlib
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
"""Extra → the modules that it brings."""

LEAST_MEMORY = 4 * 2**30
"""Bytes of memory below which a base-size backbone may not fit beside its data."""


@dataclass(frozen=True)
class Trial:
    """One thing that was tried."""

    name: str
    state: str
    """``works``, ``absent`` (can be added) or ``broken`` (must work)."""
    said: str
    remedy: str = ""
    """What to do, where it does not work."""


def examine() -> dict[str, Any]:
    """All that is known of the machine: ``versions``, ``machine``, ``trials``, and whether it is ``well``."""
    trials = [*_dependencies(), _computing(), *_gpus(), *_extras(), *_media(), _writing(), _hub(), _memory()]
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
    """Try it; whatever it raises is what is said."""
    try:
        return Trial(name, WORKS, trial())
    except Exception as cause:  # a broken installation raises anything
        return Trial(name, otherwise, " ".join(str(cause).split())[:160] or type(cause).__name__, remedy)


def _dependencies() -> list[Trial]:
    """Every declared dependency: there, and of a version that was asked for."""
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
    return [Trial("dependencies", WORKS, f"all {known}, in the versions that were asked for")]


def _computing() -> Trial:
    def trial() -> str:
        import torch

        layer = torch.nn.Linear(8, 8)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            layer(torch.ones(2, 8))
        return f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32 and bfloat16"

    return _attempt("CPU", trial, "reinstall PyTorch: https://pytorch.org/get-started/locally")


def _gpus() -> list[Trial]:
    try:
        import torch
    except Exception:  # said by the CPU's trial
        return []
    if not torch.cuda.is_available():
        built = torch.version.cuda
        if built is None:
            return [Trial("GPU", ABSENT, "this PyTorch is built without CUDA", "for a GPU: install a CUDA build")]
        return [Trial("GPU", ABSENT, f"PyTorch (CUDA {built}) sees none", "see nvidia-smi for the driver")]

    def trial(index: int) -> str:
        device = f"cuda:{index}"
        (torch.ones(8, 8, device=device, dtype=torch.bfloat16) @ torch.ones(8, 8, device=device).bfloat16()).cpu()
        free, total = torch.cuda.mem_get_info(index)
        return f"{torch.cuda.get_device_name(index)}, {_gib(free)} of {_gib(total)} free, bfloat16"

    remedy = "see nvidia-smi; --device cpu works meanwhile"
    return [_attempt(f"GPU {i}", lambda i=i: trial(i), remedy) for i in range(torch.cuda.device_count())]  # type: ignore[misc]


def _extras() -> list[Trial]:
    def trial(modules: tuple[str, ...]) -> str:
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            raise ImportError(f"not installed: {', '.join(absent)}")
        found = [
            f"{m} {importlib.metadata.version(m.replace('_', '-') + '-python' * (m == 'vl_convert'))}" for m in modules
        ]
        return ", ".join(found)

    remedies = {extra: f'pip install "mmrobust[{extra}]"' for extra in EXTRAS}
    return [
        _attempt(f"extra {extra}", lambda modules=modules: trial(modules), remedies[extra], ABSENT)  # type: ignore[misc]
        for extra, modules in EXTRAS.items()
    ]


def _media() -> list[Trial]:
    def images() -> str:
        from PIL import Image, features

        from mmrobust.data.decoding import decode_image

        read = []
        for kind in ("PNG", "JPEG", "WEBP"):
            if kind == "WEBP" and not features.check("webp"):
                continue
            stored = io.BytesIO()
            Image.new("RGB", (8, 8), "white").save(stored, kind)
            decode_image(stored.getvalue(), kind)
            read.append(kind)
        return ", ".join(read)

    def audio() -> str:
        import numpy as np
        import soundfile

        from mmrobust.data.decoding import decode_audio

        read = []
        for kind in ("WAV", "FLAC", "OGG", "MP3"):
            if kind not in soundfile.available_formats():
                continue
            stored = io.BytesIO()
            soundfile.write(stored, np.zeros(8000, dtype=np.float32), 8000, format=kind)
            decode_audio(stored.getvalue(), kind)
            read.append(kind)
        return f"{', '.join(read)} (libsndfile {soundfile.__libsndfile_version__})"

    return [
        _attempt("images", images, "pip install --force-reinstall Pillow"),
        _attempt("audio", audio, "pip install --force-reinstall soundfile, or install libsndfile"),
    ]


def _writing() -> Trial:
    def trial() -> str:
        with tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".mmrobust-doctor-"):
            return f"{Path.cwd()}, {_gib(shutil.disk_usage(Path.cwd()).free)} free"

    return _attempt("working folder", trial, "results go where --out says: name a folder that can be written", ABSENT)


def _hub() -> Trial:
    """Where backbones from the Hub are kept. Nothing is fetched here."""

    def trial() -> str:
        from huggingface_hub import constants

        cache = Path(constants.HF_HUB_CACHE)
        models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
        nearest = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
        if not os.access(nearest, os.W_OK):
            raise OSError(f"{cache} cannot be written")
        offline = "; offline: nothing is fetched" if constants.HF_HUB_OFFLINE else ""
        return f"{models} models in {cache}{offline}"

    return _attempt("Hub cache", trial, "set HF_HOME to a folder that can be written", ABSENT)


def _memory() -> Trial:
    free = free_memory()
    if free is None:
        return Trial("memory", WORKS, f"not known on {sys.platform}")
    if free < LEAST_MEMORY:
        return Trial("memory", ABSENT, f"{_gib(free)} free", "smaller --batch-size; a base-size backbone may not fit")
    return Trial("memory", WORKS, f"{_gib(free)} free")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
