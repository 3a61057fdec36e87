"""Run one command line under limits, and judge how it ended.

Everything runs in this process, so that thousands of cases pay for the heavy imports once. The caller should be a
separate process, because a case may still kill it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer import Abort, TyperException

from mmrobust.cli import app
from mmrobust.errors import MmrobustError

SECONDS = 20.0
"""Processor time after which a case counts as hanging; wall time would depend on what else the machine does."""
PATIENCE = 60.0
"""Wall time after which a case counts as hanging."""
MEMORY = 2 * 2**30
"""Bytes above what the process had before that count as a fault."""
ROOM = 4 * 2**30
"""Bytes that a case may allocate at most, so that it does not bring the machine down."""
LINES, CHARACTERS = 8, 2000
"""The most lines on standard error, and the most characters in one."""
MAY_FAIL = (("audit",), ("check",), ("data", "verify"), ("doctor",))
"""Commands that exit with 1 if what they check fails."""
EXPECTED = (MmrobustError, TyperException, OSError, KeyboardInterrupt, Abort)


STARTED = ("'git'", "'uname'", "nvidia-smi", sys.executable)
"""Programs that may be started: for provenance, for the platform, and workers."""
CACHES = ("/dev/null", "/dev/shm", "/proc/self", "/tmp/torchinductor")
"""Where writing is allowed: PyTorch creates a folder when it is imported."""


class Hang(BaseException):
    """The case took too long. No code under test catches it by accident."""


@dataclass(frozen=True)
class Verdict:
    """How a case ended."""

    code: int | None
    seconds: float
    peak: int
    """Bytes above what the process had before."""
    said: str
    """Standard error, and the traceback of an unexpected exception."""
    fault: str
    """What is wrong, in the same words for the same fault; empty: nothing."""


class Watcher:
    """Records what a case does outside its folder. An audit hook cannot be removed, so there is one for all cases."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record what must not happen."""
        if not self.allowed:
            return
        match event:
            case "open" if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._look("wrote", arguments[0])
            case "os.mkdir" | "os.remove" | "os.rmdir" | "os.truncate" | "os.chmod":
                self._look(event, arguments[0])
            case "os.rename" | "os.link" | "os.symlink":
                self._look(event, arguments[1])
            case "subprocess.Popen" if not any(name in str(arguments[1]) for name in STARTED):
                self.seen.append(f"started {arguments[1]!r:.100}")
            case "os.system" | "os.exec" | "os.posix_spawn" | "ctypes.dlopen" if event == "os.system":
                self.seen.append(f"{event} {arguments!r:.100}")
            case "socket.connect" if isinstance(arguments[1], tuple):
                self.seen.append(f"connected to {arguments[1]!r:.100}")

    def _look(self, what: str, path: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # as the call resolves it, keeping links
            if not name.startswith(self.allowed):
                self.seen.append(f"{what} {name}")


watcher = Watcher()


@contextmanager
def _limits() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE))
    for timer, number, seconds in timers:
        signal.signal(number, hangs)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _to_files(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Redirect standard output and error into files, also for C libraries."""
    files = folder / "stdout", folder / "stderr"
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in (1, 2)]
    for number, file in zip((1, 2), files, strict=True):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    try:
        yield files
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), saved, strict=True):
            os.dup2(before, number)
            os.close(before)


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def bounded_run(arguments: Sequence[str], folder: Path, scratch: Path, environment: dict[str, str]) -> Verdict:
    """Run ``mmrobust ARGUMENTS`` in ``folder``.

    Args:
        arguments: the command line.
        folder: the working directory; nothing may be written outside it.
        scratch: folder for home, temporary files and output.
        environment: further variables.
    """
    caught: list[BaseException] = []
    fail = app._fail

    def catch(error: BaseException, code: int, *message: str) -> int:
        caught.append(error)
        return fail(error, code, *message)

    before_environment, before_folder = dict(os.environ), Path.cwd()
    os.environ.update({"HOME": str(scratch), "TMPDIR": str(scratch), "COLUMNS": "100", **environment})
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
    base, start, code, hung = _peak(), time.monotonic(), None, False
    with _to_files(scratch) as (out, err):
        os.chdir(folder)
        app._fail = catch
        watcher.seen, watcher.allowed = [], (str(folder), str(scratch), *CACHES)
        try:
            with _limits():
                code = app.run(list(arguments))
        except Hang:
            hung = True
        except BaseException as error:
            caught.append(error)
        finally:
            watcher.allowed = ()
            app._fail = fail
            os.chdir(before_folder)
            os.environ.clear()
            os.environ.update(before_environment)
    seconds, peak = time.monotonic() - start, _peak() - base
    printed, said = (file.read_bytes().decode(errors="replace") for file in (out, err))
    error = caught[-1] if caught else None
    fault = _fault(arguments, code, error, hung, printed, said, peak)
    if error is not None and not isinstance(error, EXPECTED):
        said += "\n" + "".join(traceback.format_exception(error))
    said += "".join(f"\n({line})" for line in watcher.seen)
    return Verdict(code, seconds, peak, said, fault)


def _fault(
    arguments: Sequence[str],
    code: int | None,
    error: BaseException | None,
    hung: bool,
    printed: str,
    said: str,
    peak: int,
) -> str:
    """Return what is wrong with how a case ended, by the contract of the command line."""
    # Each sample that is left out has a line.
    lines = [line for line in said.splitlines() if not line.startswith("left out: ")]
    if hung:
        return f"hangs in {' '.join(arguments[:1])}"
    if error is not None and not isinstance(error, EXPECTED):
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/mmrobust/" in f.filename]
        where = f"{frames[-1].filename.rpartition('/mmrobust/')[2]}:{frames[-1].name}" if frames else "?"
        return f"{type(error).__name__} from {where}"
    if peak > MEMORY:
        return f"takes gigabytes in {' '.join(arguments[:1])}"
    if watcher.seen:
        return watcher.seen[0].split(" ")[0] + " outside its folder"
    if code not in (0, 1, 2, 130):
        return f"exit code {code}"
    if code == 1 and not any(tuple(arguments[: len(words)]) == words for words in MAY_FAIL):
        return "exit code 1 of a command that judges nothing"
    if code in (2, 130) and not (lines and lines[-1].startswith("mmrobust: ")):
        return "no last line that begins with mmrobust:"
    if len(lines) > LINES or "Traceback (most recent call last)" in said or "Warning: " in said:
        return "more than a few lines on standard error"
    if lines and max(map(len, lines)) > CHARACTERS:
        return "a line of more than 2,000 characters"
    if "\x1b" in printed or "\x1b" in said:
        return "a file's own escape sequences reach the terminal"
    if isinstance(error, OSError) and error.filename is None:
        return f"names no file: {error!r:.80}"
    return ""
