"""Listing of the settings for ``train --method-set`` and the other flags of :data:`FLAGS` without a value."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typer import Exit
from typer.core import TyperCommand

from mmrobust.cli import console
from mmrobust.configuration import plain

if TYPE_CHECKING:
    from mmrobust.models.backbone import Backbone

FLAGS = {"--method-set": "method", "--head-set": "head", "--backbone-set": "backbone", "--recipe-set": "recipe"}
"""Option → the option that names what it sets."""


class SettingsCommand(TyperCommand):
    """A command that prints the available settings and exits if one of :data:`FLAGS` has no value (or an empty one)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args``, or answer an option without a value."""
        following = [*args[1:], "--"]
        listed = [flag for flag, value in zip(args, following, strict=True) if flag in FLAGS and value[:1] in ("", "-")]
        if not listed:
            return super().parse_args(ctx, args)
        ctx.resilient_parsing = True  # --data and --out are not needed to list settings
        super().parse_args(ctx, [word for word in args if word not in listed and word])
        for flag in listed:
            for name, settings, values in _settings(FLAGS[flag], ctx.params):
                console.out().print(_described(f"{FLAGS[flag]} {name}".strip(), flag, settings, values), markup=False)
        raise Exit


def _settings(kind: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, type[Any], Mapping[str, Any]]]:
    """(name, class, values) of the settings of the method, head or backbone that is named, or of all; of the recipe.

    The values are those that the recipe gives, or its method; the others are the class's defaults.
    """
    from mmrobust.models.heads import HEADS, head_class
    from mmrobust.models.methods import METHODS, method_class
    from mmrobust.training.recipe import Recipe, default_recipe
    from mmrobust.training.recipes import DEFAULT
    from mmrobust.training.settings import TrainOptions, read_recipe

    recipe = parameters["recipe"]
    flags = TrainOptions(**{name: parameters[name] for name in ("method", "head", "backbone")})
    options = read_recipe(recipe).overridden_by(flags)
    if kind == "recipe":
        usual = plain(default_recipe(options.method, options.backbone or "")) if options.method else {}
        yield "" if recipe == DEFAULT else recipe, Recipe, {**usual, **options.recipe}
        return
    named, values = getattr(options, kind), getattr(options, f"{kind}_settings")
    if kind == "backbone":
        yield from ((family.family, family.settings_class, values) for family in _families(named))
    elif kind == "method":
        yield from ((name, method_class(name).config_class, values) for name in ([named] if named else METHODS))
    else:
        yield from ((name, head_class(name).config_class, values) for name in ([named] if named else HEADS))


def _families(backbone: str | None) -> Sequence[type[Backbone]]:
    """The family of a backbone; all families for ``tiny``, which depends on the data, and if none is named."""
    from mmrobust.configuration import look_up
    from mmrobust.errors import unknown_name
    from mmrobust.models.backbones import FAMILIES, MODEL_TYPE, TINY_TOWERS, TOWERS, family_of, is_built, is_tiny
    from mmrobust.models.backbones.tiny import TINY

    if backbone in (None, "tiny"):
        return [look_up(FAMILIES, name, "family") for name in FAMILIES]
    if backbone in (TOWERS, TINY_TOWERS) and is_built(str(backbone)):
        return [look_up(FAMILIES, MODEL_TYPE, "family")]
    if not is_tiny(str(backbone)):
        return [family_of(str(backbone))]
    if backbone not in TINY:
        raise unknown_name("tiny backbone", str(backbone), TINY)
    return [TINY[str(backbone)][0]]


def _described(title: str, flag: str, settings: type[Any], values: Mapping[str, Any]) -> str:
    """Name, value and meaning of every setting of a dataclass; what ``values`` does not say is at its default."""
    fields = dataclasses.fields(settings)
    if not fields:
        return f"{title} has no settings"
    meanings = field_docstrings(settings)
    lines = [f"{title}: {flag} NAME=VALUE"]
    for field in fields:
        default = plain(field.default if field.default_factory is dataclasses.MISSING else field.default_factory())
        value = values.get(field.name, default)
        lines.append(f"  {field.name}={value if isinstance(value, str) else json.dumps(value)}")
        lines += textwrap.wrap(meanings.get(field.name, ""), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def field_docstrings(settings: type[Any]) -> dict[str, str]:
    """Field of a dataclass, inherited ones included → the docstring below it, without reStructuredText's markup."""
    found: dict[str, str] = {}
    for cls in reversed(settings.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(definition, ast.ClassDef)
        for pair in itertools.pairwise(definition.body):
            match pair:
                case ast.AnnAssign(target=field), ast.Expr(value=ast.Constant(value=text)):
                    found[ast.unparse(field)] = " ".join(re.sub(r"(?::\w+:)?`+([^`]*)`+", r"\1", str(text)).split())
    return found
