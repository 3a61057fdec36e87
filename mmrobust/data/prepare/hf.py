"""The preparer ``hf``: a data set that Hugging Face's ``datasets`` opens, where that is installed (extra ``hf``).

The source is a folder (of Parquet files, an ImageFolder, one written by ``save_to_disk`` …) or a repository id on the
Hub, with ``--subset`` naming one of its configurations. Terms of use are those of the data set, whose licence is
recorded.

Columns are found by their features (``Image``, ``Audio``, ``ClassLabel``) or usual names (id, text, label, labels), and
can be named like those of a manifest. A label is a ``ClassLabel``, a number or a text, or a list of these: then the
task is multi-label. Splits whose names are not those of ours are dropped, with a note. A sample with the label −1,
which some test splits on the Hub have in place of a withheld one, is left out. Decimal numbers are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.cases import MODALITIES
from mmrobust.data.prepare.label_forms import sort_classes
from mmrobust.data.prepare.manifest import ManifestColumns, order_modalities
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import SPLIT_NAMES, SkipSample, check_media, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, UsageError, unknown_name
from mmrobust.storage.parquet import first_line
from mmrobust.storage.tasks import REGRESSION

if TYPE_CHECKING:
    from datasets import Dataset as HfDataset


@preparer(
    source="a folder or repository id that Hugging Face's datasets opens",
    overrides=("name", "task", "headline_metric", "licence"),
)
def prepare_hf(
    source: Path, intake: Intake, *, subset: str | None = None, columns: ManifestColumns | None = None
) -> Listing:
    """List the samples of a data set of Hugging Face's ``datasets``: a folder, or a repository id on the Hub."""
    loaded = _load(source, subset)
    splits: dict[str, HfDataset] = {}
    for called, data in loaded.items():
        if called.lower() in SPLIT_NAMES and splits.setdefault(SPLIT_NAMES[called.lower()], data) is not data:
            raise DataError(f"{source}: two of its splits ({', '.join(loaded)}) are {SPLIT_NAMES[called.lower()]}")
    if not splits:
        raise DataError(f"{source}: none of its splits ({', '.join(loaded)}) is train, validation or test")
    first = next(iter(splits.values()))
    roles = _roles(source, first, columns or ManifestColumns())
    classes, number, several = _classes(source, splits, roles["label"])
    if len(classes) < 2:
        raise DataError(f"{source}: column '{roles['label']}' has fewer than two classes")
    for split in loaded:
        if split.lower() not in SPLIT_NAMES:
            intake.note(f"split '{split}' is dropped: it is not train, validation or test")
    encoded = {split: _undecoded(data, roles) for split, data in splits.items()}

    def read(split: str, row: int) -> Iterator[SampleRow]:
        found = encoded[split][row]
        cells = {role: found[column] for role, column in roles.items()}
        labels = cells["label"] if isinstance(cells["label"], list) else [cells["label"]]
        if any(label is None or label == -1 for label in labels):
            raise SkipSample("no label")
        where = f"{source} ({split}, row {row})"
        image, audio = (_media(modality, cells.get(modality), where) for modality in ("image", "audio"))
        if "id" in cells and cells["id"] is None:
            raise DataError(f"{where}: has no id")
        text = cells.get("text")
        yield SampleRow(
            split=split,
            id=str(cells["id"]) if "id" in cells else f"{split}-{row:06d}",
            label=tuple(sorted({number(label) for label in labels})),
            image=image,
            image_path=_path(cells.get("image")),
            audio=audio,
            audio_path=_path(cells.get("audio")),
            text=text if isinstance(text, str) and text.strip() else None,
        )

    description = Description(
        name=source.name,
        modalities=order_modalities(roles.keys() & set(MODALITIES)),
        classes=classes,
        licence=first.info.license or "unknown",
        source=f"datasets: {source}{f' ({subset})' if subset else ''}",
        task="multi-label" if several else "single-label",
    )
    samples = ((split, row) for split, data in encoded.items() for row in range(len(data)))
    return Listing(description, read, samples, sum(map(len, encoded.values())), by_class=True)


