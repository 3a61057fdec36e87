"""What a results folder holds already under the name of an imported model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.configuration import plain
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError
from mmrobust.scenarios.grid import Cell
from mmrobust.scoring.join import ScoringSettings
from mmrobust.scoring.store import IMPORTED, cells_of, shard_headers
from mmrobust.storage.files import is_there
from mmrobust.storage.results import RESULTS_FILE, Results, read_results
from mmrobust.storage.shards import ShardHeader

WAY_OUT = "give another --name or --out, or --replace to drop the earlier ones"


@dataclass(frozen=True)
class EarlierImport:
    """The predictions and results of one name in a folder."""

    out: Path
    name: str
    shards: Sequence[ShardHeader]
    """Those of this name."""
    described: Mapping[str, Any]
    """The model, as the provenance describes it; empty where there is none."""
    cells: tuple[Cell, ...]
    """The cells of its results."""
    others: Results | None
    """The results of the other models in the folder; ``None`` where there are none."""
    scoring: ScoringSettings
    """How the results in the folder were scored."""

    @classmethod
    def find(cls, out: Path, name: str) -> EarlierImport:
        """Read what the folder ``out`` holds under ``name``.

        Raises:
            UsageError: a checkpoint of that name was evaluated into the folder.
            DataError: its results or predictions cannot be read.
        """
        shards = [header for header in shard_headers(out) if header.provenance.get("name") == name]
        described: Mapping[str, Any] = {}
        cells: tuple[Cell, ...] = ()
        others, scoring = None, ScoringSettings()
        if is_there(out / RESULTS_FILE):
            results = read_results(out)
            of_name = results.frame["checkpoint"] == name
            cells = cells_of(results.frame[of_name])
            described = results.provenance["checkpoints"].get(name, {})
            recorded = results.provenance.get("scoring") or {}
            scoring = ScoringSettings(**{key: recorded[key] for key in plain(scoring) if key in recorded})
            if not of_name.all():
                checkpoints = {k: about for k, about in results.provenance["checkpoints"].items() if k != name}
                others = Results(results.frame[~of_name], {**results.provenance, "checkpoints": checkpoints})
        if shards and not described:
            every = (header.provenance["described"] for header in shards)
            described = max(every, key=lambda one: len(one.get("imported") or ()))  # the latest
        if described and described.get("method") != IMPORTED:
            raise UsageError(f"{out}: '{name}' is a model that mmrobust eval evaluated; give another --name or --out")
        return cls(out, name, shards, described, cells, others, scoring)

    @property
    def fingerprint(self) -> str | None:
        """The identity of its predictions; ``None`` where there are none."""
        return self.described.get("fingerprint")

    @property
    def files(self) -> list[dict[str, Any]]:
        """The files that were imported."""
        return list(self.described.get("imported") or [])

    @property
    def noise(self) -> Noise | None:
        """The noise of its degraded cases; ``None`` where there are none."""
        for header in self._own:
            if "noise_profile" in header.provenance:
                return Noise(header.provenance["noise_profile"], header.provenance["noise_seed"])
        return None

    @property
    def _own(self) -> list[ShardHeader]:
        return [header for header in self.shards if header.provenance["checkpoint"] == self.fingerprint]

    def check_extension(self, described: Mapping[str, Any], identity: Mapping[str, Any], noise: Noise | None) -> None:
        """Raise unless predictions of this model, data and noise can be added to those that are there.

        Args:
            described: the model, as the provenance will describe it.
            identity: everything that determines a logit except case, prompting and noise.
            noise: of degraded cases; ``None`` where there are none.

        Raises:
            UsageError: the data, the modalities, the noise, or whether the predictions tell promptings apart, differ.
        """
        if not self.described:
            return
        changes = {
            "modalities": (self.described["modalities"], described["modalities"]),
            "column 'prompting'": (self.described["depends_on_prompting"], described["depends_on_prompting"]),
            "noise": (plain(self.noise or noise), plain(noise)),
        }
        for header in self._own:
            for key in ("dataset", "split", "bad_samples"):
                changes.setdefault(key.replace("_", " "), (header.provenance.get(key), identity.get(key)))
        for what, (before, now) in changes.items():
            if before != now:
                raise UsageError(
                    f"{self.out}: holds predictions of '{self.name}' with another {what} ({_short(before)}, these: "
                    f"{_short(now)}); {WAY_OUT}"
                )

    def remove_other_than(self, fingerprint: str) -> None:
        """Delete the shards of this name that are not of the model with this fingerprint: they were replaced."""
        for header in self.shards:
            if header.provenance["checkpoint"] != fingerprint:
                header.path.unlink(missing_ok=True)


def _short(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "there", False: "not there", None: "none"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())[:60]
    return " + ".join(value) if isinstance(value, list) else str(value)[:24]
