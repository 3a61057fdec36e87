"""Links and headings of the documentation: every relative link leads somewhere, and every path in the text is there."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

FOLDERS = (".ci", "benchmarks", "docs", "examples", "mmrobust", "scripts", "tests")
PATH = re.compile(rf"({'|'.join(map(re.escape, FOLDERS))})/[\w./-]*")
"""A path in the text that is of the repository."""


def tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of ``page``."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    parsed = tokens(page)
    for opening, heading in pairwise(parsed):
        if opening.type != "heading_open":
            continue
        text = "".join(child.content for child in heading.children or ())
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(page: Path) -> list[str]:
    children = [child for token in tokens(page) for child in token.children or ()]
    targets = [child.attrs.get("href") or child.attrs.get("src") for child in children]
    return [str(target) for target in targets if target]


def test_every_relative_link_leads_somewhere(page: Path, root: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page}: no {target}"
        assert file.is_relative_to(root), f"{page}: {target} leads out of the repository"
        if anchor:
            assert anchor in anchors(file), f"{page}: {file.name} has no heading #{anchor}"


def test_every_path_in_the_text_is_there(page: Path, root: Path) -> None:
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "code_inline" and PATH.fullmatch(child.content):
                assert (root / child.content).exists(), f"{page}: no {child.content}"


def test_every_page_is_linked_from_the_index(root: Path) -> None:
    index = root / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    for page in (root / "docs").glob("*.md"):
        assert page == index or page in linked, f"docs/README.md does not name {page.name}"


def test_every_example_is_in_its_index(root: Path) -> None:
    index = root / "examples" / "README.md"
    linked = {(index.parent / target).resolve() for target in links(index)}
    for file in (root / "examples").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts and file != index:
            assert file in linked or file.parent in linked, f"examples/README.md does not name {file}"


def test_the_map_of_the_house_names_every_room(root: Path) -> None:
    """CONTRIBUTING.md's table of rooms against the package as it is."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("## The map of the house") : text.index("## How we write")]
    named = {
        name.rstrip("/")
        for cell in re.findall(r"^\| \d? ?\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`([\w/.]+)`", cell)
    }
    rooms = {
        path.name
        for path in (root / "mmrobust").iterdir()
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    assert rooms - named == set(), "rooms that the map does not name"
    assert {name for name in named if "/" not in name} - rooms == set(), "rooms of the map that are not there"
