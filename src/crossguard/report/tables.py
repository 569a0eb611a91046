"""The report's tables for the terminal (Rich) and for programs (plain JSON values)."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossguard.evaluate.statistics import Figure, told_along, values_of
from crossguard.report.curves import along, metric_name
from crossguard.report.views import COLUMNS, CertificateView, Difference, RetrievalView
from crossguard.report.words import column_name, columns_of, rests_on, spread

SHOWN = ("tr@1", "ir@1")


def model_table(kind: str, columns: Sequence[str]) -> Table:
    """Return an empty table: model, what a row is (its `kind`), one column per way of asking, samples and groups."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model")
    table.add_column(kind)
    for column in columns:
        table.add_column(column_name(column), justify="right", no_wrap=True)
    table.add_column("n / groups", justify="right", no_wrap=True)
    return table


def interval_cell(figure: Figure | None) -> str:
    """Return a figure with its interval, or its values by group, in Rich's markup; empty where there is none."""
    return "" if figure is None else f"{figure.value:.1f} [dim]{spread(figure, digits=0)}[/dim]"


def difference_cell(figure: Figure | None) -> str:
    """Return a difference with its sign and its interval; empty where there is none."""
    return "" if figure is None else f"{figure.value:+.1f} [dim]{spread(figure, digits=0)}[/dim]"


def figure_record(figures: Mapping[str, Figure | None]) -> dict[str, Any]:
    """Return figures by metric as JSON values."""
    return {metric: None if figure is None else dict(vars(figure)) for metric, figure in figures.items()}


def difference_record(difference: Difference | None) -> dict[str, Any] | None:
    """Return a difference from another row as JSON values."""
    if difference is None:
        return None
    columns = {column: figure_record(figures) for column, figures in difference.columns.items()}
    return {"from": difference.reference, "columns": columns}


def literal(text: str) -> str:
    """Return a text for a cell, not to be read as Rich's markup."""
    return text.replace("[", "\\[")


def retrieval_records(views: Sequence[RetrievalView]) -> list[dict[str, Any]]:
    """Return one object per model: settings, recalls with intervals and attack success by column, in percent."""
    return [
        {
            "model": view.label,
            "data": view.data,
            "split": view.split,
            "images": view.images,
            "texts": view.texts,
            "attack": view.attack,
            "threat": view.threat,
            "seed": view.seed,
            "recall": {
                column: {metric: share.value for metric, share in metrics.items()}
                for column, metrics in view.columns.items()
            },
            "interval": {
                column: {m: None if share.interval is None else [*share.interval] for m, share in metrics.items()}
                for column, metrics in view.columns.items()
            },
            "success": {
                column: {definition: values_of(metrics) for definition, metrics in definitions.items()}
                for column, definitions in view.success.items()
            },
            "detail": {
                column: {
                    "recall": figure_record(metrics),
                    **{name: figure_record(found) for name, found in view.success.get(column, {}).items()},
                }
                for column, metrics in view.columns.items()
            },
            "difference": difference_record(view.difference),
            "warnings": list(view.warnings),
        }
        for view in views
    ]


def retrieval_rich(views: Sequence[RetrievalView]) -> Table:
    """Return TR@1 and IR@1 per model, clean and under attack, in percent with 95 % intervals."""
    columns = columns_of(views)
    table = model_table("metric", columns)
    for view in views:
        for row, metric in enumerate(SHOWN):
            shares = [view.columns.get(column, {}).get(metric) for column in columns]
            cells = [interval_cell(share) for share in shares]
            table.add_row(literal(view.label) if row == 0 else "", metric.upper(), *cells, rests_on(shares))
    return table


def success_rich(views: Sequence[RetrievalView]) -> Table:
    """Return how often attacks succeed at rank 1 by both definitions, in percent with 95 % intervals."""
    columns = [column for column in columns_of(views) if any(column in view.success for view in views)]
    table = model_table("success", columns)
    for view in views:
        for row, (definition, metric) in enumerate((d, m) for d in ("conditional", "drop") for m in SHOWN):
            values = [view.success.get(column, {}).get(definition, {}).get(metric) for column in columns]
            cells = [*(interval_cell(value) for value in values), rests_on(values)]
            table.add_row(literal(view.label) if row == 0 else "", f"{metric.upper()}, {definition}", *cells)
    return table


