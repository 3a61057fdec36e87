"""Where results and predictions come from: collected while they are made, kept in Parquet metadata, checked on reading.

The provenance is JSON in the file's key-value metadata, under ``mmrobust``. ``TypedDict`` classes say what it holds: a
key that may be ``None`` may be absent, and further keys are allowed.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from mmrobust.configuration import check_json, plain
from mmrobust.errors import DataError, NewerFormatError, UsageError
from mmrobust.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"mmrobust"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "pyarrow", "Pillow", "soundfile", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python, mmrobust and the libraries that can change a number."""
    found = {"python": platform.python_version(), "mmrobust": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Return the commit of the working folder and whether it is dirty; ``None`` outside a repository or without git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> str:
    """Return the command as it was typed."""
    name = Path(sys.argv[0]).name
    return " ".join(["mmrobust" if name == "__main__.py" else name, *sys.argv[1:]])


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
    """Collect the provenance of a results table that was just made.

    Args:
        started: when the work began, from :func:`now`.
        dataset: the data: see :class:`DatasetProvenance`.
        checkpoints: name → checkpoint: see :class:`CheckpointProvenance`. Device and dtype are those of the first.
        noise: profile and seed, as a dataclass or a mapping; ``None`` where no scenario degrades anything.
        scoring: how cells were scored, as a dataclass or a mapping.
        further: other keys, ``bad_samples`` for example.
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


class _Efficiency(TypedDict):
    trained_parameters: int
    samples_per_epoch: int
    batch_size: int
    seconds_per_epoch: float
    cache_seconds: float
    device: str
    peak_memory: float | None
    energy_joules: float | None


class _Training(TypedDict):
    scenario: str | None
    missing_rate: float | None
    validation: float | None
    recipe: dict[str, Any] | None
    efficiency: _Efficiency | None


class CheckpointProvenance(TypedDict):
    """A checkpoint that was evaluated."""

    fingerprint: str | None
    backbone: str | None
    backbone_fingerprint: str | None
    fill: str | None
    device: str | None
    dtype: str | None
    modalities: list[str] | None
    cases: list[str] | None
    depends_on_prompting: bool | None
    settings: dict[str, dict[str, Any] | None] | None
    """Of ``method`` and ``head``, each with its ``name``."""
    training: _Training | None


class DatasetProvenance(TypedDict):
    """The split that checkpoints were evaluated on, and ``n``, how many of its samples were."""

    name: str
    classes: list[str]
    fingerprint: str | None
    split: str | None
    task: str | None
    headline_metric: str | None
    n: int | None


class _BadSamples(TypedDict):
    summary: str | None
    number: int | None


class _Noise(TypedDict):
    profile: str
    seed: int


class _Scoring(TypedDict):
    threshold: float | None
    f1_absent: str | None
    resamples: int | None
    bootstrap_seed: int | None


class _Git(TypedDict):
    commit: str | None
    dirty: bool | None


class ResultsProvenance(TypedDict):
    """Where a results table comes from."""

    dataset: DatasetProvenance
    checkpoints: dict[str, CheckpointProvenance]
    noise: _Noise | None
    scoring: _Scoring | None
    bad_samples: _BadSamples | None
    versions: dict[str, str] | None
    git: _Git | None
    device: str | None
    dtype: str | None
    command: str | None
    started: str | None
    finished: str | None


class ShardProvenance(TypedDict):
    """Where a shard of predictions comes from: its ``identity``, and what that is a hash of."""

    identity: str
    checkpoint: str
    dataset: str
    split: str
    dtype: str
    noise_profile: str | None
    noise_seed: int | None
    bad_samples: _BadSamples | None
    name: str | None
    about: DatasetProvenance | None
    described: CheckpointProvenance | None


SCHEMAS = {"results": ResultsProvenance, "predictions": ShardProvenance}
"""Kind of file → what its provenance holds."""
DESCRIBED = (
    "name",
    *(f"about/{key}" for key in ("fingerprint", "split", "task", "headline_metric", "n")),
    *(f"described/{k}" for k in ("fingerprint", "backbone", "modalities", "depends_on_prompting", "device", "dtype")),
)
"""Keys without which predictions cannot be scored on their own. Those of schema version 1 lack all of them."""


def read_provenance(schema: pa.Schema, file: Path, kind: str, newest: int) -> dict[str, Any]:
    """Read the provenance from the metadata of a Parquet file.

    Args:
        schema: the file's schema.
        file: names it in messages.
        kind: what mmrobust must have written it as: ``results``, ``predictions`` or ``missing-table``.
        newest: the newest schema version that can be read.

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
        check_json(provenance, SCHEMAS.get(kind, dict[str, Any]))
        if kind == "predictions":
            _check_described(provenance)
    except UsageError as cause:
        raise DataError(f"{file}: its metadata is damaged ({cause})") from cause
    return provenance


def _check_described(provenance: Mapping[str, Any]) -> None:
    """Raise unless predictions that describe their data, their checkpoint or their noise do so completely."""
    needed = ("noise_seed",) if "noise_profile" in provenance else ()
    for path in (*needed, *(DESCRIBED if provenance.keys() & {"about", "described"} else ())):
        found: Any = provenance
        for key in path.split("/"):
            found = (found or {}).get(key)
        if found is None:
            raise UsageError(f"{path} is missing")
