"""DCP's released code (hulianyuyy/Deep_Correlated_Prompting, commit 3519534): its weights under our names.

The reference holds everything in one state dict: OpenAI's CLIP below ``model.image_encoder`` and
``model.text_encoder``, the prompts below ``model.prompt_learner`` and in block 0 of each tower, and one linear head per
task. It names a case by what is *present*: its ``image`` is our ``missing-text``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmrobust.errors import CheckpointError, unknown_name

TASKS = ("mmimdb", "food101", "hatememes")
CASES = {"complete": "complete", "missing-text": "image", "missing-image": "text"}
"""Our name of a case → the reference's."""
STATES = {"present": "complete", "missing": "missing"}
"""Our name of a modality's state → the reference's."""
ENCODERS = {"image": "image_encoder", "text": "text_encoder"}
HF_TOWERS = {"image": "vision_model", "text": "text_model"}
DYNAMIC_SEED = 0


@dataclass(frozen=True)
class DcpSizes:
    """What the tensors' shapes say."""

    length: int
    """Rows in front of each tower: correlated, common and dynamic together."""
    depth: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_inside: int
    vision_layers: int
    text_width: int
    text_inside: int
    text_layers: int
    positions: int
    vocabulary: int
    projection: int
    classes: int

    def clip_config(self, head_dim: int = 64) -> dict[str, Any]:
        """The ``transformers.CLIPConfig`` of such a CLIP.

        Args:
            head_dim: size of an attention head. No tensor tells; OpenAI's models have 64.
        """

        def tower(width: int, inside: int, layers: int) -> dict[str, Any]:
            return {
                "hidden_size": width,
                "intermediate_size": inside,
                "num_hidden_layers": layers,
                "num_attention_heads": width // head_dim,
            }

        text = {  # OpenAI's vocabulary ends with the start and the end token
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "bos_token_id": self.vocabulary - 2,
            "eos_token_id": self.vocabulary - 1,
            "pad_token_id": self.vocabulary - 1,
        }
        image = {"image_size": self.image_size, "patch_size": self.patch_size}
        return {
            "projection_dim": self.projection,
            "text_config": tower(self.text_width, self.text_inside, self.text_layers) | text,
            "vision_config": tower(self.vision_width, self.vision_inside, self.vision_layers) | image,
        }


class ImportedDcp(NamedTuple):
    """A checkpoint of the reference under our names."""

    clip: dict[str, Tensor]
    """State dict of a ``transformers.CLIPModel``, with the norms and the projection that DCP trained in place."""
    trained: dict[str, Tensor]
    """What a checkpoint of ours with the method ``dcp`` and the head ``linear`` holds."""
    sizes: DcpSizes
    remarks: tuple[str, ...]
    """What the user should know, one sentence each."""


def import_dcp(state: Mapping[str, Tensor], head_from: str = TASKS[0]) -> ImportedDcp:
    """The reference's ``state`` dict (of its whole module) under our names. Every key is accounted for.

    Dynamic prompts are read from ``dynamic.{tower}.{case}``, or from block 0's ``prompts_dynamic_{case}`` as forks
    write them. The released code saves none: then they are drawn anew, and a remark says what that means.

    Args:
        state: tensors by the reference's names.
        head_from: the task whose head to take; the others are left behind.

    Raises:
        CheckpointError: a key is missing or unknown, and is named; shapes that contradict each other.
        UsageError: no such task.
    """
    if head_from not in TASKS:
        raise unknown_name("head", head_from, TASKS)
    source = _Source(state)
    sizes = _sizes(source, head_from)
    clip = {"logit_scale": source.take("model.logit_scale")}
    for tower in ENCODERS:
        clip |= _tower(source, tower, sizes.vision_layers if tower == "image" else sizes.text_layers)
    trained, remarks = _prompts(source, sizes)
    trained |= {
        "pooling.visual_projection.weight": clip["visual_projection.weight"],
        **_norm(clip, "vision_model.post_layernorm", "pooling.post_layernorm"),
        **_norm(clip, "text_model.final_layer_norm", "pooling.final_layer_norm"),
        **source.affine(f"{head_from}_classifier", "head.dense"),
    }
    source.check_empty(tuple(f"{task}_classifier." for task in TASKS))
    return ImportedDcp(clip, trained, sizes, remarks)


