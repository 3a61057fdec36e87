"""The training loop: epochs of optimiser steps, each followed by a validation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmrobust.cases import Case
from mmrobust.degradations import Noise
from mmrobust.errors import Interrupted, TrainingError
from mmrobust.models.glance import UNIT, Glance
from mmrobust.runtime.devices import copied
from mmrobust.runtime.progress import Advance, Progress
from mmrobust.storage.tasks import sign_of
from mmrobust.training.cost import ResourceMeter, Stopwatch, TrainingCost, release_memory
from mmrobust.training.distributed import ProcessGroup
from mmrobust.training.feature_cache import Cache, make_source
from mmrobust.training.objective import learning_rate, loss, make_optimizer, positive_weights
from mmrobust.training.probe import fit_glance
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import Setup
from mmrobust.training.sources import FeatureRequest, LiveSource, Part, starting_features
from mmrobust.training.splits import PositionsByCase, TrainingSplit, count, epoch_batches, training_share, union
from mmrobust.training.state import EpochRecord, StateStore, TrainingState
from mmrobust.training.validation import Validation, validate, validation_groups

OnEpoch = Callable[[EpochRecord, int], None]
"""Called after each epoch with its record and the best epoch so far."""


@dataclass(frozen=True)
class StepRecord:
    """How far a training is, after a step."""

    epoch: int
    step: int
    steps: int
    """Number of steps in the epoch."""
    loss: float
    """Mean over the samples of the epoch so far."""
    samples_per_second: float
    peak_memory: int | None


OnStep = Callable[[StepRecord], None]
"""Called after each step; on a GPU, after every eighth."""
STEPS_BETWEEN_LOOKS = 8


class Trainer:
    """Trains a classifier that was set up. Arguments: those of :func:`mmrobust.training.loop.train`."""

    def __init__(
        self,
        setup: Setup,
        settings: TrainSettings,
        store: StateStore,
        cache: Cache,
        processes: ProcessGroup,
        progress: Progress,
        on_epoch: OnEpoch,
        on_step: OnStep,
    ) -> None:
        self.classifier, self.config, self.head_taken = setup.classifier, setup.config, setup.head_taken
        self.train_split, self.validation_split = setup.train, setup.validation
        self.settings, self.recipe = settings, settings.recipe
        self.store, self.processes = store, processes
        self.progress, self.on_epoch, self.on_step = progress, on_epoch, on_step
        self.device = next(self.classifier.parameters()).device
        # The classifier's cases, with the corruption that the scenario names where it names one.
        (affected, *_) = setup.train.scenario.cases
        self.cases = [self._case(name).under(affected) for name in self.classifier.cases]
        self.chosen = training_share(setup.train.encoded.split.ids, self.recipe.share, settings.seed)
        self.groups = validation_groups(setup.validation, self.recipe, self.cases, settings.seed)
        self.positive_weight: torch.Tensor | None = None
        if self.classifier.task == "multi-label" and self.recipe.balance:
            weights = positive_weights(setup.train.targets[torch.from_numpy(self.chosen)], self.recipe.balance)
            self.positive_weight = weights.to(self.device)
        glance = self.classifier.backbone.glance
        self.trains_glance = glance is not None and self.classifier.method.trains_backbone
        if glance is not None:
            glance.apart = self.trains_glance and self.classifier.head.adds_glance
        self._warm_up()
        self.meter = ResourceMeter(self.device)
        self.cache_seconds = 0.0
        scratch = store.scratch / str(processes.rank)
        shutil.rmtree(scratch, ignore_errors=True)
        identity = {"backbone": self.config.backbone["fingerprint"], "data": self.config.dataset["fingerprint"]}
        memory, augmented = cache.budget(), self.recipe.augment
        self.train_source, self.validation_source = (
            make_source(self.classifier, split.encoded, cache, scratch, identity, memory, augmented=augment)
            for split, augment in ((self.train_split, augmented), (self.validation_split, False))
        )

    def _warm_up(self) -> None:
        """Validate on one sample, so that libraries loaded on first use do not count as a cost of the training."""
        source = LiveSource(self.classifier, self.validation_split.encoded)
        case, positions = next(iter(self.groups[0].items()))
        validate(source, self.validation_split, self.config.headline_metric, [{case: positions[:1]}])
        self.validation_split.encoded.release()

    def fit(self) -> TrainingState:
        """Train to the last epoch, or until patience runs out; the classifier ends with the weights of the best epoch.

        Raises:
            TrainingError: the loss, a weight or the validation metric became NaN or infinite.
            Interrupted: Ctrl-C.
        """
        recipe, weights = self.recipe, self.classifier.trained()
        optimizer = make_optimizer(self.classifier, recipe)
        state = self.store.load(weights, optimizer)
        state.sign = sign_of(self.config.headline_metric)
        self.processes.barrier()  # no process writes before every one has read
        try:
            self._fill_cache()
            if not state.epoch:
                self._initialise()
                for parameter in weights.values():  # a GPU need not fit the same numbers as another, to the last bit
                    self.processes.broadcast(parameter.data)
            size = sum(map(count, epoch_batches(self.train_split, self.chosen, recipe, self.cases)))
            left = (recipe.epochs - state.epoch) * size  # what was done before would count as done in no time
            with self.progress(f"train {self.settings.method} + {self.settings.head}", left) as advance:
                while state.epoch < recipe.epochs and not 0 < recipe.patience <= state.since_improvement:
                    record = self._epoch(optimizer, state.epoch, advance)
                    release_memory()  # otherwise the heap fragments, and the peak grows from epoch to epoch
                    if state.add(record):
                        state.best_weights = {name: p.detach().cpu().clone() for name, p in weights.items()}
                    if self.processes.is_main:
                        self.store.save(state, weights, optimizer)
                        self.on_epoch(record, state.best_epoch)
        except KeyboardInterrupt:
            raise Interrupted(
                f"training stopped after epoch {state.epoch} of {recipe.epochs}; "
                "run the same command with --resume to continue"
            ) from None
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(state.best_weights[name])
        self.classifier.train(False)
        return state

    def _fill_cache(self) -> None:
        """Compute frozen outputs once, for all samples, cases and noises that training and validation will ask for."""
        validated = self._requests(self.groups, self.validation_split.encoded.noise)
        requests = {self.train_source: self._training_requests(), self.validation_source: validated}
        caching = [source for source in requests if type(source) is not LiveSource]
        total = sum(len(request.positions) for source in caching for request in requests[source])
        if not total:
            return
        clock = Stopwatch(self.device)
        with self.progress("compute frozen features once", total) as advance:
            for source in caching:
                source.prepare(requests[source], advance)
        self.cache_seconds = clock.seconds()
        release_memory()

    def _training_requests(self) -> list[FeatureRequest]:
        train, requests = self.train_split, []
        if self._head_needs_features:
            requests += [FeatureRequest(case, train.encoded.noise, train.eligible(case)) for case in self.cases]
        for draw in range(min(self.recipe.draws, self.recipe.epochs)):
            split, noise = self._drawn(draw)
            requests += self._requests(epoch_batches(split, self.chosen, self.recipe, self.cases), noise)
        if not self.recipe.draws:  # any sample can be in any case, under noise that is not known yet
            possible = {*self.cases, *(self._case(name) for name in train.table)}
            for case in sorted(possible, key=lambda case: case.name):
                requests.append(FeatureRequest(case, None, np.intersect1d(self.chosen, train.eligible(case))))
        return requests

    def _requests(self, groups: list[PositionsByCase], noise: Noise) -> list[FeatureRequest]:
        return [FeatureRequest(self._case(name), noise, positions) for name, positions in union(groups).items()]

    def _head_may_start(self, glance: Glance) -> bool:
        """Whether the head of a method on a frozen backbone is new, trains, and may start as the backbone's probe."""
        new = self.classifier.method.trains_head and not self.head_taken
        return new and glance.outputs == len(self.classifier.classes)

    @property
    def _head_needs_features(self) -> bool:
        """Whether the head is initialised from frozen features (prototypes: the class means of each case)."""
        return not self.head_taken and self.classifier.head.starts_from_features

    def _initialise(self) -> None:
        """Fit what starts from the training split: the glance of a new backbone, and a head that needs features."""
        glance = self.classifier.backbone.glance
        if self.trains_glance:
            training = self.train_source, self.train_split, self.train_split.by_case(self.chosen)
            validation = self.validation_source, self.validation_split, union(self.groups)
            fit_glance(training, validation, self.recipe, self.positive_weight)
        elif glance is not None and glance.fitted and self._head_may_start(glance):
            biases = torch.zeros(glance.outputs, device=self.device)
            self.classifier.head.start_at_glance(len(glance.modalities), UNIT, biases)
        if not self._head_needs_features:
            return
        features = starting_features(self.train_source, self.train_split, self.cases)
        with torch.random.fork_rng(devices=[]):  # every process, and every training of this seed, draws the same
            torch.manual_seed(self.settings.seed)
            self.classifier.head.start_from(features)

    def _drawn(self, epoch: int) -> tuple[TrainingSplit, Noise]:
        """The missing table and the noise of an epoch, counted from 0."""
        draw = epoch % self.recipe.draws if self.recipe.draws else epoch
        seed = self.settings.seed
        if draw:
            seed = int(np.random.default_rng([seed, draw]).integers(2**31))
        return self.train_split.redrawn(seed) if draw else self.train_split, Noise(self.settings.noise_profile, seed)

    def _case(self, name: str) -> Case:
        return Case.parse(name, self.classifier.modalities)

    def _epoch(self, optimizer: torch.optim.Optimizer, epoch: int, advance: Advance) -> EpochRecord:
        """Train on the chosen samples once, then validate. Random draws depend only on the epoch, counted from 0."""
        rank, size = self.processes.rank, self.processes.size
        draws = np.random.default_rng([self.settings.seed, epoch])
        torch.manual_seed(int(draws.integers(2**31)) + rank)
        split, noise = self._drawn(epoch)
        order = self.chosen[draws.permutation(len(self.chosen))]
        batches = epoch_batches(split, order, self.recipe, self.cases)
        mine = [list(self._parts({name: p[rank::size] for name, p in batch.items()})) for batch in batches]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        seen, rate, so_far, clock = 0, 0.0, 0.0, Stopwatch(self.device)
        self.classifier.train(True)
        for index, parts in enumerate(self.train_source.prefetch(mine, noise)):
            samples = count(batches[index])
            rate = learning_rate(self.recipe, epoch * len(batches) + index, self.recipe.epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            total += self._step(split, parts, samples, optimizer, noise) * samples
            seen += samples
            advance(samples)
            if index + 1 < len(batches) and not self._looks(index):
                continue
            so_far = float(total)
            if not np.isfinite(so_far):
                raise self._diverged("loss", epoch, index)
            speed, memory = seen / clock.seconds(), self.meter.peak_memory()
            self.on_step(StepRecord(epoch + 1, index + 1, len(batches), so_far / seen, speed, memory))
        seconds = clock.seconds()
        self.classifier.train(False)
        if not all(bool(parameter.isfinite().all()) for parameter in self.classifier.trained().values()):
            raise self._diverged("weights", epoch, len(batches) - 1)
        clock = Stopwatch(self.device)
        found = self.validate()
        both = torch.tensor([found.metric, found.loss], dtype=torch.float64, device=self.device)
        metric, validation_loss = self.processes.broadcast(both).tolist()
        if not np.isfinite(metric):
            raise self._diverged(f"validation {self.config.headline_metric}", epoch, len(batches) - 1)
        peak = self.meter.peak_memory() or 0
        return EpochRecord(
            epoch=epoch + 1,
            train_loss=so_far / seen,
            validation=metric,
            validation_loss=validation_loss,
            lr=rate,
            seconds=seconds,
            samples_per_second=seen / seconds,
            validation_seconds=clock.seconds(),
            peak_memory=peak,
        )

    def validate(self) -> Validation:
        """Validate the classifier as it is."""
        return validate(self.validation_source, self.validation_split, self.config.headline_metric, self.groups)

    def _parts(self, batch: PositionsByCase) -> Iterator[Part]:
        """What of a batch runs at a time."""
        for name, positions in batch.items():
            parts = np.array_split(positions, min(self.recipe.accumulate, max(1, len(positions))))
            yield from ((name, part) for part in parts if len(part))

    def _step(
        self, split: TrainingSplit, parts: Sequence[Part], samples: int, optimizer: torch.optim.Optimizer, noise: Noise
    ) -> torch.Tensor:
        """One step of the optimiser on the parts of a batch of so many ``samples`` that are this process's.

        Returns the mean loss over all of them, on the device: to know it, one would have to wait.
        """
        classifier, recipe = self.classifier, self.recipe
        optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), dtype=torch.float64, device=self.device)
        for name, positions in parts:
            features = self.train_source.features(positions, self._case(name), noise)
            targets = copied(split.targets[positions], self.device)
            logits, own = classifier.learn(features, name, targets)
            weight, smoothing = self.positive_weight, recipe.label_smoothing
            part = loss(logits, targets, classifier.task, smoothing, recipe.loss, weight, classifier.scale) + own
            (part / samples).backward()  # type: ignore[no-untyped-call]  # torch's stub
            value += part.detach().double() / samples
        parameters = list(classifier.trained().values())
        self.processes.sum_gradients(parameters)
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        return self.processes.sum(value)

    def _looks(self, index: int) -> bool:
        """Whether to look how training goes after a step: a GPU must be waited for. All processes look together."""
        return self.device.type == "cpu" or (index + 1) % STEPS_BETWEEN_LOOKS == 0

    def _diverged(self, what: str, epoch: int, index: int) -> TrainingError:
        recipe, classifier = self.recipe, self.classifier
        ways = [f"a smaller --lr (it was {recipe.lr:g})", f"a longer warm-up (--recipe-set warmup, {recipe.warmup:g})"]
        if not recipe.clip:
            ways.append("clipping (--recipe-set clip=1)")
        if classifier.dtype != "float32":
            ways.append("--dtype float32")
        bad = [n for n, p in classifier.trained().items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        where = f", first seen in the gradient of {bad[0]}" if bad else ""
        return TrainingError(
            f"the {what} became NaN or infinite at epoch {epoch + 1}, step {index + 1}{where}; try {', '.join(ways)}"
        )

    def cost(self, state: TrainingState) -> TrainingCost:
        """The cost of the training; after a resume, memory and energy count from there."""
        records = state.records
        seconds = float(np.median([record.seconds for record in records]))
        samples = round(records[-1].seconds * records[-1].samples_per_second)
        return TrainingCost(
            trained_parameters=sum(p.numel() for p in self.classifier.trained().values()),
            all_parameters=sum(p.numel() for p in self.classifier.parameters()),
            peak_memory=self.meter.peak_memory(),
            seconds_per_epoch=seconds,
            samples_per_second=samples / seconds,
            samples_per_epoch=samples,
            validation_seconds=float(np.median([record.validation_seconds for record in records])),
            cache_seconds=self.cache_seconds,
            cache_bytes=self.train_source.cached_bytes + self.validation_source.cached_bytes,
            energy_joules=self.meter.energy(),
            device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            batch_size=self.recipe.batch_size,
        )
