"""Printing for people and for programs, and errors as one clear message."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console

from crossguard.checks import WrongKind, visible
from crossguard.launch import ProcessLost, alone, is_main, launched
from crossguard.progress import Reporter, reporter
from crossguard.runs import RunBusy

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class _Stopped(KeyboardInterrupt):
    """The process is asked to end, by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def progress(*, quiet: bool) -> Reporter:
    """Return bars on a terminal, lines elsewhere, or silence; the bars of Transformers are always off."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return reporter(quiet=quiet)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, nothing else."""
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def by_one_process() -> Iterator[None]:
    """As `told_clearly`, for what one process does alone: of several the first does it, and the others end."""
    with told_clearly():
        if not is_main():
            raise typer.Exit
        with alone():
            yield


@contextmanager
def told_clearly() -> Iterator[None]:
    """Turn what a user can mend into its message and an exit code; other errors keep their traceback.

    Bad input, a path that is not there or may not be written, and a package that is missing give 2; a full disk, a run
    open elsewhere or a training that broke down give 1; Ctrl-C gives 130, SIGTERM 143 and SIGHUP 129: what was done by
    then is on the disk.
    """
    try:
        with _stopped_by_signals():
            yield
    except (ValueError, WrongKind, ImportError, *_OTHER_PATH) as error:
        _print_error(error)
        raise typer.Exit(BAD_INPUT) from None
    except (OSError, RuntimeError, FloatingPointError) as error:
        if isinstance(error, RuntimeError) and type(error) not in (RuntimeError, RunBusy, ProcessLost):
            raise
        _print_error(error)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt as stop:
        told = f" by {stop}" if isinstance(stop, _Stopped) else ""
        if told and launched() > 1:
            told += ", since another process ended or the whole job is to"
        with suppress(OSError):  # the terminal may be gone
            print(f"interrupted{told}; the same command goes on where it stopped", file=sys.stderr, flush=True)
        raise typer.Exit(stop.code if isinstance(stop, _Stopped) else INTERRUPTED) from None


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Take SIGTERM and SIGHUP as Ctrl-C, unless whoever started the process has them ignored (`nohup`)."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    known = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in known}
    taken = {number: handler for number, handler in before.items() if handler == signal.SIG_DFL}
    try:
        for number in taken:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


# What another path would mend.
_OTHER_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def _print_error(error: Exception) -> None:
    from rich.markup import escape

    said = "\n".join(map(visible, str(error).split("\n")))  # names in it may hold what drives a terminal
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error[/bold red] {escape(said)}", highlight=False)
