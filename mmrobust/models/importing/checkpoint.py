"""From a reference's file to a checkpoint of ours that ``eval`` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.cases import missing_cases
from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.checkpoint import (
    CheckpointConfig,
    build_classifier,
    save_checkpoint,
    trained_tensors,
    unnamed_classes,
)
from mmrobust.models.classifier import Classifier
from mmrobust.models.importing import mapper
from mmrobust.models.importing.backbone import build_backbone, check_weights
from mmrobust.models.importing.card import write_import_card
from mmrobust.models.importing.reading import ReferenceFile, read_reference
from mmrobust.models.importing.reference import Imported
from mmrobust.storage.files import atomic_folder, refuse_to_overwrite, sha256
from mmrobust.storage.provenance import versions

WHAT = "imported checkpoint"


@dataclass(frozen=True)
class Outcome:
    """What an import made."""

    config: CheckpointConfig
    parameters: int
    """Of the backbone."""
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
) -> Outcome:
    """Make a checkpoint that a paper's code wrote into one of ours. ``out`` appears whole or not at all.

    Args:
        kind: one of :data:`mmrobust.models.importing.KINDS`.
        file: the reference's checkpoint.
        out: the checkpoint folder to make.
        head_from: whose head to take, where the file holds several.
        config: JSON with the reference's own configuration names, for what the file does not carry.
        processor: folder or Hub id of the tokenizer; ``None``: the papers' own, where it is in reach.

    Raises:
        CheckpointError: a file that cannot be read, a weight that is missing or not known, a setting that is needed.
        UsageError: an unknown name, a ``config`` or ``processor`` that is not there, or ``out`` holds something.
    """
    mapping = mapper(kind)
    refuse_to_overwrite(out, WHAT)
    held = read_reference(file, config)
    try:
        imported = mapping(held.state, held.settings, head_from)
        backbone, remark = build_backbone(imported, processor, file.name, str(out / "backbone"))
        if imported.task == "binary" and imported.classes != 2:
            raise CheckpointError(f"the head of {imported.dataset} has {imported.classes} classes, a binary one has 2")
        described = _config(kind, file, held, imported, backbone.fingerprint(), backbone.modalities)
        classifier = _built(backbone, described)
        check_weights(imported.trained, trained_tensors(classifier))
        # Names and shapes were checked above; what is not trained has its values already, hence not strict.
        classifier.load_state_dict(imported.trained, strict=False)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except UsageError:
        raise
    except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError) as cause:
        # Shapes that no model of this kind can have: what the mappings and the libraries make of them has no one type.
        reason = " ".join(str(cause).split())[:120]
        raise CheckpointError(f"{file}: its tensors or settings contradict each other ({reason})") from cause
    remarks = (
        *imported.remarks,
        *([remark] if remark else []),
        f"its {imported.classes} classes have no names: a data set's classes must be in the order of the training's",
    )
    with atomic_folder(out, WHAT) as partial:
        save_checkpoint(partial, classifier, described)
        write_import_card(partial, out.resolve().name, described, remarks)
    parameters = sum(weight.numel() for weight in backbone.weights().values())
    return Outcome(described, parameters, remarks)


def _built(backbone: Backbone, config: CheckpointConfig) -> Classifier:
    """:func:`build_classifier`; settings come from the file here, so whatever is wrong with them is the file's."""
    try:
        return build_classifier(backbone, config)
    except UsageError as error:
        raise CheckpointError(str(error)) from error


def _config(
    kind: str, file: Path, held: ReferenceFile, imported: Imported, fingerprint: str, modalities: tuple[str, ...]
) -> CheckpointConfig:
    return CheckpointConfig(
        method=imported.method,
        head=imported.head,
        backbone={
            "id": file.name,
            "path": None,
            "family": imported.family,
            "stored": True,
            "fingerprint": fingerprint,
            "settings": {},
        },
        modalities=list(modalities),
        classes=list(unnamed_classes(imported.classes)),
        task=imported.task,
        headline_metric=imported.headline_metric,
        cases=[case.name for case in missing_cases(modalities)],
        fill="ones",
        dataset={"name": imported.dataset, "fingerprint": None},
        training={
            **_training(held.settings),
            "imported": {
                "kind": kind,
                "repository": imported.repository,
                "file": file.name,
                "sha256": sha256(file),
            },
        },
        versions=versions(),
    )


def _training(settings: dict[str, Any]) -> dict[str, Any]:
    """How it was trained, as far as the reference's configuration tells; ``None`` for what it does not."""
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