def difference_rich(rows: Sequence[tuple[str, Difference]], metrics: Sequence[str] | None = None) -> Table:
    """Return how rows differ from the first one on the same samples, in points, with paired 95 % intervals.

    Args:
        rows: the label of each row and its difference.
        metrics: those that are shown; None: all.
    """
    found = dict.fromkeys(column for _, difference in rows for column in difference.columns)
    columns = list(dict.fromkeys(column for column in (*COLUMNS, *found) if column in found))
    table = model_table("metric", columns)
    for label, difference in rows:
        names = dict.fromkeys(m for figures in difference.columns.values() for m in figures)
        for row, metric in enumerate(m for m in names if metrics is None or m in metrics):
            figures = [difference.columns.get(column, {}).get(metric) for column in columns]
            named = f"{literal(label)} [dim]less {literal(difference.reference)}[/dim]" if row == 0 else ""
            table.add_row(
                named,
                metric.upper() if metric in SHOWN else metric,
                *map(difference_cell, figures),
                rests_on(figures),
            )
    return table


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
            "draws": view.draws,
            "alpha": view.alpha,
            "scope": view.scope,
            "clean_accuracy": view.clean_accuracy,
            "whole_accuracy": view.whole_accuracy,
            "abstention": view.abstention,
            "radii": [list(values) for values in view.radii],
            "accuracy": view.accuracy.tolist(),
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
    kept = ", ".join(f"{m} k = {k} of {n}" for m, k, n in zip(view.modalities, view.keep, view.elements, strict=True))
    what = metric_name("accuracy", of_pixels=view.of_pixels).lower()
    down = f", of {view.modalities[0]} down" if len(view.modalities) > 1 else ""
    shown = f"{what} in percent; r of {view.modalities[-1]} across{down}"
    if view.curve is not None:
        shown = f"certified in percent; radii: {along(view.curve, view.modalities)[0]}"
        shown += f"; positive: {view.positive}" if view.of_pixels else ""
        shown += "; beside: randomized ablation, the baseline" if view.curve.baseline is not None else ""
    return (
        f"{view.label}: {shown}\n"
        f"N = {view.draws}, alpha = {view.alpha:g} ({view.scope}); {kept}\n"
        f"without guarantee: smoothed {100 * view.clean_accuracy:.1f}{_beside(view.figure('clean'))}"
        + (
            ""
            if view.whole_accuracy is None
            else f", base model on whole inputs {100 * view.whole_accuracy:.1f}{_beside(view.figure('whole'))}"
        )
        + (f"; n / groups {rests}" if (rests := rests_on([view.figure("grid")])) else "")
    )


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
    for metric in curve.certified:
        table.add_column(metric.replace("_", "-"), justify="right", no_wrap=True)
    _, texts = along(curve, view.modalities)
    for row in _spread(len(texts), most):
        cells = []
        for metric, values in curve.certified.items():
            beside = "" if curve.baseline is None else f" [dim]{_percent(curve.baseline[metric][row]):>5}[/dim]"
            within = " ".join(_range(view.figure(what, metric, row)) for what in ("certified", "baseline")).strip()
            cells.append(_percent(values[row]) + beside + (f"\n[dim]{within}[/dim]" if within else ""))
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
        table.add_column(str(view.radii[-1][column]), justify="right", no_wrap=True)
    for row in down:
        cells = [
            f"{100 * grid[row, column]:.1f}" + (f"\n[dim]{within}[/dim]" if within else "")
            for column in across
            for within in [_range(view.figure("grid", at=row * grid.shape[1] + column))]
        ]
        table.add_row("" if single else str(rows[row]), *cells)
    return table


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _range(figure: Figure | None) -> str:
    return "" if figure is None else spread(figure, digits=0)


def _beside(figure: Figure | None) -> str:
    return "" if figure is None else f" ({spread(figure, digits=0)})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
