"""CAV-MAE's fine-tuned checkpoints (YuanGongND/cav-mae, ``CAVMAEFT``); mmrobust's encoder uses the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrobust.models.importing.reference import MappedCheckpoint, ReferenceState

WHAT = "checkpoint of cav-mae"
REPOSITORY = "https://github.com/YuanGongND/cav-mae"
TASKS = {"acc": ("single-label", "accuracy"), "mAP": ("multi-label", "map")}
"""The reference's ``metrics``, ``acc`` by default → (task, headline metric)."""
FUSION = "fusion_block."
"""Prefix of Prompt the Missing's fusion block, which its release may have saved."""

_EMBEDDINGS = ("modality_a", "modality_v", "pos_embed_a", "pos_embed_v")
_LAYERS = ("norm", "norm_a", "norm_v", "patch_embed_a.proj", "patch_embed_v.proj")
_NORMS = tuple(f"norm{n}{suffix}" for n in (1, 2) for suffix in ("", "_a", "_v"))
_BLOCK = (*_NORMS, "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def from_cavmae(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], head_from: str | None = None
) -> MappedCheckpoint:
    """Map a checkpoint of the reference, which has one head, to CAV-MAE + ``full`` + ``linear``; see :data:`KINDS`.

    The settings are ``num_heads`` (default 12 for a hidden size of 768) and ``mel_bins`` (default 128), which no tensor
    shows; ``dataset_mean`` and ``dataset_std`` of the filter bank; ``metrics`` (``acc``: one label per sample, ``mAP``:
    several); ``dataset``. The reference writes them to an ``args.json``.
    """
    reference = ReferenceState(state, settings, WHAT)
    reference.only_head(head_from)
    metrics = settings.get("metrics", "acc")
    if not isinstance(metrics, str) or metrics not in TASKS:
        raise reference.error(f"setting metrics = {metrics!r} is none of {', '.join(TASKS)}")
    task, metric = TASKS[metrics]
    inputs, remarks = _filterbank(reference)
    sizes = _sizes(reference)
    counts = {"a": sizes["num_specific_layers"], "v": sizes["num_specific_layers"], "u": sizes["num_joint_layers"]}
    blocks = (f"blocks_{stream}.{i}.{part}" for stream, n in counts.items() for i in range(n) for part in _BLOCK)
    backbone = {name: reference.take(name) for name in _EMBEDDINGS}
    for layer in (*_LAYERS, *blocks):
        backbone |= reference.affine(layer, layer)
    trained = reference.affines("mlp_head", "head", {"norm": "0", "dense": "1"})
    aside = reference.take_all(FUSION)
    reference.finish()
    return MappedCheckpoint(
        family="cavmae",
        repository=REPOSITORY,
        sizes=sizes,
        backbone=backbone,
        method={"name": "full"},
        head={"name": "linear"},
        trained=trained,
        classes=trained["head.dense.bias"].numel(),
        task=task,
        headline_metric=metric,
        dataset=str(settings.get("dataset") or "unknown"),
        inputs=inputs,
        aside=aside,
        remarks=remarks,
    )


def _filterbank(reference: ReferenceState) -> tuple[dict[str, float], tuple[str, ...]]:
    """Mean and standard deviation for normalising the filter bank, and a remark if they are unknown."""
    names = {"mean": "dataset_mean", "std": "dataset_std"}
    known = {o: t for o, t in names.items() if reference.settings.get(t) is not None}
    inputs = {ours: float(reference.number(theirs, 0.0)) for ours, theirs in known.items()}
    if inputs.get("std", 1.0) <= 0:
        raise reference.error(f"setting dataset_std = {inputs['std']} must be above 0")
    if len(known) == len(names):
        return inputs, ()
    missing = " and ".join(theirs for ours, theirs in names.items() if ours not in known)
    return inputs, (
        f"{missing} unknown: filter banks are normalised as the reference does on VGGSound; set them with a --config "
        "FILE.json (the reference's args.json)",
    )


def _sizes(reference: ReferenceState) -> dict[str, Any]:
    """Arguments of ``CavMaeConfig``, inferred from the tensors' shapes."""
    hidden, channels, patch, _ = reference.shape("patch_embed_v.proj.weight", 4)
    mel_bins = int(reference.number("mel_bins", 128))
    patches_a = reference.shape("pos_embed_a", 3)[1]
    if mel_bins < patch or patches_a % (mel_bins // patch):
        raise reference.error(
            f"mel_bins {mel_bins} in patches of {patch} do not divide the {patches_a} positions of pos_embed_a"
        )
    return {
        "audio_frames": patches_a // (mel_bins // patch) * patch,
        "mel_bins": mel_bins,
        "image_size": reference.side(reference.shape("pos_embed_v", 3)[1], "pos_embed_v") * patch,
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": hidden,
        "num_specific_layers": reference.count("blocks_a"),
        "num_joint_layers": reference.count("blocks_u"),
        "num_attention_heads": reference.heads(hidden),
        "mlp_ratio": reference.shape("blocks_a.0.mlp.fc1.weight", 2)[0] / hidden,
    }
