"""The state of an unfinished training on disk, from which a killed run resumes to the identical result.

An epoch depends only on the weights, the optimiser's moments and its own number (which seeds every random draw of the
epoch), so these are all that is saved: safetensors and JSON, never pickle.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.checkpoint import UNFINISHED
from mmrobust.storage.files import atomic_folder, files_in, is_there, read_json, write_json
from mmrobust.storage.weights import read_weights, write_weights

STATE_FOLDER = UNFINISHED


@dataclass(frozen=True)
class EpochRecord:
    """One row of the training curves."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    validation: float
    """Headline metric on the validation split under the training scenario."""
    validation_loss: float
    """The loss of the same predictions: of epochs with the same metric, the one of the lowest loss is the best."""
    lr: float
    """Learning rate at the end of the epoch."""
    seconds: float
    samples_per_second: float
    validation_seconds: float = 0.0
    peak_memory: int = 0
    """Highest memory so far, in bytes above the loaded model; 0 where it cannot be measured."""


@dataclass
class TrainingState:
    """The finished epochs of a training, and the best weights so far."""

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    """Counted from 1."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    sign: int = 1
    """1, or −1 if less of the validation metric is better."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.records)

    @property
    def since_improvement(self) -> int:
        """Epochs since the validation metric last got better."""
        metrics = [self.sign * record.validation for record in self.records]
        return len(metrics) - 1 - metrics.index(max(metrics)) if metrics else 0

    def add(self, record: EpochRecord) -> bool:
        """Add the next epoch; whether it is the best so far, by its metric and then by its loss."""
        self.records.append(record)
        if self.best_epoch:
            best = self.records[self.best_epoch - 1]
            qualities = [(self.sign * one.validation, -one.validation_loss) for one in (record, best)]
            if qualities[0] <= qualities[1]:
                return False
        self.best_epoch = record.epoch
        return True


class StateStore:
    """Saves and loads the state of one training, in ``.training`` under its checkpoint folder.

    Args:
        out: the checkpoint folder.
        identity: fingerprint of everything that decides the result; the state of another training is refused.
        dtype: the number format, which is part of it, and which ``auto`` takes from the device.
        settings: those of the training, to name the ones that differ.
    """

    def __init__(
        self, out: Path, identity: str, dtype: str = "float32", settings: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self._identity, self._dtype, self._settings = out / STATE_FOLDER, identity, dtype, settings or {}
        self.scratch = self.folder / "scratch"
        """A folder for files that are deleted when the training ends."""

    def save(self, state: TrainingState, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Write the state after an epoch, then remove earlier ones."""
        current = self.folder / f"epoch-{state.epoch:05d}"
        moments = {
            f"{name}/{key}": value
            for name, parameter in weights.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        with atomic_folder(current, "state of a training") as partial:
            for file, tensors in {"weights": weights, "moments": moments, "best": state.best_weights}.items():
                held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                write_weights(partial / f"{file}.safetensors", held)
            records = [dataclasses.asdict(record) for record in state.records]
            facts = {
                "identity": self._identity,
                "dtype": self._dtype,
                "settings": self._settings,
                "best_epoch": state.best_epoch,
                "records": records,
            }
            write_json(partial / "state.json", facts)
        for older in files_in(self.folder, "epoch-*"):
            if older != current:
                shutil.rmtree(older, ignore_errors=True)

    def load(self, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> TrainingState:
        """Restore the latest state into ``weights`` and ``optimizer``; where there is none, begin with an empty one.

        Raises:
            UsageError: the state belongs to a training with other settings.
            CheckpointError: it is damaged.
            ReadError: the system did not read it.
        """
        folder = max(files_in(self.folder, "epoch-*"), default=None)
        if folder is None:
            return TrainingState()
        facts = read_json(folder / "state.json", "state of a training", CheckpointError)
        if (before := facts.get("dtype", self._dtype)) != self._dtype:
            raise UsageError(
                f"{self.folder.parent}: was started in {before}, and this is {self._dtype}; "
                f"continue with --dtype {before}"
            )
        if facts.get("identity") != self._identity:
            other = _other_settings(facts.get("settings") or {}, self._settings) or "other settings or data"
            raise UsageError(
                f"{self.folder.parent}: was started with {other}; repeat its command with --resume, "
                "or name another --out"
            )
        saved, moments, best = (
            read_weights(folder / f"{name}.safetensors", "state of a training", f"; remove {folder} to start again")
            for name in ("weights", "moments", "best")
        )
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(saved[name])
        for name, parameter in weights.items():
            found = {key.removeprefix(f"{name}/"): t for key, t in moments.items() if key.rpartition("/")[0] == name}
            if found:  # as AdamW itself places them: beside the parameter, but the step counter only if it is fused
                fused = optimizer.defaults.get("fused")
                placed = {k: t if k == "step" and not fused else t.to(parameter.device) for k, t in found.items()}
                optimizer.state[parameter] = placed
        return TrainingState([EpochRecord(**record) for record in facts["records"]], int(facts["best_epoch"]), best)

    def remove_empty(self) -> None:
        """Remove the folder if no epoch was finished: there is nothing to resume from."""
        if self.folder.is_dir() and not files_in(self.folder, "epoch-*"):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not files_in(self.folder.parent, "*"):
                self.folder.parent.rmdir()


def remove_state(out: Path) -> None:
    """Remove the state of the training in ``out``, which is finished."""
    shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)


def _other_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, for a message: ``epochs=20, now 4``."""
    found = []
    for name, value in before.items():
        if isinstance(value, dict) and isinstance(now.get(name), dict):
            found.append(_other_settings(value, now[name]))
        elif value != now.get(name):
            found.append(f"{name}={value}, now {now.get(name)}")
    return "; ".join(filter(None, found))


def is_unfinished(out: Path) -> bool:
    """Whether ``out`` holds a training that was started and not finished."""
    return is_there(out / STATE_FOLDER)
