"""Write docs/commands.md from the commands; ``--check`` only reports whether it would change.

python scripts/write_commands.py [--check]

The page is read from the parser's objects, not from the printed help, which changes with the width of the terminal and
with library versions.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer

from mmrobust.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

HEAD = """# Commands

Generated from `--help` by `python scripts/write_commands.py`; a test fails if it differs. Every flag can also be set
by the environment variable beside it. `mmrobust --version` prints the version.
"""

KINDS = {Path: "PATH", float: "NUMBER", int: "INTEGER", str: "TEXT"}

EVERYWHERE = ("quiet", "debug", "help")
"""Flags of every command, listed once."""


def render() -> str:
    """Return the whole page as Markdown."""
    root = typer.main.get_command(app)
    parts = [
        HEAD,
        "Every command takes `--quiet` (print results only), `--debug` (show an error's traceback) and `--help`.\n",
    ]
    parts += [_command(command, path) for path, command in _leaves(root, ("mmrobust",))]
    return "\n".join(parts)


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (words, command) for every command below ``command`` that is not a group, in the order of ``--help``."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, (*path, name))


def _command(command: Any, path: tuple[str, ...]) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in EVERYWHERE and not p.hidden]
    kinds = _kinds(command)
    usage = " ".join([*path, *map(_argument, arguments), *(_option(p, kinds) for p in options if p.required)])
    lines = [f"## {' '.join(path)}", "", "```text", f"{usage} [OPTIONS]" if options else usage, "```", ""]
    lines += [_plain(inspect.cleandoc(command.help or "")), ""]
    if arguments:
        lines += ["| argument | |", "| --- | --- |"]
        lines += [f"| `{_cell(_argument(p))}` | {_cell(getattr(p, 'help', '') or '')} |" for p in arguments]
        lines += [""]
    if options:
        lines += ["| option | | default | environment |", "| --- | --- | --- | --- |"]
        prefix = command.context_settings.get("auto_envvar_prefix") or "_".join(path)
        lines += [_row(p, prefix, kinds) for p in options]
        lines += [""]
    if command.epilog:
        word, _, example = _plain(command.epilog).partition(": ")
        lines += [f"{word}:", "", "```bash", example, "```", ""]
    return "\n".join(lines)


def _row(option: Any, prefix: str, kinds: dict[str, str]) -> str:
    default = option.default
    shown = "required" if option.required else ""
    given = default is not None and default is not False and default not in ((), [])
    if not option.required and given and not callable(default):
        shown = f"`{', '.join(map(str, default)) if isinstance(default, (list, tuple)) else default}`"
    variable = f"{prefix}_{option.name}".upper().replace("-", "_")
    return f"| `{_option(option, kinds)}` | {_cell(option.help or '')} | {shown} | `{variable}` |"


def _option(option: Any, kinds: dict[str, str]) -> str:
    """Return ``--flag VALUE`` with all names of the flag."""
    names = ", ".join((*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {option.metavar or kinds.get(option.name, 'TEXT')}"


def _argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _kinds(command: Any) -> dict[str, str]:
    """Return parameter → name of its type of value, from the function's annotations, which typer does not change."""
    kinds = {}
    for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
        inner = {part for part in _flattened(parameter.annotation) if part in KINDS}
        kinds[name] = next((KINDS[part] for part in KINDS if part in inner), "TEXT")
    return kinds


def _flattened(annotation: Any) -> list[Any]:
    """Return an annotation and all its parts: ``Annotated[list[Path] | None, …]`` has Path among them."""
    return [annotation, *(part for inner in get_args(annotation) for part in _flattened(inner))]


def _cell(text: str) -> str:
    return " ".join(_plain(text).split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Convert rich's markup to Markdown: ``[bold]x[/]`` becomes **x**, an escaped bracket a bracket."""
    bold = re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"**\1**", text)
    return re.sub(r"(?<!\\)\[/?[a-z ]*\]", "", bold).replace("\\[", "[").replace("\b", "").strip()


def main() -> int:
    """Write the page or compare it. Returns the exit code."""
    page = render()
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        print("docs/commands.md is up to date" if same else "docs/commands.md is out of date: run this without --check")
        return 0 if same else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
