"""Reports and tables of run folders, as the command line asks for them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from crossguard.checks import visible
from crossguard.report.certificates import certificate_views
from crossguard.report.collect import open_runs, result_views, run_views
from crossguard.report.curves import curve_charts, legend
from crossguard.report.damage import told_of_damage
from crossguard.report.export import every_table, write_tables
from crossguard.report.page import write_report
from crossguard.report.sections import sections
from crossguard.report.tables import (
    certificate_heading,
    certificate_records,
    certificate_rich,
    curve_rich,
    figure_rich,
    result_records,
)
from crossguard.report.templates import get_template
from crossguard.report.words import missing_intervals
from crossguard.runs import write_atomically


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
        ValueError: a folder holds no run, an earlier version measured it, or no run has any result yet.
    """
    runs = open_runs(paths)
    settings, results, certificates = run_views(runs), result_views(runs), certificate_views(runs)
    if not results and not certificates:
        raise ValueError(
            f"Expected results to report, but {', '.join(str(run.path) for run in runs)} "
            f"{'has' if len(runs) == 1 else 'have'} none yet (no results or certificates in summary.json)."
        )
    return write_report(
        target,
        title=title or _title([view.name for view in settings]),
        settings=settings,
        results=results,
        certificates=certificates,
    )


@told_of_damage
def write_figures(paths: Sequence[Path | str], folder: Path | str) -> list[Path]:
    """Write every certified curve of runs as an SVG file of its own, readable in light and dark.

    Args:
        paths: run folders.
        folder: where the files go, `RUN-METRIC.svg` each (`RUN-MODEL-METRIC.svg` where a run has several models).

    Returns:
        The files.

    Raises:
        ValueError: a folder holds no run, or no run has a certificate with a curve.
    """
    template, written = get_template("figure.svg.j2", filters={}), []
    for run in open_runs(paths):
        views = certificate_views([run])
        for view in views:
            for chart in curve_charts(view):
                named = [run.path.name, *([view.label] if len(views) > 1 else []), chart.metric]
                path = Path(folder).expanduser() / (re.sub(r"[^\w.]+", "-", "-".join(named)) + ".svg")
                write_atomically(path, template.render(chart=chart, legend=legend(view), data=view.data))
                written.append(path)
    if not written:
        raise ValueError(f"Expected a run with a certified curve, but got {', '.join(map(str, paths))}.")
    return written


@told_of_damage
def result_table(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Return what runs measured as JSON values, one object per task, model, data set and attack.

    Raises:
        ValueError: a folder holds no run, or an earlier version measured it.
    """
    return result_records(result_views(open_runs(paths)))


@told_of_damage
def certificate_table(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Return the certificates of runs as JSON values, one object per certificate.

    Raises:
        ValueError: a folder holds no run.
    """
    return certificate_records(certificate_views(open_runs(paths)))


@told_of_damage
def export_runs(paths: Sequence[Path | str], folder: Path | str) -> list[Path]:
    """Write every table of the report on runs as CSV and as JSON.

    Args:
        paths: run folders.
        folder: where; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ValueError: a folder holds no run, or an earlier version measured it.
    """
    runs = open_runs(paths)
    return write_tables(folder, every_table(sections(result_views(runs)), certificate_views(runs)))


@told_of_damage
def print_results(paths: Sequence[Path | str], *, console: Console | None = None) -> None:
    """Print the tables of all tasks of runs; nothing when they measured none.

    Raises:
        ValueError: a folder holds no run, or an earlier version measured it.
    """
    console = console or Console()
    for section in sections(result_views(open_runs(paths))):
        under = f" ({section.under})" if section.under else ""
        tables = {
            f"{section.heading}, with 95 % intervals{under}": section.figures(),
            "How often the attack succeeds; drops in points": section.success(),
            "Differences on the same samples in points, with 95 % intervals of the paired difference": (
                section.differences()
            ),
        }
        for heading, table in tables.items():
            if table.lines:
                _say(heading, console, style="bold")
                console.print(figure_rich(table))
        notes = [f"{label}: {note}" if label else note for label, note in section.notes]
        for sentence in (*section.missing, *notes):
            _say(sentence, console, style="dim")
        for label, warning in section.warnings:
            _say(f"warning: {label}: {warning}", console)


@told_of_damage
def print_certificates(paths: Sequence[Path | str], *, console: Console | None = None) -> None:
    """Print what is certified along the curve, or else over the grid of radii, one table per certificate.

    Raises:
        ValueError: a folder holds no run.
    """
    console = console or Console()
    for view in certificate_views(open_runs(paths)):
        for line in certificate_heading(view).split("\n"):
            _say(line, console, style="bold")
        console.print(certificate_rich(view) if view.curve is None else curve_rich(view))
        for sentence in missing_intervals(view.every_figure):
            _say(sentence, console, style="dim")


def _title(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} runs"


def _say(sentence: str, console: Console, *, style: str = "") -> None:
    console.print(visible(sentence), style=style, markup=False, highlight=False)
