"""Every command line in the documentation is one: the command exists, so do its flags, and their values are valid.

They are parsed and checked, not run; see ``test_pages.py`` for what is run.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

from mmrobust.cases import PROMPTINGS
from mmrobust.cli.app import app
from mmrobust.configuration import parse_settings
from mmrobust.data.format import SPLITS
from mmrobust.data.prepare import PREPARERS
from mmrobust.data.processor import FILLS
from mmrobust.errors import MmrobustError, UsageError, unknown_name
from mmrobust.evaluation.plan import ENGINES, OVERWRITE
from mmrobust.gate.compare import INTERVALS
from mmrobust.gate.figures import FIGURES
from mmrobust.gate.rules import parse_rule, read_rules
from mmrobust.models.backbones import TINY_TOWERS, is_tiny
from mmrobust.models.backbones.cavmae import MISSING_PATHS
from mmrobust.models.backbones.tiny import TINY
from mmrobust.models.heads import HEADS
from mmrobust.models.importing import KINDS
from mmrobust.models.methods import METHODS
from mmrobust.report.published import PUBLISHED
from mmrobust.report.verdict import VERDICT_FORMATS
from mmrobust.scenarios.grid import parse_grid
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.metrics import ABSENT, METRICS
from mmrobust.scoring.significance import CORRECTIONS
from mmrobust.studies.study import parse_study, read_study
from mmrobust.training.recipes import BUILTIN
from mmrobust.training.settings import parse_recipe

CLI = typer.main.get_command(app)
PAIRS = (("image", "text"), ("audio", "image"), ("image", "text", "audio"))
"""What a scenario of the documentation may be of."""


def one_of(*known: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in known:
            raise unknown_name("value", value, known)

    return check


def check_scenario(value: str) -> None:
    reasons = []
    for modalities in PAIRS:
        try:
            Scenario.parse(value, modalities)
            return
        except UsageError as reason:
            reasons.append(reason)
    raise reasons[0]


def check_backbone(value: str) -> None:
    if is_tiny(value) and value != "tiny":
        one_of(*TINY, TINY_TOWERS)(value)


def check_recipe(value: str) -> None:
    if not value.endswith(".yaml"):
        one_of("default", *BUILTIN)(value)


def check_study(value: str) -> None:
    if not value.endswith(".yaml"):
        read_study(value)


def check_rule(value: str) -> None:
    rule = parse_rule(value)
    one_of(*(name for names in METRICS.values() for name in names), *FIGURES)(rule.metric.partition(".")[0])
    if rule.scenario is not None:
        check_scenario(rule.scenario)


def check_format(value: str) -> None:
    one_of(*VERDICT_FORMATS)(value.partition("=")[0])


VALUES: dict[str, Callable[[str], object]] = {
    "method": one_of(*METHODS),
    "head": one_of(*HEADS),
    "backbone": check_backbone,
    "scenario": check_scenario,
    "missing_rate": lambda value: parse_grid(None, [value]),
    "prompting": one_of(*PROMPTINGS),
    "split": one_of(*SPLITS),
    "dtype": one_of("auto", "float32", "bfloat16"),
    "engine": one_of(*ENGINES),
    "overwrite": one_of(*OVERWRITE),
    "fill": one_of(*FILLS),
    "missing_path": one_of(*MISSING_PATHS),
    "noise_profile": one_of("default", "released"),
    "on_bad_sample": one_of("error", "missing", "skip"),
    "f1_absent": one_of(*ABSENT),
    "interval": one_of(*INTERVALS),
    "correction": one_of(*CORRECTIONS),
    "published": one_of(*PUBLISHED),
    "recipe": check_recipe,
    "study": check_study,
    "data": lambda value: None,
    "kind": one_of(*KINDS),
    "fail": check_rule,
    "format": check_format,
    "method_set": lambda value: parse_settings([value], "--method-set"),
    "head_set": lambda value: parse_settings([value], "--head-set"),
    "backbone_set": lambda value: parse_settings([value], "--backbone-set"),
    "recipe_set": lambda value: parse_recipe(parse_settings([value], "--recipe-set")),
}
"""Parameter → what raises where its value is none. Others are free text, numbers or paths."""
MADE_UP = "--org"
"""The report format that CONTRIBUTING.md adds."""
LISTS = ("scenario", "prompting", "fail", "format")
"""Those that take a comma-separated list."""


def check_command(words: list[str]) -> None:
    """Raise where ``words``, what follows ``mmrobust``, are no command line of it."""
    command, path = CLI, ["mmrobust"]
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            if words in (["--help"], ["--version"]):
                return
            raise unknown_name("command", " ".join(words[:1]), list(command.commands))
        command, words, path = command.commands[words[0]], words[1:], [*path, words[0]]
    if "--help" in words:
        return
    given = command.make_context(" ".join(path), list(words)).params
    for name, value in given.items():
        check = VALUES.get(name) if not (path[-1] == "prepare" and name == "data") else one_of(*PREPARERS)
        for each in (value if isinstance(value, (list, tuple)) else [value]) if check and value is not None else ():
            for part in str(each).split(",") if name in LISTS else [str(each)]:
                check(part)


def mmrobust_words(line: str) -> list[str] | None:
    """What follows ``mmrobust`` in a line that runs it, by itself, as a module, or with a variable set."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    for at, word in enumerate(words):
        if word == "mmrobust" and (at == 0 or words[at - 1] == "-m"):
            return words[at + 1 :]
    return None


