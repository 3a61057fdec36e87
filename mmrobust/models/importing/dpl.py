"""DPL's checkpoints (OverfitFlow/DPL, commit 3698b21): CLIP, with DCP's prompts or without, and decoupled prototypes.

CLIP and the prompts have DCP's names (``DPL_DCP``); ``DPL_NoPrompt`` has CLIP alone, whose last norms and image
projection it trains in place. Prototypes are ``{task}_pl_head.w_m{modality}_{case}``, [D, classes]: ``w_mi_c`` is the
image's when complete, ``w_mt_im`` the text's when the image is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrobust.configuration import plain
from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.heads.prototype import PrototypeConfig
from mmrobust.models.importing.dcp import LEARNER, map_clip, map_prompts
from mmrobust.models.importing.reference import HEADS, MappedCheckpoint, ReferenceState

WHAT = "checkpoint of DPL"
REPOSITORY = "https://github.com/OverfitFlow/DPL"
PROTOTYPES = {
    ("complete", "image"): "w_mi_c",
    ("missing-text", "image"): "w_mi_tm",
    ("complete", "text"): "w_mt_c",
    ("missing-image", "text"): "w_mt_im",
}
"""(case, modality) → the reference's name for its prototypes."""
BY_CASE = {"complete": "", "missing-text": "_tm", "missing-image": "_im"}
"""Case → the end of the reference's names for its margin ``arc_m`` and its scale ``arc_s``."""
SCALE = 32.0
"""``arc_s`` in the reference's configuration and scripts."""


def from_dpl(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], head_from: str | None = None
) -> MappedCheckpoint:
    """Map a checkpoint of the reference to CLIP + ``dcp`` or ``none`` + ``prototype`` head.

    Args:
        state: its state dict; names with or without ``module.``.
        settings: its configuration: ``head_dim`` (64 by default), which no tensor shows; ``arc_*`` and ``contrast_*``,
            which are settings of the head.
        head_from: task whose head to take, if there are several.

    Raises:
        CheckpointError: a weight that is missing or unknown, or a setting out of range; the message names it.
        UsageError: an unknown ``head_from``.
    """
    reference = ReferenceState(state, settings, WHAT)
    head_name = reference.choose_head(head_from, "pl_head")
    sizes, clip = map_clip(reference)
    # Without prompts, what was trained inside CLIP lies in the backbone's own weights.
    prompted = reference.has(f"{LEARNER}.")
    method, trained, remarks = map_prompts(reference, clip) if prompted else ({"name": "none"}, {}, ())
    trained |= _prototypes(reference, head_name)
    head, about_head = _head(reference)
    aside = reference.other_heads(head_name, "pl_head", "classifier")
    reference.finish()
    task, metric = HEADS[head_name]
    return MappedCheckpoint(
        family="clip",
        repository=REPOSITORY,
        sizes=sizes,
        backbone=clip,
        method=method,
        head=head,
        trained=trained,
        classes=trained["head.prototypes.complete.image"].shape[0],
        task=task,
        headline_metric=metric,
        dataset=head_name,
        aside=aside,
        remarks=(*remarks, *about_head),
    )


def _prototypes(reference: ReferenceState, task: str) -> dict[str, Tensor]:
    """The prototypes [classes, 1, D] of the head of ``task``."""
    found = {}
    for (case, modality), name in PROTOTYPES.items():
        key = f"{task}_pl_head.{name}"
        reference.shape(key, 2)
        found[f"head.prototypes.{case}.{modality}"] = reference.take(key).T[:, None].contiguous()
    return found


def _head(reference: ReferenceState) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Name and settings of the head ``prototype``, and remarks.

    The base temperature is a factor of the loss: the weight of the loss takes it in.
    """
    head: dict[str, Any] = {"scale": reference.number("arc_s", SCALE)}
    settings, remarks = reference.settings, []
    if all(f"arc_m{end}" in settings for end in BY_CASE.values()):
        head["margins"] = {case: reference.number(f"arc_m{end}", 0.0) for case, end in BY_CASE.items()}
    if all(f"contrast_{name}" in settings for name in ("coef", "temp", "temp_base", "mode")):
        temperature, base = reference.number("contrast_temp", 1.0), reference.number("contrast_temp_base", 1.0)
        if base <= 0:
            raise CheckpointError(f"{WHAT}: contrast_temp_base {base} must be positive")
        head["prototype_loss"] = reference.number("contrast_coef", 0.0) * temperature / base
        head["prototype_temperature"] = temperature
        head["prototype_anchors"] = settings["contrast_mode"]
    if not {"margins", "prototype_loss"} <= head.keys():
        remarks.append(
            "holds no settings of margins or the loss over prototypes (arc_m…, contrast_…): the checkpoint names the "
            "head's defaults, which act in training alone"
        )
    scales = sorted({reference.number(f"arc_s{end}", head["scale"]) for end in BY_CASE.values()})
    if len(scales) > 1:
        remarks.append(
            f"was trained with scales that differ by case ({', '.join(f'{scale:g}' for scale in scales)}); here all "
            f"cases have one, {head['scale']:g}, since the reference evaluates without a scale"
        )
    try:
        config = PrototypeConfig(**head)
    except (UsageError, TypeError) as cause:
        raise CheckpointError(f"{WHAT}: its settings arc_… and contrast_… do not fit ({cause})") from cause
    return {"name": "prototype", **plain(config)}, tuple(remarks)
