"""The interface of a backbone to the rest of the package: streams, layers, pooling, and the processor of its inputs."""

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
from mmrobust.storage.files import follow_umask
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors

PromptSource = Callable[[str, int, TokenSequence], "Prompts | None"]
"""(stream, index of a layer in it, the layer's input) → what the method adds there."""


@dataclass(frozen=True)
class BackboneSettings:
    """Settings of a backbone, stored in the checkpoint.

    A family with settings of its own subclasses it, and raises a ``UsageError`` for a value out of range.
    """

    dropout: bool = False
    """Keep a frozen backbone's dropout on while something else trains, as the papers' released code does."""


@dataclass(frozen=True)
class PartialStream:
    """A stream after its first layers, which were run with nothing added.

    Up to the first layer that a method changes, the output of a frozen backbone depends on the inputs alone. It can be
    computed once (:meth:`Backbone.run_first_layers`), cached, and shared by every case and step with the same inputs.
    """

    sequence: TokenSequence
    layers: int
    """How many of the stream's layers have been run."""


@dataclass(frozen=True)
class Features:
    """The features of a batch that a head reads: the pooled vector, or one vector per modality."""

    pooled_BD: Tensor | None
    """One vector for the whole sample (heads ``linear`` and ``mlp``)."""
    by_modality: Mapping[str, Tensor]
    """Modality → its own vector [B, D of the modality] (head ``prototype``), at least for the modalities present."""

    def rows(self, rows: Tensor) -> Features:
        """The features of the samples at the indices ``rows`` [n] of the batch."""
        pooled = None if self.pooled_BD is None else self.pooled_BD[rows]
        return Features(pooled, {modality: vector_BD[rows] for modality, vector_BD in self.by_modality.items()})


