"""Which shards of predictions are of which checkpoint.

A shard says in its metadata which checkpoint, data, split and number format it is of, and under which noise, so the
predictions behind a row of results are found by what the results say of their checkpoint, not by file name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmrobust.errors import DataError, NewerFormatError
from mmrobust.runtime.progress import Say
from mmrobust.storage.results import Results
from mmrobust.storage.shards import PREDICTIONS_FOLDER, ShardHeader, read_shard_header

_IDENTITY = ("checkpoint", "dataset", "split", "dtype")
"""What the predictions of one checkpoint have in common, as their shards say it."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class ShardChoice:
    """The shards that make the predictions of one checkpoint, and what is said of it."""

    folder: Path
    name: str
    described: Mapping[str, Any]
    dataset: Mapping[str, Any]
    noise: Mapping[str, Any] | None
    shards: list[ShardHeader]
    size: int
    """Samples of the split that are asked for, from the first."""
    results: Results | None

    @classmethod
    def all_of(cls, folder: Path, headers: Iterable[ShardHeader]) -> list[ShardChoice]:
        """Every checkpoint that the shards are of, as they themselves say it.

        Raises:
            DataError: those of one are under several noises.
        """
        groups: dict[tuple[str, ...], list[ShardHeader]] = {}
        for header in headers:
            key = (*_identity(header.provenance), _bad_samples(header.provenance))
            groups.setdefault(key, []).append(header)
        return [cls._as_they_say(folder, shards) for _, shards in sorted(groups.items())]

    @classmethod
    def _as_they_say(cls, folder: Path, shards: Sequence[ShardHeader]) -> ShardChoice:
        """Without results; runs with and without --limit share predictions, and the longest knows the most.

        Raises:
            DataError: they are under several noises.
        """
        said = max((shard.provenance for shard in shards), key=lambda said: int(said["about"]["n"]))
        if len(noises := _noises(shards)) > 1:
            listed = ", ".join(f"{profile} with seed {seed}" for profile, seed in noises)
            raise DataError(
                f"{folder}: holds predictions of '{said['name']}' under several noises ({listed}), and no results that "
                "say which one is meant; run the mmrobust eval that is"
            )
        noise = {"profile": noises[0][0], "seed": noises[0][1]} if noises else None
        about = said["about"]
        return cls(folder, said["name"], said["described"], about, noise, list(shards), int(about["n"]), None)

    @classmethod
    def behind(cls, folder: Path, results: Results, name: str, headers: Iterable[ShardHeader]) -> ShardChoice:
        """Those that results are of: of the same checkpoint, data, split, number format, bad samples and noise."""
        provenance, rows = results.provenance, results.frame[results.frame["checkpoint"] == name]
        described = provenance.get("checkpoints", {}).get(name) or {}
        dataset = provenance.get("dataset") or {}
        wanted = _identity(
            {
                "checkpoint": described.get("fingerprint"),
                "dataset": dataset.get("fingerprint"),
                "split": dataset.get("split"),
                "dtype": described.get("dtype") or provenance.get("dtype"),
            }
        )
        own = [header for header in headers if _identity(header.provenance) == wanted]
        # Positions are of the samples that could be read. The results speak of the last evaluation's; where a
        # checkpoint has but one kind, that is its own.
        if len({_bad_samples(header.provenance) for header in own}) > 1:
            own = [header for header in own if _bad_samples(header.provenance) == _bad_samples(provenance)]
        noise, there = provenance.get("noise"), _noises(own)
        if not noise and len(there) == 1:
            noise = {"profile": there[0][0], "seed": there[0][1]}
        asked = (noise["profile"], noise["seed"]) if noise else None
        own = [header for header in own if _noise(header.provenance) in (None, asked)]
        told: dict[str, Any] = next((h.provenance["described"] for h in own if "described" in h.provenance), {})
        size = int(rows["n"].max()) if len(rows) else int(dataset["n"])
        return cls(folder, name, {**told, **described}, dataset, noise, own, size, results)


def shards_behind(path: Path, results: Results, checkpoint: str) -> list[Path]:
    """The shards behind the results of one checkpoint.

    Args:
        path: the results file or its folder; the shards lie in ``predictions/`` beside ``results.parquet``.
        results: what was read from it.
        checkpoint: its name in the results.

    Raises:
        DataError: one cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    return [header.path for header in ShardChoice.behind(folder, results, checkpoint, shard_headers(folder)).shards]


def shard_headers(folder: Path, say: Say | None = None) -> list[ShardHeader]:
    """What every shard under a results folder says of itself; without ``say``, one that cannot be read is an error."""
    return list(readable((folder / PREDICTIONS_FOLDER).glob("*.parquet"), read_shard_header, say))


def readable(paths: Iterable[Path], reader: Callable[[Path], _T], say: Say | None) -> Iterator[_T]:
    """What ``reader`` makes of each of the files; ``say`` is told of those that it cannot read, which are left out."""
    for path in sorted(paths):
        try:
            yield reader(path)
        except NewerFormatError:  # not damaged: whoever leaves it out scores half
            raise
        except DataError as cause:
            if say is None:
                raise
            say(f"{cause}; it is left out")


def _identity(said: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(said.get(key)) for key in _IDENTITY)


def _bad_samples(said: Mapping[str, Any]) -> str:
    """What could not be read of the split, as one text; empty where all could."""
    bad = said.get("bad_samples") or {}
    return json.dumps(bad, sort_keys=True) if bad.get("number") else ""


def _noise(said: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Profile and seed behind the degraded cases of a shard; ``None`` for one of cases without noise."""
    return (said["noise_profile"], said.get("noise_seed")) if "noise_profile" in said else None


def _noises(shards: Iterable[ShardHeader]) -> list[tuple[Any, Any]]:
    return sorted({noise for shard in shards if (noise := _noise(shard.provenance))})
