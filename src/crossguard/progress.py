"""Progress shown to a person, behind one small protocol with a silent form."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Task(Protocol):
    """One piece of work whose steps are counted."""

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Count `steps` as done and show `note` beside the bar."""
        ...


class Reporter(Protocol):
    """Where progress goes: `Silent` for library calls, `Bars` for the command line."""

    def task(self, title: str, *, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """Open a task of `total` steps, `done` of which were done before."""
        ...


class _SilentTask:
    def advance(self, steps: int = 1, *, note: str = "") -> None:
        pass


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield _SilentTask()


class _BarTask:
    def __init__(self, progress: Progress, title: str, total: int, done: int) -> None:
        self._progress = progress
        self._id = progress.add_task(title, total=total, completed=done, note="")

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        if note:
            self._progress.update(self._id, advance=steps, note=note)
        else:
            self._progress.update(self._id, advance=steps)


class Bars:
    """Rich bars with counts, elapsed time, rate and time left, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator[Task]:
        """Open a bar of `total` steps."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _BarTask(progress, title, total, done)