class Pooling(nn.Module, ABC):
    """Streams to features: the part of a backbone that some methods train."""

    pooled_size: int
    modality_sizes: Mapping[str, int]
    """Modality → size of its own vector."""
    trained_if_pooled: ClassVar[tuple[str, ...]] = ()
    """Child modules that a method with ``trains_pooling`` trains under a head that reads the pooled vector."""
    trained_if_by_modality: ClassVar[tuple[str, ...]] = ()
    """Child modules that it trains under a head that reads one vector per modality."""

    def __init__(self, model: Any) -> None:
        super().__init__()

    def pooled(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """One vector [B, D] for the sample: by default the modalities' side by side, zeros for a tower not run."""
        features = self.by_modality(streams)
        like = next(iter(features.values()))
        sizes = self.modality_sizes.items()
        return torch.cat([features.get(modality, like.new_zeros(len(like), size)) for modality, size in sizes], dim=-1)

    @abstractmethod
    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → its own vector [B, D of the modality], for the modalities whose stream was run."""


class Backbone(nn.Module, ABC):
    """A frozen encoder, seen as streams; its weights, names and config stay those of the library that it comes from.

    Args:
        model: the module that holds the weights.
        processor: turns raw modalities into its inputs.
        source: the Hub id or folder that it was loaded from, or ``tiny-…``.
    """

    family: ClassVar[str]
    settings_class: ClassVar[type[BackboneSettings]] = BackboneSettings
    pooling_class: ClassVar[type[Pooling]]
    modalities: tuple[str, ...]
    """The modalities that it takes; a family that takes any has none before it is built."""
    streams: tuple[str, ...]
    """Names of the streams, in the order in which they run. A stream named after a modality sees that modality alone; a
    later stream starts from the output of earlier ones."""
    late_fusion: ClassVar[bool] = False
    """Whether each stream is a tower for one modality and only pooled features are combined. The tower of a modality
    that is known to be missing is then not run."""
    normed_head: ClassVar[bool] = False
    """Whether a linear head has a LayerNorm in front, as CAV-MAE's has."""

    config_keys: ClassVar[tuple[str, ...]] = ("num_attention_heads", "hidden_act", "layer_norm_eps")
    """Keys of the model's config (and of its towers' configs) that affect the output but do not show in the weights."""
    lora_targets: tuple[str, ...] = ()
    """Dense layers of the model that LoRA adapts, given by the ends of their names."""
    limited: ClassVar[bool] = True
    """Whether all its weights lie in its folder, so that it can be no larger than the files there."""
    model: Any
    checkpointing: bool = False
    """Whether activations within a layer are recomputed in the backward pass instead of being stored."""

    def __init__(self, model: Any, processor: Processor, source: str) -> None:
        super().__init__()
        self.model, self.processor, self.source = model, processor, source
        self.settings: Any = self.settings_class()
        self._own_names = frozenset(model.state_dict())

    @classmethod
    def load(cls, place: str, source: str) -> Backbone:
        """The backbone whose weights and processor lie in the folder or Hub id ``place``; ``source`` is its name."""
        raise NotImplementedError(f"{cls.family} cannot be loaded from a folder")

    @abstractmethod
    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """The embedded tokens of one modality, made from its own ``inputs`` alone."""

    @abstractmethod
    def layers(self, stream: str) -> Sequence[LayerView]:
        """The layers of ``stream``, first to last."""

    def layers_before(self, stream: str) -> int:
        """Number of layers of the network that come before the first layer of ``stream``."""
        return 0

    def pooling(self) -> Pooling:
        """The pooling, made of the model's own modules (shared, not copied)."""
        return self.pooling_class(self.model)

    @property
    @abstractmethod
    def width(self) -> Mapping[str, int]:
        """Stream → size D of its tokens."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Use these ``settings`` from now on; a ``UsageError`` for one that is unknown or out of range."""
        self.settings = from_mapping(self.settings_class, settings, f"{self.family} backbone")

    @property
    def fusion_points(self) -> Mapping[str, tuple[str, ...]]:
        """Where modalities are fused by attention: stream → the modalities that it takes keys and values from."""
        return {}

    @property
    def knows_case(self) -> bool:
        """Whether it computes something else when it is told that a modality is missing."""
        return self.late_fusion

    def modalities_to_run(self, missing: Collection[str] = ()) -> tuple[str, ...]:
        """The modalities that must be run when those in ``missing`` are known to be missing."""
        return tuple(modality for modality in self.modalities if not (self.knows_case and modality in missing))

    @property
    def encoded_once(self) -> tuple[str, ...]:
        """The modalities whose embedding is the output of a frozen encoder, whatever else trains."""
        return ()

    def lr_scale(self, parameter: str) -> float:
        """The learning rate of one of its parameters, by name, as a multiple of the recipe's."""
        return 1.0

    def described(self) -> dict[str, Any]:
        """What a checkpoint's config records of it beside its source, weights and settings."""
        return {}

    def input_modalities(self, stream: str) -> tuple[str, ...]:
        """The modalities whose embedded tokens ``stream`` starts from; empty if it starts from other streams."""
        if stream in self.modalities:
            return (stream,)
        return () if any(modality in self.streams for modality in self.modalities) else tuple(self.modalities)

    def run_first_layers(self, stream: str, inputs: Mapping[str, Tensor], depth: int) -> PartialStream:
        """Run the first ``depth`` layers of a stream that starts from embedded ``inputs``, with nothing added."""
        embedded = {modality: self.embed(modality, inputs) for modality in self.input_modalities(stream)}
        tokens = embedded[stream] if stream in embedded else self.joint_input(embedded)
        return PartialStream(run_layers(stream, self.layers(stream)[:depth], tokens, None), depth)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        prompts: PromptSource | None = None,
        missing: Collection[str] = (),
        partial: Mapping[str, PartialStream] | None = None,
    ) -> dict[str, TokenSequence]:
        """Run all streams that are needed to their last layer: each modality on its own, then their fusion.

        Args:
            inputs: a batch as :meth:`Processor.collate` gives it; inputs that only streams in ``partial`` start from
                may be left out.
            prompts: what a method adds; ``None``: nothing.
            missing: the modalities that it is told are missing; they run on their fills unless it :attr:`knows_case`.
            partial: streams of the same inputs to continue from. Nothing may be added to the layers already run.
        """
        partial = partial or {}
        joined = {m for stream in partial if stream not in self.modalities for m in self.input_modalities(stream)}
        encoded = {
            modality: self.encode_modality(modality, inputs, prompts, partial.get(modality))
            for modality in self.modalities_to_run(missing)
            if modality not in joined
        }
        return self.fuse(encoded, prompts, partial)

    def encode_modality(
        self,
        modality: str,
        inputs: Mapping[str, Tensor],
        prompts: PromptSource | None = None,
        partial: PartialStream | None = None,
    ) -> TokenSequence:
        """Everything that is computed from one modality before fusion: its embedding and the stream of its own, if any.

        The result depends only on its inputs and on the prompts of its stream, so several cases can share it.
        """
        if modality not in self.streams:
            return self.embed(modality, inputs)
        return self.run_remaining_layers(modality, partial or PartialStream(self.embed(modality, inputs), 0), prompts)

    def fuse(
        self,
        encoded: Mapping[str, TokenSequence],
        prompts: PromptSource | None = None,
        partial: Mapping[str, PartialStream] | None = None,
    ) -> dict[str, TokenSequence]:
        """All streams after their last layers, given the encoded modalities. With late fusion there is nothing to run.

        ``encoded`` has the result of :meth:`encode_modality` for all :meth:`modalities_to_run` except those that a
        joint stream in ``partial`` already includes; ``prompts`` and ``partial`` are those of :meth:`forward`.
        """
        return dict(encoded)

    def joint_input(self, encoded: Mapping[str, TokenSequence]) -> TokenSequence:
        """The tokens that the joint stream starts from; a backbone without a joint stream has none."""
        raise NotImplementedError(f"{self.family} has no joint stream")

    def run_remaining_layers(self, stream: str, partial: PartialStream, prompts: PromptSource | None) -> TokenSequence:
        """``stream`` after its last layer, continuing from ``partial``."""
        layers = self.layers(stream)
        return run_layers(stream, layers, partial.sequence, prompts, partial.layers, checkpointing=self.checkpointing)

    def weights(self) -> dict[str, Tensor]:
        """Name → each weight of the backbone itself, without what a method has put into the model.

        PEFT moves an adapted layer's own weight to ``….base_layer.weight`` and puts the adapter's next to it.
        """
        state = {name.replace(".base_layer.", "."): t for name, t in self.model.state_dict().items()}
        return {name: tensor for name, tensor in state.items() if name in self._own_names}

    def fingerprint(self) -> str:
        """Fingerprint of all weights of the backbone itself."""
        return fingerprint_tensors(self.weights())

    def inputs_fingerprint(self) -> str:
        """Fingerprint of what affects the output besides the weights and :attr:`settings`: processor and config.

        Only named values count, not whole files: what a library writes beside them (its version, the model's origin,
        new defaults) must not make it count as another backbone.
        """
        config = getattr(self.model, "config", None)
        configs = {"model": config} | {name: getattr(config, name, None) for name in ("text_config", "vision_config")}
        values = {
            name: {key: plain(getattr(found, key)) for key in self.config_keys if hasattr(found, key)}
            for name, found in configs.items()
        }
        return fingerprint_settings({"config": values, "processor": self.processor.described()})

    def save(self, folder: Path) -> None:
        """Write weights, config and processor in Hugging Face's layout, which ``load_backbone`` reads."""
        with without_progress_bars():
            self.model.save_pretrained(folder, state_dict=self.weights())
        self.processor.save(folder)
        follow_umask(folder)


