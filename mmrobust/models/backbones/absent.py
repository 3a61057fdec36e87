"""What stands in for a tokenizer or an image processor that does not lie beside a backbone's weights.

Weights are enough to run a model on tensors. Only turning raw texts or images into tensors takes more, so only that
fails where it is lacking, with a line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmrobust.errors import CheckpointError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
IMAGE_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class Absent:
    """Raises when it is asked to work.

    Args:
        what: what is not there: ``tokenizer`` or ``image processor``.
        place: the folder in which it was looked for.
    """

    def __init__(self, what: str, place: str) -> None:
        self._what, self._place = what, place

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing: there is nothing."""

    def __call__(self, *_: object, **__: object) -> Any:
        """Raise: there is nothing that could work."""
        raise self._error()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and pickling look for
            raise AttributeError(name)
        raise self._error()

    def _error(self) -> CheckpointError:
        return CheckpointError(
            f"{self._place}: holds no {self._what}, so raw inputs cannot be encoded (tensors can be classified); "
            f"put one beside the weights with its save_pretrained('{self._place}'), or import again with --processor"
        )


def present_or_absent(load: Callable[[str], Any], source: str, what: str) -> Any:
    """``load(source)``, or an :class:`Absent` where ``source`` is a folder that holds no such thing.

    Args:
        load: reads it from a folder or a Hub id.
        source: a folder or a Hub id.
        what: ``tokenizer`` or ``image processor``.
    """
    files = TOKENIZER_FILES if what == "tokenizer" else IMAGE_PROCESSOR_FILES
    folder = Path(source)
    if folder.is_dir() and not any((folder / file).is_file() for file in files):
        return Absent(what, source)
    return load(source)
