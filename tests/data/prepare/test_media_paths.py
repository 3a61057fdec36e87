"""Paths as spreadsheets, labelling tools and other machines write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mmrobust.data.prepare.media_paths import find_base, find_file
from mmrobust.data.prepare.source_files import UnusableSample

NAME = "Café ü/Ångström 1%.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``sub/a b.png``, and names with accents in both forms of Unicode."""
    for name in ("sub/a b.png", unicodedata.normalize("NFC", NAME)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    "written", ["sub/a b.png", "./sub/a b.png", "sub\\a b.png", ".\\sub\\a b.png", "sub/a%20b.png"]
)
def test_relative_paths(folder: Path, written: str) -> None:
    assert find_file(folder, written, "image", "row 1").samefile(folder / "sub" / "a b.png")


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", ""])
def test_absolute_paths(folder: Path, start: str) -> None:
    whole = str(folder / "sub" / "a b.png")
    assert find_file(Path("/nowhere"), start + whole.replace(" ", "%20"), "image", "row 1") == Path(whole)


def test_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert find_file(Path("/nowhere"), "~/sub/a b.png", "image", "row 1") == folder / "sub" / "a b.png"


def test_accents_of_another_system(tmp_path: Path) -> None:
    """Composed, as Windows and Linux write them; decomposed, as macOS does; and a mixture of both."""
    composed, decomposed = (unicodedata.normalize(form, NAME) for form in ("NFC", "NFD"))
    mixed = unicodedata.normalize("NFD", "Café ü") + "/" + Path(composed).name
    assert len({composed, decomposed, mixed}) == 3
    for at, stored in enumerate((composed, decomposed, mixed)):
        base = tmp_path / str(at)
        (base / stored).parent.mkdir(parents=True)
        (base / stored).write_bytes(b"x")
        for written in (composed, decomposed, mixed):
            assert find_file(base, written, "image", "row 1").samefile(base / stored)


def test_what_stands_there_as_it_is_comes_first(tmp_path: Path) -> None:
    for name in ("a%20b.png", "a b.png", "c\\d.png"):
        (tmp_path / name).write_bytes(b"x")
    assert find_file(tmp_path, "a%20b.png", "image", "row 1").name == "a%20b.png"
    assert find_file(tmp_path, "c\\d.png", "image", "row 1").name == "c\\d.png"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("https://example.org/a.png", "row 1: image https://example.org/a.png is an address; mmrobust fetches nothing"),
        ("s3://bucket/a.png", "is an address; mmrobust fetches nothing: download the files"),
        ("data:image/png;base64,iVBORw0KGgo=", "is a data URI, not a path; save it as a file"),
        ("C:\\Users\\me\\a.png", "is not there: it is a path of Windows; give paths relative to the manifest"),
        ("/data/upload/3/a1b2-cat.png", "is an address in Label Studio; export the files too"),
        ("/data/local-files/?d=a.png", "is an address in Label Studio"),
        ("sub/A B.PNG", "row 1: image sub/A B.PNG is not there; is 'a b.png' meant?"),
        ("sub/a b.jpg", "is not there; is 'a b.png' meant?"),
        ("sub/a c.png", "is not there$"),  # the next picture is not meant
    ],
)
def test_what_cannot_be_found_is_told_with_a_reason(folder: Path, written: str, message: str) -> None:
    if message.endswith("$"):  # no reason is known: reading it says what the system says
        assert find_file(folder, written, "image", "row 1") == folder / written
        return
    with pytest.raises(UnusableSample) as raised:
        find_file(folder, written, "image", "row 1")
    assert message in str(raised.value)


def test_the_folder_that_paths_start_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = folder / "tables"
    tables.mkdir()
    assert find_base(folder, ["sub/a b.png", "gone.png"]) == folder  # one is enough in the table's own folder
    assert find_base(folder, ["a b.png"]) == folder / "sub"
    assert find_base(tables, ["sub/a b.png"]) == folder.resolve()
    assert find_base(tables, ["sub/a b.png", "gone.png"]) == tables  # elsewhere, all must be there
    assert find_base(tables, []) == tables
    monkeypatch.chdir(folder / "sub")
    assert find_base(Path("/"), ["a b.png"]) == folder / "sub"
