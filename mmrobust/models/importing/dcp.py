"""DCP's checkpoints (hulianyuyy/Deep_Correlated_Prompting, commit 3519534): CLIP with prompts, under its own names.

The reference keeps everything in one state dict: OpenAI's CLIP under ``model.image_encoder`` and
``model.text_encoder``, the prompts under ``model.prompt_learner`` and in block 0 of each tower, and one linear head per
task. It names a case after what is *present*: its ``image`` is mmrobust's ``missing-text``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmrobust.models.importing.reference import HEADS, MappedCheckpoint, ReferenceState

WHAT = "checkpoint of Deep_Correlated_Prompting"
REPOSITORY = "https://github.com/hulianyuyy/Deep_Correlated_Prompting"
CASES = {"complete": "complete", "missing-text": "image", "missing-image": "text"}
"""Case → the reference's name for it."""
STATES = {"present": "complete", "missing": "missing"}
"""State of a modality → the reference's name for it."""
TOWERS = {"image": ("model.image_encoder", "vision_model"), "text": ("model.text_encoder", "text_model")}
"""Tower → (the reference's name for it, the name in ``transformers.CLIPModel``)."""
LEARNER = "model.prompt_learner"
_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
HEAD_DIM = 64
"""Default size of an attention head, as in all of OpenAI's models and in the reference's code."""
DYNAMIC_SEED = 0


def from_dcp(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], head_from: str | None = None
) -> MappedCheckpoint:
    """Map a checkpoint of the reference to CLIP + ``dcp`` + ``linear`` head; see :data:`KINDS`.

    Dynamic prompts are read from ``dynamic.{tower}.{case}``, or from block 0's ``prompts_dynamic_{case}`` as forks
    write them. The released code does not save them; they are then drawn at random, and a remark explains it. The
    setting ``head_dim`` (64 by default) is shown by no tensor.
    """
    reference = ReferenceState(state, settings, WHAT)
    head_name = reference.choose_head(head_from)
    sizes, clip = map_clip(reference)
    method, trained, remarks = map_prompts(reference, clip)
    trained |= reference.affine(f"{head_name}_classifier", "head.dense")
    aside = reference.other_heads(head_name)
    reference.finish()
    task, metric = HEADS[head_name]
    return MappedCheckpoint(
        family="clip",
        repository=REPOSITORY,
        sizes=sizes,
        backbone=clip,
        method=method,
        head={"name": "linear"},
        trained=trained,
        classes=trained["head.dense.bias"].numel(),
        task=task,
        headline_metric=metric,
        dataset=head_name,
        aside=aside,
        remarks=remarks,
    )


