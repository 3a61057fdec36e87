"""Conversion of a checkpoint file of a paper's code into a checkpoint that ``mmrobust eval`` runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.cases import missing_cases
from mmrobust.configuration import look_up
from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.card import write_card
from mmrobust.models.checkpoint import (
    CheckpointConfig,
    build_classifier,
    save_checkpoint,
    trained_tensors,
    unnamed_classes,
)
from mmrobust.models.importing import KINDS
from mmrobust.models.importing.encoder import build_backbone, check_weights
from mmrobust.models.importing.reference import MappedCheckpoint
from mmrobust.models.importing.reference_file import read_reference
from mmrobust.storage.files import atomic_folder, refuse_to_overwrite, sha256
from mmrobust.storage.provenance import versions
from mmrobust.storage.weights import check_place, one_line

WHAT = "imported checkpoint"


@dataclass(frozen=True)
class Conversion:
    """Result of an import."""

    config: CheckpointConfig
    parameters: int
    """Number of parameters of the backbone."""
    remarks: tuple[str, ...]
    """What the user should know, one sentence each."""


def import_checkpoint(
    kind: str,
    file: Path,
    out: Path,
    *,
    head_from: str | None = None,
    config: Path | None = None,
    processor: str | None = None,
) -> Conversion:
    """Convert a checkpoint that a paper's code wrote. ``out`` appears whole or not at all.

    Args:
        kind: one of :data:`mmrobust.models.importing.KINDS`.
        file: the paper's checkpoint.
        out: the checkpoint folder to create.
        head_from: task whose head to take, if the file holds several.
        config: JSON with the settings, under the paper's own names, that the file does not hold.
        processor: folder or Hub id of the tokenizer; ``None``: the papers' own, if it is in the local cache.

    Raises:
        CheckpointError: a file that cannot be read, a weight that is missing or unknown, or a setting that is needed.
        UsageError: an unknown name, a ``config`` or ``processor`` that does not exist, or ``out`` is not empty.
    """
    mapping = look_up(KINDS, kind, "kind of checkpoint")
    check_place(out)
    refuse_to_overwrite(out, WHAT)
    state, settings = read_reference(file, config)
    try:
        imported: MappedCheckpoint = mapping(state, settings, head_from)
        backbone, remark = build_backbone(imported, processor, file.name, str(out / "backbone"))
        if imported.task == "binary" and imported.classes != 2:
            raise CheckpointError(f"the head of {imported.dataset} has {imported.classes} classes, a binary one has 2")
        origin = {"kind": kind, "repository": imported.repository, "file": file.name, "sha256": sha256(file)}
        described = CheckpointConfig(
            method=imported.method,
            head=imported.head,
            backbone={
                "id": file.name,
                "path": None,
                "family": imported.family,
                "stored": True,
                "fingerprint": backbone.fingerprint(),
                "settings": {},
            },
            modalities=list(backbone.modalities),
            classes=list(unnamed_classes(imported.classes)),
            task=imported.task,
            headline_metric=imported.headline_metric,
            cases=[case.name for case in missing_cases(backbone.modalities)],
            fill="ones",
            dataset={"name": imported.dataset, "fingerprint": None},
            training={**_training(settings), "imported": origin},
            versions=versions(),
        )
        try:
            classifier = build_classifier(backbone, described)
        except UsageError as error:  # the settings come from the file
            raise CheckpointError(str(error)) from error
        check_weights(imported.trained, trained_tensors(classifier))
        # Not strict: names and shapes were checked, and what is not trained has its values already.
        classifier.load_state_dict(imported.trained, strict=False)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError) as cause:
        # Shapes that no model of this kind can have raise errors of many types in the mappings and the libraries.
        raise CheckpointError(f"{file}: its tensors or settings contradict each other ({one_line(cause)})") from cause
    remarks = (
        *imported.remarks,
        *([f"leaves out what this classifier does not use: {_parts(imported.aside)}"] if imported.aside else []),
        *([remark] if remark else []),
        f"its {imported.classes} classes have no names: a data set's classes must be in the order of the training's",
    )
    with atomic_folder(out, WHAT) as partial:
        save_checkpoint(partial, classifier, described)
        write_card(partial, out.resolve().name, described, remarks)
    parameters = sum(weight.numel() for weight in backbone.weights().values())
    return Conversion(described, parameters, remarks)


def _parts(tensors: Iterable[str]) -> str:
    """The outermost modules that hold ``tensors`` and how many each holds; one that is alone by its whole name."""
    parts: dict[str, list[str]] = {}
    for name in sorted(tensors):
        parts.setdefault(name.partition(".")[0], []).append(name)
    return ", ".join(f"{part} ({len(names)})" if len(names) > 1 else names[0] for part, names in parts.items())


def _training(settings: dict[str, Any]) -> dict[str, Any]:
    """How it was trained, as far as the paper's configuration says; ``None`` for what it does not say."""
    kind, rate = (
        value.get("train") if isinstance(value := settings.get(name), dict) else None
        for name in ("missing_type", "missing_ratio")
    )
    seed = settings.get("seed")
    return {
        "scenario": f"missing-{kind}" if kind in ("text", "image", "both") else None,
        "missing_rate": float(rate) if isinstance(rate, (int, float)) else None,
        "seed": seed if isinstance(seed, int) else None,
        "recipe": None,
    }
