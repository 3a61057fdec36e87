"""The documentation as the tests read it: pages, their fenced blocks, and a shell that runs a page's commands.

A block whose fence says ``not-run`` needs data, weights or machines that a test does not have: its commands are parsed.
Every other ``bash``, ``console`` and ``python`` block is executed, a page's blocks one after the other in one folder.
A ``console`` block also holds what is printed, with ``…`` for what differs from machine to machine. A block that begins
with the name of a file (``.py``, ``.yaml``), as a comment, is saved as that file.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from mmrobust.cli import app

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = "not-run"
SHELLS = ("bash", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    place: str
    """``page:line``"""
    language: str
    run: bool
    text: str

    @property
    def fragment(self) -> bool:
        """Whether it is a piece of Python that says something only beside what is around it."""
        return self.language == "python" and not self.run

    def commands(self) -> list[tuple[str, str | None]]:
        """(command, what it prints or ``None`` where the block does not say), continuation lines joined."""
        if self.language == "console":
            parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
            found = [re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL).groups() for part in parts]
            return [(command.replace("\\\n", " "), printed) for command, printed in found]
        lines = self.text.replace("\\\n", " ").splitlines()
        return [(line, None) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks_in(text: str, page: str) -> list[Block]:
    """The fenced blocks of Markdown ``text``, in order."""
    found = []
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            found.append(Block(f"{page}:{token.map[0] + 1}", language, NOT_RUN not in rest.split(), token.content))
    return found


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown file."""
    return blocks_in(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))


@dataclass
class Shell:
    """Runs commands in ``folder`` as a user's shell would; those of mmrobust in this process, which saves imports."""

    folder: Path
    environment: dict[str, str]
    code: int = 0

    def run(self, command: str) -> str:
        """Run one line. Returns what it printed, both streams; its exit code is in :attr:`code`."""
        if command.strip() == "echo $?":
            code, self.code = self.code, 0
            return f"{code}\n"
        words = shlex.split(command, comments=True)
        if words[0] == "cd":
            self.folder /= words[1]
            return ""
        settings = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, settings[name] = words.pop(0).partition("=")
        if words[0] != "mmrobust":
            return self._other(command)
        arguments = [part for word in words[1:] for part in self._expanded(word)]
        printed = io.StringIO()
        with self.inside(settings), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            self.code = app.run(arguments)
        return printed.getvalue()

    def _other(self, command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**os.environ, **self.environment, "PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.code = done.returncode
        return done.stdout

    def _expanded(self, word: str) -> list[str]:
        found = sorted(self.folder.glob(word)) if "*" in word else []
        return [str(path.relative_to(self.folder)) for path in found] or [word]

    @contextlib.contextmanager
    def inside(self, settings: dict[str, str]) -> Iterator[None]:
        before, kept = Path.cwd(), dict(os.environ)
        os.chdir(self.folder)
        os.environ.update(self.environment, **settings)
        try:
            yield
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(kept)


def says(printed: str, expected: str) -> bool:
    """Whether ``printed`` is what a page shows: ``…`` in a line stands for anything, a line of ``…`` for any lines."""
    shown = [line.rstrip() for line in expected.strip("\n").splitlines()]
    parts = [r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in shown]
    found = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in found)) is not None


def perform(block: Block, shell: Shell) -> None:
    """Run the commands of a block; an exit code that is not 0 must be asked for in the next line, or be a verdict's."""
    commands = block.commands()
    for place, (command, expected) in enumerate(commands):
        printed = shell.run(command)
        asked = place + 1 < len(commands) and commands[place + 1][0].strip() == "echo $?"
        verdict = block.language == "bash" and shell.code == 1 and command.startswith("mmrobust check")
        assert shell.code == 0 or asked or verdict, f"{block.place}: {command}\nexit code {shell.code}\n{printed}"
        if expected is not None:
            assert says(printed, expected), f"{block.place}: {command}\nprinted:\n{printed}\nthe page says:\n{expected}"


def run_python(block: Block, shell: Shell, names: dict[str, object]) -> None:
    """Run a block of Python in the shell's folder; what earlier blocks of the page defined is in ``names``.

    A test function that it defines is called, as pytest would call it.
    """
    before = set(names)
    with shell.inside({}), contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shell.folder)  # as `python` has it
        exec(compile(block.text, block.place, "exec"), names)
        for name in sorted(set(names) - before):
            if name.startswith("test_"):
                names[name]()


PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a ``page`` runs for every page, one that takes a ``block`` for every fenced block."""
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    blocks = [block for page in PAGES for block in blocks_of(page)]
    kinds = {
        "block": blocks,
        "shell_block": [block for block in blocks if block.language in SHELLS],
        "settings_block": [b for b in blocks if b.language in ("toml", "yaml", "json") or b.fragment],
    }
    for name, chosen in kinds.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen, ids=lambda block: block.place)


@pytest.fixture(scope="session")
def blocks_on() -> Callable[[Path], list[Block]]:
    """The function that reads the fenced blocks of a page."""
    return blocks_of


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Shell]:
    """Make a shell in an empty folder, in which the examples lie as they do in a clone."""

    def make(**environment: str) -> Shell:
        shutil.copytree(ROOT / "examples", tmp_path / "examples")
        return Shell(tmp_path, {"COLUMNS": "100", **environment})

    return make


@pytest.fixture(scope="session")
def perform_text() -> Callable[[str, str, Shell], None]:
    """The function that runs all that is to be run of Markdown text."""

    def perform_all(text: str, page: str, shell: Shell) -> None:
        names: dict[str, object] = {}
        for block in blocks_in(text, page):
            if file := re.match(r"# ([\w/]+\.(py|yaml))\n", block.text):
                (shell.folder / file[1]).write_text(block.text, encoding="utf-8")
            if block.run and block.language in SHELLS:
                perform(block, shell)
            elif block.run and block.language == "python":
                run_python(block, shell, names)

    return perform_all


@pytest.fixture(scope="session")
def perform_page(perform_text: Callable[[str, str, Shell], None]) -> Callable[[str, Shell], None]:
    """The function that runs all that is to be run of a page."""
    return lambda page, shell: perform_text((ROOT / page).read_text(encoding="utf-8"), page, shell)
