"""The preparer ``cav-mae-json``: lists of recordings and pictures in the JSON of CAV-MAE and Prompt the Missing.

A list is ``{"data": [{"id": …, "wav": path, "img_path": path, "labels": "dog_bark"}, …]}`` (Prompt the Missing), or
with ``video_id`` and ``video_path`` for ``id`` and ``img_path`` (CAV-MAE): the picture is then the frame
``video_path/frame_5/VIDEO_ID.jpg``, or the last existing one before it, as in CAV-MAE's evaluation. Several labels are
joined by commas. The label CSV (columns index, mid, display_name) numbers the classes; a label is a ``mid`` or a
display name.

The source is one list, or a folder with several, named after the splits (``train.json``, ``val.json``, ``test.json``,
``eval.json``). The label CSV lies beside them, unless ``--label-csv`` names it. Paths are absolute, or relative to the
list's folder (or to ``--media-root``). A path of another machine is resolved below that folder, by its longest end that
exists there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import MAX_FILE_BYTES, one_per_split, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, unknown_name
from mmrobust.storage.files import is_file, read_json
from mmrobust.storage.text_tables import open_table

LABEL_COLUMNS = ("index", "mid", "display_name")
MIDDLE_FRAME = 5
"""Of the ten that CAV-MAE extracts from a video."""


@preparer(
    source="the folder with train.json, test.json and the label CSV",
    overrides=("name", "task", "headline_metric", "licence"),
)
def prepare_cav_mae_json(
    source: Path, intake: Intake, *, label_csv: Path | None = None, media_root: Path | None = None
) -> Listing:
    """List the samples of CAV-MAE's JSON lists; see the module's docstring."""
    files = find_lists(source)
    if not files:
        raise DataError(
            f"{source}: no list in CAV-MAE's JSON whose name tells its split (train.json, test.json); "
            '--source names one, or their folder; a list is {"data": [{"id", "wav", "img_path", "labels"}, …]}'
        )
    folder = source if source.is_dir() else source.parent
    labels, classes = _read_labels(label_csv or _find_label_csv(folder))
    lists = {split: _read_list(file) for split, file in files.items()}
    samples = [
        (split, entry, _labels(entry, labels, f"{files[split]}, entry {row}"), row)
        for split, entries in lists.items()
        for row, entry in enumerate(entries, start=1)
    ]
    several = any(len(numbers) != 1 for _, _, numbers, _ in samples)
    for file in files.values():
        intake.record_hash(file)
    root = media_root or folder

    def read(split: str, entry: Mapping[str, Any], numbers: tuple[int, ...], row: int) -> Iterator[SampleRow]:
        sound, picture, where = entry.get("wav"), _picture(entry, root), f"{files[split]}, entry {row}"
        yield SampleRow(
            split=split,
            id=str(entry.get("id") or entry.get("video_id") or ""),
            label=numbers,
            audio=read_media("audio", find_path(sound, root), where) if sound else None,
            audio_path=sound or "",
            image=read_media("image", find_path(picture, root), where) if picture else None,
            image_path=picture or "",
        )

    description = Description(
        name=folder.resolve().name,
        modalities=("audio", "image"),
        classes=classes,
        licence="unknown",
        source=str(source),
        task="multi-label" if several else "single-label",
    )
    return Listing(description, read, samples, len(samples), by_class=True)


def find_lists(source: Path) -> dict[str, Path]:
    """Split → list in CAV-MAE's JSON, for the file ``source`` or those in that folder; empty where there is none."""
    files = sorted(source.glob("*.json")) if source.is_dir() else [source] if source.suffix == ".json" else []
    folder = source if source.is_dir() else source.parent
    return {split: folder / name for split, name in one_per_split(source, [file.name for file in files]).items()}


def find_path(path: str, root: Path) -> Path:
    """Find the file that a list calls ``path``: at that path, or below ``root`` at the longest end of it that exists.

    Where none does, returns the path as the list has it, below ``root``, for the message.
    """
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute():
        if is_file(path):
            return Path(path)
        parts = parts[1:]
    ends = (root.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if is_file(end)), root / path)


def _picture(entry: Mapping[str, Any], root: Path) -> str | None:
    """The path of the picture: the entry's own, or that of the frame that CAV-MAE evaluates on."""
    if entry.get("img_path"):
        return str(entry["img_path"])
    if not entry.get("video_path"):
        return None
    video, picture = entry["video_path"].rstrip("/"), f"{entry.get('video_id')}.jpg"
    frames = [f"{video}/frame_{frame}/{picture}" for frame in range(MIDDLE_FRAME, -1, -1)]
    return next((frame for frame in frames if is_file(find_path(frame, root))), frames[0])


def _read_list(file: Path) -> list[dict[str, Any]]:
    entries = read_json(file, "list of recordings and pictures", most_bytes=MAX_FILE_BYTES).get("data")
    if not isinstance(entries, list):
        raise DataError(f"{file}: has no list 'data'")
    for row, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("labels"), str):
            needed = "'labels', 'wav' and 'img_path' (or 'video_path')"
            raise DataError(f"{file}, entry {row}: is not an object with {needed}")
        for key in ("wav", "img_path", "video_path"):
            if not isinstance(entry.get(key, ""), str | None):
                raise DataError(f"{file}, entry {row}: '{key}' is {entry[key]!r:.60}, not a path")
    return entries


def _find_label_csv(folder: Path) -> Path:
    found = [file for file in sorted(folder.glob("*.csv")) if set(LABEL_COLUMNS) <= set(_columns(file))]
    if len(found) != 1:
        problem = "holds no CSV" if not found else f"{found[0].name} and {found[1].name} are both CSVs"
        raise DataError(f"{folder}: {problem} with the columns {', '.join(LABEL_COLUMNS)}; name it with --label-csv")
    return found[0]


def _columns(file: Path) -> Sequence[str]:
    """The columns of a CSV; none where the file is not one."""
    try:
        return open_table(file).columns
    except DataError:
        return ()


def _read_labels(file: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Read (each name that a list may use for a class → its number, the classes' names in order)."""
    numbers, names = dict[str, int](), dict[int, str]()
    for where, cells in open_table(file, needed=LABEL_COLUMNS, what="label CSV").rows():
        if not str(cells["index"]).strip().isdecimal():
            raise DataError(f"{where}: index '{cells['index']}' is not a whole number")
        number = int(cells["index"])
        names[number] = cells["display_name"]
        numbers[cells["display_name"]] = numbers[cells["mid"]] = number
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{file}: the classes are not numbered from 0 to {len(names) - 1}")
    return numbers, tuple(names[number] for number in sorted(names))


def _labels(entry: Mapping[str, Any], numbers: Mapping[str, int], where: str) -> tuple[int, ...]:
    """The classes of a sample. Display names may hold commas, so a whole label is tried before its parts."""
    text = entry["labels"]
    found = []
    for label in [text] if text in numbers else text.split(","):
        if label.strip() not in numbers:
            raise DataError(f"{where}: {unknown_name('label', label.strip(), numbers)}")
        found.append(numbers[label.strip()])
    return tuple(sorted(set(found)))
