"""Backbones: the frozen encoders. One module per family, and one line in :data:`FAMILIES`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.configuration import look_up
from mmrobust.errors import CheckpointError, MmrobustError, UsageError
from mmrobust.runtime.hub import go_offline_if_unreachable
from mmrobust.storage.files import MOST_JSON_BYTES, check_file

if TYPE_CHECKING:
    from mmrobust.models.backbone import Backbone

FAMILIES = {
    "vilt": "mmrobust.models.backbones.vilt:ViltBackbone",
    "clip": "mmrobust.models.backbones.clip:ClipBackbone",
    "mmrobust-cavmae": "mmrobust.models.backbones.cavmae:CavMaeBackbone",
    "mmrobust-towers": "mmrobust.models.backbones.towers:TowersBackbone",
}
"""``model_type`` of a config.json → ``module:class`` of the family."""

BACKBONE_FOLDER = "backbone"
"""Folder within a checkpoint for the backbone that it holds itself."""


def is_tiny(name: str) -> bool:
    """Whether ``--backbone name`` means a tiny backbone, and not a folder or a Hub id of that name."""
    return (name == "tiny" or name.startswith("tiny-")) and "/" not in name and not Path(name).is_dir()


TOWERS, TINY_TOWERS = "towers", "tiny-towers"
"""Backbones of any modalities, built around the encoders that are named."""
TINY, LINEAR = "tiny", "linear"
"""Encoders that are no pretrained ones: a small one of our own, and that of features, which have none."""
MODEL_TYPE, CONFIG = "mmrobust-towers", "config.json"
"""What the config of ``towers`` says it is, and the file that says it."""


def is_built(name: str) -> bool:
    """Whether ``--backbone name`` is built for a training, with random weights, and not loaded."""
    return is_tiny(name) or (name == TOWERS and not Path(name).is_dir())


def load_backbone(source: str, modalities: Sequence[str]) -> Backbone:
    """A backbone with its weights and processor.

    Args:
        source: a folder in Hugging Face's layout, a checkpoint of mmrobust that holds its backbone (``--method full``),
            or a Hub id, found in the cache or downloaded unless ``HF_HUB_OFFLINE`` is set.
        modalities: the modalities that it must take.

    Raises:
        CheckpointError: nothing is there, no weights, or a family that mmrobust does not know.
        UsageError: it takes other modalities.
    """
    from mmrobust.models.backbone import check_modalities
    from mmrobust.models.backbones.processors import check_processor
    from mmrobust.models.glance import Glance
    from mmrobust.storage.weights import check_finite, check_place

    check_place(source)
    place, family = locate(source), family_of(source)
    with loading(place, f"backbone {source}", limit=family.limited):
        backbone = family.load(place, source)
    if (file := _glance_file(place, backbone)) is not None:
        backbone.glance = Glance.load(file, backbone.modalities)
    check_modalities(backbone, modalities, source)
    check_finite(backbone.weights(), f"backbone {source}")
    check_processor(backbone.processor, backbone.model.config, f"backbone {source}")
    return backbone


def _glance_file(place: str, backbone: Backbone) -> Path | None:
    """The glance of a tiny backbone, in its folder or on the Hub; ``None`` where there is none."""
    from transformers.utils import cached_file

    from mmrobust.models.glance import FILE

    file = Path(place) / FILE
    if Path(place).is_dir():
        return file if file.is_file() else None
    return Path(cached_file(place, FILE)) if getattr(backbone.model.config, "glance", False) else None


@contextmanager
def loading(place: str, what: str, *, limit: bool = True) -> Iterator[None]:
    """Load a model from the folder or Hub id ``place``; ``what`` names it in messages.

    With ``limit``, the model that is built from a folder's config may not be larger than the files beside it.

    Raises:
        CheckpointError: whatever a library raised, as one line.
    """
    from mmrobust.models.backbone import without_progress_bars
    from mmrobust.storage.weights import TensorLimit, folder_size

    folder = Path(place)
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{what}: holds an adapter_config.json, which names weights stored elsewhere")
    try:
        with ExitStack() as stack:
            if folder.is_dir():  # a download can take long, and shows its progress bar
                stack.enter_context(without_progress_bars())
            if folder.is_dir() and limit:
                stack.enter_context(TensorLimit(folder_size(folder), what))
            yield
    except MmrobustError:
        raise
    except BaseException as cause:
        # Broken files make the libraries raise nearly anything; the tokenizers' Rust code not even an Exception.
        if not isinstance(cause, Exception) and type(cause).__name__ != "PanicException":
            raise
        reason = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise CheckpointError(f"{what}: weights or processor cannot be loaded ({reason})") from cause


def locate(source: str) -> str:
    """The folder or Hub id with the weights of ``source``: the backbone within a checkpoint, or ``source`` itself."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    if (folder / BACKBONE_FOLDER).is_dir():
        return str(folder / BACKBONE_FOLDER)
    if (folder / "training.parquet").is_file():
        raise CheckpointError(
            f"{source}: is a checkpoint that holds no backbone; as --backbone, name one made by --method full"
        )
    return source


def family_of(source: str) -> type[Backbone]:
    """The family of the backbone in a folder, in a checkpoint or on the Hub, by the config beside its weights.

    Raises:
        CheckpointError: nothing is there, or a family that mmrobust does not know.
    """
    values = read_model_config(locate(source), f"backbone {source}", "--backbone takes tiny, a folder of weights")
    try:
        family: type[Backbone] = look_up(FAMILIES, str(values.get("model_type", "")), "model type")
    except UsageError as cause:
        raise CheckpointError(f"backbone {source}: {cause}") from cause
    return family


def read_model_config(place: str, what: str, takes: str) -> dict[str, Any]:
    """The values of the config beside the weights in the folder or Hub id ``place``; ``what`` names it in messages.

    Raises:
        CheckpointError: nothing is there, or it would run code; ``takes`` begins what else could be named.
    """
    from transformers import PretrainedConfig

    folder = Path(place)
    if not folder.is_dir() and (folder.is_absolute() or place.startswith((".", "~")) or place.count("/") > 1):
        raise CheckpointError(f"{what.split(maxsplit=1)[-1]}: no such folder; {takes} or a Hub id")
    if (folder / "config.json").exists():
        check_file(folder / "config.json", "config of a model", CheckpointError, MOST_JSON_BYTES)
    if not folder.is_dir():
        go_offline_if_unreachable()
    try:
        values, _ = PretrainedConfig.get_config_dict(place)
    except (OSError, ValueError, RecursionError, TypeError) as cause:
        nowhere = "is no folder here and no model in reach on the Hub"
        hint = "has no readable config.json" if folder.is_dir() else nowhere
        raise CheckpointError(
            f"{what}: {hint}; {takes} or a Hub id (offline: download it first with `hf download`)"
        ) from cause
    for key in ("_attn_implementation", "attn_implementation"):
        if "/" in str(values.get(key, "")):  # the library would download and run it
            raise CheckpointError(f"{what}: asks for the attention of '{values[key]}', code from the Hub")
    return dict(values)
