"""MMP's checkpoints (YiLunLee/missing_aware_prompts): ViLT with prompts, under the names of ``ViLTransformerSS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrobust.errors import CheckpointError
from mmrobust.models.importing.reference import HEADS, Imported, ReferenceState

WHAT = "checkpoint of missing_aware_prompts"
REPOSITORY = "https://github.com/YiLunLee/missing_aware_prompts"
PROMPTS = {
    "complete": "complete_prompt",
    "missing-image": "missing_img_prompt",
    "missing-text": "missing_text_prompt",
}
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


def from_mmp(state: Mapping[str, Tensor], settings: Mapping[str, Any], head_from: str | None = None) -> Imported:
    """Map a checkpoint of the reference to ViLT + ``mmp`` + ``mlp`` head.

    Args:
        state: its state dict; names with or without ``module.``.
        settings: its configuration (``num_heads``, ``prompt_type``, ``prompt_layers``, ``drop_rate``), for what no
            tensor shows. By default ``num_heads`` is 12 for a hidden size of 768, and the first layers are prompted.
        head_from: task whose head to take, if there are several.

    Raises:
        CheckpointError: a weight that is missing or unknown, or a setting that is needed; the message names it.
        UsageError: an unknown ``head_from``.
    """
    reference = ReferenceState(state, settings, WHAT)
    sizes = _sizes(reference)
    method = _method(reference)
    head_name = reference.choose_head(head_from)

    backbone = {ours: reference.take(theirs) for ours, theirs in _EMBEDDINGS.items()}
    for index in range(sizes["num_hidden_layers"]):
        ours, theirs = f"encoder.layer.{index}", f"transformer.blocks.{index}"
        for kind in ("weight", "bias"):
            # One projection with rows in the order query, key, value.
            parts = reference.take(f"{theirs}.attn.qkv.{kind}").chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                backbone[f"{ours}.attention.attention.{name}.{kind}"] = part.contiguous()
            backbone |= {f"{ours}.{o}.{kind}": reference.take(f"{theirs}.{t}.{kind}") for o, t in _BLOCK.items()}

    trained = {}
    for kind in ("weight", "bias"):
        # The reference trains the pooler in place; here it is a copy beside a frozen one, and both get these values.
        pooler = reference.take(f"pooler.dense.{kind}")
        backbone[f"pooler.dense.{kind}"] = trained[f"pooling.pooler.dense.{kind}"] = pooler
        for layer in (0, 1, 3):
            trained[f"head.layers.{layer}.{kind}"] = reference.take(f"{head_name}_classifier.{layer}.{kind}")
    for case, name in PROMPTS.items():
        trained[f"method.tokens.joint.{case}"] = reference.take(name)

    # Position ids (0, 1, 2 …) are a buffer of transformers 4.
    aside = reference.other_heads(head_name) | reference.take_all("text_embeddings.position_ids")
    reference.finish()
    task, metric = HEADS[head_name]
    return Imported(
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
        raise CheckpointError(
            f"{WHAT}: no tensor shows the prompts' level; set prompt_type (input or attention) in a --config FILE.json"
        )
    if level not in ("input", "attention"):
        raise CheckpointError(f"{WHAT}: prompt_type '{level}' is neither input nor attention")
    prompted = reference.settings.get("prompt_layers", list(range(layers)))
    if not isinstance(prompted, (list, tuple)) or not all(type(layer) is int for layer in prompted):
        raise CheckpointError(f"{WHAT}: prompt_layers {prompted!r} is not a list of layers")
    prompted = list(prompted)
    if len(prompted) != layers:
        raise CheckpointError(
            f"{WHAT}: prompt_layers {prompted} name {len(prompted)} layers, the prompts have {layers}"
        )
    return {
        "name": "mmp",
        "level": level,
        "length": length,
        "depth": layers,
        "layers": [] if prompted == list(range(layers)) else prompted,
    }
