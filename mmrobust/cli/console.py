"""Output that all commands share: consoles, progress bars, ``--quiet`` and ``--debug``."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mmrobust.cli.options import flag, unknown_in_environment
from mmrobust.runtime.printable import one_line
from mmrobust.runtime.progress import Advance
from mmrobust.runtime.terminal import SafeConsole, speaks_utf_8

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from mmrobust.data.format import DatasetInfo
    from mmrobust.storage.results import Results


LONGEST_LINE = 1200
"""The most characters of a line on standard error."""


@dataclass
class Settings:
    """The values of ``--quiet`` and ``--debug`` for the running command."""

    quiet: bool = False
    debug: bool = False
    verdict: int | None = None
    """The exit code that a command has decided on before it prints: a reader that goes away does not change it."""


settings = Settings()

_PANEL = "Common options"
_Quiet = Annotated[bool, flag("Print results only.", "--quiet", panel=_PANEL)]
_Debug = Annotated[bool, flag("Show the traceback of an error.", "--debug", panel=_PANEL)]


def with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags of every command, ``--quiet`` and ``--debug``, to a command's function.

    A variable of the environment that looks like one of its flags, and is none, is told.
    """
    signature = inspect.signature(function, eval_str=True)
    takes_context = "context" in signature.parameters

    @functools.wraps(function)
    def command(*args: Any, context: typer.Context, quiet: bool, debug: bool, **kwargs: Any) -> None:
        settings.quiet, settings.debug = quiet, debug
        for line in unknown_in_environment(context):
            complain(f"warning: {line}")
        function(*args, **({"context": context} if takes_context else {}), **kwargs)

    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", _Quiet), ("debug", _Debug))
    ]
    if not takes_context:
        flags.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    parameters = [*signature.parameters.values(), *flags]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def out() -> Console:
    """Return a console on standard output, for results."""
    return SafeConsole(soft_wrap=not sys.stdout.isatty(), highlight=False, emoji=False)


def err() -> Console:
    """Return a console on standard error, for everything else."""
    return SafeConsole(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on standard output, for another program to read; text, which is JSON, as it is.

    JSON is UTF-8, so where standard output is not, whatever is not ASCII is escaped.
    """
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    text = re.sub(
        r"[\ud800-\udfff]" if speaks_utf_8() else r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text
    )
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def print_line(text: str) -> None:
    """Print ``text``, which may hold names from anywhere, as one line on standard output."""
    out().print(one_line(text), markup=False)


def show_results(results: Results, folder: Path, as_json: bool) -> None:
    """Print results, which were written to ``folder``, as tables or as JSON records."""
    if as_json:
        print_json(results.frame.to_json(orient="records"))
        return
    from mmrobust.report import terminal
    from mmrobust.report.report import build_report

    terminal.show(build_report([results]), out())
    remark(f"results: {folder / 'results.parquet'}")


def write(file: Path, text: str, *, silent: bool = False) -> None:
    """Write ``text`` to a file atomically, or to a pipe or device; print a remark unless ``silent``."""
    from mmrobust.storage.files import atomic_file

    with atomic_file(file, through=True) as partial:
        # Bytes of a path that are no text would end it here.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    if not silent:
        remark(f"wrote {file}")


def remark(message: str) -> None:
    """Print a line on standard error unless ``--quiet``."""
    if not settings.quiet:
        complain(message)


def complain(message: str, style: str = "") -> None:
    """Print a line on standard error. If nobody reads it any more, work goes on."""
    line = one_line(message)
    if len(line) > LONGEST_LINE:  # it quotes a huge value
        line = f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"
    with suppress(OSError):
        err().print(line, markup=False, style=style or None)


def remark_left_aside(info: DatasetInfo, chosen: Sequence[str], asked: object) -> None:
    """Print a line on the modalities of a data set that are not ``chosen``, unless the user ``asked`` for these."""
    from mmrobust.data.format import left_aside

    if asked is None and (line := left_aside(info, chosen)):
        remark(line)


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Advance]:
    """Show on standard error, unless ``--quiet``, what is done, how much of it, how fast, and how long it still takes.

    On a terminal that is a bar, which is gone afterwards. Elsewhere, as in CI, it is a plain line now and then, and
    none for work that is soon done. This is the :data:`mmrobust.runtime.progress.Progress` of the command line.
    """
    if not sys.stderr.isatty():
        yield PlainProgress(description, total).advance
        return
    from rich import progress
    from rich.text import Text

    class RateColumn(progress.ProgressColumn):
        """Units per second, or seconds for each."""

        def render(self, task: progress.Task) -> Text:
            return Text(rate(task.speed) if task.speed else "–/s", style="progress.data.speed")

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        RateColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with bar_of(*columns) as bar:
        task = bar.add_task(description, total=total)
        yield lambda units: bar.advance(task, units)


def bar_of(*columns: ProgressColumn) -> Progress:
    """Return a bar on standard error that is gone afterwards, and shown on a terminal only and not if ``--quiet``."""
    from rich.progress import Progress

    hidden = settings.quiet or not sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True, emoji=False), disable=hidden, transient=True)


def waiting(what: str) -> AbstractContextManager[object]:
    """Show on a terminal, unless ``--quiet``, what takes a while of which nobody knows how long."""
    hidden = settings.quiet or not sys.stderr.isatty()
    return nullcontext() if hidden else err().status(f"{what} …")


class PlainProgress:
    """Progress as plain lines: ``predict: 1,200 of 3,000, 40/s, 45 s left``."""

    FIRST, EVERY = 10.0, 30.0
    """Seconds before the first line, and between two."""

    def __init__(self, description: str, total: int | None) -> None:
        self._what, self._total, self._done = description, total, 0
        self._begin = time.monotonic()
        self._next = self._begin + self.FIRST

    def advance(self, units: int) -> None:
        """Count units that were finished; print a line if it is time for one."""
        self._done += units
        now = time.monotonic()
        if now < self._next or not self._done or self._done == self._total:
            return
        self._next = now + self.EVERY
        speed = self._done / (now - self._begin)
        of = "" if self._total is None else f" of {self._total:,}"
        left = "" if self._total is None else f", {duration((self._total - self._done) / speed)} left"
        remark(f"{self._what}: {self._done:,}{of}, {rate(speed)}{left}")


def rate(speed: float) -> str:
    """Units per second, or, of what takes longer than a second, the time for each.

    >>> rate(1234.5), rate(0.05)
    ('1,234/s', '20 s each')
    """
    return f"{speed:,.0f}/s" if speed >= 1 else f"{duration(1 / speed)} each"


def duration(seconds: float) -> str:
    """A time in the two largest of its units.

    >>> duration(45), duration(3725)
    ('45 s', '1 h 02 m')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {seconds:02} s" if minutes else f"{seconds} s"
