"""The house in figures: its rooms and floors as the imports draw them, and how often a missing table is drawn.

``python scripts/house.py`` prints them, and exits with 1 where the layout of CONTRIBUTING.md does not hold: an arrow
that points up or sideways, a circle, a module that stands flat and is not named there. ``tests/test_house.py`` asks the
same.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mmrobust"

FLOORS = (
    ("errors", "version"),
    ("cases", "configuration", "storage", "runtime"),
    ("degradations",),
    ("scenarios",),
    ("data", "scoring"),
    ("models", "gate"),
    ("evaluation", "training", "report", "preview"),
    ("studies", "audit", "testing"),
    ("cli",),
)
"""The rooms, from the ground floor up. An import leads from a room to one on a lower floor."""
DOORS = ("__init__", "__main__")
"""Modules through which people come in: they belong to no floor, and no room imports them."""
TORCH_FREE = ("scoring", "gate", "report")
"""Rooms that import no torch: ``score``, ``report`` and ``check`` answer at once."""
STRANGERS = ("models.methods", "models.heads", "models.backbones")
"""Parts of the model that do not know each other: they meet in the classifier."""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name below the package → file, of every module; a package is called as its folder is."""
    files = {
        file.relative_to(package).with_suffix("").as_posix().replace("/", "."): file for file in package.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): file for name, file in sorted(files.items())}


def imported(file: Path, known: Iterable[str]) -> Iterator[str]:
    """The modules of the package that ``file`` imports, anywhere in it: in functions and for types, too."""
    known = set(known)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head != "mmrobust":
                continue
            while rest and rest not in known:
                rest = rest.rpartition(".")[0]
            yield rest or "__init__"


def arrows(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """(module, module that it imports)."""
    files = modules(package)
    found = ((name, other) for name, file in files.items() for other in imported(file, files))
    return {(name, other) for name, other in found if name != other}


def room_of(module: str) -> str:
    """The room that a module is in."""
    return module.partition(".")[0]


def circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """A way that leads back to where it begins; empty where there is none."""
    try:
        TopologicalSorter(_after(sorted(edges))).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def height(edges: Iterable[tuple[str, str]]) -> int:
    """How many floors the arrows themselves draw: nodes on the longest way down, where no way leads in a circle."""
    after = _after(edges)
    floors: dict[str, int] = {}
    for node in TopologicalSorter(after).static_order():
        floors[node] = 1 + max((floors[other] for other in after.get(node, ())), default=0)
    return max(floors.values(), default=0)


def _after(edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    after: dict[str, list[str]] = {}
    for start, end in edges:
        after.setdefault(start, []).append(end)
    return after


def faults(package: Path = PACKAGE) -> list[str]:
    """What of the layout does not hold, one line each."""
    floor_of = {room: number for number, rooms in enumerate(FLOORS, start=1) for room in rooms}
    edges = arrows(package)
    said = [
        f"{room} is no room of the house"
        for room in sorted({room_of(m) for m in modules(package)})
        if room not in floor_of and room not in DOORS
    ]
    for start, end in sorted(edges):
        own, other = room_of(start), room_of(end)
        apart = {part for part in STRANGERS for name in (start, end) if name.startswith(part)}
        if len(apart) > 1:
            said.append(f"{start} imports {end}: these parts of the model do not know each other")
        if own in DOORS or own == other or not {own, other} <= {*floor_of, *DOORS}:
            continue
        if other in DOORS:
            said.append(f"{start} imports the door {end}")
        elif floor_of[own] <= floor_of[other]:
            said.append(f"{start} (floor {floor_of[own]}) imports {end} (floor {floor_of[other]})")
    between = {(room_of(start), room_of(end)) for start, end in edges if room_of(start) != room_of(end)}
    said += [f"a circle: {' → '.join(found)}" for some in (edges, between) if (found := circle(some))]
    return said


def draws_per_table() -> tuple[int, int]:
    """(Missing tables of a grid, times that samples are ranked for them) in one evaluation of two checkpoints' kind."""
    from mmrobust.data.prepare.digits import prepare_digits
    from mmrobust.evaluation import evaluate as story
    from mmrobust.scenarios import draws

    ranked: list[tuple[str, int]] = []
    rank = draws.rank_samples

    def counted(sample_ids: object, scenario: str, seed: int) -> object:
        ranked.append((scenario, seed))
        return rank(sample_ids, scenario, seed)  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "digits"
        prepare_digits(data, limit=40)
        classifier = _untrained(data)
        draws.rank_samples = counted  # type: ignore[assignment]
        try:
            story.evaluate(classifier, data, seeds=3)
        finally:
            draws.rank_samples = rank
    return len(set(ranked)), len(ranked)


def _untrained(data: Path) -> object:
    from mmrobust.training.recipe import DEFAULT
    from mmrobust.training.settings import TrainSettings
    from mmrobust.training.setup import set_up

    return set_up(TrainSettings(data, "tiny", "none", "linear", DEFAULT), data / "none").classifier


def figures(package: Path = PACKAGE) -> Mapping[str, object]:
    """What the house measures."""
    files, edges = modules(package), arrows(package)
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in files.items()}
    rooms = {room_of(name) for name in files}
    between = {(room_of(a), room_of(b)) for a, b in edges if room_of(a) != room_of(b)}
    return {
        "rooms": len(rooms),
        "floors": "–" if circle(between) else height((a, b) for a, b in between if a not in DOORS),
        "arrows between rooms": len(between),
        "arrows that do not lead down": sum("floor" in fault for fault in faults(package)),
        "circles": sum(bool(circle(some)) for some in (edges, between)),
        "modules": len(files),
        "modules that stand flat": sum("." not in name and files[name].name != "__init__.py" for name in files) + 1,
        "modules of under 50 lines": sum(length < 50 for length in lengths.values()),
        "lines": sum(lengths.values()),
    }


def main() -> int:
    """Print the figures; 1 where the layout does not hold."""
    for name, value in figures().items():
        print(f"{name:30} {value}")
    tables, draws = draws_per_table()
    print(f"{'draws per missing table':30} {draws / tables:g} ({draws} for {tables})")
    said = faults()
    for fault in said:
        print(fault)
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
