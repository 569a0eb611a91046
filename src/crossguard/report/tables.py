"""The report's tables for the terminal (Rich) and for programs (plain JSON values)."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from crossguard.checks import visible
from crossguard.evaluate.statistics import Estimate, intervals_of, told, told_along, values_of
from crossguard.report.curves import along, metric_name
from crossguard.report.figures import radius_text
from crossguard.report.sections import FigureTable
from crossguard.report.views import CertificateView, ResultView
from crossguard.report.words import column_name, rests_on, spread


def figure_rich(table: FigureTable) -> Table:
    """Return figures with 95 % intervals, a block of lines for each metric."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("metric")
    shown.add_column("model")
    for fact in table.facts:
        shown.add_column(_text(fact))
    for column in (*map(column_name, table.columns), "n / groups"):
        shown.add_column(_text(column), justify="right", no_wrap=True)
    form = "{:+.1f}" if table.signed else "{:.1f}"
    for line in table.lines:
        cells = [
            "" if figure is None else _text(form.format(figure.value), spread(figure, digits=0))
            for figure in line.figures
        ]
        model, *facts = line.row
        label = _text(model, f"less {line.less}" if line.less else "")
        shown.add_row(_text(line.name), label, *map(_text, facts), *cells, line.rests_on)
    return shown


def _text(text: str, small: str = "") -> Text:
    """Return a text for a cell that is never read as markup, with another one beside."""
    return Text.assemble(visible(text), (f" {visible(small)}" if small else "", "dim"))


def result_records(views: Sequence[ResultView]) -> list[dict[str, Any]]:
    """Return one object per row: settings, figures with intervals and attack success by column, in percent."""
    return [
        {
            "task": view.task,
            "label": view.label,
            "model": view.model,
            "data": view.data,
            "split": view.split,
            "samples": view.samples,
            "attack": view.facts.get("attack", view.attack),
            "threat": view.threat,
            "budgets": view.budgets.to_dict() if view.budgets else None,
            "seed": view.seed,
            "figures": {column: values_of(metrics) for column, metrics in view.columns.items()},
            "interval": {
                column: {metric: ends and list(ends) for metric, ends in intervals.items()}
                for column, intervals in intervals_of(view.columns).items()
            },
            "success": {
                column: {measure: values_of(metrics) for measure, metrics in measures.items()}
                for column, measures in view.success.items()
            },
            "detail": {
                column: told({"figures": metrics, **view.success.get(column, {})})
                for column, metrics in view.columns.items()
            },
            "difference": None
            if view.difference is None
            else {"from": view.difference.reference, "columns": told(view.difference.columns)},
            "notes": list(view.notes),
            "warnings": list(view.warnings),
        }
        for view in views
    ]


def certificate_records(views: Sequence[CertificateView]) -> list[dict[str, Any]]:
    """Return one object per certificate: settings, certified metrics in [0, 1] over grid and curve."""
    return [
        {
            "model": view.label,
            "data": view.data,
            "split": view.split,
            "samples": view.samples,
            "modalities": list(view.modalities),
            "elements": list(view.elements),
            "keep": list(view.keep),
            "kinds": list(view.kinds),
            "units": list(view.units),
            "noise": dict(view.noise),
            "draws": view.draws,
            "alpha": view.alpha,
            "scope": view.scope,
            "clean_accuracy": view.clean_accuracy,
            "whole_accuracy": view.whole_accuracy,
            "abstention": view.abstention,
            "radii": [list(values) for values in view.radii],
            "metric": view.metric,
            "accuracy": view.accuracy.tolist(),
            "frontier": [list(vector) for vector in view.frontier],
            "baseline": None if view.baseline is None else view.baseline.tolist(),
            "positive": view.positive or None,
            "curve": None if view.curve is None else vars(view.curve),
            "note": view.note,
            "figures": told_along(view.figures),
        }
        for view in views
    ]


