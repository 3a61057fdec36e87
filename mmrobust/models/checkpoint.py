"""A checkpoint: a folder with what was trained and how.

It holds ``config.json``, ``model.safetensors`` (only what was trained), ``README.md`` (the model card) and
``training.parquet`` (the curves). If the backbone exists nowhere else (full fine-tuning, or a tiny backbone), it is
stored as well, in ``backbone/``. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from mmrobust.cases import Case
from mmrobust.configuration import check_json, from_mapping
from mmrobust.errors import CheckpointError, MmrobustError, UsageError, unknown_name
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import BACKBONE_FOLDER, load_backbone, locate
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.heads.base import HeadConfig, LabelScale
from mmrobust.models.methods import method_class
from mmrobust.models.prediction.classifier_model import ClassifierModel
from mmrobust.runtime.devices import resolve_device, resolve_dtype
from mmrobust.runtime.hub import cache_only, go_offline_if_unreachable
from mmrobust.storage.files import check_file, is_there, read_json, write_json
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors
from mmrobust.storage.shards import PREDICTIONS_FOLDER
from mmrobust.storage.tasks import REGRESSION, TASKS
from mmrobust.storage.weights import TensorLimit, check_finite, check_place, read_weights, write_weights

FORMAT_VERSION = 2
"""2: a tiny backbone may have a glance beside its network."""
CONFIG_FILE = "config.json"
UNFINISHED = ".training"
"""Folder of the state of a training that is not finished."""
WEIGHTS_FILE = "model.safetensors"
WEIGHTS = "trained weights of a checkpoint"
"""Description of :data:`WEIGHTS_FILE` in messages."""
CARD_FILE = "README.md"
CURVES_FILE = "training.parquet"


@dataclass(frozen=True)
class CheckpointConfig:
    """The contents of ``config.json``."""

    method: dict[str, Any]
    """``name`` and settings of the method."""
    head: dict[str, Any]
    """``name`` and settings of the head."""
    backbone: dict[str, Any]
    """``id`` (the value of ``--backbone``), ``path`` (relative to the checkpoint, if it is a folder), ``family``,
    ``stored`` (whether the checkpoint holds it), ``fingerprint`` (of its weights), ``settings``."""
    modalities: list[str]
    classes: list[str]
    task: str
    headline_metric: str
    cases: list[str]
    fill: str
    dataset: dict[str, Any]
    """``name`` and ``fingerprint`` of the data set it was trained on."""
    training: dict[str, Any]
    """``scenario``, ``missing_rate``, ``seed``, ``recipe``, ``trained_parameters``, ``best_epoch``, ``validation`` …"""
    versions: dict[str, str] = field(default_factory=dict)
    label_scale: dict[str, float] = field(default_factory=dict)
    """``mean`` and ``std`` of the training split's labels in a regression task; otherwise empty, and not written."""
    format_version: int = FORMAT_VERSION

    @property
    def classes_named(self) -> bool:
        """Whether the names of the classes are known; a checkpoint of a paper's own code only numbers them."""
        return "imported" not in self.training or tuple(self.classes) != unnamed_classes(len(self.classes))

    @classmethod
    def read(cls, folder: Path) -> CheckpointConfig:
        """The ``config.json`` of ``folder``.

        Raises:
            CheckpointError: there is none, or it is not the config of a checkpoint.
        """
        file = folder / CONFIG_FILE
        values = read_json(file, "config of a checkpoint", CheckpointError)
        if "method" not in values or "head" not in values:
            raise CheckpointError(f"{file}: is no checkpoint of mmrobust (pass weights of a backbone as --backbone)")
        version = values.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise CheckpointError(
                f"{file}: checkpoint format {version} is newer than this mmrobust reads ({FORMAT_VERSION}); upgrade it"
            )
        try:
            config = from_mapping(cls, values)
            for name in ("method", "head"):
                check_json(getattr(config, name), {"name": str}, name)
            check_json(config.backbone, _BACKBONE, "backbone")
            for name in ("modalities", "classes", "cases"):
                if not getattr(config, name):
                    raise UsageError(f"{name} is empty")
            if config.task not in TASKS:
                raise unknown_name("task", config.task, TASKS)
            if config.task == REGRESSION:
                check_json(config.label_scale, {"mean": float, "std": float}, "label_scale")
                if not config.label_scale["std"] > 0:
                    raise UsageError(f"label_scale/std = {config.label_scale['std']}: must be above 0")
        except UsageError as cause:
            raise CheckpointError(f"{file}: {cause}") from cause
        return config


_BACKBONE = {"id": str, "fingerprint": str, "path?": str, "stored": bool, "settings?": dict}


def unnamed_classes(number: int) -> tuple[str, ...]:
    """Names of classes whose real names are not known: their numbers, from 0."""
    return tuple(str(index) for index in range(number))


class _KnowsClasses(Protocol):
    """A classifier, or the config of one."""

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def classes_named(self) -> bool: ...
    @property
    def task(self) -> str: ...


