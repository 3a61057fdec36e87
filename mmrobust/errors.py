"""All exceptions that mmrobust raises on purpose.

    MmrobustError              something the user can fix; the command line prints it as one line and exits with 2
    ├── UsageError             a setting, name or value that does not exist or fit
    │   └── UnknownNameError   a name that does not exist
    ├── DataError              a data set, a sample or a file of predictions that cannot be read
    │   ├── NewerFormatError   one that a newer mmrobust wrote
    │   └── NoPredictionsError results without the predictions that they were made from
    ├── ReadError              a file that the system did not read (a failing disk, no permission, too little memory)
    ├── CheckpointError        a checkpoint or a backbone that cannot be read or does not fit the data
    ├── ModelError             a model of the user's own that cannot be imported, or whose predictions cannot be used
    ├── TrainingError          a training that cannot continue (divergence, an empty split)
    ├── DeviceError            a device that has too little memory or failed
    ├── NotComparableError     two results that cannot be compared
    ├── Unfinished             one part of a shared evaluation is done, others are not (exit code 0)
    └── Interrupted            stopped by the user; finished work is kept (exit code 130)

The library raises; only ``mmrobust.cli`` turns an exception into a line and an exit code. A message names what is
wrong, the file, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class MmrobustError(Exception):
    """Base of all errors that a user can cause and fix."""

    exit_code = 2


class UsageError(MmrobustError):
    """A setting, name or value that does not exist or fit."""


class UnknownNameError(UsageError):
    """A name that does not exist."""


class DataError(MmrobustError):
    """A data set, a sample or a predictions file that cannot be read."""


class NewerFormatError(DataError):
    """A file that a newer mmrobust wrote: it is not damaged and must not be replaced."""


class NoPredictionsError(DataError):
    """There are no predictions behind results. Those that cannot be read are another error."""


class ReadError(MmrobustError):
    """A file that the system did not read, which tells nothing of what it holds: it must not be replaced."""


class CheckpointError(MmrobustError):
    """A checkpoint or a backbone that cannot be read or does not fit the data."""


class ModelError(MmrobustError):
    """A model of the user's own that cannot be imported, or whose predictions cannot be used."""


class TrainingError(MmrobustError):
    """A training that cannot continue."""


class DeviceError(MmrobustError):
    """A device that has too little memory or failed."""


class NotComparableError(MmrobustError):
    """Two results that cannot be compared."""


class Unfinished(MmrobustError):
    """One part of a shared evaluation is done; the results table waits for the others."""

    exit_code = 0


class Interrupted(MmrobustError):
    """Stopped by the user; finished work is kept."""

    exit_code = 130


def check_name(kind: str, name: object, known: Collection[str]) -> None:
    """Raise the error of :func:`unknown_name` unless ``name`` is one of the ``known`` ones."""
    if name not in known:
        raise unknown_name(kind, name, known)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Make the error for an unknown name, with the known names and the nearest one.

    >>> str(unknown_name("method", "mpm", ["none", "full", "mmp"]))
    "unknown method 'mpm': did you mean 'mmp'? Known: none, full, mmp"
    """
    choices = list(known)
    nearest = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.5)
    nearest.sort(key=lambda choice: sorted(choice) != sorted(str(name)))  # swapped letters are the likeliest typo
    hint = f" did you mean '{nearest[0]}'?" if nearest else ""
    return UnknownNameError(f"unknown {kind} '{name}':{hint} Known: {', '.join(choices)}")
