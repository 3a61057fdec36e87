"""The backbone of an imported checkpoint: a model of the inferred sizes, its weights and the papers' preprocessing.

Each paper's code fixes how an image becomes a tensor, so only a tokenizer has to come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, ViltConfig, ViltImageProcessorPil, ViltModel

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones.cavmae import CavMaeBackbone, CavMaeProcessor
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel
from mmrobust.models.backbones.clip import ClipBackbone, ClipProcessor
from mmrobust.models.backbones.filterbank import AudioSettings
from mmrobust.models.backbones.processors import Unavailable, square_images
from mmrobust.models.backbones.vilt import ViltBackbone, ViltProcessor
from mmrobust.models.importing.reference import MappedCheckpoint

TOKENIZERS = {"vilt": "dandelin/vilt-b32-mlm", "clip": "openai/clip-vit-base-patch16"}
"""Family → Hub id of the papers' tokenizer."""
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"""Normalisation of images in CAV-MAE's code."""


def build_backbone(
    imported: MappedCheckpoint, processor: str | None, source: str, place: str
) -> tuple[Backbone, str | None]:
    """The backbone, called ``source``, and a remark if it cannot encode raw texts.

    ``processor`` is the folder or Hub id of the tokenizer; ``None``: the papers', if it is in the local cache. The
    backbone will be stored in the folder ``place``, which the message of a missing tokenizer names.

    Raises:
        CheckpointError: weights that do not fit each other.
        UsageError: a ``processor`` that does not exist, does not fit the model, or is not needed.
    """
    if imported.family == "vilt":
        model = _with_weights(lambda: ViltModel(ViltConfig(**imported.sizes)), imported.backbone)
        config = model.config
        tokenizer, remark = _tokenizer("vilt", processor, config.vocab_size, None, place)
        images = ViltImageProcessorPil(size={"shortest_edge": config.image_size}, size_divisor=config.patch_size)
        return ViltBackbone(model, ViltProcessor(tokenizer, images, config.max_position_embeddings), source), remark
    if imported.family == "clip":
        model = _with_weights(lambda: CLIPModel(CLIPConfig(**imported.sizes)), imported.backbone)
        text, side = model.config.text_config, model.config.vision_config.image_size
        tokenizer, remark = _tokenizer("clip", processor, text.vocab_size, text.eos_token_id, place)
        encoded = ClipProcessor(tokenizer, square_images(side), text.max_position_embeddings)
        return ClipBackbone(model, encoded, source), remark
    if processor is not None:
        raise UsageError(f"--processor {processor}: a CAV-MAE needs no tokenizer; leave the option out")
    model = _with_weights(lambda: CavMaeModel(CavMaeConfig(**imported.sizes)), imported.backbone)
    config = model.config
    audio = AudioSettings(frames=config.audio_frames, mel_bins=config.mel_bins, **imported.inputs)
    images = square_images(config.image_size, **IMAGENET)
    return CavMaeBackbone(model, CavMaeProcessor(audio, images), source), None


def _with_weights(build: Callable[[], Any], weights: Mapping[str, Tensor]) -> Any:
    """The model that ``build`` returns, with ``weights``, whose names and shapes must be the model's."""
    with torch.device("meta"):  # the sizes in a hostile file may ask for more memory than there is
        check_weights(weights, build().state_dict())
    model = build()
    model.load_state_dict(weights)
    return model.train(False)


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise a ``CheckpointError`` unless ``weights`` have the ``expected`` names (those of mmrobust) and shapes."""
    for name in sorted(weights.keys() ^ expected.keys()):
        raise CheckpointError(f"weight {name} {'is missing' if name in expected else 'has no place in the model'}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, the others ask for {list(expected[name].shape)}"
            raise CheckpointError(f"its tensors contradict each other: what becomes {name} is of shape {shapes}")


def _tokenizer(family: str, named: str | None, vocabulary: int, end: int | None, place: str) -> tuple[Any, str | None]:
    """A tokenizer for a table of ``vocabulary`` rows that ends texts with token ``end``; or none, and a remark."""
    source = named or TOKENIZERS[family]
    try:
        # Nothing is downloaded that the user did not name: the papers' tokenizer is used only if it is cached.
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=named is None)
        closing = tokenizer("")["input_ids"][-1:]
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        problem = "is not in the local cache"
        if named:
            problem = "is no folder with a tokenizer here, and none in reach on the Hub"
    else:
        if len(tokenizer) > vocabulary:
            problem = f"has {len(tokenizer):,} tokens, the checkpoint's table {vocabulary:,}"
        elif end is not None and closing != [end]:
            problem = f"ends a text with token {closing}, the checkpoint's texts end with {end}"
        else:
            return tokenizer, None
    if named:
        raise UsageError(f"--processor {source}: {problem}")
    remark = (
        f"holds no tokenizer ({source} {problem}): tensors can be classified, raw texts not yet; "
        "name a folder or a Hub id with --processor"
    )
    return Unavailable("tokenizer", place), remark
