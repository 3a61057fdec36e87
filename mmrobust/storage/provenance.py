"""Where results and predictions come from: collected while they are made, kept in Parquet metadata, checked on reading.

The provenance is JSON in the file's key-value metadata, under ``mmrobust``; :data:`SHAPES` says what it holds.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.configuration import check_json, plain
from mmrobust.errors import DataError, NewerFormatError, UsageError
from mmrobust.runtime.printable import printable
from mmrobust.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"mmrobust"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "pyarrow", "Pillow", "soundfile", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python, mmrobust and the libraries that can change a number."""
    found = {"python": platform.python_version(), "mmrobust": __version__}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


MOST_CHANGED = 3
"""How many of the changed files of a dirty tree are named."""


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Return the commit of the working folder, whether it is dirty, and the first files that make it so.

    ``None`` outside a repository or without git. A repository without any commit is dirty: nothing leads back to it.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
        return done.stdout.rstrip()

    try:
        changed = [line[3:] for line in git("status", "--porcelain").splitlines()]
    except (OSError, subprocess.SubprocessError):
        return None
    named = {"changed": changed[:MOST_CHANGED]} if changed else {}
    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed), **named}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": True, **named}


def ignored_by_git(paths: Iterable[Path]) -> list[str]:
    """Which of the paths git ignores; none outside a repository or without git."""
    command = ["git", "check-ignore", "--", *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def command_line() -> str:
    """Return the command as it was typed; bytes of it that are no text are escaped."""
    name = Path(sys.argv[0]).name
    words = ["mmrobust" if name == "__main__.py" else name, *sys.argv[1:]]
    return printable(" ".join(words), keep="\n\t")


def now() -> str:
    """Return the current time: UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def results_provenance(
    started: str,
    *,
    dataset: Mapping[str, Any],
    checkpoints: Mapping[str, Mapping[str, Any]],
    noise: Any,
    scoring: Any,
    **further: Any,
) -> dict[str, Any]:
    """Collect the provenance of a results table that was just made, as :data:`SHAPES` has it.

    The work began when :func:`now` said ``started``. Device and dtype of the first checkpoint become those of the
    table. Noise and scoring may be dataclasses; ``noise`` is ``None`` where no scenario degrades anything.
    """
    first = next(iter(checkpoints.values()))
    return {
        "dataset": dict(dataset),
        "checkpoints": {name: dict(checkpoint) for name, checkpoint in checkpoints.items()},
        "noise": plain(noise),
        "scoring": plain(scoring),
        **further,
        "versions": versions(),
        "git": git_state(),
        "device": first["device"],
        "dtype": first["dtype"],
        "command": command_line(),
        "started": started,
        "finished": now(),
    }


def _optional(kind: type, *keys: str) -> dict[str, type]:
    return {f"{key}?": kind for key in keys}


_DATASET = {
    **{"name": str, "classes": [str], "n?": int},
    **_optional(str, "fingerprint", "split", "task", "headline_metric"),
}
_EFFICIENCY = {
    **dict.fromkeys(("trained_parameters", "samples_per_epoch", "batch_size"), int),
    **dict.fromkeys(("seconds_per_epoch", "cache_seconds"), float),
    **_optional(float, "peak_memory", "energy_joules"),
    "device": str,
}
_TRAINING = {**_optional(float, "missing_rate", "validation"), "scenario?": str, "recipe?": dict}
_CHECKPOINT = {
    **_optional(str, "fingerprint", "backbone", "backbone_fingerprint", "fill", "device", "dtype", "folder"),
    **{"modalities?": [str], "cases?": [str]},
    "settings?": {"method?": {"name?": str}, "head?": {"name?": str}},
    "training?": {**_TRAINING, "efficiency?": _EFFICIENCY},
    "depends_on_prompting?": bool,
}
_GIT = {"commit?": str, "dirty?": bool, "changed?": [str]}
_BAD_SAMPLES = {"summary?": str, "number?": int}
SHAPES: dict[str, dict[str, Any]] = {
    "results": {
        "dataset": _DATASET,
        "checkpoints": {str: _CHECKPOINT},
        "noise?": {"profile": str, "seed": int},
        "scoring?": {"threshold?": float, "f1_absent?": str, "resamples?": int, "bootstrap_seed?": int},
        "bad_samples?": _BAD_SAMPLES,
        "affected_shares?": {str: {str: {str: float}}},
        "versions?": {str: str},
        "git?": _GIT,
        **_optional(str, "device", "dtype", "command", "started", "finished"),
    },
    "predictions": {
        # A hash, and what it is a hash of:
        **dict.fromkeys(("identity", "checkpoint", "dataset", "split", "dtype"), str),
        **{"noise_profile?": str, "noise_seed?": int},
        # What the predictions are of, so that they can be scored on their own:
        **{"name?": str, "about?": _DATASET, "described?": _CHECKPOINT},
        "bad_samples?": _BAD_SAMPLES,
        "git?": _GIT,
    },
}
"""Kind of file → the shape of its provenance, for :func:`mmrobust.configuration.check_json`."""


def _needing(shape: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return ``shape`` with these optional keys required."""
    return {key.rstrip("?") if key.rstrip("?") in keys else key: inner for key, inner in shape.items()}


_DESCRIBED = {
    "name": str,
    "about": _needing(_DATASET, "fingerprint", "split", "task", "headline_metric", "n"),
    "described": {
        **_needing(_CHECKPOINT, "fingerprint", "backbone", "modalities", "depends_on_prompting", "device", "dtype"),
        **dict.fromkeys(("method", "head"), str),
    },
}
"""What predictions must hold to be scored on their own; those of schema version 1 hold none of it."""


def read_provenance(schema: pa.Schema, file: Path, kind: str, newest: int) -> dict[str, Any]:
    """Read the provenance from the metadata of a Parquet ``file``.

    Its ``kind`` must be what mmrobust wrote it as, ``results``, ``predictions`` or ``missing-table``, and ``newest`` is
    the newest schema version of it that can be read.

    Raises:
        NewerFormatError: a newer schema version.
        DataError: a file of another kind, or damaged metadata.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    try:
        provenance: Any = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict) or provenance.get("kind") != kind:
        raise DataError(f"{file}: was not written by mmrobust as {kind}")
    version = provenance.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{file}: {kind} of schema {version}, which does not exist")
    if version > newest:
        found = f"{kind} of schema {version}, newer than this mmrobust reads ({newest}); upgrade it"
        raise NewerFormatError(f"{file}: {found}")
    try:
        check_json(provenance, SHAPES.get(kind, {}))
        if kind == "predictions" and provenance.keys() & {"about", "described"}:
            check_json(provenance, _DESCRIBED)
        if kind == "predictions" and "noise_profile" in provenance:
            check_json(provenance, {"noise_seed": int})
    except UsageError as cause:
        raise DataError(f"{file}: its metadata is damaged ({cause})") from cause
    return provenance
