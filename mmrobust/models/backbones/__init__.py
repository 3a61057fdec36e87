"""Backbones: the frozen encoders. One module per family, and one line in :data:`FAMILIES`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.configuration import look_up
from mmrobust.errors import CheckpointError, MmrobustError, UsageError
from mmrobust.runtime.hub import go_offline_if_unreachable
from mmrobust.storage.files import MOST_JSON_BYTES, check_file

if TYPE_CHECKING:
    from mmrobust.models.backbone import Backbone

FAMILIES = {
    "vilt": "mmrobust.models.backbones.vilt:load",
    "clip": "mmrobust.models.backbones.clip:load",
    "mmrobust-cavmae": "mmrobust.models.backbones.cavmae:load",
}
"""``model_type`` of a config.json → ``module:function`` that loads such a backbone from a folder or a Hub id."""

BACKBONE_FOLDER = "backbone"
"""Where a checkpoint keeps the backbone that it holds itself."""


def is_tiny(name: str) -> bool:
    """Whether ``--backbone name`` asks for a tiny backbone, and not for a folder or a Hub id of that name."""
    return (name == "tiny" or name.startswith("tiny-")) and "/" not in name and not Path(name).is_dir()


def load_backbone(source: str, modalities: Sequence[str]) -> Backbone:
    """A backbone with its weights and processor.

    Args:
        source: a folder in Hugging Face's layout, a checkpoint of ours that holds its backbone (``--method full``), or
            a Hub id, found in the cache or fetched unless ``HF_HUB_OFFLINE`` is set.
        modalities: what it must take.

    Raises:
        CheckpointError: nothing there, no weights, or a family that mmrobust does not know.
        UsageError: it takes other modalities.
    """
    from mmrobust.models.backbone import check_modalities, without_bars
    from mmrobust.models.backbones.checking import check_processor
    from mmrobust.storage.untrusted import check_finite

    place = locate(source)
    loader = _loader(_model_type(place, source), source)
    try:
        if Path(place).is_dir():
            with without_bars(), _held_to_its_files(Path(place), source):
                backbone: Backbone = loader(place, source)
        else:  # a download may take its time and shows its bar
            backbone = loader(place, source)
    except MmrobustError:
        raise
    except BaseException as cause:
        # Broken files make the libraries raise nearly anything; the tokenizers' Rust code even what is no Exception.
        if not isinstance(cause, Exception) and type(cause).__name__ != "PanicException":
            raise
        reason = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise CheckpointError(f"backbone {source}: weights or processor cannot be loaded ({reason})") from cause
    check_modalities(type(backbone), modalities, source)
    check_finite(backbone.weights(), f"backbone {source}")
    check_processor(backbone.processor, backbone.model.config, f"backbone {source}")
    return backbone


@contextmanager
def _held_to_its_files(folder: Path, source: str) -> Iterator[None]:
    """Look at the files of a backbone, and hold the model that is built of its config to their size."""
    from mmrobust.storage.untrusted import Allowance, weights_size

    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"backbone {source}: holds an adapter_config.json, which names weights that lie elsewhere"
        )
    with Allowance(weights_size(folder), f"backbone {source}"):
        yield


def locate(source: str) -> str:
    """Where the weights of ``source`` lie: a checkpoint's inner backbone folder, or ``source`` itself."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    if (folder / BACKBONE_FOLDER).is_dir():
        return str(folder / BACKBONE_FOLDER)
    if (folder / "training.parquet").is_file():
        raise CheckpointError(
            f"{source}: is a checkpoint that holds no backbone of its own; as --backbone name one made by --method full"
        )
    return source


def _model_type(place: str, source: str) -> str:
    from transformers import PretrainedConfig

    folder = Path(place)
    if not folder.is_dir() and (folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1):
        raise CheckpointError(f"{source}: no such folder; --backbone takes tiny, a folder of weights or a Hub id")
    if (folder / "config.json").exists():
        check_file(folder / "config.json", "config of a backbone", CheckpointError, MOST_JSON_BYTES)
    if not folder.is_dir():
        go_offline_if_unreachable()
    try:
        values, _ = PretrainedConfig.get_config_dict(place)
    except (OSError, ValueError, RecursionError, TypeError) as cause:
        hint = (
            "has no readable config.json" if folder.is_dir() else "is no folder here and no model in reach on the Hub"
        )
        raise CheckpointError(
            f"backbone {source}: {hint}; --backbone takes tiny, a folder of weights or a Hub id "
            "(offline: download it first with `hf download`)"
        ) from cause
    for key in ("_attn_implementation", "attn_implementation"):
        if "/" in str(values.get(key, "")):  # the library would fetch it from the Hub, and run it
            raise CheckpointError(f"backbone {source}: asks for the attention of '{values[key]}', code from the Hub")
    return str(values.get("model_type", ""))


def _loader(model_type: str, source: str) -> Any:
    try:
        return look_up(FAMILIES, model_type, "model type")
    except UsageError as cause:
        raise CheckpointError(f"backbone {source}: {cause}") from cause