def certificate_heading(view: CertificateView) -> str:
    """Return what the certificate's table shows, and the numbers it rests on, in three lines."""
    what = metric_name(view.metric, of_pixels=view.of_pixels)
    what = f"{what[:1].lower()}{what[1:]}"
    down = f", of {view.modalities[0]} down" if len(view.modalities) > 1 else ""
    shown = f"{what} in percent; r of {view.modalities[-1]} across{down}"
    if view.curve is not None:
        shown = f"certified in percent; radii: {along(view.curve, view.modalities, view.units)[0]}"
        shown += f"; positive: {view.positive}" if view.of_pixels else ""
        shown += "; beside: randomized ablation, the baseline" if view.curve.baseline is not None else ""
    return (
        f"{view.label}: {shown}\n"
        f"N = {view.draws}, alpha = {view.alpha:g} ({view.scope}); {', '.join(view.drawn)}\n"
        f"without guarantee: smoothed {100 * view.clean_accuracy:.1f}{_beside(view.figure('clean'))}"
        + (
            ""
            if view.whole_accuracy is None
            else f", base model on whole inputs {100 * view.whole_accuracy:.1f}{_beside(view.figure('whole'))}"
        )
        + (f"; n / groups {rests}" if (rests := rests_on([view.figure("grid")])) else "")
        + (f"\nhalf or more certified up to {largest}" if (largest := _vectors(view)) else "")
        + (f"\n{view.note}" if view.note else "")
    )


def _vectors(view: CertificateView, *, most: int = 8) -> str:
    """Return the largest radius vectors at which half of the samples are right and certified, in words."""
    found = view.frontier
    if not found or not any(map(any, found)):
        return ""
    shown = [", ".join(map(radius_text, found[place])) for place in _spread(len(found), most)]
    more = f"; {len(shown)} of {len(found)}" if len(found) > most else ""
    return f"({'), ('.join(shown)}) of {', '.join(view.modalities)}{more}"


def curve_rich(view: CertificateView, *, most: int = 13) -> Table:
    """Return the certified metrics along a certificate's curve in percent, the baseline's beside, 95 % intervals below.

    Args:
        view: a certificate that has a curve.
        most: radius vectors shown at most, evenly chosen.

    Raises:
        ValueError: it has no curve.
    """
    if view.curve is None:
        raise ValueError(f"Expected a certificate with a curve, but {view.label!r} has none.")
    curve = view.curve
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("r", justify="right")
    metrics = (view.metric, "iou", "mean_iou")
    beside = [(name, metric) for metric in metrics for name, of in curve.designs.items() if metric in of]
    for metric in curve.certified:
        table.add_column(metric.replace("_", "-"), justify="right", no_wrap=True)
    for name, metric in beside:
        table.add_column(f"{metric},\n{name}".replace(", ", ",\n"), justify="right")
    _, texts = along(curve, view.modalities, view.units)
    for row in _spread(len(texts), most):
        cells = []
        for metric, values in curve.certified.items():
            other = (curve.baseline or {}).get(metric)
            baseline = "" if other is None else f" [dim]{_percent(other[row]):>5}[/dim]"
            within = " ".join(_range(view.figure(what, metric, row)) for what in ("certified", "baseline")).strip()
            cells.append(_percent(values[row]) + baseline + (f"\n[dim]{within}[/dim]" if within else ""))
        cells += [_percent(curve.designs[name][metric][row]) for name, metric in beside]
        table.add_row(texts[row], *cells)
    return table


def certificate_rich(view: CertificateView, *, most: int = 10) -> Table:
    """Return certified accuracy in percent with 95 % intervals: the first modality downwards, the second across.

    Args:
        view: the certificate.
        most: rows and columns shown at most, evenly chosen.
    """
    single = len(view.modalities) == 1
    rows = (0,) if single else view.radii[0]
    grid = view.accuracy.reshape(len(rows), len(view.radii[-1]))
    down, across = _spread(len(rows), most), _spread(len(view.radii[-1]), most)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("r", justify="right")
    for column in across:
        table.add_column(radius_text(view.radii[-1][column]), justify="right", no_wrap=True)
    for row in down:
        cells = [
            f"{100 * grid[row, column]:.1f}" + (f"\n[dim]{within}[/dim]" if within else "")
            for column in across
            for within in [_range(view.figure("grid", at=row * grid.shape[1] + column))]
        ]
        table.add_row("" if single else radius_text(rows[row]), *cells)
    return table


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _range(figure: Estimate | None) -> str:
    return "" if figure is None else spread(figure, digits=0)


def _beside(figure: Estimate | None) -> str:
    return "" if figure is None else f" ({spread(figure, digits=0)})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
