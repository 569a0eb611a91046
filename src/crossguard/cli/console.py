"""Printing for people and for programs, and errors as one clear message."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from crossguard.checks import WrongKind, visible
from crossguard.progress import Reporter, reporter
from crossguard.runs import RunBusy

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


def progress(*, quiet: bool) -> Reporter:
    """Return bars on a terminal, lines elsewhere, or silence; the bars of Transformers are always off."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return reporter(quiet=quiet)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, nothing else."""
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def told_clearly() -> Iterator[None]:
    """Turn what a user can mend into its message and an exit code; other errors keep their traceback.

    Bad input, a path that is not there or may not be written, and a package that is missing give 2; a full disk, a run
    open elsewhere or a training that broke down give 1; Ctrl-C gives 130.
    """
    try:
        yield
    except (ValueError, WrongKind, ImportError, *_OTHER_PATH) as error:
        _print_error(error)
        raise typer.Exit(BAD_INPUT) from None
    except (OSError, RuntimeError, FloatingPointError) as error:
        if isinstance(error, RuntimeError) and type(error) not in (RuntimeError, RunBusy):
            raise
        _print_error(error)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


# What another path would mend.
_OTHER_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def _print_error(error: Exception) -> None:
    from rich.markup import escape

    said = "\n".join(map(visible, str(error).split("\n")))  # names in it may hold what drives a terminal
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error[/bold red] {escape(said)}", highlight=False)
