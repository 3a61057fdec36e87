"""Checkpoints: a folder with what was trained, how, and a card that tells people about it.

``config.json``, ``model.safetensors`` (only what was trained), ``README.md`` (the model card), ``training.parquet``
(the curves). A checkpoint whose backbone exists nowhere else (full fine-tuning, or a tiny backbone) also holds it, in
``backbone/``. Never pickle.
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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmrobust.cases import Case
from mmrobust.configuration import from_mapping
from mmrobust.data.format import TASKS
from mmrobust.errors import CheckpointError, MmrobustError, unknown_name
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import BACKBONE_FOLDER, load_backbone, locate
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.models.prediction.classifier_model import ClassifierModel
from mmrobust.runtime.devices import resolve_device, resolve_dtype
from mmrobust.runtime.hub import offline_where_out_of_reach
from mmrobust.storage.files import check_file, read_json, write_json
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors
from mmrobust.storage.untrusted import Allowance, check_finite

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
CURVES_FILE = "training.parquet"


@dataclass(frozen=True)
class CheckpointConfig:
    """What ``config.json`` says."""

    method: dict[str, Any]
    """``name`` and the method's settings."""
    head: dict[str, Any]
    """``name`` and the head's settings."""
    backbone: dict[str, Any]
    """``id`` (as it was named), ``path`` (relative to the checkpoint, where it is a folder), ``family``, ``stored``
    (whether the checkpoint holds it), ``fingerprint`` (of its weights), ``settings`` (how it runs)."""
    modalities: list[str]
    classes: list[str]
    task: str
    headline_metric: str
    cases: list[str]
    fill: str
    dataset: dict[str, Any]
    """``name`` and ``fingerprint`` of the data it was trained on."""
    training: dict[str, Any]
    """``scenario``, ``missing_rate``, ``seed``, ``recipe``, ``trained_parameters``, ``best_epoch``, ``validation`` …"""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def classes_named(self) -> bool:
        """Whether the classes' names are known: a checkpoint of a paper's own code only numbers them."""
        return "imported" not in self.training or tuple(self.classes) != unnamed_classes(len(self.classes))

    @classmethod
    def read(cls, folder: Path) -> CheckpointConfig:
        """The ``config.json`` of ``folder``.

        Raises:
            CheckpointError: none there, or not one of ours.
        """
        file = folder / CONFIG_FILE
        values = read_json(file, "config of a checkpoint", CheckpointError)
        names = {f.name for f in dataclasses.fields(cls)}
        if "method" not in values or "head" not in values:
            raise CheckpointError(f"{file}: is no checkpoint of mmrobust (weights of a backbone go to --backbone)")
        version = values.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            said = f"checkpoint format {version} is newer than this mmrobust reads ({FORMAT_VERSION}); upgrade it"
            raise CheckpointError(f"{file}: {said}")
        if set(values) - names or {"backbone", "modalities", "classes", "cases"} - set(values):
            raise CheckpointError(f"{file}: keys are not those of a checkpoint of format {FORMAT_VERSION}")
        try:
            config = cls(**values)
        except TypeError as cause:
            raise CheckpointError(f"{file}: {cause}") from cause
        _check_kinds(config, file)
        return config


def _check_kinds(config: CheckpointConfig, file: Path) -> None:
    """Raise where a value of ``config`` is of another kind than its annotation says: the JSON may be anyone's."""

    def require(holds: bool, name: str, kind: str) -> None:
        if not holds:
            raise CheckpointError(f"{file}: {name} must be {kind}")

    for name in ("method", "head", "backbone", "dataset", "training", "versions"):
        require(isinstance(getattr(config, name), dict), name, "an object")
    for name in ("method", "head"):
        require(isinstance(getattr(config, name).get("name"), str), name, "an object with a name")
    for name in ("modalities", "classes", "cases"):
        values = getattr(config, name)
        words = isinstance(values, list) and values and all(isinstance(value, str) for value in values)
        require(bool(words), name, "a list of words")
    for name in ("task", "headline_metric", "fill"):
        require(isinstance(getattr(config, name), str), name, "a word")
    if config.task not in TASKS:
        raise CheckpointError(f"{file}: {unknown_name('task', config.task, TASKS)}")
    backbone = config.backbone
    for name in ("id", "fingerprint"):
        require(isinstance(backbone.get(name), str), f"backbone {name}", "a word")
    require(isinstance(backbone.get("path"), (str, type(None))), "backbone path", "a word or null")
    require(isinstance(backbone.get("stored"), bool), "backbone stored", "true or false")
    require(isinstance(backbone.get("settings", {}), dict), "backbone settings", "an object")


