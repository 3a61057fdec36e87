"""The data set ``mmimdb``: film posters and plot summaries, 23 genres, multi-label (Arevalo et al., GMU, 2017).

Where to get it: https://github.com/johnarevalo/gmu-mmimdb names the archive ``mmimdb.tar.gz`` (8 GB; a mirror is at
https://archive.org/details/mmimdb). It contains ``split.json``. Terms: the archive carries no licence; posters and
plots belong to their owners, and were gathered from IMDb and MovieLens for research. Nothing may be redistributed.

The source is the folder with ``split.json`` (or the one above it), in either layout::

    split.json                              split.json
    dataset/0000005.jpeg, 0000005.json      images/0000005.jpeg
        as the archive unpacks              labels/0000005.json
                                                as MMP and DCP have it

``split.json`` gives the ids of ``train``, ``dev`` and ``test`` (15,552 / 2,608 / 7,799 films); a label file has
``genres`` (a list) and ``plot`` (a list of summaries). Other genres are dropped, as in the papers, and
counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import UnusableSample, find_root, read_media, read_splits
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError, check_name
from mmrobust.storage.files import read_json

CLASSES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)
"""By frequency, which is the order of the labels in MMP's arrow files and of the outputs of its checkpoints."""

DESCRIPTION = Description(
    name="mmimdb",
    modalities=("image", "text"),
    classes=CLASSES,
    task="multi-label",
    licence="no licence given: posters and plots are their owners', for research only (Arevalo et al., 2017)",
    source="MM-IMDb, https://github.com/johnarevalo/gmu-mmimdb",
    sizes={"train": 15_552, "validation": 2_608, "test": 7_799},
)

PLOTS = ("all", "first", "each")
"""What becomes of a film with several plots. ``all``: one sample, whose text is all plots, joined. ``first``: one
sample, whose text is the first plot (``--single-plot``). ``each``: one sample per plot, with the film's picture and
labels, as MMP's loader makes of its arrow files (``--each-plot``); scenarios treat the plots of one film alike."""


@preparer(source="the folder with split.json, the posters and the labels")
def prepare_mmimdb(source: Path, intake: Intake, *, plots: str = "all") -> Listing:
    """List the films of MM-IMDb; ``plots`` is one of :data:`PLOTS`."""
    check_name("choice of plots", plots, PLOTS)
    root = find_root(source, "split.json", "mmimdb")
    splits = read_splits(root / "split.json")
    flat = (root / "dataset").is_dir()
    images, labels = (root / "dataset", root / "dataset") if flat else (root / "images", root / "labels")
    intake.record_hash(root / "split.json")
    others: Counter[str] = Counter()

    def read(split: str, film: str) -> Iterator[SampleRow]:
        annotation = _read_annotation(labels / f"{film}.json")
        others.update(str(genre) for genre in annotation["genres"] if genre not in CLASSES)
        label = tuple(label for label, genre in enumerate(CLASSES) if genre in annotation["genres"])
        image = read_media("image", images / f"{film}.jpeg")
        for sample_id, text in texts_of(film, annotation["plot"], plots):
            group = film if plots == "each" else None
            yield SampleRow(split, sample_id, label, image=image, image_path=f"{film}.jpeg", text=text, group=group)

    def samples() -> Iterator[tuple[str, str]]:
        yield from ((split, film) for split, films in splits.items() for film in films)
        if others:
            named = ", ".join(f"{genre} ({count:,})" for genre, count in others.most_common())
            intake.note(f"genres other than the {len(CLASSES)} are dropped, as in the papers: {named}")

    return Listing(
        dataclasses.replace(DESCRIPTION, grouped=plots == "each"), read, samples(), sum(map(len, splits.values()))
    )


def texts_of(film: str, plots: Sequence[object], choice: str) -> Iterator[tuple[str, str | None]]:
    """The samples that a film becomes: (id, text) pairs. The first has the film's id.

    A film without any plot becomes one sample, whose text is naturally missing.
    """
    texts = [plot for plot in plots if isinstance(plot, str) and plot.strip()]
    if not texts:
        yield film, None
    elif choice == "all":
        yield film, " ".join(texts)
    else:
        for number, text in enumerate(texts[:1] if choice == "first" else texts, start=1):
            yield (film if number == 1 else f"{film}-{number}"), text


def _read_annotation(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``, with its lists ``genres`` and ``plot``."""
    try:
        annotation = read_json(file, "annotation of a sample")
    except DataError as cause:
        state = "unreadable" if file.is_file() else "not there"
        raise UnusableSample(str(cause), f"annotation {state}") from cause
    for name in ("genres", "plot"):
        if not isinstance(annotation.get(name), list):
            raise UnusableSample(f"{file}: has no list '{name}'", "annotation unreadable")
    return annotation
