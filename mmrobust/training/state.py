"""The state of a training between two epochs, on disk, so that a killed run goes on to the identical result.

An epoch depends on nothing but the weights, the optimiser's moments and its own number (every random draw of an epoch
is seeded by it), so these are all that is kept: safetensors and JSON, never pickle.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.storage.files import atomic_folder, read_json, write_json
from mmrobust.storage.weights import read_weights

STATE_FOLDER = ".training"


@dataclass(frozen=True)
class EpochRecord:
    """One row of the curves."""

    epoch: int
    """From 1."""
    train_loss: float
    validation: float
    """Headline metric on the validation split under the training scenario."""
    lr: float
    """At the end of the epoch."""
    seconds: float
    samples_per_second: float
    validation_seconds: float = 0.0
    peak_memory: int = 0
    """Bytes at most so far above the loaded model; 0 where not known."""


@dataclass
class Progressed:
    """How far a training is."""

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    """The trained weights of the best epoch."""

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.records)


class StateStore:
    """The states of one training, in ``.training`` under its checkpoint folder.

    Args:
        out: the checkpoint folder.
        identity: fingerprint of everything that decides the result; a state of another training is refused.
    """

    def __init__(self, out: Path, identity: str) -> None:
        self.folder, self._identity = out / STATE_FOLDER, identity

    def save(
        self, progressed: Progressed, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write the state after an epoch, then remove the ones before it."""
        current = self.folder / f"epoch-{progressed.epoch:05d}"
        moments = {
            f"{name}/{key}": value
            for name, parameter in weights.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        with atomic_folder(current, "state of a training") as partial:
            save_file(
                {name: p.detach().cpu().contiguous() for name, p in weights.items()}, partial / "weights.safetensors"
            )
            save_file({name: t.cpu().contiguous() for name, t in moments.items()}, partial / "moments.safetensors")
            save_file(progressed.best, partial / "best.safetensors")
            records = [dataclasses.asdict(record) for record in progressed.records]
            state = {"identity": self._identity, "best_epoch": progressed.best_epoch, "records": records}
            write_json(partial / "state.json", state)
        for older in self.folder.glob("epoch-*"):
            if older != current:
                shutil.rmtree(older, ignore_errors=True)

    def load(self, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Progressed:
        """The newest state put back into ``weights`` and ``optimizer``; a fresh one where none is there.

        Raises:
            UsageError: the state is of a training with other settings.
            CheckpointError: it cannot be read.
        """
        folders = sorted(self.folder.glob("epoch-*")) if self.folder.is_dir() else []
        if not folders:
            return Progressed()
        folder = folders[-1]
        state = read_json(folder / "state.json", "state of a training", CheckpointError)
        if state.get("identity") != self._identity:
            raise UsageError(
                f"{self.folder.parent}: was begun with other settings or data; repeat its command with --resume, "
                "or name another --out"
            )
        saved, moments, best = (
            read_weights(folder / f"{name}.safetensors", "state of a training", f"; remove {folder} to begin anew")
            for name in ("weights", "moments", "best")
        )
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(saved[name])
        for name, parameter in weights.items():
            found = {key.removeprefix(f"{name}/"): t for key, t in moments.items() if key.rpartition("/")[0] == name}
            if found:
                # Moments lie where the parameter does, the step counter on the CPU: as AdamW itself keeps them.
                optimizer.state[parameter] = {
                    key: t if key == "step" else t.to(parameter.device) for key, t in found.items()
                }
        return Progressed([EpochRecord(**record) for record in state["records"]], int(state["best_epoch"]), best)

    @property
    def scratch(self) -> Path:
        """A folder for what a training need not keep when it is done."""
        return self.folder / "scratch"

    def remove_empty(self) -> None:
        """Remove the folder where no epoch was finished: there is nothing to resume."""
        if self.folder.is_dir() and not any(self.folder.glob("epoch-*")):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()


def forget(out: Path) -> None:
    """Remove every state under ``out``: the training is done."""
    shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)


def begun(out: Path) -> bool:
    """Whether ``out`` holds a training that was not finished."""
    return (out / STATE_FOLDER).is_dir()
