"""The ``mmrobust`` command: its subcommands, and how an error becomes one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import (
    audit,
    baseline,
    check,
    compare,
    console,
    data,
    demo,
    doctor,
    evaluate,
    import_,
    plan,
    report,
    score,
    study,
    train,
)
from mmrobust.cli.console import with_common_options
from mmrobust.cli.options import flag
from mmrobust.cli.settings import SettingsCommand
from mmrobust.cli.wrong_values import describe
from mmrobust.errors import MmrobustError, UsageError
from mmrobust.runtime.machine import lacks_memory
from mmrobust.runtime.terminal import PIPE_CLOSED, close_output, prepare_streams
from mmrobust.version import __version__

app = typer.Typer(
    name="mmrobust",
    help="How robust is a multimodal classifier when an input is missing or degraded?\n\n"
    "Left to right: [bold]data prepare[/] → [bold]train[/] → [bold]eval[/] → [bold]report[/] and [bold]check[/].",
    epilog="Start with: mmrobust demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "MMROBUST", "help_option_names": ["-h", "--help"]},
)
app.command("demo", epilog=demo.EXAMPLE)(with_common_options(demo.demo))
app.add_typer(data.app, name="data")
app.command("train", cls=SettingsCommand, epilog=train.EXAMPLE)(with_common_options(train.train))
app.command("eval", epilog=evaluate.EXAMPLE)(with_common_options(evaluate.evaluate))
app.command("plan", epilog=plan.EXAMPLE)(with_common_options(plan.plan))
app.command("score", epilog=score.EXAMPLE)(with_common_options(score.score))
app.command("report", epilog=report.EXAMPLE)(with_common_options(report.report))
app.add_typer(import_.app, name="import")
app.add_typer(study.app, name="study")
app.command("compare", epilog=compare.EXAMPLE)(with_common_options(compare.compare))
app.command("check", epilog=check.EXAMPLE)(with_common_options(check.check))
app.add_typer(baseline.app, name="baseline")
app.command("audit", epilog=audit.EXAMPLE)(with_common_options(audit.audit))
app.command("doctor", epilog=doctor.EXAMPLE)(with_common_options(doctor.doctor))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, flag("Print the version and exit.", "--version")] = False) -> None:
    if version:
        console.out().print(f"mmrobust {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted, 141 where the reader of the output has
        gone and there is no verdict.
    """
    console.settings.quiet = console.settings.debug = False
    console.settings.verdict = None
    streams = sys.stdout, sys.stderr
    try:
        _check_place()
        code = app(args=arguments, prog_name="mmrobust", standalone_mode=False)
        if code == 130:  # typer catches Ctrl-C, and says nothing
            raise KeyboardInterrupt
    except SystemExit as end:
        sys.stdout, sys.stderr = streams  # typer replaces them
        # With 1, typer and rich end where nobody reads the output any more; no command of ours ends so.
        return _unread() if end.code == 1 else end.code if isinstance(end.code, int) else 2
    except BrokenPipeError:
        return _unread()
    except MmrobustError as error:
        return _fail(error, error.exit_code)
    except typer.TyperException as error:  # wrong usage, as found by the parser
        return _fail(error, 2, describe(error, sys.argv[1:] if arguments is None else arguments))
    except OSError as error:  # a full disk, no permission
        if lacks_memory(error):
            return _fail(error, 2, "this machine has too little memory for this command")
        return _fail(error, 2, f"{error.filename}: {error.strerror}" if error.filename and error.strerror else "")
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(error, 130)
    except Exception as error:  # our bug; a traceback's exit code 1 would tell a pipeline that a check failed
        if lacks_memory(error):
            return _fail(error, 2, "this machine has too little memory for this command")
        said = f"{type(error).__name__}: {error}"
        return _fail(error, 2, f"unexpected {said}; a bug in mmrobust: please report it with the output of --debug")
    return code if isinstance(code, int) else 0


def _check_place() -> None:
    """Raise if the current folder was removed: relative paths mean nothing there, and libraries abort the process."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder was removed; change to another one, and start again") from None


def _fail(error: BaseException, code: int, message: str = "") -> int:
    """Print an error as one line: ``message``, or by default the error's own."""
    if console.settings.debug:
        console.err().print_exception()
    message = message or (error.format_message() if isinstance(error, typer.TyperException) else str(error))
    unsaid = "interrupted; run the same command again" if code == 130 else type(error).__name__
    line = " ".join(message.split()) or unsaid
    console.complain(f"mmrobust: {line}", style="red")
    return code


def _unread() -> int:
    """The exit code where nobody reads the output any more."""
    return PIPE_CLOSED if console.settings.verdict is None else console.settings.verdict


def main() -> None:
    """The console script."""
    prepare_streams()
    code = run()
    try:
        close_output()
    except BrokenPipeError:
        code = _unread()
    except OSError as error:
        code = _fail(error, 2, f"standard output: {error.strerror}")
    sys.exit(code)
