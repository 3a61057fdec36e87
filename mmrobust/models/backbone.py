"""What a backbone is to the rest of the package: streams, layers, pooling, and the processor of its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrobust.configuration import from_mapping, plain
from mmrobust.data.processor import Processor
from mmrobust.errors import UsageError
from mmrobust.models.layers import LayerView, Prompts, run_layer
from mmrobust.models.sequence import TokenSequence
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors

PromptSource = Callable[[str, int, TokenSequence], "Prompts | None"]
"""(stream, layer of the stream, its sequence) → what the method adds there."""


@dataclass(frozen=True)
class BackboneSettings:
    """How a backbone runs, beyond its weights: part of a checkpoint. A family with more has its own subclass."""

    dropout: bool = False
    """Whether a frozen backbone's dropout is on while something else trains, as in the papers' released code."""


@dataclass(frozen=True)
class Begun:
    """A stream that has run through its first layers with nothing added, for a forward pass to go on from.

    What a frozen backbone gives up to the first layer that a method changes depends on the inputs alone: it can be run
    once (:meth:`Backbone.begin`), kept, and shared by every case and step in which the inputs are the same.
    """

    sequence: TokenSequence
    layers: int
    """How many of the stream's layers have run."""


@dataclass(frozen=True)
class Features:
    """What a head sees of a batch."""

    pooled_BD: Tensor | None
    """One vector for the whole sample (heads ``linear`` and ``mlp``)."""
    parts_BD: Mapping[str, Tensor]
    """Modality → its own vector [B, D of the modality] (head ``prototype``); at least those that are looked at."""

    def rows(self, rows: Tensor) -> Features:
        """The features of these samples of the batch, by their indices [n]."""
        pooled = None if self.pooled_BD is None else self.pooled_BD[rows]
        return Features(pooled, {modality: part_BD[rows] for modality, part_BD in self.parts_BD.items()})


