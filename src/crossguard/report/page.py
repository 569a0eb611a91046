"""`write_report`: one self-contained HTML file."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossguard import __version__
from crossguard.report.curves import along, curve_charts, metric_name
from crossguard.report.figures import bar_chart, heat_map
from crossguard.report.pictures import amplified_difference, data_uri
from crossguard.report.tasks import KINDS, TaskView, task_columns, task_figures
from crossguard.report.templates import get_template
from crossguard.report.views import COLUMNS, CertificateView, ExampleView, GalleryView, Picture, RetrievalView, RunView
from crossguard.report.words import column_name, columns_of, figures_of, missing_intervals, rests_on, spread
from crossguard.runs import write_atomically

_THUMBNAIL = 128
_LARGE = 224
_WIDE = 640

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Signs that a terminal would obey, where names hold them; tabs and ends of lines are none."""


def write_report(
    path: Path | str,
    *,
    title: str,
    settings: Sequence[RunView] = (),
    retrieval: Sequence[RetrievalView] = (),
    certificates: Sequence[CertificateView] = (),
    galleries: Sequence[GalleryView] = (),
    tasks: Sequence[TaskView] = (),
    lede: Sequence[str] = (),
) -> Path:
    """Write a report that needs no other file and loads nothing, readable in light and dark.

    Args:
        path: the HTML file; replaced as a whole.
        title: the heading.
        settings: the runs that it reports on.
        retrieval: rows of the retrieval table, in order.
        certificates: certificates to draw.
        galleries: examples to show; the first is open.
        tasks: other tasks than retrieval, a section each.
        lede: sentences below the title; default: one that says what was measured.

    Returns:
        The path.

    Raises:
        ValueError: nothing to report.
    """
    path = Path(path).expanduser()
    page = render_report(
        title=title,
        settings=settings,
        retrieval=retrieval,
        certificates=certificates,
        galleries=galleries,
        tasks=tasks,
        lede=lede,
    )
    write_atomically(path, _COMMANDS.sub("\ufffd", page))
    return path


def render_report(
    *,
    title: str,
    settings: Sequence[RunView] = (),
    retrieval: Sequence[RetrievalView] = (),
    certificates: Sequence[CertificateView] = (),
    galleries: Sequence[GalleryView] = (),
    tasks: Sequence[TaskView] = (),
    lede: Sequence[str] = (),
) -> str:
    """Return the page that `write_report` writes.

    Raises:
        ValueError: nothing to report.
    """
    if not retrieval and not certificates and not tasks:
        raise ValueError("Expected retrieval results or certificates or other tasks to report, but got none.")
    columns = columns_of(retrieval)
    contents = [("settings", "Settings")]
    contents += [("retrieval", "Retrieval")] if retrieval else []
    by_kind = {kind: [view for view in tasks if view.kind == kind] for kind in KINDS}
    contents += [(kind, KINDS[kind]) for kind, views in by_kind.items() if views]
    contents += [("certificates", "Certificates")] if certificates else []
    contents += [("examples", "Examples")] if galleries else []
    contents += [("reading", "How to read it")]
    page = get_template("page.html.j2", filters=_filters())
    return page.render(
        title=title,
        lede=list(lede) or [*_lede(retrieval, certificates), *_task_lede(tasks)],
        contents=contents,
        overview=_overview(settings, retrieval, certificates, tasks),
        runs=settings,
        fact_names=list(dict.fromkeys(name for run in settings for name in run.facts)),
        retrieval=retrieval,
        missing=missing_intervals(figure for view in retrieval for figure in figures_of(view)),
        missing_of=_missing_of_tasks,
        columns=columns,
        attacked=[column for column in columns if any(column in view.success for view in retrieval)],
        charts=[bar_chart(retrieval, metric) for metric in ("tr@1", "ir@1")] if retrieval else [],
        certificates=[(view, curve_charts(view), _maps(view)) for view in certificates],
        galleries=galleries,
        tasks=[(kind, KINDS[kind], views) for kind, views in by_kind.items() if views],
        version=__version__,
    )


def _filters() -> dict[str, Callable[..., Any]]:
    return {
        "column_name": column_name,
        "thumbnail": _thumbnail,
        "strip": _strip,
        "wide": _wide,
        "metric_name": metric_name,
        "along": _along,
        "percent": _percent,
        "task_columns": task_columns,
        "task_measures": _measures,
        "spread": spread,
        "rests_on": rests_on,
        "missing_intervals": missing_intervals,
        "success_rests": _success_rests,
        "difference_columns": _difference_columns,
        "difference_metrics": _difference_metrics,
    }


def _measures(view: TaskView) -> list[str]:
    return list(dict.fromkeys(name for measures in view.success.values() for name in measures))


