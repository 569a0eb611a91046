"""`write_report`: one self-contained HTML file."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from crossguard import __version__
from crossguard.checks import expanded
from crossguard.evaluate.examples import Item
from crossguard.report.answer import answers
from crossguard.report.curves import along, curve_charts, legend, metric_name
from crossguard.report.export import as_link, curve_records, figure_records, grid_records, overview_records
from crossguard.report.figures import bar_chart, heat_map
from crossguard.report.pictures import Album, amplified_difference
from crossguard.report.plots import difference_forest, scatter_plots, security_plots
from crossguard.report.sections import Section, sections
from crossguard.report.templates import get_template
from crossguard.report.views import CertificateView, ResultView, RunView, Word
from crossguard.report.words import column_name, marked_words, metric_title, missing_intervals, rests_on, spread
from crossguard.runs import write_atomically

_WIDE = 640
_MANY = 12
"""More rows than this get a table that can be sorted and filtered instead of bars."""
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Signs that a terminal would obey, where names hold them; tabs and ends of lines are none."""


def write_report(
    path: Path | str,
    *,
    title: str,
    settings: Sequence[RunView] = (),
    results: Sequence[ResultView] = (),
    certificates: Sequence[CertificateView] = (),
    lede: Sequence[str] = (),
) -> Path:
    """Write a report that needs no other file and loads nothing, readable in light and dark.

    Args:
        path: the HTML file; replaced as a whole.
        title: the heading.
        settings: the runs that it reports on.
        results: what was measured, with examples: a section for each heading; of its examples the first are open.
        certificates: certificates to draw.
        lede: sentences below the title; default: one that says what was measured.

    Returns:
        The path.

    Raises:
        ValueError: nothing to report.
    """
    path = expanded(path)
    page = render_report(title=title, settings=settings, results=results, certificates=certificates, lede=lede)
    write_atomically(path, _COMMANDS.sub("\ufffd", page))
    return path


def render_report(
    *,
    title: str,
    settings: Sequence[RunView] = (),
    results: Sequence[ResultView] = (),
    certificates: Sequence[CertificateView] = (),
    lede: Sequence[str] = (),
) -> str:
    """Return the page that `write_report` writes.

    Raises:
        ValueError: nothing to report.
    """
    if not results and not certificates:
        raise ValueError("Expected results or certificates to report, but got none.")
    found = sections(results)
    contents = [(f"results-{place}", section.heading) for place, section in enumerate(found, 1)]
    contents += [("certificates", "Certificates")] if certificates else []
    contents += [("examples", "Examples")] if any(view.examples for view in results) else []
    contents += [("reading", "How to read it"), ("settings", "Settings")]
    album = Album()
    page = get_template("page.html.j2", filters=_filters(album))
    shown = page.render(
        title=title,
        lede=list(lede) or _lede(found, certificates),
        answers=answers(found, certificates),
        contents=contents,
        overview=_overview(settings, results, certificates),
        runs=settings,
        fact_names=list(dict.fromkeys(name for run in settings for name in run.facts)),
        sections=found,
        certificates=[(view, curve_charts(view), _maps(view)) for view in certificates],
        many=_MANY,
        version=__version__,
    )
    if not album.left_out:
        return shown
    note = (
        f"<p><strong>{album.left_out:,} pictures are left out, so that this page stays below 20 MB.</strong> The runs "
        "hold them all; a report of fewer runs shows more.</p>"
    )
    return shown.replace("</main>", f"{note}\n</main>", 1)


def _filters(album: Album) -> dict[str, Callable[..., Any]]:
    return {
        "column_name": column_name,
        "metric_title": metric_title,
        "charts": lambda section: [bar_chart(section.views, metric) for metric in section.headline],
        "security": security_plots,
        "scatter": scatter_plots,
        "forest": difference_forest,
        "records": figure_records,
        "overview_records": overview_records,
        "curve_records": curve_records,
        "grid_records": grid_records,
        "link": as_link,
        "worded": _worded,
        "pictures": lambda item, longest: _pictures(album, item, longest),
        "wide": lambda picture: album.add(picture, longest=_WIDE),
        "metric_name": metric_name,
        "along": _along,
        "legend": legend,
        "percent": _percent,
        "spread": spread,
        "rests_on": rests_on,
        "missing_intervals": missing_intervals,
    }


def _worded(item: Item, beside: Sequence[Item]) -> tuple[tuple[Word, ...], str]:
    """Return an item's words, and the tag of those that an attack put there, or took away in an item beside."""
    text = item.text or ""
    if item.source is not None:
        return marked_words(item.source, text)[1], "mark"
    after = next((other.text for other in beside if other.source == text and other.right is None), None)
    return marked_words(text, text if after is None else after)[0], "s"


def _pictures(album: Album, item: Item, longest: int) -> list[tuple[str, str]]:
    """Return an item's picture; where an attack changed it, the clean one, it, and their amplified difference."""
    assert item.picture is not None
    if item.clean is None:
        return [(album.add(item.picture, longest=longest), "")]
    difference, factor = amplified_difference(item.clean, item.picture)
    shown = {"clean": item.clean, "adversarial": item.picture, f"change × {factor}": difference}
    return [(album.add(picture, longest=longest), name) for name, picture in shown.items()]


def _along(view: CertificateView) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if view.curve is None else along(view.curve, view.modalities, view.units)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _maps(view: CertificateView) -> list[object]:
    title = f"{metric_name('accuracy', of_pixels=view.of_pixels)}, %"
    if view.baseline is None:
        return [heat_map(view, view.accuracy, title=title)]
    return [
        heat_map(view, view.accuracy, title=f"{title}: modalities sub-sampled apart"),
        heat_map(view, view.baseline, title=f"{title}: sub-sampled together (baseline)", what="grid baseline"),
    ]


def _lede(found: Sequence[Section], certificates: Sequence[CertificateView]) -> list[str]:
    said = []
    for section in found:
        views = section.views
        names = list(dict.fromkeys(view.model for view in views))
        models = names[0] if len(names) == 1 else f"{len(names)} models"
        sets = _all_of(f"{view.samples} of {view.data} ({view.split})" for view in views)
        attacked = [view for view in views if view.attack]
        attacks = _all_of(view.facts.get("attack", str(view.attack)) for view in attacked)
        threats = list(dict.fromkeys(view.threat for view in attacked))
        budgets = threats[0] if len(threats) == 1 else f"{len(threats)} combinations of budgets"
        how = f"clean and under {attacks}: {budgets}" if attacked else "without attack"
        said.append(f"{models} on {sets}, {how}.")
    said.extend(
        f"{view.label} certified on {view.samples:,} {'images' if view.of_pixels else 'samples'} of {view.data} "
        f"({view.split})."
        for view in certificates
    )
    return said


def _overview(
    runs: Sequence[RunView], results: Sequence[ResultView], certificates: Sequence[CertificateView]
) -> list[tuple[str, str]]:
    views: list[ResultView | CertificateView] = [*results, *certificates]
    facts = [
        ("data", _all_of(f"{view.data} ({view.split})" for view in views)),
        ("attack", _all_of(view.attack for view in results if view.attack)),
        ("threat", _all_of(view.threat for view in results if view.threat)),
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