def unnamed_classes(number: int) -> tuple[str, ...]:
    """What classes are called whose names nobody wrote down: their numbers, from 0."""
    return tuple(str(index) for index in range(number))


class KnowsClasses(Protocol):
    """A classifier, or what a config says of one."""

    @property
    def classes(self) -> Sequence[str]:
        """Its classes."""

    @property
    def classes_named(self) -> bool:
        """Whether these are names, and not numbers for want of names."""

    @property
    def task(self) -> str:
        """Its task."""


def classes_fit(known: KnowsClasses, classes: Sequence[str], task: str) -> bool:
    """Whether what scores its ``known`` classes can score these.

    The classes of an imported checkpoint may have no names. Then as many classes of the same task do, whatever they
    are called, and their order is taken to be that of the training.
    """
    same = list(known.classes) == list(classes) if known.classes_named else len(known.classes) == len(classes)
    return same and known.task == task


def trained_tensors(classifier: Classifier) -> dict[str, torch.Tensor]:
    """What ``model.safetensors`` holds: every trained parameter that is not the backbone's own.

    Where the backbone is frozen, what trains inside it is a method's (LoRA's). A head that a method keeps as it was
    fine-tuned is held too: the checkpoint must not depend on the one that it was taken from.
    """
    held = classifier.trained()
    if not classifier.method.trains_head:
        held |= {f"head.{name}": parameter for name, parameter in classifier.head.named_parameters()}
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in held.items()
        if not (classifier.method.trains_backbone and name.startswith("backbone."))
    }


