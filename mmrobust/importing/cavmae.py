"""CAV-MAE's fine-tuned checkpoints (YuanGongND/cav-mae, ``CAVMAEFT``): the encoder's names are already ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrobust.importing.reference import Imported, ReferenceState

WHAT = "checkpoint of cav-mae"
FUSION = "fusion_block."
"""Prompt-the-Missing's fusion block between the streams, where a release of it was saved."""

_PLAIN = (
    "modality_a",
    "modality_v",
    "pos_embed_a",
    "pos_embed_v",
    *(f"{m}.{kind}" for m in ("norm", "norm_a", "norm_v") for kind in ("weight", "bias")),
    *(f"patch_embed_{m}.proj.{kind}" for m in "av" for kind in ("weight", "bias")),
)
_BLOCK = (
    *(f"norm{n}{suffix}" for n in (1, 2) for suffix in ("", "_a", "_v")),
    "attn.qkv",
    "attn.proj",
    "mlp.fc1",
    "mlp.fc2",
)
_HEAD = {"norm": "mlp_head.0", "dense": "mlp_head.1"}


def from_cavmae(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Imported:
    """A checkpoint of the reference, as CAV-MAE + ``full`` + ``linear`` head.

    Args:
        state: its state dict; names with or without ``module.``.
        settings: its configuration: ``num_heads`` (12 for a hidden size of 768) and ``mel_bins`` (128), which no tensor
            tells.

    Raises:
        CheckpointError: a weight that is missing or not known, or a setting that is needed; the message names it.
    """
    reference = ReferenceState(state, settings, WHAT)
    sizes = _sizes(reference)
    counts = {"a": sizes["num_specific_layers"], "v": sizes["num_specific_layers"], "u": sizes["num_joint_layers"]}
    backbone = {name: reference.take(name) for name in _PLAIN}
    for stream, count in counts.items():
        names = [f"blocks_{stream}.{i}.{part}.{k}" for i in range(count) for part in _BLOCK for k in ("weight", "bias")]
        backbone |= {name: reference.take(name) for name in names}
    trained = {f"head.{o}.{k}": reference.take(f"{t}.{k}") for o, t in _HEAD.items() for k in ("weight", "bias")}
    aside = reference.take_all(FUSION)
    reference.finish()
    classes = len(trained["head.dense.bias"])
    return Imported(sizes, backbone, {"name": "full"}, {"name": "linear"}, trained, classes, aside)


def _sizes(reference: ReferenceState) -> dict[str, Any]:
    """Arguments of ``CavMaeConfig``, read off the tensors' shapes."""
    hidden, channels, patch, _ = reference.shape("patch_embed_v.proj.weight")
    mel_bins = int(reference.settings.get("mel_bins", 128))
    sounds = reference.shape("pos_embed_a")[1]
    return {
        "audio_frames": sounds // (mel_bins // patch) * patch,
        "mel_bins": mel_bins,
        "image_size": reference.side(reference.shape("pos_embed_v")[1], "pos_embed_v") * patch,
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": hidden,
        "num_specific_layers": reference.count("blocks_a"),
        "num_joint_layers": reference.count("blocks_u"),
        "num_attention_heads": reference.heads(hidden),
        "mlp_ratio": reference.shape("blocks_a.0.mlp.fc1.weight")[0] / hidden,
    }