def _load(source: Path, subset: str | None) -> Mapping[str, HfDataset]:
    """Split → data, opened by ``datasets``."""
    try:
        import datasets
    except ImportError:
        way = "install it with: pip install 'mmrobust[hf]'"
        raise UsageError(f"the preparer hf needs the package datasets; {way}") from None
    saved = any((source / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        opened = datasets.load_from_disk(str(source)) if saved else datasets.load_dataset(str(source), subset)
    except Exception as cause:  # the library raises nearly anything, from its own errors to those of every reader
        problem = f"datasets cannot open it ({first_line(cause)})"
        raise DataError(f"{source}: {problem}; name a folder or a repository id") from cause
    return opened if isinstance(opened, dict) else {"train": opened}


def _roles(source: Path, data: HfDataset, columns: ManifestColumns) -> dict[str, str]:
    """Find the column of each role: the one the user named, the one of the usual name, or the only one of its kind."""
    import datasets

    kinds = {"image": datasets.Image, "audio": datasets.Audio, "label": datasets.ClassLabel}
    usual, roles = ManifestColumns(), {}
    for role in ("id", "image", "audio", "text", "label"):
        column = getattr(columns, role)
        if column != getattr(usual, role) and column not in data.column_names:
            raise DataError(f"{source}: --{role}-column: {unknown_name('column', column, data.column_names)}")
        kind = kinds.get(role)
        of_kind = [name for name, feature in data.features.items() if kind and isinstance(feature, kind)]
        candidates = [column, *(["labels"] if role == "label" else []), *(of_kind if len(of_kind) == 1 else [])]
        found = next((name for name in candidates if name in data.column_names), None)
        if found is not None:
            roles[role] = found
    if "label" not in roles:
        raise DataError(f"{source}: no label among {', '.join(data.column_names)}; name it with --label-column")
    if roles.keys().isdisjoint(MODALITIES):
        raise DataError(
            f"{source}: no image, audio or text among {', '.join(data.column_names)}; name them with --image-column, "
            "--audio-column, --text-column"
        )
    return roles


def _classes(
    source: Path, splits: Mapping[str, HfDataset], column: str
) -> tuple[tuple[str, ...], Callable[[Any], int], bool]:
    """The classes of the label column, the function from label to class number, and whether samples have several."""
    import datasets

    feature = next(iter(splits.values())).features[column]
    # A list of them is a Sequence or List, or in older versions a Python list of one.
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    several = inner is not feature
    if isinstance(inner, datasets.ClassLabel):
        return tuple(inner.names), int, several
    values = (value for data in splits.values() for value in data[column])
    flat = [part for value in values for part in (value if several else [value])]
    if decimal := next((part for part in flat if isinstance(part, float) and part % 1 > 0), None):
        raise DataError(
            f"{source}: column '{column}' holds decimal numbers, such as {decimal}; to predict them, save the data as "
            f"Parquet and take: mmrobust data prepare manifest --task {REGRESSION}"
        )
    classes = sort_classes({str(label) for label in flat if label is not None and label != -1})
    numbers = {name: number for number, name in enumerate(classes)}
    return classes, lambda label: numbers[str(label)], several


def _undecoded(data: HfDataset, roles: Mapping[str, str]) -> HfDataset:
    """``data`` with only the columns of ``roles``, media left encoded."""
    import datasets

    data = data.select_columns(list(dict.fromkeys(roles.values())))
    for role, kind in (("image", datasets.Image), ("audio", datasets.Audio)):
        if role in roles:
            data = data.cast_column(roles[role], kind(decode=False))
    return data


def _media(modality: str, cell: Mapping[str, Any] | None, where: str) -> bytes | None:
    """The bytes of a picture or recording, checked; ``None`` where it is naturally missing."""
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        return None
    if cell["bytes"] is None:
        return read_media(modality, Path(cell["path"]), where)
    check_media(modality, cell["bytes"], where)
    return bytes(cell["bytes"])


def _path(cell: Mapping[str, Any] | None) -> str:
    return Path(cell["path"]).name if cell and cell["path"] else ""
