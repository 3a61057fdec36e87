"""``towers``: any modalities, one encoder each, whose tokens meet in a joint stream of our own layers.

Encoders are pretrained models of ``transformers``, frozen as they are (``--encoder NAME=ID``), or small ones of our
own; features need none. Their tokens are projected to one width, marked by modality, and run together through a few
pre-norm layers, in which every method works. ``--method full`` trains projections and joint stream, and with them the
small encoders; pretrained ones only with ``train_encoders``. What a frozen encoder gives for a sample is computed once.

A missing modality's tokens are left out, or its fill is encoded: :attr:`TowersSettings.missing_path`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file
from torch import Tensor

from mmrobust.cases import KINDS, check_modality
from mmrobust.configuration import check_json, plain
from mmrobust.errors import CheckpointError, UsageError, unknown_name
from mmrobust.models.backbone import Backbone, BackboneSettings, PartialStream, PromptSource
from mmrobust.models.backbones import CONFIG, MODEL_TYPE, TINY, TOWERS
from mmrobust.models.backbones.pretrained_encoder import PretrainedEncoder, empty_encoder, load_encoder
from mmrobust.models.backbones.tower_inputs import (
    FeaturesInput,
    FilterbankInput,
    SquareImages,
    TextInput,
    TowersProcessor,
    sizes_of,
)
from mmrobust.models.backbones.towers_model import (
    Encoder,
    JointSizes,
    Linear,
    TinyGrid,
    TinyText,
    TowersModel,
    key,
    view,
    within,
)
from mmrobust.models.layers import LayerView
from mmrobust.models.pooling import Pooling
from mmrobust.models.sequence import PROMPT, TokenSequence
from mmrobust.storage.files import read_json, write_json
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.storage.weights import TensorLimit, folder_size, read_weights

JOINT = "joint"
OMIT, FILL = MISSING_PATHS = ("omit", "fill")
WEIGHTS = "model.safetensors"
_SIZES = ("layers", "width", "heads", "dropout")
_TOWER = {"kind": str, "encoder": str, "stored": bool, "path?": str, "fingerprint?": str, "settings?": dict}
_SHAPE = {"joint": {"layers": int, "width": int, "heads": int, "dropout": float}, "towers": {str: _TOWER}}


@dataclass(frozen=True)
class TowersSettings(BackboneSettings):
    """Settings of ``towers``. Those of the joint stream are for a new one: later they are what it was built with."""

    missing_path: str = OMIT
    """How a modality that is known to be missing is handled. ``omit``: its tokens are left out; ``fill``: its fill is
    encoded. Under concat prompting, where the case is unknown, always ``fill``."""
    train_encoders: bool = False
    """Whether full fine-tuning also trains the pretrained encoders. Small ones of our own always train with it."""
    encoder_lr: float = 0.05
    """The learning rate of pretrained encoders that train, as a multiple of the recipe's."""
    joint_layers: int | None = None
    """Layers of the joint stream; 2 by default."""
    joint_width: int | None = None
    """Size of its tokens; 256 by default."""
    joint_heads: int | None = None
    """Its attention heads, which divide its width; 4 by default."""
    joint_dropout: float | None = None
    """Its dropout, from 0 to below 1; 0.1 by default."""

    def __post_init__(self) -> None:
        if self.missing_path not in MISSING_PATHS:
            raise unknown_name("missing path", self.missing_path, MISSING_PATHS)
        if not 0 < self.encoder_lr <= 100:
            raise UsageError(f"towers backbone: encoder_lr {self.encoder_lr} must be positive, and 100 at most")
        _check(self.sizes())

    def sizes(self) -> JointSizes:
        """The sizes of a new joint stream."""
        given = {name: getattr(self, f"joint_{name}") for name in _SIZES}
        return JointSizes(**{name: value for name, value in given.items() if value is not None})


