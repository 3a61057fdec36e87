from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.mmimdb import CLASSES, DESCRIPTION, prepare_mmimdb
from mmrobust.errors import DataError, UsageError

Pictures = list[Any]
WriteJson = Callable[[Path, Any], Path]

FILMS = {
    "train": {
        "0000005": (["Drama", "News"], ["A boy, a dog. They part.", "The dog comes back."]),
        "0000008": (["Film-Noir", "Crime"], ["Rain."]),
    },
    "dev": {"0000010": (["Short"], [])},
    "test": {"0000012": (["Comedy"], ["One.", "Two.", "Three."])},
}


@pytest.fixture(params=["as MMP has it", "as the archive unpacks"])
def source(request: pytest.FixtureRequest, emoji: Pictures, tmp_path: Path, write_json: WriteJson) -> Path:
    """Four films in either layout."""
    root, images, labels = tmp_path / "mmimdb", "images", "labels"
    if request.param == "as the archive unpacks":
        images = labels = "dataset"
    (root / images).mkdir(parents=True)
    write_json(root / "split.json", {split: list(films) for split, films in FILMS.items()})
    for picture, (film, (genres, plot)) in zip(
        emoji, ((film, said) for films in FILMS.values() for film, said in films.items()), strict=False
    ):
        (root / images / f"{film}.jpeg").write_bytes(picture.jpeg)
        write_json(root / labels / f"{film}.json", {"genres": genres, "plot": plot, "title": film, "year": 1920})
    return root


def test_films_with_all_their_plots(source: Path, emoji: Pictures, tmp_path: Path) -> None:
    remarks: list[str] = []
    info = prepare_mmimdb(source, tmp_path / "out", remark=remarks.append)
    assert (info.name, info.modalities, info.task, info.headline_metric) == (
        "mmimdb",
        ("image", "text"),
        "multi-label",
        "macro_f1",
    )
    assert info.splits == {"train": 2, "validation": 1, "test": 1}
    assert len(info.classes) == 23
    assert (info.classes[0], info.classes[22]) == ("Drama", "Film-Noir")
    assert info.files == {"split.json": hashlib.sha256((source / "split.json").read_bytes()).hexdigest()}

    first, second = Dataset(tmp_path / "out").split("train")
    assert (first.id, first.text) == ("0000005", "A boy, a dog. They part. The dog comes back.")
    assert first.image == emoji[0].jpeg
    assert first.label == (0,)  # News is none of the 23
    assert second.label == (4, 22)

    # Four films are not the release: that is said, kept, and no error.
    assert remarks == list(info.notes)
    assert info.notes[:2] == (
        "genres other than the 23 are dropped, as in the papers: News (1)",
        "train has 2 samples, the release of mmimdb 15,552",
    )
    assert info.notes[4:] == (
        "class 'Comedy' (and 1 more class) is in 1 test sample, but in no training sample: nothing can learn it",
    )


def test_a_film_without_a_plot_lacks_its_text_by_nature(source: Path, tmp_path: Path) -> None:
    prepare_mmimdb(source, tmp_path / "out")
    (sample,) = Dataset(tmp_path / "out").split("validation")
    assert sample.text is None
    assert sample.label == (21,)


def test_the_first_plot_or_a_sample_for_each(source: Path, tmp_path: Path) -> None:
    prepare_mmimdb(source, tmp_path / "first", plots="first")
    assert [s.text for s in Dataset(tmp_path / "first").split("test")] == ["One."]
    info = prepare_mmimdb(source, tmp_path / "each", plots="each")
    each = list(Dataset(tmp_path / "each").split("test"))
    assert [(s.id, s.text) for s in each] == [("0000012", "One."), ("0000012-2", "Two."), ("0000012-3", "Three.")]
    assert len({s.image for s in each}) == 1
    assert {s.group for s in each} == {"0000012"} and info.grouped
    # Films are compared with the release, but what is called samples is what the table below counts.
    assert "test has 3 samples, made from 1 of the 7,799 in the release of mmimdb" in info.notes
    with pytest.raises(UsageError, match="unknown choice of plots 'frist': did you mean 'first'"):
        prepare_mmimdb(source, tmp_path / "no", plots="frist")


def test_the_folder_above_will_do_and_a_limit_is_per_split(source: Path, tmp_path: Path) -> None:
    info = prepare_mmimdb(source.parent, tmp_path / "out", limit=1)
    assert info.splits == {"train": 1, "validation": 1, "test": 1}
    assert not any("the release" in note for note in info.notes)  # a part was asked for


def test_the_sizes_and_classes_are_the_release_s() -> None:
    assert DESCRIPTION.sizes == {"train": 15_552, "validation": 2_608, "test": 7_799}
    assert len(set(CLASSES)) == 23


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "damage", "reason", "message"),
    [
        ("0000005.jpeg", Path.unlink, "image not there", r"0000005\.jpeg cannot be read \(No such file"),
        ("0000005.jpeg", cut, "image unreadable", r"0000005\.jpeg: the picture cannot be read"),
        ("0000005.json", Path.unlink, "annotation not there", r"0000005\.json: no such file"),
        ("0000005.json", lambda f: f.write_text("{"), "annotation unreadable", "cannot be read as the annotation"),
        ("0000005.json", lambda f: f.write_text('{"plot": []}'), "annotation unreadable", "has no list 'genres'"),
    ],
)
def test_an_incomplete_download_is_an_error_unless_it_is_allowed(
    source: Path, tmp_path: Path, name: str, damage: Callable[[Path], object], reason: str, message: str
) -> None:
    damage(next(source.rglob(name)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=message) as raised:
        prepare_mmimdb(source, tmp_path / "out")
    assert "leave such samples out with --allow-incomplete" in str(raised.value)
    assert sorted(tmp_path.iterdir()) == before

    remarks: list[str] = []
    info = prepare_mmimdb(source, tmp_path / "out", allow_incomplete=True, remark=remarks.append)
    assert info.splits["train"] == 1
    assert info.left_out == {reason: 1}
    assert [line for line in remarks if line.startswith("left out: ") and name in line]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["left_out"] == {reason: 1}


def test_what_is_no_release(tmp_path: Path, write_json: WriteJson) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; --source names the folder that holds split\.json"):
        prepare_mmimdb(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match=r"holds no split\.json"):
        prepare_mmimdb(tmp_path, tmp_path / "out")
    write_json(tmp_path / "split.json", {"trian": []})
    with pytest.raises(DataError, match="'trian' is not a split; expected train, dev"):
        prepare_mmimdb(tmp_path, tmp_path / "out")
    write_json(tmp_path / "split.json", {"train": [1]})
    with pytest.raises(DataError, match="'train' is not a list of names"):
        prepare_mmimdb(tmp_path, tmp_path / "out")