def test_every_command_line_is_one(shell_block: Any, root: Path) -> None:
    for line, _ in shell_block.commands():
        words = mmrobust_words(line)
        if words is None:
            check_other(shlex.split(line, comments=True), line, root)
            continue
        try:
            check_command(words)
        except (MmrobustError, typer.TyperException) as reason:
            pytest.fail(f"{shell_block.place}: {line}\n{reason}")


def check_other(words: list[str], line: str, root: Path) -> None:
    """Raise where a line that does not run mmrobust names a target or a file that is not there."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (root / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, line
    for word in words:
        path = word.removeprefix("../").partition("::")[0]
        if re.match(r"(\.ci|benchmarks|examples|scripts|tests)/", path):
            assert (root / path).exists(), f"{line}: no {word}"


def test_every_flag_in_the_text_exists(page: Path, root: Path) -> None:
    flags = {flag for command in leaves(CLI) for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    flags |= {"--help", "--version", MADE_UP}
    for folder in ("benchmarks", "examples", "scripts"):
        for script in (root / folder).rglob("*.py"):
            flags |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline" and re.match("--|mmrobust ", child.content):
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*(?![\w-])", child.content):
                    assert flag in flags, f"{page}: no command has {flag} (`{child.content}`)"


def leaves(command: Any) -> Iterator[Any]:
    if not hasattr(command, "commands"):
        yield command
    for inner in getattr(command, "commands", {}).values():
        yield from leaves(inner)


def test_every_block_of_settings_is_understood(settings_block: Any, tmp_path: Path) -> None:
    text = settings_block.text
    if settings_block.language == "toml":
        (tmp_path / "gates.toml").write_text(text)
        assert read_rules(tmp_path / "gates.toml")
    elif settings_block.language == "yaml":
        values = yaml.safe_load(text)
        (parse_study if "methods" in values else parse_recipe)(values)
    elif settings_block.language == "json":
        json.loads(text)
    else:  # a piece of a module, or the line of a registry
        ast.parse(f"{{{text}}}" if text.startswith(" ") else text)


def test_languages_are_known(block: Any) -> None:
    assert block.language in ("bash", "console", "python", "text", "toml", "yaml", "json"), block.place


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mmrobust trian", "did you mean 'train'"),
        ("mmrobust eval a --data d --out o --scenaro missing-text", "No such option"),
        ("mmrobust eval a --data d --out o --scenario missing-txt", "did you mean 'missing-text'"),
        ("mmrobust train --data d --out o --method mpm", "did you mean 'mmp'"),
        ("mmrobust eval a --data d", "Missing option"),
        ('mmrobust check a --baseline b --fail "acuracy:-0.1"', "did you mean 'accuracy'"),
        ("mmrobust data prepare mnifest --out o", "did you mean 'manifest'"),
    ],
)
def test_a_wrong_line_would_be_found(line: str, message: str) -> None:
    words = mmrobust_words(line)
    assert words is not None
    with pytest.raises((MmrobustError, typer.TyperException)) as raised:
        check_command(words)
    assert message in str(raised.value) or message in raised.value.format_message()
