"""Progress shown to a person, behind one small protocol with a silent form."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from time import monotonic
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from crossguard.checks import visible


@runtime_checkable
class Work(Protocol):
    """One piece of work whose steps are counted."""

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Count `steps` as done and show `note` beside the bar."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Where progress goes: `Silent` for library calls, `Bars` for terminals, `Lines` for logs."""

    def task(self, title: str, *, total: int, done: int = 0) -> AbstractContextManager[Work]:
        """Open a piece of work of `total` steps, `done` of which were done before; it may be inside another."""
        ...


class _SilentWork:
    def advance(self, steps: int = 1, *, note: str = "") -> None:
        pass


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator[Work]:
        """Open a task that nobody sees."""
        yield _SilentWork()


class _Rate(ProgressColumn):
    """Steps per second, or seconds per step when that is slower than one."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "", style="progress.data.speed")


class _BarWork:
    def __init__(self, progress: Progress, title: str, total: int, done: int) -> None:
        self._progress = progress
        self._id = progress.add_task(visible(title), total=total, completed=done, note="")

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        if note:
            self._progress.update(self._id, advance=steps, note=visible(note))
        else:
            self._progress.update(self._id, advance=steps)


class Bars:
    """Rich bars with counts, elapsed time, rate and time left, on standard error.

    Args:
        console: where they are drawn; default: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator[Work]:
        """Open a bar of `total` steps; one opened inside another is drawn below it."""
        if self._progress is not None:
            yield _BarWork(self._progress, title, total, done)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            _Rate(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self._console) as progress:
            self._progress = progress
            try:
                yield _BarWork(progress, title, total, done)
            finally:
                self._progress = None


class _LineWork:
    def __init__(self, console: Console, title: str, total: int, done: int, every: float) -> None:
        self._console, self._title, self._total, self._every = console, title, total, every
        self._done = self._before = done
        self._started = self._shown = monotonic()
        self._show("")

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self._done += steps
        if monotonic() - self._shown >= self._every or self._done == self._total:
            self._shown = monotonic()
            self._show(note)

    def _show(self, note: str) -> None:
        seconds = monotonic() - self._started
        parts = [f"{self._title}: {self._done}/{self._total}"]
        if self._done > self._before and seconds > 0:
            speed = (self._done - self._before) / seconds
            parts += [f"{seconds:.0f} s", f"{(self._total - self._done) / speed:.0f} s left", _rate(speed)]
        line = ", ".join([*parts, *([note] if note else [])])
        self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)


class Lines:
    """One plain line per task and per `every` seconds, for logs and pipes.

    Args:
        console: where they go; default: standard error.
        every: seconds between two lines of a task.
    """

    def __init__(self, console: Console | None = None, *, every: float = 10.0) -> None:
        self._console = console or Console(stderr=True)
        self._every = every

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator[Work]:
        """Open a task; its first and last states are always printed."""
        yield _LineWork(self._console, title, total, done, self._every)


def reporter(*, quiet: bool = False, console: Console | None = None) -> Reporter:
    """Choose how to show progress: nothing when quiet, bars on a terminal, lines elsewhere."""
    console = console or Console(stderr=True)
    if quiet:
        return Silent()
    return Bars(console) if console.is_terminal else Lines(console)


def cell(text: object) -> Text:
    """Return what a table on a terminal shows for a name: as it is, neither markup nor commands to the terminal."""
    return Text(visible(text))


def shown(progress: Reporter | None) -> Reporter:
    """Return where a call from Python shows its progress: where it was told to, else bars in notebooks and terminals.

    Where standard error goes to a file or a pipe, nothing is shown. Notebooks without ipywidgets, which bars need
    there, get lines.
    """
    if progress is not None:
        return progress
    if "ipykernel" in sys.modules:
        return Bars(Console(stderr=True, force_jupyter=True)) if find_spec("ipywidgets") else Lines()
    return Bars() if sys.stderr is not None and sys.stderr.isatty() else Silent()


def _rate(speed: float) -> str:
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