class Pooling(nn.Module, ABC):
    """Streams to features: the part of a backbone that some methods train."""

    pooled_size: int
    part_sizes: Mapping[str, int]
    trained_names: ClassVar[tuple[str, ...]] = ()
    """Names of children that a method with ``trains_pooling`` trains, where the head reads the pooled vector."""
    trained_part_names: ClassVar[tuple[str, ...]] = ()
    """The same where the head reads the parts."""

    @abstractmethod
    def pooled(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """One vector for the whole sample [B, D]. What a tower that did not run would have given is zero."""

    @abstractmethod
    def parts(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → its own vector [B, D of the modality], of those whose stream ran."""


class Backbone(nn.Module, ABC):
    """A frozen encoder: an nn.Module of a library (or ours) with its weights, names and config, seen as streams."""

    family: ClassVar[str]
    settings_class: ClassVar[type[BackboneSettings]] = BackboneSettings
    modalities: ClassVar[tuple[str, ...]]
    streams: ClassVar[tuple[str, ...]]
    """In the order in which they run. One of a modality's name is that modality's own and sees nothing of the others; a
    later one begins with what those gave."""
    towers: ClassVar[bool] = False
    """Whether every stream is a modality's own, so that they never meet. Then the tower of a modality that nothing
    looks at is not run."""
    normed_head: ClassVar[bool] = False
    """Whether the family's linear head has a LayerNorm in front (CAV-MAE's has)."""

    config_keys: ClassVar[tuple[str, ...]] = ("num_attention_heads", "hidden_act", "layer_norm_eps")
    """What of the model's config, and of those of its towers, decides numbers and is not seen in the weights."""

    lora_targets: ClassVar[tuple[str, ...]] = ()
    """Which of the model's dense layers LoRA adapts, by the ends of their names."""

    model: Any
    """The module that holds the weights."""
    checkpointing: bool = False
    """Whether a layer's activations are computed again in the backward pass instead of being kept."""

    def __init__(self, model: Any, processor: Processor, source: str) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.settings: Any = self.settings_class()
        self._own_names = frozenset(model.state_dict())
        self.source = source
        """The Hub id or folder it came from, or ``tiny-…``."""

    @abstractmethod
    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """The embedded tokens of one modality. Reads its own ``inputs`` alone."""

    @abstractmethod
    def layers(self, stream: str) -> Sequence[LayerView]:
        """The layers of ``stream``, first to last."""

    @abstractmethod
    def first_layer(self, stream: str) -> int:
        """How many layers of the network lie before the first one of ``stream``."""

    @abstractmethod
    def pooling(self) -> Pooling:
        """The pooling, made of the model's own modules (shared, not copied)."""

    @property
    @abstractmethod
    def width(self) -> Mapping[str, int]:
        """Stream → size D of its tokens."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Run with these ``settings`` from now on.

        Raises:
            UsageError: a setting that the family does not have, or a value out of range.
        """
        self.settings = from_mapping(self.settings_class, settings, f"{self.family} backbone")

    @property
    def meetings(self) -> Mapping[str, tuple[str, ...]]:
        """Where streams meet: stream → the modalities that its layers take keys and values from."""
        return {}

    @property
    def knows_case(self) -> bool:
        """Whether it runs otherwise when it is told that a modality is missing."""
        return self.towers

    def needed(self, missing: Collection[str] = ()) -> tuple[str, ...]:
        """The modalities that must be run where those in ``missing`` are known to be."""
        return tuple(modality for modality in self.modalities if not (self.knows_case and modality in missing))

    def reads(self, stream: str) -> tuple[str, ...]:
        """The modalities whose embedded inputs ``stream`` begins with; empty where it begins with what streams gave."""
        if stream in self.modalities:
            return (stream,)
        return () if any(modality in self.streams for modality in self.modalities) else tuple(self.modalities)

    def begin(self, stream: str, inputs: Mapping[str, Tensor], depth: int) -> Begun:
        """A stream that :meth:`reads` inputs, after its first ``depth`` layers with nothing added.

        Args:
            stream: its name.
            inputs: a batch as :meth:`Processor.collate` gives it.
            depth: how many of its layers to run.
        """
        embedded = {modality: self.embed(modality, inputs) for modality in self.reads(stream)}
        tokens = embedded[stream] if stream in embedded else self.join(embedded)
        return Begun(run_stream(stream, self.layers(stream)[:depth], tokens, None), depth)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        prompts: PromptSource | None = None,
        missing: Collection[str] = (),
        begun: Mapping[str, Begun] | None = None,
    ) -> dict[str, TokenSequence]:
        """The streams that are needed, each after its last layer: each modality alone, then where they meet.

        Args:
            inputs: a batch as :meth:`Processor.collate` gives it; what only streams in ``begun`` read may be absent.
            prompts: what a method adds; ``None``: nothing.
            missing: the modalities that it is told are missing; without towers it runs on their fills all the same.
            begun: streams to go on from, of the same inputs. Nothing may be added to the layers that have run.
        """
        begun = begun or {}
        embedded = {modality for stream in begun if stream not in self.modalities for modality in self.reads(stream)}
        alone = {
            modality: self.alone(modality, inputs, prompts, begun.get(modality))
            for modality in self.needed(missing)
            if modality not in embedded
        }
        return self.meet(alone, prompts, begun)

    def alone(
        self,
        modality: str,
        inputs: Mapping[str, Tensor],
        prompts: PromptSource | None = None,
        begun: Begun | None = None,
    ) -> TokenSequence:
        """All that is done to one modality before it meets another: embedded, and through the stream of its own.

        Nothing but the modality's inputs and the prompts of its stream decides it, so several cases can share it.
        """
        if modality not in self.streams:
            return self.embed(modality, inputs)
        return self.run(modality, begun or Begun(self.embed(modality, inputs), 0), prompts)

    def meet(
        self,
        alone: Mapping[str, TokenSequence],
        prompts: PromptSource | None = None,
        begun: Mapping[str, Begun] | None = None,
    ) -> dict[str, TokenSequence]:
        """All streams after their last layers, from where modalities meet; towers never do.

        Args:
            alone: what :meth:`alone` gave, of each modality of :meth:`needed` that ``begun`` does not hold joined.
            prompts: as for :meth:`forward`.
            begun: as for :meth:`forward`.
        """
        del prompts, begun
        return dict(alone)

    def join(self, alone: Mapping[str, TokenSequence]) -> TokenSequence:
        """The tokens with which the stream begins in which modalities meet. Towers have none."""
        raise NotImplementedError(f"{self.family} joins no modalities")

    def run(self, stream: str, begun: Begun, prompts: PromptSource | None) -> TokenSequence:
        """``stream`` from where it has begun to after its last layer."""
        layers = self.layers(stream)
        return run_stream(stream, layers, begun.sequence, prompts, begun.layers, checkpointing=self.checkpointing)

    def weights(self) -> dict[str, Tensor]:
        """Name → each of its own weights, whatever a method has put into the model beside them.

        PEFT moves an adapted layer's own weight to ``….base_layer.weight`` and puts the adapter's next to it.
        """
        state = {name.replace(".base_layer.", "."): t for name, t in self.model.state_dict().items()}
        return {name: tensor for name, tensor in state.items() if name in self._own_names}

    def fingerprint(self) -> str:
        """Fingerprint of every weight of its own."""
        return fingerprint_tensors(self.weights())

    def inputs_fingerprint(self) -> str:
        """Fingerprint of what decides its numbers beside the weights and :attr:`settings`: processor and config.

        Values are named one by one and files are not hashed: what a library writes beside them (its version, where the
        model came from, defaults that are new) must not make another backbone of it.
        """
        config = getattr(self.model, "config", None)
        parts = {"model": config} | {name: getattr(config, name, None) for name in ("text_config", "vision_config")}
        said = {
            part: {key: plain(getattr(found, key)) for key in self.config_keys if hasattr(found, key)}
            for part, found in parts.items()
        }
        return fingerprint_settings({"config": said, "processor": self.processor.described()})

    def save(self, folder: Path) -> None:
        """Weights, config and processor in Hugging Face's layout: what ``load_backbone`` reads."""
        with without_bars():
            self.model.save_pretrained(folder, state_dict=self.weights())
        self.processor.save(folder)


