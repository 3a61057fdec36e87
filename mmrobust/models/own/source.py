"""Importing a user's own model: ``module:object`` or ``path/to/file.py:object``. Only that module is imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mmrobust.errors import MmrobustError, ModelError
from mmrobust.models.own.model import Model

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
LONGEST_REASON = 200
"""The most characters of an exception's message that are quoted."""


@dataclass(frozen=True)
class Source:
    """An object in a module: a :class:`mmrobust.Model`, or a function that makes one."""

    module: str
    """Dotted name of a module, or the path of a ``.py`` file."""
    attribute: str
    """Name of the object in the module; dotted for one inside a class."""
    folder: str
    """Absolute path of the working folder, in which modules and relative paths are looked up."""

    @classmethod
    def parse(cls, text: str) -> Source | None:
        """What ``text`` names; ``None`` if it names something else, such as a checkpoint folder or a Hub id.

        The object is what follows the last colon, so a path may hold colons, as on Windows.

        Raises:
            ModelError: a file without an object.
        """
        if Path(text).is_dir():
            return None
        if text.endswith(".py"):
            raise ModelError(f"{text}: say which object of the file is the model, as in {text}:model")
        module, colon, attribute = text.rpartition(":")
        if not (colon and module):
            return None
        if not module.endswith(".py") and not all(part.isidentifier() for part in attribute.split(".")):
            return None
        return cls(module, attribute, str(Path.cwd()))

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"

    @property
    def is_file(self) -> bool:
        """Whether :attr:`module` is the path of a file."""
        return self.module.endswith(".py")

    def load(self, device: str = "cpu") -> Model:
        """Import the model.

        Args:
            device: given to a function that makes the model, if it has a parameter of this name.

        Raises:
            ModelError: there is no such module or object, importing it fails, or it is no model.
        """
        found = self._object()
        if isinstance(found, Model):
            return found
        if _predicts(found):
            way = f"mmrobust.Model(name=…, predict={self.attribute}, …)"
            raise ModelError(f"{self}: is a predict function; wrap it: {way}")
        with _failing(self, "making the model"), _on_path(self._folder):
            made = found(**({"device": device} if _takes_device(found) else {}))
        if not isinstance(made, Model):
            raise ModelError(f"{self}: the function returned {_kind(made)}, not a mmrobust.Model")
        return made

    @property
    def takes_device(self) -> bool:
        """Whether the object is a function with a parameter ``device``."""
        return _takes_device(self._object())

    def _object(self) -> Any:
        """The model, or the function that makes it."""
        with _failing(self, "importing it"), _on_path(self._folder):
            module = self._import_file() if self.is_file else self._import_module()
        found: Any = module
        for name in self.attribute.split("."):
            if not name.isidentifier() or not hasattr(found, name):
                raise ModelError(f"{self}: {self.module} has no {self.attribute!r}; {_offered(module)}")
            found = getattr(found, name)
        if not isinstance(found, Model) and (not callable(found) or isinstance(found, type)):
            problem = f"{self}: is {_kind(found)}, neither a mmrobust.Model nor a function that makes one"
            raise ModelError(f"{problem} (mmrobust.Model wraps any model); {_offered(module)}")
        return found

    def _import_module(self) -> ModuleType:
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as cause:
            if cause.name is None or not f"{self.module}.".startswith(f"{cause.name}."):
                raise  # the module is there, and imports another that is not
            hint = "a file is named with its path, as in my_model.py:model"
            raise ModelError(f"{self}: there is no module {self.module!r} here or installed; {hint}") from cause

    @property
    def _folder(self) -> str:
        """Where modules that the module imports are looked up first."""
        return str(self._file.resolve().parent) if self.is_file else self.folder

    @property
    def _file(self) -> Path:
        return Path(self.folder, self.module)

    def _import_file(self) -> ModuleType:
        file = self._file.resolve()
        if not file.is_file():
            raise ModelError(f"{self}: there is no file {self.module}")
        # Two files may have the name of each other, or of an installed module.
        name = f"{file.stem}_{hashlib.blake2b(os.fsencode(file), digest_size=4).hexdigest()}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look for it there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    """Let modules beside the imported one be found: first while it is imported; afterwards last, so none is hidden."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


@contextmanager
def _failing(source: Source, doing: str) -> Iterator[None]:
    """Turn what a user's code raises into a :class:`ModelError`."""
    try:
        yield
    except ModelError:
        raise
    except MmrobustError as cause:  # a field of the model is wrong
        raise ModelError(f"{source}: {cause}") from cause
    except (Exception, SystemExit) as cause:
        raise ModelError(f"{source}: {doing} raised {reason(cause)}; --debug shows the traceback") from cause


def _takes_device(function: Any) -> bool:
    if isinstance(function, Model):
        return False
    try:
        return "device" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a builtin
        return False


def _predicts(function: Any) -> bool:
    """Whether it takes (samples, case), as the function does that a model wraps."""
    if isinstance(function, Model):
        return False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return False
    return len([one for one in parameters if one.default is one.empty and one.kind in _BY_PLACE]) == 2


def _offered(module: ModuleType) -> str:
    """The models of ``module``, for a message."""
    names = [name for name, value in vars(module).items() if isinstance(value, Model)]
    names = names or [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    return f"it has {', '.join(names)}" if names else "it has no mmrobust.Model, and no function"


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def reason(cause: BaseException) -> str:
    """An exception in a user's code as one line, for a message."""
    said = " ".join(str(cause).split())[:LONGEST_REASON]
    return f"{type(cause).__name__}: {said}" if said else type(cause).__name__