class _Source:
    """The reference's tensors, each taken once, so that what is left over shows."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._left = dict(state)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor that will be taken later."""
        return tuple(self._find(key).shape)

    def has(self, key: str) -> bool:
        return key in self._left

    def count(self, pattern: str) -> int:
        """How many numbers the one group of ``pattern`` takes, counted from 0."""
        found = (re.match(pattern, key) for key in self._left)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def take(self, key: str) -> Tensor:
        tensor = self._find(key)
        del self._left[key]
        return tensor.detach().clone()

    def affine(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Weight and bias of a linear layer or a norm."""
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in ("weight", "bias")}

    def check_empty(self, but: tuple[str, ...]) -> None:
        """Raise where a key was not taken, other than those that begin with one of ``but``."""
        left = sorted(key for key in self._left if not key.startswith(but))
        if left:
            more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
            raise CheckpointError(f"weight {left[0]}{more} is none of DCP's: the file is of another model or version")

    def _find(self, key: str) -> Tensor:
        if key not in self._left:
            raise CheckpointError(f"weight {key} is missing: the file holds no whole DCP model")
        return self._left[key]


def _sizes(source: _Source, head_from: str) -> DcpSizes:
    image, text, learner = "model.image_encoder", "model.text_encoder", "model.prompt_learner"
    vision_width, _, patch, _ = source.shape(f"{image}.conv1.weight")
    patches = source.shape(f"{image}.positional_embedding")[0] - 1
    vocabulary, text_width = source.shape(f"{text}.token_embedding.weight")
    return DcpSizes(
        length=3 * source.shape(f"{learner}.visual_prompt_complete")[0],
        depth=source.count(re.escape(learner) + r"\.compound_prompt_projections_image\.(\d+)\."),
        image_size=patch * round(patches**0.5),
        patch_size=patch,
        vision_width=vision_width,
        vision_inside=source.shape(f"{image}.transformer.resblocks.0.mlp.c_fc.weight")[0],
        vision_layers=source.count(re.escape(image) + r"\.transformer\.resblocks\.(\d+)\."),
        text_width=text_width,
        text_inside=source.shape(f"{text}.transformer.resblocks.0.mlp.c_fc.weight")[0],
        text_layers=source.count(re.escape(text) + r"\.transformer\.resblocks\.(\d+)\."),
        positions=source.shape(f"{text}.positional_embedding")[0],
        vocabulary=vocabulary,
        projection=source.shape(f"{image}.proj")[1],
        classes=source.shape(f"{head_from}_classifier.weight")[0],
    )


def _tower(source: _Source, tower: str, layers: int) -> dict[str, Tensor]:
    """One encoder in OpenAI's names → in those of ``transformers.CLIPModel``."""
    theirs, ours = f"model.{ENCODERS[tower]}", HF_TOWERS[tower]
    found = {f"{ours}.embeddings.position_embedding.weight": source.take(f"{theirs}.positional_embedding")}
    if tower == "image":
        found |= {
            f"{ours}.embeddings.class_embedding": source.take(f"{theirs}.class_embedding"),
            f"{ours}.embeddings.patch_embedding.weight": source.take(f"{theirs}.conv1.weight"),
            "visual_projection.weight": source.take(f"{theirs}.proj").T.contiguous(),
            **source.affine(f"{theirs}.ln_pre", f"{ours}.pre_layrnorm"),
            **source.affine(f"{theirs}.ln_post", f"{ours}.post_layernorm"),
        }
    else:
        found |= {
            f"{ours}.embeddings.token_embedding.weight": source.take(f"{theirs}.token_embedding.weight"),
            "text_projection.weight": source.take(f"{theirs}.text_projection").T.contiguous(),
            **source.affine(f"{theirs}.ln_final", f"{ours}.final_layer_norm"),
        }
    for layer in range(layers):
        found |= _layer(source, f"{theirs}.transformer.resblocks.{layer}", f"{ours}.encoder.layers.{layer}")
    return found


def _layer(source: _Source, theirs: str, ours: str) -> dict[str, Tensor]:
    found = {
        **source.affine(f"{theirs}.ln_1", f"{ours}.layer_norm1"),
        **source.affine(f"{theirs}.ln_2", f"{ours}.layer_norm2"),
        **source.affine(f"{theirs}.mlp.c_fc", f"{ours}.mlp.fc1"),
        **source.affine(f"{theirs}.mlp.c_proj", f"{ours}.mlp.fc2"),
        **source.affine(f"{theirs}.attn.out_proj", f"{ours}.self_attn.out_proj"),
    }
    for part in ("weight", "bias"):
        for name, rows in zip("qkv", source.take(f"{theirs}.attn.in_proj_{part}").chunk(3), strict=True):
            found[f"{ours}.self_attn.{name}_proj.{part}"] = rows.contiguous()
    return found


def _prompts(source: _Source, sizes: DcpSizes) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Everything that the method ``dcp`` trains, and remarks."""
    learner, missing = "model.prompt_learner", []
    found = {f"method.common.{ours}": source.take(f"{learner}.common_prompt_{name}") for ours, name in CASES.items()}
    generator = torch.Generator().manual_seed(DYNAMIC_SEED)
    for tower, word in {"image": "visual", "text": "text"}.items():
        for ours, name in STATES.items():
            found[f"method.correlated.{tower}.{ours}"] = source.take(f"{learner}.{word}_prompt_{name}")
        for layer in range(sizes.depth):
            chain = f"method.chain.{tower}.{layer}"
            projection = f"{learner}.compound_prompt_projections_{tower}.{layer}"
            found |= source.affine(f"{learner}.layernorm_{tower}.{layer}", f"{chain}.0")
            found |= source.affine(f"{projection}.0", f"{chain}.1")
            found |= source.affine(f"{projection}.2", f"{chain}.3")
        for index in (0, 2):
            theirs = f"{learner}.common_prompt_projection_{tower}.{index}"
            found |= source.affine(theirs, f"method.common_projection.{tower}.{index}")
        block, attention = f"model.{ENCODERS[tower]}.transformer.resblocks.0", f"method.attention.{tower}"
        found |= source.affine(f"{block}.attn_prompt.out_proj", f"{attention}.out_proj")
        for part in ("weight", "bias"):
            found[f"{attention}.in_proj_{part}"] = source.take(f"{block}.attn_prompt.in_proj_{part}")
        width = sizes.vision_width if tower == "image" else sizes.text_width
        for ours, name in CASES.items():
            drawn = torch.randn(sizes.length // 3, width, generator=generator) * 0.02
            keys = (f"dynamic.{tower}.{name}", f"{block}.prompts_dynamic_{name}")
            key = next((key for key in keys if source.has(key)), None)
            missing += [] if key else [f"{tower}/{ours}"]
            found[f"method.dynamic.{tower}.{ours}"] = source.take(key).reshape(-1, width) if key else drawn
    if not missing:
        return found, ()
    remark = (
        f"holds no dynamic prompts for {', '.join(missing)}: the released code neither trains nor saves them, so they "
        f"were drawn anew (seed {DYNAMIC_SEED}); expect figures near, not equal to, those of the run that wrote it"
    )
    return found, (remark,)


def _norm(clip: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": clip[f"{theirs}.{part}"].clone() for part in ("weight", "bias")}
