"""Reports and tables of run folders, as the command line asks for them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from crossguard.evaluate.statistics import Figure
from crossguard.report.certificates import certificate_views
from crossguard.report.collect import gallery_views, open_runs, retrieval_views, run_views
from crossguard.report.damage import told_of_damage
from crossguard.report.page import write_report
from crossguard.report.tables import (
    SHOWN,
    certificate_heading,
    certificate_records,
    certificate_rich,
    curve_rich,
    difference_rich,
    retrieval_records,
    retrieval_rich,
    success_rich,
)
from crossguard.report.task_views import task_views
from crossguard.report.tasks import KINDS, task_figures, task_records, task_rich
from crossguard.report.views import Difference
from crossguard.report.words import figures_of, missing_intervals


@told_of_damage
def report_runs(paths: Sequence[Path | str], target: Path | str, *, title: str | None = None) -> Path:
    """Write one report on one or several runs.

    Args:
        paths: run folders; a run that is still going on or was interrupted is reported as far as it got.
        target: the HTML file.
        title: the heading; default: the runs' names.

    Returns:
        The HTML file.

    Raises:
        ValueError: a folder holds no run, or no run has any result yet.
    """
    runs = open_runs(paths)
    settings, retrieval, certificates = run_views(runs), retrieval_views(runs), certificate_views(runs)
    tasks = task_views(runs)
    if not retrieval and not certificates and not tasks:
        raise ValueError(
            f"Expected results to report, but {', '.join(str(run.path) for run in runs)} "
            f"{'has' if len(runs) == 1 else 'have'} none yet (no retrieval, task or certificates in summary.json)."
        )
    return write_report(
        target,
        title=title or ", ".join(view.name for view in settings),
        settings=settings,
        retrieval=retrieval,
        certificates=certificates,
        galleries=gallery_views(runs),
        tasks=tasks,
    )


@told_of_damage
def retrieval_table(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Return the retrieval table of runs as JSON values, one object per model.

    Raises:
        ValueError: a folder holds no run.
    """
    return retrieval_records(retrieval_views(open_runs(paths)))


@told_of_damage
def task_table(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Return what runs measured of other tasks than retrieval as JSON values, one object per task and model.

    Raises:
        ValueError: a folder holds no run.
    """
    return task_records(task_views(open_runs(paths)))


@told_of_damage
def certificate_table(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Return the certificates of runs as JSON values, one object per certificate.

    Raises:
        ValueError: a folder holds no run.
    """
    return certificate_records(certificate_views(open_runs(paths)))


@told_of_damage
def print_retrieval(paths: Sequence[Path | str], *, console: Console | None = None) -> None:
    """Print the retrieval table of runs; nothing when they measured none.

    Raises:
        ValueError: a folder holds no run.
    """
    views = retrieval_views(open_runs(paths))
    console = console or Console()
    if views:
        console.print("Recall at 1 in percent, with 95 % intervals", style="bold", highlight=False)
        console.print(retrieval_rich(views))
        attacked = [view for view in views if view.success]
        if attacked:
            heading = "Attack success in percent: of the queries right before (conditional), and fall of recall (drop)"
            console.print(heading, style="bold", highlight=False)
            console.print(success_rich(attacked))
        _print_differences([(view.label, view.difference) for view in views], SHOWN, console)
        _print_missing((figure for view in views for figure in figures_of(view)), console)
        for view in views:
            for warning in view.warnings:
                console.print(f"warning: {view.label}: {warning}", markup=False, highlight=False)


@told_of_damage
def print_tasks(paths: Sequence[Path | str], *, console: Console | None = None) -> None:
    """Print the tables of other tasks than retrieval of runs; nothing when they measured none.

    Raises:
        ValueError: a folder holds no run.
    """
    views = task_views(open_runs(paths))
    console = console or Console()
    for kind, name in KINDS.items():
        chosen = [view for view in views if view.kind == kind]
        if chosen:
            console.print(f"{name}, with 95 % intervals", style="bold", highlight=False)
            console.print(task_rich(chosen))
            _print_differences([(view.label, view.difference) for view in chosen], None, console)
            _print_missing((figure for view in chosen for figure in task_figures(view)), console)
        for note in dict.fromkeys(note for view in chosen for note in view.notes):
            console.print(note, style="dim", markup=False, highlight=False)


def _print_differences(
    rows: Sequence[tuple[str, Difference | None]], metrics: Sequence[str] | None, console: Console
) -> None:
    found = [(label, difference) for label, difference in rows if difference is not None]
    if found:
        heading = "Differences on the same samples in points, with 95 % intervals of the paired difference"
        console.print(heading, style="bold", highlight=False)
        console.print(difference_rich(found, metrics))


def _print_missing(figures: Iterable[Figure | None], console: Console) -> None:
    for sentence in missing_intervals(figures):
        console.print(sentence, style="dim", markup=False, highlight=False)


@told_of_damage
def print_certificates(paths: Sequence[Path | str], *, console: Console | None = None) -> None:
    """Print what is certified along the curve, or else over the grid of radii, one table per certificate.

    Raises:
        ValueError: a folder holds no run.
    """
    console = console or Console()
    for view in certificate_views(open_runs(paths)):
        console.print(certificate_heading(view), style="bold", markup=False, highlight=False)
        console.print(certificate_rich(view) if view.curve is None else curve_rich(view))
        _print_missing(view.every_figure, console)
