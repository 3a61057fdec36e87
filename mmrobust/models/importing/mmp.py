"""MMP's checkpoints (YiLunLee/missing_aware_prompts): ViLT with prompts, under the names of ``ViLTransformerSS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrobust.models.importing.reference import HEADS, MappedCheckpoint, ReferenceState

WHAT = "checkpoint of missing_aware_prompts"
REPOSITORY = "https://github.com/YiLunLee/missing_aware_prompts"
PROMPTS = {"complete": "complete_prompt", "missing-image": "missing_img_prompt", "missing-text": "missing_text_prompt"}
"""Case → the reference's tensor."""

_EMBEDDINGS = {
    **{
        f"embeddings.text_embeddings.{name}": f"text_embeddings.{name}"
        for name in (
            "word_embeddings.weight",
            "position_embeddings.weight",
            "token_type_embeddings.weight",
            "LayerNorm.weight",
            "LayerNorm.bias",
        )
    },
    "embeddings.token_type_embeddings.weight": "token_type_embeddings.weight",
    "embeddings.cls_token": "transformer.cls_token",
    "embeddings.position_embeddings": "transformer.pos_embed",
    "embeddings.patch_embeddings.projection.weight": "transformer.patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "transformer.patch_embed.proj.bias",
    "layernorm.weight": "transformer.norm.weight",
    "layernorm.bias": "transformer.norm.bias",
}
_BLOCK = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}


def from_mmp(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], head_from: str | None = None
) -> MappedCheckpoint:
    """Map a checkpoint of the reference to ViLT + ``mmp`` + ``mlp`` head; see :data:`KINDS`.

    The settings are ``num_heads``, ``prompt_type``, ``prompt_layers`` and ``drop_rate``, for what no tensor shows. By
    default ``num_heads`` is 12 for a hidden size of 768, and the first layers are prompted.
    """
    reference = ReferenceState(state, settings, WHAT)
    sizes, method = _sizes(reference), _method(reference)
    head_name = reference.choose_head(head_from)
    backbone = {ours: reference.take(theirs) for ours, theirs in _EMBEDDINGS.items()}
    for index in range(sizes["num_hidden_layers"]):
        ours, theirs = f"encoder.layer.{index}", f"transformer.blocks.{index}"
        names = [f"{ours}.attention.attention.{name}" for name in ("query", "key", "value")]
        backbone |= reference.thirds(f"{theirs}.attn.qkv.", names) | reference.affines(theirs, ours, _BLOCK)
    # The reference trains the pooler in place; here it is a copy beside a frozen one, and both get these values.
    backbone |= (pooler := reference.affine("pooler.dense", "pooler.dense"))
    trained = {
        **{f"pooling.{name}": tensor for name, tensor in pooler.items()},
        **reference.affines(f"{head_name}_classifier", "head.layers", {layer: layer for layer in "013"}),
        **{f"method.tokens.joint.{case}": reference.take(name) for case, name in PROMPTS.items()},
    }
    # Position ids (0, 1, 2 …) are a buffer of transformers 4.
    aside = reference.other_heads(head_name) | reference.take_all("text_embeddings.position_ids")
    reference.finish()
    task, metric = HEADS[head_name]
    return MappedCheckpoint(
        family="vilt",
        repository=REPOSITORY,
        sizes=sizes,
        backbone=backbone,
        method=method,
        head={"name": "mlp"},
        trained=trained,
        classes=trained["head.layers.3.bias"].numel(),
        task=task,
        headline_metric=metric,
        dataset=head_name,
        aside=aside,
    )


def _sizes(reference: ReferenceState) -> dict[str, Any]:
    """Arguments of ``ViltConfig``, inferred from the tensors' shapes."""
    vocabulary, hidden = reference.shape("text_embeddings.word_embeddings.weight", 2)
    patch = reference.shape("transformer.patch_embed.proj.weight", 4)
    positions = reference.shape("transformer.pos_embed", 3)[1] - 1
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": reference.count("transformer.blocks"),
        "num_attention_heads": reference.heads(hidden),
        "intermediate_size": reference.shape("transformer.blocks.0.mlp.fc1.weight", 2)[0],
        "max_position_embeddings": reference.shape("text_embeddings.position_embeddings.weight", 2)[0],
        "type_vocab_size": reference.shape("text_embeddings.token_type_embeddings.weight", 2)[0],
        "modality_type_vocab_size": reference.shape("token_type_embeddings.weight", 2)[0],
        "num_channels": patch[1],
        "patch_size": patch[-1],
        "image_size": reference.side(positions, "transformer.pos_embed") * patch[-1],
        "hidden_dropout_prob": reference.number("drop_rate", 0.1),
    }


def _method(reference: ReferenceState) -> dict[str, Any]:
    """Settings of ``mmp``. No tensor shows the level: the prompts of both levels look the same."""
    layers, length, _ = reference.shape(PROMPTS["complete"], 3)
    level = reference.settings.get("prompt_type")
    if level is None:
        raise reference.error(
            "no tensor shows the prompts' level; set prompt_type (input or attention) in a --config FILE.json"
        )
    if level not in ("input", "attention"):
        raise reference.error(f"prompt_type '{level}' is neither input nor attention")
    prompted = reference.settings.get("prompt_layers", list(range(layers)))
    if not isinstance(prompted, (list, tuple)) or not all(type(layer) is int for layer in prompted):
        raise reference.error(f"prompt_layers {prompted!r} is not a list of layers")
    prompted = list(prompted)
    if len(prompted) != layers:
        raise reference.error(f"prompt_layers {prompted} name {len(prompted)} layers, the prompts have {layers}")
    listed = [] if prompted == list(range(layers)) else prompted
    return {"name": "mmp", "level": level, "length": length, "depth": layers, "layers": listed}