class TowersPooling(Pooling):
    """Final norm, then the mean over each modality's tokens; pooled, these stand side by side, 0 for one left out."""

    def __init__(self, model: TowersModel, modalities: Sequence[str]) -> None:
        super().__init__(model)
        self.norm = model.norm
        self.modality_sizes = dict.fromkeys(modalities, model.sizes.width)
        self.pooled_size = len(modalities) * model.sizes.width

    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → mean of its normed tokens [B, D], for the modalities that were run."""
        sequence = streams[JOINT]
        normed_BLD = self.norm(sequence.tokens_BLD)
        there = [name for name, _ in sequence.segments if name != PROMPT]
        return {modality: sequence.mean(modality, normed_BLD) for modality in there}


class TowersBackbone(Backbone):
    """One encoder per modality, then the joint stream: [prompts | each modality's tokens]."""

    family = TOWERS
    settings_class = TowersSettings
    modalities: tuple[str, ...] = ()
    streams: tuple[str, ...] = (JOINT,)
    limited = False
    processor: TowersProcessor
    reserved: ClassVar[tuple[str, ...]] = (JOINT, PROMPT)

    def __init__(
        self, kinds: Mapping[str, str], encoders: Mapping[str, Encoder], sizes: JointSizes, source: str
    ) -> None:
        for modality in kinds:
            if modality in self.reserved:
                raise UsageError(
                    f"modality '{modality}': the word has a meaning of its own in {self.family}; rename it"
                )
        processor = TowersProcessor({modality: encoder.input for modality, encoder in encoders.items()})
        super().__init__(TowersModel(encoders, sizes), processor, source)
        self.kinds, self.modalities = dict(kinds), tuple(kinds)
        self.streams = (*self.modalities, JOINT)
        self.lora_targets = tuple(f"joint.{layer}.attn.qkv" for layer in range(sizes.layers))

    def make_pooling(self) -> TowersPooling:
        """See :meth:`Backbone.make_pooling`."""
        return TowersPooling(self.model, self.modalities)

    @property
    def width(self) -> Mapping[str, int]:
        """See :attr:`Backbone.width`: of the tokens that methods add, all of which are in the joint stream."""
        return dict.fromkeys(self.streams, self.model.sizes.width)

    def layers(self, stream: str) -> Sequence[LayerView]:
        """See :meth:`Backbone.layers`; encoders run as they are, and have none."""
        return [view(layer) for layer in self.model.joint] if stream == JOINT else []

    @property
    def fusion_points(self) -> Mapping[str, tuple[str, ...]]:
        """See :attr:`Backbone.fusion_points`: the joint layers."""
        return {JOINT: self.modalities}

    @property
    def knows_case(self) -> bool:
        """See :attr:`Backbone.knows_case`."""
        return bool(self.settings.missing_path == OMIT)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """See :meth:`Backbone.configure`; the joint stream is what it was built as."""
        super().configure(settings)
        for name, built in self.model.described().items():
            if getattr(self.settings, f"joint_{name}") not in (None, built):
                wanted = getattr(self.settings, f"joint_{name}")
                raise UsageError(f"towers backbone: joint_{name} {wanted}: this one was built with {built}")

    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """The tokens of a modality's encoder [B, L, its width]."""
        tokens, mask = self.model.encoder(modality)(inputs[modality], inputs[sizes_of(modality)])
        return TokenSequence(tokens, mask, ((modality, tokens.shape[1]),))

    def sight_inputs(self, modality: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Backbone.sight_inputs`."""
        values = inputs[modality]
        return values, within(inputs[sizes_of(modality)], values.shape[1]) if self.kinds[modality] == "text" else None

    def fuse(
        self,
        encoded: Mapping[str, TokenSequence],
        prompts: PromptSource | None = None,
        partial: Mapping[str, PartialStream] | None = None,
    ) -> dict[str, TokenSequence]:
        """See :meth:`Backbone.fuse`: the joint layers run over all modalities that were encoded."""
        return {**encoded, JOINT: self.run_remaining_layers(JOINT, self.joint_start(encoded, partial), prompts)}

    def joint_input(self, encoded: Mapping[str, TokenSequence]) -> TokenSequence:
        """See :meth:`Backbone.joint_input`: the projected tokens, in the model's order."""
        there = [modality for modality in self.modalities if modality in encoded]
        parts = [encoded[m].with_tokens(self.model.projected(m, encoded[m].tokens_BLD)) for m in there]
        return functools.reduce(TokenSequence.followed_by, parts)

    def requires_grad_(self, requires_grad: bool = True) -> TowersBackbone:
        """Choose whether it trains; pretrained encoders do so only where the settings say it."""
        super().requires_grad_(requires_grad)
        for modality in self.modalities:
            encoder = self.model.encoder(modality)
            if not encoder.own:
                encoder.requires_grad_(requires_grad and self.settings.train_encoders)
                encoder.stored |= requires_grad and self.settings.train_encoders
        return self

    def train(self, mode: bool = True) -> TowersBackbone:
        """Set training mode; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for modality in self.encoded_once:
            self.model.encoder(modality).train(False)
        return self

    @property
    def encoded_once(self) -> tuple[str, ...]:
        """See :attr:`Backbone.encoded_once`."""
        encoders = {modality: self.model.encoder(modality) for modality in self.modalities}
        return tuple(m for m, each in encoders.items() if not any(p.requires_grad for p in each.parameters()))

    def lr_scale(self, parameter: str) -> float:
        """See :meth:`Backbone.lr_scale`."""
        of = [m for m in self.modalities if parameter.startswith(f"model.encoders.{key(m)}.")]
        return self.settings.encoder_lr if of and not self.model.encoder(of[0]).own else 1.0

    def described(self) -> dict[str, Any]:
        """See :meth:`Backbone.described`."""
        return {"towers": {m: {"kind": self.kinds[m], "encoder": self.model.encoder(m).name} for m in self.modalities}}

    def model_weights(self) -> dict[str, Tensor]:
        """See :meth:`Backbone.model_weights`; without those that do not affect an encoder's tokens."""
        held = {f"encoders.{key(m)}.{name}" for m in self.modalities for name in self.model.encoder(m).held()}
        found = super().model_weights().items()
        return {name: tensor for name, tensor in found if name in held or not name.startswith("encoders.")}

    def inputs_fingerprint(self) -> str:
        """See :meth:`Backbone.inputs_fingerprint`."""
        values: dict[str, Any] = {"joint": {"heads": self.model.sizes.heads}}
        for modality in self.modalities:
            encoder = self.model.encoder(modality)
            if isinstance(encoder, PretrainedEncoder):
                config = encoder.model.config
                keys = ("model_type", *self.config_keys)
                values[modality] = {name: plain(getattr(config, name)) for name in keys if hasattr(config, name)}
        kinds = [[modality, self.kinds[modality]] for modality in self.modalities]
        return fingerprint_settings({"config": values, "kinds": kinds, "processor": self.processor.described()})

    def save(self, folder: Path) -> None:
        """See :meth:`Backbone.save`. An encoder that was not trained is named, with the fingerprint of its weights."""
        folder.mkdir(parents=True, exist_ok=True)
        towers, weights = {}, self.model_weights()
        for modality, kind in self.kinds.items():
            encoder = self.model.encoder(modality)
            tower: dict[str, Any] = {"kind": kind, "encoder": encoder.name, "stored": True}
            if isinstance(encoder, PretrainedEncoder) and not encoder.stored:
                path = os.path.relpath(encoder.place, folder) if Path(encoder.place).is_dir() else None
                tower |= {"stored": False, "path": path, "fingerprint": encoder.fingerprint()}
                weights = {n: t for n, t in weights.items() if not n.startswith(f"encoders.{key(modality)}.")}
            else:
                (folder / modality).mkdir(exist_ok=True)
                encoder.input.save(folder / modality)
                tower["settings"] = encoder.settings()
                if isinstance(encoder, PretrainedEncoder):
                    encoder.save(folder / modality)
            towers[modality] = tower
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        config = {"model_type": MODEL_TYPE, "joint": self.model.described(), "towers": towers}
        write_json(folder / CONFIG, config)
        if self.glance is not None:
            self.glance.save(folder)

    @classmethod
    def load(cls, place: str, source: str) -> TowersBackbone:
        """See :meth:`Backbone.load`; ``place`` is a folder.

        Raises:
            CheckpointError: it does not fit together, or an encoder that it names is gone or has other weights.
        """
        folder = Path(place)
        config = read_json(folder / CONFIG, "config of a backbone", CheckpointError)
        try:
            check_json(config, _SHAPE)
            sizes, towers = JointSizes(**{name: config["joint"][name] for name in _SIZES}), config["towers"]
            _check(sizes)
            for modality, tower in towers.items():
                check_modality(modality)
                if tower["kind"] not in KINDS:
                    raise unknown_name("kind", tower["kind"], KINDS)
            if not towers:
                raise UsageError("it has no towers")
        except UsageError as cause:
            raise CheckpointError(f"{folder / CONFIG}: {cause}") from cause
        # Encoders that lie elsewhere are held to the size of their own files.
        named = {m: _load_named(m, t, folder) for m, t in towers.items() if not t["stored"]}
        with TensorLimit(folder_size(folder), f"backbone {source}"):
            encoders = {m: named.get(m) or _load_stored(t, folder / m) for m, t in towers.items()}
            backbone = cls({m: t["kind"] for m, t in towers.items()}, encoders, sizes, source)
        tensors = read_weights(folder / WEIGHTS, "weights of a backbone")
        elsewhere = tuple(f"encoders.{key(m)}." for m in named)
        expected = {name: t for name, t in backbone.model.state_dict().items() if not name.startswith(elsewhere)}
        lacking = {name for m in towers if m not in named for name in _unused(backbone, m)}
        for name in sorted((expected.keys() ^ tensors.keys()) - lacking):
            problem = "is missing" if name in expected else "is not known"
            raise CheckpointError(f"{folder / WEIGHTS}: weight {name} {problem}")
        for name, tensor in tensors.items():
            found, needed = list(tensor.shape), list(expected[name].shape)
            if found != needed:
                raise CheckpointError(f"{folder / WEIGHTS}: weight {name} is of shape {found}, not {needed}")
        backbone.model.load_state_dict(tensors, strict=False)
        return backbone


def _unused(backbone: TowersBackbone, modality: str) -> set[str]:
    """Weights of a trained encoder that do not affect its tokens, and may not have been stored."""
    encoder = backbone.model.encoder(modality)
    if not isinstance(encoder, PretrainedEncoder):
        return set()
    return {f"encoders.{key(modality)}.{n}" for n in encoder.state_dict() if encoder.is_unused(n)}


def _load_named(modality: str, tower: Mapping[str, Any], folder: Path) -> Encoder:
    """The encoder that a backbone's config names, where it was or where its folder is beside the backbone's."""
    place = str(tower["encoder"])
    if tower.get("path") and (folder / tower["path"]).is_dir():
        place = os.path.normpath(folder / tower["path"])
    encoder = load_encoder(tower["kind"], str(tower["encoder"]), place, modality)
    if encoder.fingerprint() != tower.get("fingerprint"):
        raise CheckpointError(
            f"{folder}: its encoder {modality}={tower['encoder']} has other weights now "
            f"({encoder.fingerprint()[:12]}, was {str(tower.get('fingerprint'))[:12]}); train again"
        )
    return encoder


def _load_stored(tower: Mapping[str, Any], folder: Path) -> Encoder:
    """The encoder that lies in a backbone's folder, its weights still to be read."""
    if tower["kind"] == "features":
        return Linear(FeaturesInput.load(folder))
    if tower["encoder"] != TINY:
        return empty_encoder(tower["kind"], tower["encoder"], folder)
    if tower["kind"] == "text":
        settings = tower.get("settings") or {}
        try:
            check_json(settings, {"vocabulary": int})
        except UsageError as cause:
            raise CheckpointError(f"{folder.parent / CONFIG}: {cause}") from cause
        text = TextInput.load(folder)
        rows = settings["vocabulary"]
        if max(text.tokenizer.get_vocab().values(), default=0) >= rows:
            raise CheckpointError(f"{folder}: its tokenizer gives ids beyond its table of {rows:,} rows")
        return TinyText(text, rows)
    if tower["kind"] == "image":
        return tiny_grid("image", SquareImages.load(folder))
    return tiny_grid("audio", FilterbankInput.load(folder))


def tiny_grid(kind: str, input: SquareImages | FilterbankInput) -> Encoder:
    """The small encoder of our own for pictures or recordings."""
    return TinyGrid(input, 3 if kind == "image" else 1)


def _check(sizes: JointSizes) -> None:
    """Raise a ``UsageError`` for sizes of a joint stream that cannot be."""
    for name, most in (("layers", 64), ("width", 8192), ("heads", 256)):
        if not 1 <= getattr(sizes, name) <= most:
            raise UsageError(f"towers backbone: joint_{name} {getattr(sizes, name)} must be from 1 to {most}")
    if sizes.width % sizes.heads or sizes.width % 2:
        given = f"joint_width {sizes.width} must be even, and joint_heads {sizes.heads} divide it"
        raise UsageError(f"towers backbone: {given}")
    if not 0 <= sizes.dropout < 1:
        raise UsageError(f"towers backbone: joint_dropout {sizes.dropout} must be from 0 to below 1")