def save_checkpoint(folder: Path, classifier: Classifier, config: CheckpointConfig) -> None:
    """Weights, the backbone where it must be held, and last the config: it makes ``folder`` a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained_tensors(classifier), folder / WEIGHTS_FILE)
    if config.backbone["stored"]:
        classifier.backbone.save(folder / BACKBONE_FOLDER)
    write_json(folder / CONFIG_FILE, dataclasses.asdict(config))


def build_classifier(backbone: Backbone, config: CheckpointConfig) -> Classifier:
    """An untrained classifier as ``config`` describes it.

    Raises:
        UsageError: an unknown method, head or setting.
    """
    method, head = dict(config.method), dict(config.head)
    method_cls, head_cls = method_class(method.pop("name")), head_class(head.pop("name"))
    return Classifier(
        backbone,
        method_cls,
        from_mapping(method_cls.config_class, method, f"{method_cls.name} method"),
        head_cls,
        from_mapping(head_cls.config_class, head, f"{head_cls.name} head"),
        classes=config.classes,
        task=config.task,
        cases=[Case.parse(case, config.modalities) for case in config.cases],
        fill=config.fill,
    )


@dataclass(frozen=True)
class Checkpoint(ClassifierModel):
    """A checkpoint that was loaded: a model that an evaluation can ask for predictions."""

    folder: Path
    config: CheckpointConfig
    fingerprint: str
    """Of all that the logits depend on: the trained weights, the settings, the backbone and what feeds it."""
    backbone: str | None = None
    """Where the frozen backbone lies now, if not where the checkpoint remembers it."""

    def described(self) -> dict[str, Any]:
        """What results and predictions say of it."""
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
        }

    def loader(self) -> Callable[[str], Checkpoint]:
        """What loads the same model in another process, there on the given device."""
        return functools.partial(_load_on, str(self.folder.resolve()), self.backbone, self.dtype)


def load_checkpoint(
    source: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    backbone: str | None = None,
    same_backbone: bool = True,
) -> Checkpoint:
    """A checkpoint, ready to run, in evaluation mode.

    Args:
        source: a folder, or a Hub id.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32``, or ``bfloat16`` for the matrix work, or ``auto``.
        backbone: where the frozen backbone lies now, if not where the checkpoint remembers it.
        same_backbone: whether one whose weights have changed is refused.

    Raises:
        UsageError: a device or a dtype that there is not.
        CheckpointError: not there, not readable, its backbone gone or changed, or weights that do not fit.
    """
    place = resolve_device(device)
    dtype = resolve_dtype(dtype, place)
    folder = _fetch(str(source))
    config = CheckpointConfig.read(folder)
    try:
        loaded = load_backbone(backbone or _backbone_place(folder, config), config.modalities)
        found, expected = loaded.fingerprint(), config.backbone["fingerprint"]
        if same_backbone and found != expected:
            raise CheckpointError(
                f"{folder}: its backbone {config.backbone['id']} has other weights now "
                f"({found[:12]}, was {expected[:12]}); train again, or name the old one with --backbone"
            )
        settings = config.backbone.get("settings", {})
        loaded.configure(settings)
        check_file(folder / WEIGHTS_FILE, "trained weights of a checkpoint", CheckpointError)
        with Allowance((folder / WEIGHTS_FILE).stat().st_size, str(folder)):
            classifier = build_classifier(loaded, config)
    except CheckpointError:
        raise
    except (MmrobustError, KeyError, TypeError, ValueError) as cause:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {cause}") from cause
    trained = _read_weights(folder / WEIGHTS_FILE, classifier)
    # Names and shapes were checked above; what is not trained has its values already, hence not strict.
    classifier.load_state_dict(trained, strict=False)
    classifier.classes_named = config.classes_named
    fingerprint = fingerprint_settings(
        {
            "weights": fingerprint_tensors(trained),
            "backbone": found,
            "inputs": loaded.inputs_fingerprint(),
            **({"backbone_settings": settings} if settings else {}),
            **{key: getattr(config, key) for key in ("method", "head", "classes", "task", "cases", "fill")},
        }
    )
    classifier.to(place)
    classifier.dtype = dtype
    return Checkpoint(classifier.train(False), folder, config, fingerprint, backbone)


def _load_on(folder: str, backbone: str | None, dtype: str, device: str) -> Checkpoint:
    return load_checkpoint(folder, device=device, dtype=dtype, backbone=backbone)


def load(source: str | Path, *, device: str = "cpu", dtype: str = "float32", backbone: str | None = None) -> Classifier:
    """The classifier of a checkpoint (folder or Hub id), in evaluation mode. Arguments: :func:`load_checkpoint`.

    Raises:
        UsageError: a device or a dtype that there is not.
        CheckpointError: it cannot be loaded.
    """
    return load_checkpoint(source, device=device, dtype=dtype, backbone=backbone).classifier


def holder_of(backbone: str) -> CheckpointConfig | None:
    """The config of the checkpoint whose own backbone ``backbone`` names; ``None`` where it names bare weights.

    Raises:
        CheckpointError: the config cannot be read.
    """
    return None if locate(backbone) == backbone else CheckpointConfig.read(Path(backbone))


def relative_place(source: str, folder: Path) -> str | None:
    """``source`` relative to the checkpoint ``folder``, so that both may move together; ``None`` for a Hub id."""
    return os.path.relpath(source, folder) if Path(source).is_dir() else None


def _fetch(source: str) -> Path:
    """The folder of a checkpoint, from the Hub where ``source`` is no folder here."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or folder.is_absolute() or source.startswith(".") or source.count("/") != 1:
        raise CheckpointError(f"{source}: no such checkpoint folder; checkpoints are made by: mmrobust train")
    from huggingface_hub import snapshot_download

    offline_where_out_of_reach()
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
        raise CheckpointError(f"{folder}: its backbone {backbone['id']} is gone; say where it lies now with --backbone")
    return str(backbone["id"])


def _read_weights(file: Path, classifier: Classifier) -> Mapping[str, torch.Tensor]:
    """The trained tensors, checked against what the classifier trains: names and shapes must be the same."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(f"{file}: cannot be read ({' '.join(str(cause).split())[:120]})") from cause
    expected = trained_tensors(classifier)
    for name in sorted(expected.keys() ^ tensors.keys()):
        said = "is missing" if name in expected else "is not known to this method and head"
        raise CheckpointError(f"{file}: weight {name} {said}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, not {list(expected[name].shape)}"
            raise CheckpointError(f"{file}: weight {name} is of shape {shapes}")
        if tensor.dtype != expected[name].dtype:
            kinds = " not ".join(str(t.dtype).removeprefix("torch.") + "," for t in (tensor, expected[name]))
            raise CheckpointError(f"{file}: weight {name} is of type {kinds.rstrip(',')}")
    check_finite(tensors, file)
    return tensors
