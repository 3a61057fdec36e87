"""An encoder of ``towers`` with pretrained weights: a model of ``transformers``, by Hub id or folder, as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from mmrobust.errors import CheckpointError, MmrobustError
from mmrobust.models.backbones import loading, read_model_config
from mmrobust.models.backbones.tower_inputs import (
    ImageInput,
    RecordingInput,
    TextInput,
    TowerInput,
    read_image_processor,
)
from mmrobust.models.backbones.towers_model import Encoder, within
from mmrobust.storage.fingerprints import fingerprint_tensors

PARTS = {"image": "vision_model", "text": "text_model", "audio": "audio_model"}
"""Kind → the part of a model of several modalities (CLIP, CLAP …) that encodes it."""
UNUSED = ("pooler", "masked_spec_embed", "mask_token")
"""Parts of encoders that do not affect their tokens; weights that were saved for another purpose may lack them."""
LONGEST_TEXT = 512
"""Tokens of a text at most, where neither the tokenizer nor the model says."""


class PretrainedEncoder(Encoder):
    """A model of ``transformers``; its tokens are those of its last layer.

    Texts are masked. Pictures and recordings of one size are run together, and others apart and without padding: the
    normalisation of some audio encoders runs over the padding too.
    """

    own = False

    def __init__(self, model: Any, kind: str, input: TowerInput, name: str, place: str) -> None:
        super().__init__()
        self.model, self.kind, self.input, self.name, self.place = model, kind, input, name, place
        self.width = _width(model.config)
        self.stored = False
        """Whether its weights have been trained, so that they are no longer those at ``place``."""

    def forward(self, values: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Encoder.forward`."""
        if self.kind == "text":
            mask = within(sizes, values.shape[1])
            return self._tokens(input_ids=values, attention_mask=mask.long()), mask
        shapes = [tuple(shape) for shape in sizes.tolist()]
        rows_of = {shape: [row for row, own in enumerate(shapes) if own == shape] for shape in dict.fromkeys(shapes)}
        if len(rows_of) == 1:
            tokens = self._of_shape(shapes[0], values)
            return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        parts = {}
        for shape, rows in rows_of.items():
            parts[shape] = self._of_shape(shape, values[torch.tensor(rows, device=values.device)])
        longest = max(part.shape[1] for part in parts.values())
        first = next(iter(parts.values()))
        tokens = first.new_zeros(len(values), longest, first.shape[2])
        mask = torch.zeros(len(values), longest, dtype=torch.bool, device=values.device)
        for shape, rows in rows_of.items():
            length = parts[shape].shape[1]
            at = torch.tensor(rows, device=values.device)
            tokens[at, :length], mask[at, :length] = parts[shape], True
        return tokens, mask

    def _of_shape(self, shape: tuple[int, ...], padded: Tensor) -> Tensor:
        """The tokens of pictures or recordings that all have this shape, without their padding."""
        return self._tokens(**{self.model.main_input_name: padded[(slice(None), *(slice(size) for size in shape))]})

    def _tokens(self, **inputs: Tensor) -> Tensor:
        # Speech encoders of older releases draw random numbers even where nothing is dropped. Drawn from the stream of
        # the training, they would make it another one where tokens are kept.
        with torch.random.fork_rng(devices=[], enabled=not self.training):
            found: Tensor = self.model(**inputs).last_hidden_state
        return found.flatten(2).transpose(1, 2) if found.ndim == 4 else found  # a map [B, D, rows, columns]

    def held(self) -> dict[str, Tensor]:
        """See :meth:`Encoder.held`."""
        return {name: tensor for name, tensor in self.state_dict().items() if not self.is_unused(name)}

    def is_unused(self, weight: str) -> bool:
        """Whether its tokens do not depend on this weight."""
        return any(word in weight for word in UNUSED)

    def fingerprint(self) -> str:
        """Fingerprint of the weights that affect its tokens."""
        return fingerprint_tensors(self.held())

    def save(self, folder: Path) -> None:
        """Write its config, beside which its input lies; its weights are the backbone's."""
        self.model.config.save_pretrained(folder)


def load_encoder(kind: str, name: str, place: str, modality: str) -> PretrainedEncoder:
    """The encoder in the folder or Hub id ``place``, for a modality of this kind; ``name`` is what the user called it.

    Raises:
        CheckpointError: nothing is there, it cannot be loaded, lacks weights, or cannot take the modality.
    """
    what = f"encoder {modality}={name}"
    read_model_config(place, what, "--encoder takes tiny, a folder of weights")
    with loading(place, what):
        model, info = transformers.AutoModel.from_pretrained(
            place, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
        model, part = _encoding_part(model, kind)
        lacking = {weight.removeprefix(part) for weight in info["missing_keys"] if weight.startswith(part)}
        if used := sorted(weight for weight in lacking if not any(word in weight for word in UNUSED)):
            raise CheckpointError(f"{what}: its weights lack {len(used)} that the model has, such as {used[0]}")
        with _named(what):
            input = _read_input(kind, place, model.config)
            return PretrainedEncoder(model.eval(), kind, input, name, place)


def empty_encoder(kind: str, name: str, folder: Path) -> PretrainedEncoder:
    """An encoder as :meth:`PretrainedEncoder.save` and its input describe it, whose weights are still to be read."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model, _ = _encoding_part(transformers.AutoModel.from_config(config, trust_remote_code=False), kind)
    inputs: dict[str, type[Any]] = {"text": TextInput, "image": ImageInput, "audio": RecordingInput}
    encoder = PretrainedEncoder(model.eval(), kind, inputs[kind].load(folder), name, name)
    encoder.stored = True
    return encoder


def _encoding_part(model: Any, kind: str) -> tuple[Any, str]:
    """The part of a model that encodes a modality of this kind, and the prefix of its weights."""
    if hasattr(model, PARTS[kind]):
        return getattr(model, PARTS[kind]), f"{PARTS[kind]}."
    return (model.get_encoder(), "encoder.") if model.config.is_encoder_decoder else (model, "")


def _read_input(kind: str, place: str, config: Any) -> TowerInput:
    if kind == "image":
        return ImageInput(read_image_processor(place))
    if kind == "audio":
        return RecordingInput(transformers.AutoFeatureExtractor.from_pretrained(place, trust_remote_code=False))
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or LONGEST_TEXT)
    if max(tokenizer.get_vocab().values(), default=0) >= config.vocab_size:
        raise CheckpointError(f"its tokenizer gives ids beyond its table of {config.vocab_size:,} rows")
    return TextInput(tokenizer, int(min(limits)))


def _width(config: Any) -> int:
    """The size of the tokens of a model's last layer."""
    for name in ("hidden_size", "d_model", "dim"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return int(config.hidden_sizes[-1])


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Name the encoder in a message about its input."""
    try:
        yield
    except MmrobustError as cause:
        raise CheckpointError(f"{what}: {cause}") from cause