def classes_fit(known: _KnowsClasses, classes: Sequence[str], task: str) -> bool:
    """Whether a model for the ``known`` classes and task can score these classes.

    If the class names of an imported checkpoint are not known, their number must be the same and their order is assumed
    to be the training's.
    """
    same = list(known.classes) == list(classes) if known.classes_named else len(known.classes) == len(classes)
    return same and known.task == task


def trained_tensors(classifier: Classifier) -> dict[str, torch.Tensor]:
    """The contents of ``model.safetensors``: all trained parameters except the backbone's own.

    What trains inside a frozen backbone belongs to a method (LoRA). A frozen head is stored too, so that the checkpoint
    does not depend on the fine-tuned checkpoint that the head comes from.
    """
    stored = classifier.trained()
    if not classifier.method.trains_head:
        stored |= {f"head.{name}": parameter for name, parameter in classifier.head.named_parameters()}
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in stored.items()
        if not (classifier.method.trains_backbone and name.startswith("backbone."))
    }


def save_checkpoint(folder: Path, classifier: Classifier, config: CheckpointConfig) -> None:
    """Write the weights, the backbone if needed, and last the config, which makes ``folder`` a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS_FILE, trained_tensors(classifier))
    if config.backbone["stored"]:
        classifier.backbone.save(folder / BACKBONE_FOLDER)
    values = dataclasses.asdict(config)
    write_json(folder / CONFIG_FILE, {key: value for key, value in values.items() if value or key != "label_scale"})


def head_config(config: CheckpointConfig) -> HeadConfig:
    """The head's settings, whichever version wrote them.

    Raises:
        UsageError: an unknown head or setting.
    """
    head = dict(config.head)
    head_cls = head_class(head.pop("name"))
    return from_mapping(head_cls.config_class, head_cls.config_class.of_checkpoint(head), f"{head_cls.name} head")


def build_classifier(backbone: Backbone, config: CheckpointConfig) -> Classifier:
    """An untrained classifier as ``config`` describes it; a ``UsageError`` for an unknown method, head or setting."""
    method = dict(config.method)
    method_cls, head_cls = method_class(method.pop("name")), head_class(config.head["name"])
    return Classifier(
        backbone,
        method_cls,
        from_mapping(method_cls.config_class, method, f"{method_cls.name} method"),
        head_cls,
        head_config(config),
        classes=config.classes,
        task=config.task,
        cases=[Case.parse(case, config.modalities) for case in config.cases],
        fill=config.fill,
        label_scale=LabelScale(**config.label_scale) if config.label_scale else None,
    )


@dataclass(frozen=True)
class Checkpoint(ClassifierModel):
    """A loaded checkpoint: a model that an evaluation can ask for predictions."""

    folder: Path
    config: CheckpointConfig
    fingerprint: str
    """Fingerprint of everything that affects the logits: weights, settings, backbone and input processor."""
    backbone: str | None = None
    """Folder or Hub id of the frozen backbone, if it is not where the checkpoint says."""

    def described(self) -> dict[str, Any]:
        """The metadata that results and predictions keep of it."""
        config = self.config
        return {
            "fingerprint": self.fingerprint,
            "method": config.method["name"],
            "head": config.head["name"],
            "settings": {"method": config.method, "head": config.head},
            "backbone": config.backbone["id"],
            "backbone_fingerprint": config.backbone["fingerprint"],
            "fill": config.fill,
            "modalities": config.modalities,
            "cases": config.cases,
            "training": config.training,
            "depends_on_prompting": self.classifier.depends_on_prompting,
            "device": self.device,
            "dtype": self.dtype,
            "folder": str(self.folder.resolve()),
        }

    def loader(self) -> Callable[[str], Checkpoint]:
        """A function that loads the same model on a given device, in another process."""
        return functools.partial(load_checkpoint, str(self.folder.resolve()), backbone=self.backbone, dtype=self.dtype)


def load_checkpoint(
    source: str | Path,
    device: str = "cpu",
    *,
    dtype: str = "float32",
    backbone: str | None = None,
    same_backbone: bool = True,
) -> Checkpoint:
    """Load a checkpoint, ready to run in evaluation mode.

    Args:
        source: a folder or a Hub id.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32``, ``bfloat16`` (for matrix products) or ``auto``.
        backbone: folder or Hub id of the frozen backbone, if it is not where the checkpoint says.
        same_backbone: whether to refuse a backbone whose weights have changed.

    Raises:
        UsageError: a device or dtype that does not exist.
        CheckpointError: it does not exist, is not readable, its backbone is gone or has changed, or weights do not fit.
    """
    place = resolve_device(device)
    dtype = resolve_dtype(dtype, place)
    folder = _fetch(str(source))
    check_place(folder)
    config = CheckpointConfig.read(folder)
    try:
        expected = config.backbone["fingerprint"]
        loaded = _load_backbone(backbone or _backbone_place(folder, config), config.modalities, expected)
        found = loaded.fingerprint()
        if same_backbone and found != expected:
            raise CheckpointError(
                f"{folder}: its backbone {config.backbone['id']} has other weights now "
                f"({found[:12]}, was {expected[:12]}); train again, or name the old one with --backbone"
            )
        settings = config.backbone.get("settings", {})
        loaded.configure(settings)
        check_file(folder / WEIGHTS_FILE, WEIGHTS, CheckpointError)
        with TensorLimit((folder / WEIGHTS_FILE).stat().st_size, str(folder)):
            classifier = build_classifier(loaded, config)
    except CheckpointError:
        raise
    except (MmrobustError, KeyError, TypeError, ValueError) as cause:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {cause}") from cause
    trained = _read_weights(folder / WEIGHTS_FILE, classifier)
    # Not strict: names and shapes were checked, and what is not trained has its values already.
    classifier.load_state_dict(trained, strict=False)
    classifier.classes_named = config.classes_named
    fingerprint = fingerprint_settings(
        {
            "weights": fingerprint_tensors(trained),
            "backbone": found,
            "inputs": loaded.inputs_fingerprint(),
            **({"backbone_settings": settings} if settings else {}),
            **({"label_scale": config.label_scale} if config.label_scale else {}),
            **{key: getattr(config, key) for key in ("method", "head", "classes", "task", "cases", "fill")},
        }
    )
    classifier.to(place)
    classifier.dtype = dtype
    return Checkpoint(classifier.train(False), folder, config, fingerprint, backbone)


def load(source: str | Path, *, device: str = "cpu", dtype: str = "float32", backbone: str | None = None) -> Classifier:
    """The classifier of a checkpoint, in evaluation mode; arguments and errors as for :func:`load_checkpoint`."""
    return load_checkpoint(source, device=device, dtype=dtype, backbone=backbone).classifier


def config_beside_backbone(backbone: str) -> CheckpointConfig | None:
    """The config of the checkpoint that ``backbone`` names; ``None`` if it names weights outside a checkpoint."""
    return None if locate(backbone) == backbone else CheckpointConfig.read(Path(backbone))


def relative_place(source: str, folder: Path) -> str | None:
    """The folder ``source`` relative to the checkpoint ``folder``, so that both can move; ``None`` for a Hub id."""
    return os.path.relpath(source, folder) if Path(source).is_dir() else None


def _fetch(source: str) -> Path:
    """The folder of a checkpoint, downloaded from the Hub if ``source`` is not a folder."""
    folder = Path(source)
    if folder.is_dir():
        if is_there(folder / PREDICTIONS_FOLDER) and not is_there(folder / CONFIG_FILE):
            raise CheckpointError(f"{source}: holds results; name the model itself, a checkpoint or my_model.py:model")
        if is_there(folder / UNFINISHED) and not is_there(folder / CONFIG_FILE):
            raise CheckpointError(f"{source}: holds an unfinished training; continue it with train --resume")
        return folder
    if folder.exists() or folder.is_absolute() or source.startswith(".") or source.count("/") != 1:
        raise CheckpointError(f"{source}: no such checkpoint folder; checkpoints are made by: mmrobust train")
    from huggingface_hub import snapshot_download

    go_offline_if_unreachable()
    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.md"]))
    except (OSError, ValueError, RuntimeError) as cause:
        raise CheckpointError(
            f"{source}: no such folder here, and not in reach on the Hub; checkpoints are made by: mmrobust train"
        ) from cause


def _backbone_place(folder: Path, config: CheckpointConfig) -> str:
    backbone = config.backbone
    if backbone["stored"]:
        return str(folder / BACKBONE_FOLDER)
    if backbone.get("path") and (folder / backbone["path"]).is_dir():
        return os.path.normpath(folder / str(backbone["path"]))
    if backbone.get("path") and not Path(backbone["id"]).is_dir():
        raise CheckpointError(f"{folder}: its backbone {backbone['id']} is gone; name its new place with --backbone")
    return str(backbone["id"])


def _load_backbone(place: str, modalities: Sequence[str], fingerprint: str) -> Backbone:
    """The backbone at ``place``: of a Hub id, what the cache holds if that has this ``fingerprint``.

    A look at the Hub would take time, and fail on a machine without network, only to find what the cache holds.
    """
    if not Path(place).is_dir():
        with cache_only() as online:
            try:
                loaded = load_backbone(place, modalities)
            except CheckpointError:
                if not online:
                    raise
            else:
                if loaded.fingerprint() == fingerprint or not online:
                    return loaded
    return load_backbone(place, modalities)


def _read_weights(file: Path, classifier: Classifier) -> Mapping[str, torch.Tensor]:
    """The trained tensors, whose names, shapes and types must be those that the classifier trains."""
    tensors, expected = read_weights(file, WEIGHTS), trained_tensors(classifier)
    for name in sorted(expected.keys() ^ tensors.keys()):
        problem = "is missing" if name in expected else "is not known to this method and head"
        raise CheckpointError(f"{file}: weight {name} {problem}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, not {list(expected[name].shape)}"
            raise CheckpointError(f"{file}: weight {name} is of shape {shapes}")
        if tensor.dtype != expected[name].dtype:
            found, needed = (str(t.dtype).removeprefix("torch.") for t in (tensor, expected[name]))
            raise CheckpointError(f"{file}: weight {name} is of type {found}, not {needed}")
    check_finite(tensors, file)
    return tensors
