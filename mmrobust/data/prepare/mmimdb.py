"""The data set ``mmimdb``: film posters and plot summaries, 23 genres, multi-label (Arevalo et al., GMU, 2017).

Where to get it: https://github.com/johnarevalo/gmu-mmimdb names the archive ``mmimdb.tar.gz`` (8 GB; a mirror is at
https://archive.org/details/mmimdb). ``split.json`` is in it. Terms: the archive carries no licence; posters and plots
are their owners', gathered from IMDb and MovieLens for research. Nothing of it may be redistributed.

The source is the folder with ``split.json`` (or the one above it), in either layout::

    split.json                              split.json
    dataset/0000005.jpeg, 0000005.json      images/0000005.jpeg
        as the archive unpacks              labels/0000005.json
                                                as MMP and DCP have it

``split.json`` gives the ids of ``train``, ``dev`` and ``test`` (15,552 / 2,608 / 7,799 films); a label file has
``genres`` (a list) and ``plot`` (a list of summaries). Genres that are none of the 23 are left away, as the papers do.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.annotations import find_root, read_annotation, read_splits
from mmrobust.data.prepare.intake import Intake, Remark, no_remark, read_media
from mmrobust.data.prepare.plots import PLOTS, texts_of
from mmrobust.data.writing import Row, write_dataset
from mmrobust.errors import unknown_name
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import refuse_to_overwrite

CLASSES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)
"""By frequency, which is the order of the labels in MMP's arrow files and of the outputs of its checkpoints."""

SIZES = {"train": 15_552, "validation": 2_608, "test": 7_799}
LICENCE = "no licence given: posters and plots are their owners', for research only (Arevalo et al., 2017)"
SOURCE = "MM-IMDb, https://github.com/johnarevalo/gmu-mmimdb"


def prepare_mmimdb(
    source: Path,
    out: Path,
    *,
    plots: str = "all",
    limit: int | None = None,
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
) -> DatasetInfo:
    """Write the data set ``mmimdb`` to the folder ``out``.

    Args:
        source: the folder with ``split.json``, or the one above it.
        out: the folder to make.
        plots: what becomes of several plots, see :data:`mmrobust.data.prepare.plots.PLOTS`.
        limit: keep the first ``limit`` films of each split.
        allow_incomplete: leave out films whose poster or label file is not there or cannot be read.
        progress: told of each film.
        remark: told of sizes that are not the release's, and of each film that is left out.

    Raises:
        UsageError: ``out`` holds something already, or an unknown choice of plots.
        DataError: a file is not there or broken.
    """
    refuse_to_overwrite(out, "data set")
    if plots not in PLOTS:
        raise unknown_name("choice of plots", plots, PLOTS)
    root = find_root(source, "split.json", "mmimdb")
    splits = read_splits(root / "split.json")
    flat = (root / "dataset").is_dir()
    images, labels = (root / "dataset", root / "dataset") if flat else (root / "images", root / "labels")
    intake = Intake(
        "mmimdb",
        sizes=SIZES,
        limit=limit,
        allow_incomplete=allow_incomplete,
        progress=progress,
        remark=remark,
    )
    intake.keep_hash(root / "split.json")

    def read(split: str, film: str) -> Sequence[Row]:
        annotation = read_annotation(labels / f"{film}.json", {"genres": list, "plot": list})
        row = functools.partial(
            Row,
            split=split,
            label=tuple(label for label, genre in enumerate(CLASSES) if genre in annotation["genres"]),
            image=read_media("image", images / f"{film}.jpeg"),
            image_path=f"{film}.jpeg",
        )
        return [row(id=sample_id, text=text) for sample_id, text in texts_of(film, annotation["plot"], plots)]

    return write_dataset(
        out,
        intake.rows(
            ((split, functools.partial(read, split, film)) for split, films in splits.items() for film in films),
            sum(map(len, splits.values())),
        ),
        name="mmimdb",
        modalities=("image", "text"),
        classes=CLASSES,
        task="multi-label",
        headline_metric="macro_f1",
        licence=LICENCE,
        source=SOURCE,
        record=intake.record,
    )