def run_stream(
    stream: str,
    layers: Sequence[LayerView],
    sequence: TokenSequence,
    prompts: PromptSource | None,
    first: int = 0,
    *,
    checkpointing: bool = False,
) -> TokenSequence:
    """``sequence`` after ``layers``, the ``first`` of which it has behind it, with what a method adds to each.

    With ``checkpointing``, what a layer computes inside is not kept for the backward pass, which computes it again.
    """

    def step(index: int, sequence: TokenSequence) -> TokenSequence:
        return run_layer(layers[index], sequence, None if prompts is None else prompts(stream, index, sequence))

    for index in range(first, len(layers)):
        if checkpointing and torch.is_grad_enabled():
            sequence = checkpoint(step, index, sequence, use_reentrant=False)
        else:
            sequence = step(index, sequence)
    return sequence


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing bars for what takes no time: reading and writing local weights."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def check_modalities(backbone: type[Backbone], wanted: Sequence[str], source: str) -> None:
    """Raise where a backbone does not take exactly the ``wanted`` modalities.

    Raises:
        UsageError: it does not; the message names both.
    """
    if set(backbone.modalities) != set(wanted):
        raise UsageError(
            f"backbone {source} ({backbone.family}) takes {' + '.join(backbone.modalities)}, "
            f"the data set gives {' + '.join(wanted)}; choose with --modalities, or another --backbone"
        )
