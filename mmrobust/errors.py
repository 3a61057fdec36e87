"""Every exception that mmrobust raises on purpose.

    MmrobustError              something the user can mend; the command line prints it as one line and exits with 2
    ├── UsageError             a setting, name or value that does not exist or does not fit
    │   └── UnknownNameError   a name that does not exist
    ├── DataError              a data set, a sample or a file of predictions that cannot be read
    │   └── NewerFormatError   one that a newer mmrobust wrote
    ├── CheckpointError        a checkpoint or a backbone that cannot be read or does not fit the data
    ├── TrainingError          a training that cannot go on (divergence, an empty split)
    ├── DeviceError            a device without memory for the work, or one that failed at it
    ├── NotComparableError     two results between which no verdict is possible
    ├── Unfinished             one part of a shared evaluation is done, others lack (exit code 0)
    └── Interrupted            stopped by the user, with what is finished kept (exit code 130)

The library raises; only ``mmrobust.cli`` turns an exception into a line and an exit code. A message names the thing,
the file and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MmrobustError(Exception):
    """Base of all errors that a user can cause and mend."""

    exit_code = 2


class UsageError(MmrobustError):
    """A setting, name or value that does not exist or does not fit."""


class UnknownNameError(UsageError):
    """A name that does not exist."""


class DataError(MmrobustError):
    """A data set, a sample or a predictions file that cannot be read."""


class NewerFormatError(DataError):
    """A file that a newer mmrobust wrote: not damaged, and not to be made again."""


class CheckpointError(MmrobustError):
    """A checkpoint or a backbone that cannot be read or does not fit the data."""


class TrainingError(MmrobustError):
    """A training that cannot go on."""


class DeviceError(MmrobustError):
    """A device that has no memory for the work, or failed while it was at it."""


class NotComparableError(MmrobustError):
    """Two results between which no verdict is possible."""


class Unfinished(MmrobustError):
    """One part of a shared evaluation is done; the table has to wait for the others."""

    exit_code = 0


class Interrupted(MmrobustError):
    """Stopped by the user; what was finished is kept."""

    exit_code = 130


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Error for a mistyped name: says what is known and which of it is nearest.

    >>> str(unknown_name("method", "mpm", ["none", "full", "mmp"]))
    "unknown method 'mpm': did you mean 'mmp'? Known: none, full, mmp"
    """
    choices = list(known)
    nearest = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.5)
    nearest.sort(key=lambda choice: sorted(choice) != sorted(str(name)))  # swapped letters are the likeliest slip
    hint = f" did you mean '{nearest[0]}'?" if nearest else ""
    return UnknownNameError(f"unknown {kind} '{name}':{hint} Known: {', '.join(choices)}")
