"""The training loop: epochs of steps and validations, and what they share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions
from mmrobust.degradations import Noise
from mmrobust.errors import Interrupted, TrainingError
from mmrobust.runtime.progress import Advance, Progress
from mmrobust.training.batching import Batch, epoch_batches, share_of
from mmrobust.training.caching import Cache
from mmrobust.training.distributed import Team
from mmrobust.training.efficiency import Clock, Efficiency, Meter, release_memory
from mmrobust.training.frozen import memory_for, source_of
from mmrobust.training.objective import clip_gradients, learning_rate, loss, make_optimizer
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.sources import LiveSource, Wanted
from mmrobust.training.splits import TrainingSplit, case_positions
from mmrobust.training.state import EpochRecord, Progressed, StateStore
from mmrobust.training.trainable import Setup
from mmrobust.training.validation import class_features, groups_of, needed, validate

Observer = Callable[[EpochRecord, int], None]
"""Called after each epoch with its record and the best epoch so far."""


@dataclass(frozen=True)
class Tick:
    """Where a training is, after a step."""

    epoch: int
    step: int
    steps: int
    """Of the epoch."""
    loss: float
    """Mean over the samples of the epoch so far."""
    samples_per_second: float
    peak_memory: int | None


Watch = Callable[[Tick], None]


class Run:
    """One training: what its epochs share."""

    def __init__(
        self,
        setup: Setup,
        settings: TrainSettings,
        store: StateStore,
        cache: Cache,
        processes: Team,
        progress: Progress,
        observe: Observer,
        watch: Watch,
    ) -> None:
        self.classifier, self.config, self.settings, self.recipe = (
            setup.classifier,
            setup.config,
            settings,
            settings.recipe,
        )
        self.head_taken, self.store, self.team = setup.head_taken, store, processes
        self.progress, self.observe, self.watch = progress, observe, watch
        self.splits = {"train": setup.train, "validation": setup.validation}
        self.device = next(self.classifier.parameters()).device
        # The classifier's cases, with the corruption that the scenario names where it names one.
        (affected, *_) = setup.train.scenario.cases
        self.cases = [self._case(name).under(affected) for name in self.classifier.cases]
        self.chosen = share_of(setup.train.encoded.split.ids, self.recipe.share, settings.seed)
        self.groups = groups_of(setup.validation, self.recipe, self.cases, settings.seed)
        self._run_once(setup.validation)
        self.meter = Meter(self.device)
        scratch = store.scratch / str(processes.rank)
        shutil.rmtree(scratch, ignore_errors=True)
        identity = {"backbone": self.config.backbone["fingerprint"], "data": self.config.dataset["fingerprint"]}
        memory = memory_for(cache)
        self.sources: dict[str, LiveSource] = {
            name: source_of(
                self.classifier,
                split.encoded,
                cache,
                scratch,
                identity,
                memory,
                augmented=self.recipe.augment and name == "train",
            )
            for name, split in self.splits.items()
        }
        self.cache_seconds = 0.0

    def _run_once(self, split: TrainingSplit) -> None:
        """Validate on one sample: libraries that are loaded when they are first used are no cost of the training."""
        source = LiveSource(self.classifier, split.encoded)
        case, positions = next(iter(self.groups[0].items()))
        validate(source, split, self.config.headline_metric, [{case: positions[:1]}])
        split.encoded.release()

    def fit(self) -> Progressed:
        """Train to the last epoch, or until patience is lost; the classifier ends with the weights of the best one.

        Raises:
            TrainingError: the loss, a weight or the validation's metric is no number any more.
            Interrupted: Ctrl-C.
        """
        classifier, recipe, settings = self.classifier, self.recipe, self.settings
        weights = classifier.trained()
        optimizer = make_optimizer(classifier, recipe)
        progressed = self.store.load(weights, optimizer)
        self.team.wait()  # no process writes before every one has read
        try:
            self._prepare()
            if not progressed.epoch:
                self._start_head()
            size = sum(_length(batch) for batch in self._batches(self.splits["train"], self.chosen))
            with self.progress(f"train {settings.method} + {settings.head}", recipe.epochs * size) as advance:
                advance(progressed.epoch * size)
                while progressed.epoch < recipe.epochs and not _patience_lost(progressed, recipe):
                    record = self._epoch(optimizer, progressed.epoch, advance)
                    release_memory()  # else the holes in the heap, and with them the peak, grow from epoch to epoch
                    best = max((r.validation for r in progressed.records), default=-np.inf)
                    progressed.records.append(record)
                    if record.validation > best:
                        progressed.best_epoch = record.epoch
                        progressed.best = {name: p.detach().cpu().clone() for name, p in weights.items()}
                    if self.team.leads:
                        self.store.save(progressed, weights, optimizer)
                        self.observe(record, progressed.best_epoch)
        except KeyboardInterrupt:
            raise Interrupted(
                f"training stopped after epoch {progressed.epoch} of {recipe.epochs}; "
                "the same command with --resume goes on"
            ) from None
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(progressed.best[name])
        classifier.train(False)
        return progressed

    def _prepare(self) -> None:
        """Compute once what is frozen, of all that training and validation will ask for."""
        train, validation = self.splits["train"], self.splits["validation"]
        wanted: dict[str, list[Wanted]] = {"train": [], "validation": []}
        for case in self.cases if self._head_starts else ():
            wanted["train"].append((case, train.encoded.noise, case_positions(train, case)))
        if self.recipe.draws:
            for draw in range(min(self.recipe.draws, self.recipe.epochs)):
                split, noise = self._drawn(draw)
                asked = needed(self._batches(split, self.chosen))
                wanted["train"] += [(self._case(name), noise, positions) for name, positions in asked.items()]
        else:
            possible = {*self.cases, *(self._case(name) for name in train.table)}
            for case in sorted(possible, key=lambda case: case.name):
                wanted["train"].append((case, None, np.intersect1d(self.chosen, case_positions(train, case))))
        for name, positions in needed(self.groups).items():
            wanted["validation"].append((self._case(name), validation.encoded.noise, positions))
        keeping = {name: source for name, source in self.sources.items() if type(source) is not LiveSource}
        clock = Clock(self.device)
        total = sum(len(positions) for name in keeping for *_, positions in wanted[name])
        if total:
            with self.progress("compute what is frozen, once", total) as advance:
                for name, source in keeping.items():
                    source.prepare(wanted[name], advance)
            self.cache_seconds = clock.seconds()
            release_memory()

    @property
    def _head_starts(self) -> bool:
        """Whether the head begins from the frozen features (the prototypes: class means per case)."""
        return not self.head_taken and self.classifier.head.starts_from_features

    def _start_head(self) -> None:
        if not self._head_starts:
            return
        seen = class_features(self.sources["train"], self.splits["train"], self.cases)
        with torch.random.fork_rng(devices=[]):  # every process, and every training of this seed, draws the same
            torch.manual_seed(self.settings.seed)
            self.classifier.head.start_from(seen)

    def _drawn(self, epoch: int) -> tuple[TrainingSplit, Noise]:
        """The missing table and the noise that an epoch (from 0) trains under."""
        draw = epoch % self.recipe.draws if self.recipe.draws else epoch
        seed = self.settings.seed
        if draw:
            seed = int(np.random.default_rng([seed, draw]).integers(2**31))
        split = self.splits["train"]
        return split.drawn(seed) if draw else split, Noise(self.settings.noise_profile, seed)

    def _batches(self, split: TrainingSplit, order: Positions) -> list[Batch]:
        return epoch_batches(split, order, self.recipe, self.cases)

    def _case(self, name: str) -> Case:
        return Case.parse(name, self.classifier.modalities)

    def _epoch(self, optimizer: torch.optim.Optimizer, epoch: int, advance: Advance) -> EpochRecord:
        """One pass over the chosen training samples, one over the validation split.

        Draws depend on the epoch's number alone.
        """
        draws = np.random.default_rng([self.settings.seed, epoch])
        torch.manual_seed(int(draws.integers(2**31)) + self.team.rank)
        split, noise = self._drawn(epoch)
        batches = self._batches(split, self.chosen[draws.permutation(len(self.chosen))])
        total, seen, rate, clock = 0.0, 0, 0.0, Clock(self.device)
        self.classifier.train(True)
        mine = [{name: everyone[self.team.rank :: self.team.size] for name, everyone in b.items()} for b in batches]
        for index, own in enumerate(self.sources["train"].ahead(mine, noise)):
            batch = batches[index]
            rate = learning_rate(self.recipe, epoch * len(batches) + index, self.recipe.epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            value = self._step(split, own, _length(batch), optimizer, noise)
            if not np.isfinite(value):
                raise self._diverged("loss", epoch, index)
            total, seen = total + value * _length(batch), seen + _length(batch)
            advance(_length(batch))
            tick = Tick(
                epoch + 1, index + 1, len(batches), total / seen, seen / clock.seconds(), self.meter.peak_memory()
            )
            self.watch(tick)
        seconds = clock.seconds()
        self.classifier.train(False)
        for parameter in self.classifier.trained().values():
            if not bool(parameter.isfinite().all()):
                raise self._diverged("weights", epoch, len(batches) - 1)
        clock = Clock(self.device)
        metric = validate(
            self.sources["validation"], self.splits["validation"], self.config.headline_metric, self.groups
        )
        metric = float(self.team.same(torch.tensor(metric, dtype=torch.float64, device=self.device)))
        if not np.isfinite(metric):
            raise self._diverged(f"validation {self.config.headline_metric}", epoch, len(batches) - 1)
        peak = self.meter.peak_memory() or 0
        return EpochRecord(epoch + 1, total / seen, metric, rate, seconds, seen / seconds, clock.seconds(), peak)

    def _diverged(self, what: str, epoch: int, index: int) -> TrainingError:
        recipe, classifier = self.recipe, self.classifier
        ways = [f"a smaller --lr (it was {recipe.lr:g})", f"a longer warm-up (--recipe-set warmup, {recipe.warmup:g})"]
        if not recipe.clip:
            ways.append("clipping (--recipe-set clip=1)")
        if classifier.dtype != "float32":
            ways.append("--dtype float32")
        bad = [n for n, p in classifier.trained().items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        where = f", first seen in the gradient of {bad[0]}" if bad else ""
        verb = "are" if what == "weights" else "is"
        return TrainingError(
            f"the {what} {verb} no number any more at epoch {epoch + 1}, step {index + 1}{where}; try {', '.join(ways)}"
        )

    def _step(
        self, split: TrainingSplit, batch: Batch, length: int, optimizer: torch.optim.Optimizer, noise: Noise
    ) -> float:
        """One step of the optimiser. Samples run case by case, the loss is the mean over all.

        Args:
            split: the training split.
            batch: this process's part of the step's samples.
            length: how many samples all processes have.
            optimizer: to step.
            noise: of degraded inputs.
        """
        classifier, recipe = self.classifier, self.recipe
        optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for name, mine in batch.items():
            for positions in np.array_split(mine, min(recipe.accumulate, max(1, len(mine)))):
                if not len(positions):
                    continue
                features = self.sources["train"].features(positions, self._case(name), noise)
                targets = split.targets[positions].to(self.device)
                logits, own = classifier.learn(features, name, targets)
                part = loss(logits, targets, classifier.task, recipe.label_smoothing, recipe.loss) + own
                (part / length).backward()  # type: ignore[no-untyped-call]  # torch's stub
                value += float(part.detach()) / length
        parameters = list(classifier.trained().values())
        self.team.add_up(parameters)
        clip_gradients(parameters, recipe.clip)
        optimizer.step()
        return self.team.total(value, self.device)

    def efficiency(self, progressed: Progressed) -> Efficiency:
        """What the training has cost; of one that was resumed, memory and energy since then."""
        records, trained = progressed.records, self.classifier.trained().values()
        seconds = float(np.median([record.seconds for record in records]))
        samples = round(records[-1].seconds * records[-1].samples_per_second)
        return Efficiency(
            trained_parameters=sum(parameter.numel() for parameter in trained),
            all_parameters=sum(parameter.numel() for parameter in self.classifier.parameters()),
            peak_memory=self.meter.peak_memory(),
            seconds_per_epoch=seconds,
            samples_per_second=samples / seconds,
            samples_per_epoch=samples,
            validation_seconds=float(np.median([record.validation_seconds for record in records])),
            cache_seconds=self.cache_seconds,
            cache_bytes=sum(source.kept_bytes for source in self.sources.values()),
            energy_joules=self.meter.energy(),
            device=_device_name(self.device),
            batch_size=self.recipe.batch_size,
        )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _length(batch: Batch) -> int:
    return sum(len(positions) for positions in batch.values())


def _patience_lost(progressed: Progressed, recipe: Recipe) -> bool:
    return bool(recipe.patience) and progressed.epoch - progressed.best_epoch >= recipe.patience
