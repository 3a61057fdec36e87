"""Names of models in a results folder: one name never means two models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmrobust.evaluation.model import IdentifiedModel
from mmrobust.runtime.printable import printable
from mmrobust.runtime.progress import Say, say_nothing
from mmrobust.scoring.store import readable
from mmrobust.storage.files import files_in, is_there
from mmrobust.storage.results import RESULTS_FILE, read_results
from mmrobust.storage.shards import PREDICTIONS_FOLDER, read_shard_header

MARK_DIGITS = 8
"""Digits of a fingerprint that tell apart what no path does."""
_Model = TypeVar("_Model", bound=IdentifiedModel)


def entry_of(model: IdentifiedModel, out: Path) -> dict[str, Any]:
    """What the provenance in the folder ``out`` says of ``model``: its checkpoint's folder relative to ``out``.

    So both can move together, and nothing is said of the machine.
    """
    described = model.described()
    if folder := described.get("folder"):
        described["folder"] = _relative(Path(folder), out)
    return described


def told_apart(models: Mapping[str, _Model], out: Path, say: Say = say_nothing) -> dict[str, _Model]:
    """Give each model a name that the folder ``out`` holds for no other model; ``say`` names those that change.

    A model keeps the name under which ``out`` holds it already. A checkpoint that was trained again in its folder keeps
    its name as well, and so does a model of the user's own, whose name is theirs to give. A checkpoint from another
    folder than the one of this name is called by more of its path.

    Raises:
        DataError: the results in ``out`` cannot be read.
        ReadError: the system did not read what is there.
    """
    held = list(_held(out))
    found: dict[str, _Model] = {}
    for given, model in models.items():
        entry = entry_of(model, out)
        names, shorter = _candidates(given, entry, model.described().get("folder", ""))
        its_own = {one.name for one in held if one.fingerprint == model.fingerprint}
        others = {one.name for one in held if one.is_other_than(entry)} - its_own | found.keys()
        known = (name for name in (*names, *shorter) if name in its_own - found.keys())
        name = next(known, None) or next((name for name in names if name not in others), given)
        if name != given:
            say(f"{out}: holds another model called '{given}' already; this one is called '{name}' there")
        found[name] = model
    return found


@dataclass(frozen=True)
class _Held:
    """A model that the results folder holds."""

    name: str
    fingerprint: str | None
    folder: str | None
    """Where its checkpoint lay, relative to the results; ``None`` if that was not recorded."""

    def is_other_than(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is not the model of this entry, nor one that this model replaces."""
        same_place = "folder" not in entry or self.folder == entry["folder"]
        return self.fingerprint != entry["fingerprint"] and not same_place


def _held(out: Path) -> Iterator[_Held]:
    if is_there(out / RESULTS_FILE):
        for name, about in read_results(out).provenance["checkpoints"].items():
            yield _Held(name, about.get("fingerprint"), about.get("folder"))
    shards = files_in(out / PREDICTIONS_FOLDER, "*.parquet")  # of an evaluation that is not finished, too
    for header in readable(shards, read_shard_header, say_nothing):
        about = header.provenance.get("described") or {}
        yield _Held(str(header.provenance.get("name")), header.provenance["checkpoint"], about.get("folder"))


def _candidates(given: str, entry: Mapping[str, Any], folder: str) -> tuple[list[str], list[str]]:
    """Names that a model may have: those to give it, in this order, and shorter ones that it may have had before."""
    parts = Path(folder).parts
    paths = [printable("/".join(parts[-length:])) for length in range(1, len(parts))]
    place = paths.index(given) if given in paths else len(paths)
    return [given, *paths[place + 1 :], f"{given}@{entry['fingerprint'][:MARK_DIGITS]}"], paths[:place]


def _relative(folder: Path, out: Path) -> str:
    try:
        return Path(os.path.relpath(folder, out.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.as_posix()