def run_layers(
    stream: str,
    layers: Sequence[LayerView],
    sequence: TokenSequence,
    prompts: PromptSource | None,
    first: int = 0,
    *,
    checkpointing: bool = False,
) -> TokenSequence:
    """``sequence`` after ``layers[first:]``, with what a method adds to each; see :attr:`Backbone.checkpointing`."""

    def step(index: int, sequence: TokenSequence, tokens_BLD: Tensor) -> TokenSequence:
        sequence = sequence.with_tokens(tokens_BLD)
        return run_layer(layers[index], sequence, None if prompts is None else prompts(stream, index, sequence))

    for index in range(first, len(layers)):
        if checkpointing and torch.is_grad_enabled():
            # The tokens by themselves: of them checkpoint() learns on which device it must restore the random numbers.
            sequence = checkpoint(step, index, sequence, sequence.tokens_BLD, use_reentrant=False)
        else:
            sequence = step(index, sequence, sequence.tokens_BLD)
    return sequence


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars while local weights are read or written, which takes no time."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_modalities(backbone: Backbone | type[Backbone], wanted: Sequence[str], source: str) -> None:
    """Raise a ``UsageError`` unless the backbone takes exactly the ``wanted`` modalities."""
    if set(backbone.modalities) != set(wanted):
        raise UsageError(
            f"backbone {source} ({backbone.family}) takes {' + '.join(backbone.modalities)}, "
            f"the data set gives {' + '.join(wanted)}; choose with --modalities, or another --backbone"
        )