def map_clip(reference: ReferenceState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments of ``CLIPConfig``, and the state dict of ``CLIPModel``.

    Raises:
        CheckpointError: a weight is missing, or ``head_dim`` does not fit.
    """
    sizes = _sizes(reference)
    clip = {"logit_scale": reference.take("model.logit_scale")}
    for tower in TOWERS:
        clip |= _tower(reference, tower)
    return sizes, clip


def map_prompts(
    reference: ReferenceState, clip: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
    """Name and settings of the method ``dcp``, all that it trains, and remarks.

    Args:
        reference: the checkpoint, after :func:`map_clip` has taken CLIP's weights out.
        clip: those weights.

    Raises:
        CheckpointError: a weight is missing.
    """
    rows = reference.shape(f"{LEARNER}.visual_prompt_complete", 2)[0]
    depth = reference.count(f"{LEARNER}.compound_prompt_projections_image")
    trained, remarks = _prompts(reference, depth)
    trained |= {
        # The reference trains these in place; here they are copies beside frozen ones, and both get these values.
        "pooling.visual_projection.weight": clip["visual_projection.weight"],
        **_norm(clip, "vision_model.post_layernorm", "pooling.post_layernorm"),
        **_norm(clip, "text_model.final_layer_norm", "pooling.final_layer_norm"),
    }
    return {"name": "dcp", "length": 3 * rows, "depth": depth}, trained, remarks  # rows of three kinds


def _sizes(reference: ReferenceState) -> dict[str, Any]:
    """Arguments of ``CLIPConfig``, inferred from the tensors' shapes."""
    image, text = (theirs for theirs, _ in TOWERS.values())
    vision_width, channels, patch, _ = reference.shape(f"{image}.conv1.weight", 4)
    patches = reference.shape(f"{image}.positional_embedding", 2)[0] - 1
    vocabulary, text_width = reference.shape(f"{text}.token_embedding.weight", 2)
    # OpenAI's vocabulary ends with the start and the end token.
    ends = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    return {
        "projection_dim": reference.shape(f"{image}.proj", 2)[1],
        "text_config": {
            **_tower_sizes(reference, text, text_width),
            "vocab_size": vocabulary,
            "max_position_embeddings": reference.shape(f"{text}.positional_embedding", 2)[0],
            **ends,
        },
        "vision_config": {
            **_tower_sizes(reference, image, vision_width),
            "num_channels": channels,
            "image_size": reference.side(patches, f"{image}.positional_embedding") * patch,
            "patch_size": patch,
        },
    }


def _tower_sizes(reference: ReferenceState, theirs: str, width: int) -> dict[str, Any]:
    head_dim = reference.number("head_dim", HEAD_DIM)
    if type(head_dim) is not int or head_dim < 1 or width % head_dim:
        raise reference.error(
            f"head_dim {head_dim} does not divide the width {width} of {theirs}; set it in a --config FILE.json"
        )
    return {
        "hidden_size": width,
        "intermediate_size": reference.shape(f"{theirs}.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": reference.count(f"{theirs}.transformer.resblocks"),
        "num_attention_heads": width // head_dim,
    }


def _tower(reference: ReferenceState, tower: str) -> dict[str, Tensor]:
    """The weights of one tower, renamed from OpenAI's names to those of ``transformers.CLIPModel``."""
    theirs, ours = TOWERS[tower]
    found = {f"{ours}.embeddings.position_embedding.weight": reference.take(f"{theirs}.positional_embedding")}
    if tower == "image":
        found |= {
            f"{ours}.embeddings.class_embedding": reference.take(f"{theirs}.class_embedding"),
            f"{ours}.embeddings.patch_embedding.weight": reference.take(f"{theirs}.conv1.weight"),
            "visual_projection.weight": reference.take(f"{theirs}.proj").T.contiguous(),
            **reference.affine(f"{theirs}.ln_pre", f"{ours}.pre_layrnorm"),
            **reference.affine(f"{theirs}.ln_post", f"{ours}.post_layernorm"),
        }
    else:
        found |= {
            f"{ours}.embeddings.token_embedding.weight": reference.take(f"{theirs}.token_embedding.weight"),
            "text_projection.weight": reference.take(f"{theirs}.text_projection").T.contiguous(),
            **reference.affine(f"{theirs}.ln_final", f"{ours}.final_layer_norm"),
        }
    for layer in range(reference.count(f"{theirs}.transformer.resblocks")):
        block, own = f"{theirs}.transformer.resblocks.{layer}", f"{ours}.encoder.layers.{layer}"
        found |= reference.affines(block, own, _LAYER)
        found |= reference.thirds(f"{block}.attn.in_proj_", [f"{own}.self_attn.{name}_proj" for name in "qkv"])
    return found


def _prompts(reference: ReferenceState, depth: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All parameters that the method ``dcp`` trains, and remarks."""
    found = {f"method.common.{ours}": reference.take(f"{LEARNER}.common_prompt_{name}") for ours, name in CASES.items()}
    missing: list[str] = []
    generator = torch.Generator().manual_seed(DYNAMIC_SEED)
    for tower, word in {"image": "visual", "text": "text"}.items():
        rows, width = reference.shape(f"{LEARNER}.{word}_prompt_complete", 2)
        for ours, name in STATES.items():
            found[f"method.correlated.{tower}.{ours}"] = reference.take(f"{LEARNER}.{word}_prompt_{name}")
        for layer in range(depth):
            projection = f"compound_prompt_projections_{tower}.{layer}"
            chain = {"0": f"layernorm_{tower}.{layer}", "1": f"{projection}.0", "3": f"{projection}.2"}
            found |= reference.affines(LEARNER, f"method.chain.{tower}.{layer}", chain)
        common = {f"{tower}.{index}": f"common_prompt_projection_{tower}.{index}" for index in (0, 2)}
        found |= reference.affines(LEARNER, "method.common_projection", common)
        block, attention = f"{TOWERS[tower][0]}.transformer.resblocks.0", f"method.attention.{tower}"
        found |= reference.affine(f"{block}.attn_prompt.out_proj", f"{attention}.out_proj")
        for kind in ("weight", "bias"):
            found[f"{attention}.in_proj_{kind}"] = reference.take(f"{block}.attn_prompt.in_proj_{kind}")
        for ours, name in CASES.items():
            drawn = torch.randn(rows, width, generator=generator) * 0.02
            keys = (f"dynamic.{tower}.{name}", f"{block}.prompts_dynamic_{name}")
            key = next((key for key in keys if reference.has(key)), None)
            missing += [] if key else [f"{tower}/{ours}"]
            # [n, 1, D] in the reference, where the middle axis is the batch
            found[f"method.dynamic.{tower}.{ours}"] = reference.take(key).reshape(-1, width) if key else drawn
    if not missing:
        return found, ()
    remark = (
        f"holds no dynamic prompts for {', '.join(missing)}: the released code neither trains nor saves them, so they "
        f"were drawn at random (seed {DYNAMIC_SEED}); expect figures close but not equal to those of the original run"
    )
    return found, (remark,)


def _norm(clip: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{kind}": clip[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
