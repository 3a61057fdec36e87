"""The interface of a backbone to the rest of the package: streams, layers, pooling, and the processor of its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrobust.configuration import from_mapping, plain
from mmrobust.data.processor import Processor
from mmrobust.errors import UsageError
from mmrobust.models.glance import PREFIX, Glance
from mmrobust.models.layers import LayerView, Prompts, run_layer
from mmrobust.models.pooling import Pooling
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


def text_mask(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Which tokens of the texts are no padding (bool [B, L]); ``None``: all are none."""
    mask = inputs.get("attention_mask")
    return None if mask is None else mask.bool()


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
    glance: Glance | None
    """What a tiny backbone has beside its network (``models/glance.py``)."""
    run_layer: Callable[[LayerView, TokenSequence, Prompts | None], TokenSequence] = staticmethod(run_layer)
    """Runs one layer; :func:`compile_model` sets a compiled one."""

    def __init__(self, model: Any, processor: Processor, source: str) -> None:
        super().__init__()
        self.model, self.processor, self.source = model, processor, source
        self.settings: Any = self.settings_class()
        self.glance = None
        self._own_names = frozenset(model.state_dict())

    @classmethod
    def load(cls, place: str, source: str) -> Backbone:
        """The backbone whose weights and processor lie in the folder or Hub id ``place``; ``source`` is its name."""
        raise NotImplementedError(f"{cls.family} cannot be loaded from a folder")

    @abstractmethod
    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """The embedded tokens of one modality, made from its own ``inputs`` alone."""

    def sight_inputs(self, modality: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """What the modality's :class:`Sight` takes of a batch."""
        if modality == "text":
            return inputs["input_ids"], text_mask(inputs)
        return inputs[f"{ {'image': 'pixel', 'audio': 'audio'}[modality] }_values"], None

    def begin(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """What a modality's part of the network starts from: :meth:`embed`, and the glance at it, if there is one."""
        sequence = self.embed(modality, inputs)
        if self.glance is None or modality not in self.glance.modalities or (self.training and self.glance.apart):
            return sequence
        return replace(sequence, glance={modality: self.glance(modality, *self.sight_inputs(modality, inputs))})

    @abstractmethod
    def layers(self, stream: str) -> Sequence[LayerView]:
        """The layers of ``stream``, first to last."""

    def layers_before(self, stream: str) -> int:
        """Number of layers of the network that come before the first layer of ``stream``."""
        return 0

    def pooling(self) -> Pooling:
        """The pooling, made of the model's own modules (shared, not copied)."""
        return self.make_pooling().with_glance(self.glance.sizes if self.glance else {})

    def make_pooling(self) -> Pooling:
        """The pooling of the family, without glances."""
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

    @property
    def joint_stream(self) -> str | None:
        """The stream over all modalities, if it starts right from their encodings; else ``None``."""
        last = self.streams[-1]
        return None if last in self.modalities else last

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
        embedded = {modality: self.begin(modality, inputs) for modality in self.input_modalities(stream)}
        tokens = embedded[stream] if stream in embedded else self.joint_input(embedded)
        return PartialStream(self.run_layers(stream, self.layers(stream)[:depth], tokens, None), depth)

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
            return self.begin(modality, inputs)
        return self.run_remaining_layers(modality, partial or PartialStream(self.begin(modality, inputs), 0), prompts)

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

    def run_first_joint_layers(self, encoded: Mapping[str, TokenSequence], depth: int) -> PartialStream:
        """The first ``depth`` layers of :attr:`joint_stream`, with nothing added, for :meth:`fuse` to continue from."""
        stream = self.joint_stream
        assert stream is not None, f"{self.family} has no joint stream to begin"
        return PartialStream(
            self.run_layers(stream, self.layers(stream)[:depth], self.joint_input(encoded), None), depth
        )

    def joint_start(
        self, encoded: Mapping[str, TokenSequence], partial: Mapping[str, PartialStream] | None
    ) -> PartialStream:
        """From where :meth:`fuse` runs the joint stream on: what ``partial`` has of it, or else its input."""
        begun = (partial or {}).get(self.joint_stream or "")
        return begun or PartialStream(self.joint_input(encoded), 0)

    def run_remaining_layers(self, stream: str, partial: PartialStream, prompts: PromptSource | None) -> TokenSequence:
        """``stream`` after its last layer, continuing from ``partial``."""
        return self.run_layers(stream, self.layers(stream)[partial.layers :], partial.sequence, prompts, partial.layers)

    def run_layers(
        self,
        stream: str,
        layers: Sequence[LayerView],
        sequence: TokenSequence,
        prompts: PromptSource | None,
        first: int = 0,
    ) -> TokenSequence:
        """``sequence`` after ``layers``, with what a method adds to each; ``first`` is the index of their first."""

        def step(index: int, sequence: TokenSequence, tokens_BLD: Tensor) -> TokenSequence:
            sequence = sequence.with_tokens(tokens_BLD)
            added = None if prompts is None else prompts(stream, first + index, sequence)
            return self.run_layer(layers[index], sequence, added)

        glance, sequence = sequence.glance, replace(sequence, glance={})  # nothing that a layer needs to know
        for index in range(len(layers)):
            if self.checkpointing and torch.is_grad_enabled():
                # The tokens by themselves: of them checkpoint() learns where it must restore the random numbers.
                sequence = checkpoint(step, index, sequence, sequence.tokens_BLD, use_reentrant=False)
            else:
                sequence = step(index, sequence, sequence.tokens_BLD)
        return replace(sequence, glance=glance)

    def weights(self) -> dict[str, Tensor]:
        """Name → each weight of the backbone itself, model and glance."""
        glance = {} if self.glance is None else self.glance.state_dict()
        return {**self.model_weights(), **{PREFIX + name: tensor for name, tensor in glance.items()}}

    def model_weights(self) -> dict[str, Tensor]:
        """Name → each weight of the model itself, without what a method has put into it.

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
            self.model.save_pretrained(folder, state_dict=self.model_weights())
        self.processor.save(folder)
        if self.glance is not None:
            self.glance.save(folder)
        follow_umask(folder)


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
