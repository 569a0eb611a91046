"""Printing for people and for programs, and errors as one clear message."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from crossguard.progress import Bars, Reporter, Silent

BAD_INPUT = 2
INTERRUPTED = 130


def progress(*, quiet: bool) -> Reporter:
    """Return bars on standard error, or silence."""
    return Silent() if quiet else Bars(Console(stderr=True))


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, nothing else."""
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def told_clearly() -> Iterator[None]:
    """Turn bad input into its message and exit code 2, and Ctrl-C into 130; other errors keep their traceback."""
    try:
        yield
    except ValueError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error[/bold red] {_escaped(error)}", highlight=False)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _escaped(error: ValueError) -> str:
    from rich.markup import escape

    return escape(str(error))
