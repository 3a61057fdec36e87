"""The predictions of one checkpoint in a results folder: made where they lack, kept apart by noise."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.evaluation.engines import ENGINES
from mmrobust.evaluation.parts import Running
from mmrobust.evaluation.shards import plan_for, truth_of, under_every_prompting
from mmrobust.evaluation.store import PredictionStore
from mmrobust.models.checkpoint import Checkpoint
from mmrobust.runtime.progress import Progress, Say, deferred_interrupt
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.truth import SplitTruth


@dataclass(frozen=True)
class KeptPredictions:
    """What a results folder keeps of one checkpoint on the samples of an evaluation."""

    name: str
    """The name under which it is evaluated."""
    checkpoint: Checkpoint
    samples: SelectedSamples
    noise: Noise
    out: Path
    about: Mapping[str, Any]
    """The data, as the provenance of results has them."""
    say: Say
    """Told of what was found amiss and is mended."""

    @functools.cached_property
    def truth(self) -> SplitTruth:
        """What scoring must know of the samples."""
        return truth_of(self.samples, self.checkpoint.classifier.modalities)

    def make(self, grid: Grid, running: Running, progress: Progress) -> bool:
        """Make what a grid needs and is not there yet. Returns whether all of it is there now.

        Raises:
            MmrobustError: a case that the classifier was not trained for, or samples that cannot be read.
            Interrupted: Ctrl-C; the shard that was begun is finished.
        """
        stores = self._stores()
        if running.overwrite == "always":
            for store in stores.values():
                store.forget()
        classifier = self.checkpoint.classifier
        plan = plan_for(classifier, self.truth, grid)
        degraded = {key: bool(Case.parse(key[0], classifier.modalities).degraded) for key in plan}

        def lacking() -> dict[tuple[str, str], npt.NDArray[np.int64]]:
            return {
                key: positions
                for kind, store in stores.items()
                for key, positions in store.missing({k: p for k, p in plan.items() if degraded[k] is kind}).items()
            }

        todo = running.part.within(lacking()) if running.part else lacking()
        engine = ENGINES[running.engine]
        try:
            if todo:
                with deferred_interrupt(self.say, "this shard") as stop_if_asked:
                    for made in engine(self.checkpoint, self.samples, todo, self.noise, running, progress):
                        for kind, store in stores.items():
                            mine = {key: rows for key, rows in made.items() if degraded[key] is kind}
                            if mine:
                                store.add(mine)
                        stop_if_asked()
        finally:  # what is predicted is kept, whatever ended it
            for store in stores.values():
                store.flush()
        if running.part:  # others may have added theirs in the meantime
            stores = self._stores()
        return not lacking()

    def read(self, grid: Grid) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
        """(case, prompting) → logits [N, classes] of all that is there, under every prompting of the grid."""
        logits = {key: values for store in self._stores().values() for key, values in store.read().items()}
        return under_every_prompting(self.checkpoint.classifier, logits, grid)

    def _stores(self) -> dict[bool, PredictionStore]:
        """Whether a case is degraded → where its predictions lie.

        The noise decides predictions in degraded cases alone: the others stay good for any profile and seed.
        """
        samples = self.samples
        identity = {
            "checkpoint": self.checkpoint.fingerprint,
            "dataset": samples.split.info.fingerprint,
            "split": samples.split.name,
            "dtype": self.checkpoint.classifier.dtype,
            **({"bad_samples": samples.bad.describe()} if samples.bad.found else {}),
        }
        told = {"name": self.name, "about": self.about, "described": describe(self.checkpoint)}
        under = {"noise_profile": self.noise.profile, "noise_seed": self.noise.seed}
        return {
            False: PredictionStore(self.out, identity, told, self.truth, self.say),
            True: PredictionStore(self.out, identity | under, told, self.truth, self.say),
        }


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What results and predictions say of a checkpoint."""
    config = checkpoint.config
    return {
        "fingerprint": checkpoint.fingerprint,
        "method": config.method["name"],
        "head": config.head["name"],
        "settings": {"method": config.method, "head": config.head},
        "backbone": config.backbone["id"],
        "backbone_fingerprint": config.backbone["fingerprint"],
        "fill": config.fill,
        "modalities": config.modalities,
        "cases": config.cases,
        "training": config.training,
        "depends_on_prompting": checkpoint.classifier.depends_on_prompting,
        "device": str(next(checkpoint.classifier.parameters()).device),
        "dtype": checkpoint.classifier.dtype,
    }