def _success_rests(view: TaskView, name: str) -> str:
    return rests_on(measures.get(name) for measures in view.success.values())


def _difference_columns(views: Sequence[RetrievalView | TaskView]) -> list[str]:
    found = {column for view in views if view.difference is not None for column in view.difference.columns}
    return [*(c for c in COLUMNS if c in found), *sorted(found.difference(COLUMNS))]


def _difference_metrics(view: TaskView) -> list[str]:
    figures = {} if view.difference is None else view.difference.columns
    return list(dict.fromkeys(metric for column in figures.values() for metric in column))


def _missing_of_tasks(views: Sequence[TaskView]) -> list[str]:
    return missing_intervals(figure for view in views for figure in task_figures(view))


def _thumbnail(picture: Picture) -> str:
    return data_uri(picture, longest=_THUMBNAIL)


def _wide(picture: Picture) -> str:
    return data_uri(picture, longest=_WIDE)


def _along(view: CertificateView) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if view.curve is None else along(view.curve, view.modalities)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


@dataclass(frozen=True)
class _Strip:
    parts: tuple[tuple[str, str], ...]
    tiny: bool


def _strip(example: ExampleView) -> _Strip | None:
    """Return the clean picture, the adversarial one and their amplified difference, or the query picture alone."""
    if example.picture is None:
        picture = example.before.picture
        return None if picture is None else _Strip(((data_uri(picture, longest=_LARGE), "clean"),), _tiny(picture))
    clean, adversarial = example.picture
    difference, factor = amplified_difference(clean, adversarial)
    parts = (
        (data_uri(clean, longest=_LARGE), "clean"),
        (data_uri(adversarial, longest=_LARGE), "adversarial"),
        (data_uri(difference, longest=_LARGE), f"change × {factor}"),
    )
    return _Strip(parts, _tiny(clean))


def _tiny(picture: Picture) -> bool:
    return max(picture.shape[:2]) < 92


def _maps(view: CertificateView) -> list[object]:
    title = f"{metric_name('accuracy', of_pixels=view.of_pixels)}, %"
    if view.baseline is None:
        return [heat_map(view, view.accuracy, title=title)]
    return [
        heat_map(view, view.accuracy, title=f"{title}: modalities sub-sampled apart"),
        heat_map(view, view.baseline, title=f"{title}: sub-sampled together (baseline)", what="grid baseline"),
    ]


def _lede(retrieval: Sequence[RetrievalView], certificates: Sequence[CertificateView]) -> list[str]:
    said = []
    if retrieval:
        models = f"{len(retrieval)} models" if len(retrieval) > 1 else retrieval[0].label
        sets = _all_of(
            f"{view.images:,} images and {view.texts:,} texts of {view.data} ({view.split})" for view in retrieval
        )
        attacks = _all_of(f"{view.attack}, {view.threat}" for view in retrieval if view.attack)
        said.append(f"{models} on {sets}" + (f", clean and attacked: {attacks}." if attacks else ", without attack."))
    said.extend(
        f"{view.label} certified on {view.samples:,} {'images' if view.of_pixels else 'samples'} of {view.data} "
        f"({view.split})."
        for view in certificates
    )
    return said


def _task_lede(tasks: Sequence[TaskView]) -> list[str]:
    return [
        f"{view.label} on {view.samples} of {view.data}, "
        + (f"clean and attacked: {view.attack}, {view.threat}." if view.attack else "without attack.")
        for view in tasks
    ]


def _overview(
    runs: Sequence[RunView],
    retrieval: Sequence[RetrievalView],
    certificates: Sequence[CertificateView],
    tasks: Sequence[TaskView],
) -> list[tuple[str, str]]:
    facts = [
        (
            "data",
            _all_of(
                [
                    *(f"{view.data} ({view.split})" for view in retrieval),
                    *(view.data for view in tasks),
                    *(f"{view.data} ({view.split})" for view in certificates),
                ]
            ),
        ),
        ("attack", _all_of([*(v.attack for v in retrieval if v.attack), *(v.attack for v in tasks if v.attack)])),
        ("threat", _all_of([*(v.threat for v in retrieval if v.threat), *(v.threat for v in tasks if v.threat)])),
        ("seed", _all_of(run.facts["seed"] for run in runs if "seed" in run.facts)),
        ("sub-samples and alpha", _all_of(f"N = {view.draws:,}, alpha = {view.alpha:g}" for view in certificates)),
        ("device", _all_of(run.facts["device"] for run in runs if "device" in run.facts)),
        ("started", _all_of(run.facts["started"] for run in runs if "started" in run.facts)),
        ("command", _all_of(run.facts["command"] for run in runs if "command" in run.facts)),
        ("version", f"crossguard {__version__}"),
    ]
    return [(name, value) for name, value in facts if value]


def _all_of(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))
