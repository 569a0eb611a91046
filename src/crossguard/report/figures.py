"""Geometry of the figures: where bars and cells lie. The template draws them, in the page's own colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import shorten, wrap

import numpy as np
from jaxtyping import Float

from crossguard.certify.units import plural
from crossguard.report.colours import DARK, LIGHT, text_on
from crossguard.report.views import CertificateView, ResultView
from crossguard.report.words import column_name, columns_of, metric_title, rests_on, spread


@dataclass(frozen=True)
class Bar:
    """One bar with the whisker of its interval (of no length where there is none); `shade`: place of its column."""

    x: float
    y: float
    width: float
    height: float
    shade: int
    whisker: tuple[float, float, float]
    value: str
    tip: str


@dataclass(frozen=True)
class Label:
    """Text at a point, one entry per line."""

    x: float
    y: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class BarChart:
    """A metric by model, one bar per column."""

    title: str
    width: float
    height: float
    left: float
    base: float
    bars: tuple[Bar, ...]
    groups: tuple[Label, ...]
    ticks: tuple[Label, ...]
    rests_on: str


def bar_chart(views: Sequence[ResultView], metric: str, *, width: float = 500.0, height: float = 290.0) -> BarChart:
    """Lay out a metric of all models: grouped bars on a scale of 0 to 100, or to 200, ... where scores are larger.

    Args:
        views: the rows of a section, at least one.
        metric: "tr@1", "accuracy", ...
        width: in units of the drawing.
        height: in units of the drawing.
    """
    columns = columns_of(views)
    figures = [{c: figures[metric] for c, figures in view.columns.items() if metric in figures} for view in views]
    ends = [end for found in figures for figure in found.values() for end in (figure.interval or (figure.value,))]
    most = 100 * max(1, ceil(max(ends, default=0) / 100 - 1e-9))
    left, top, base = 34.0, 42.0, height - 42
    per_group = (width - left) / len(views)
    bar_width = min(30.0, 0.8 * per_group / len(columns))
    scale = (base - top) / most
    bars, groups = [], []
    for g, (view, found) in enumerate(zip(views, figures, strict=True)):
        middle = left + (g + 0.5) * per_group
        for c, column in enumerate(columns):
            if column not in found:
                continue
            figure = found[column]
            value, low, high = (max(0.0, end) for end in (figure.value, *(figure.interval or (figure.value,) * 2)))
            x = middle + (c - len(columns) / 2) * bar_width
            bars.append(
                Bar(
                    x=round(x + 1, 2),
                    y=round(base - value * scale, 2),
                    width=round(bar_width - 2, 2),
                    height=round(max(value * scale, 0.75), 2),
                    shade=c,
                    whisker=(round(x + bar_width / 2, 2), round(base - high * scale, 2), round(base - low * scale, 2)),
                    value=f"{figure.value:.0f}" if bar_width >= 20 else "",
                    tip=f"{view.label}, {column_name(column)}: {figure} ({spread(figure)})",
                )
            )
        room = max(6, int(per_group / 6.4))
        lines = wrap(view.label, room, max_lines=2, placeholder="…") or [shorten(view.label, room, placeholder="…")]
        groups.append(Label(round(middle, 2), base + 18, tuple(lines)))
    ticks = tuple(
        Label(left - 6, round(base - value * scale, 2), (str(value),)) for value in range(0, most + 1, most // 4)
    )
    rests = rests_on(figure for found in figures for figure in found.values())
    return BarChart(metric_title(metric), width, height, left, base, tuple(bars), tuple(groups), ticks, rests)


@dataclass(frozen=True)
class Cell:
    """One combination of radii; `strength` is its certified accuracy in [0, 1], `inks` the colours of its text: black
    or white, in light and in dark."""

    x: float
    y: float
    strength: float
    inks: tuple[str, str]
    text: str
    tip: str


@dataclass(frozen=True)
class HeatMap:
    """Certified accuracy over radii: the first modality upwards, the second to the right."""

    title: str
    width: float
    height: float
    size: tuple[float, float]
    cells: tuple[Cell, ...]
    across: tuple[Label, ...]
    up: tuple[Label, ...]
    across_name: str
    up_name: str
    middle: tuple[float, float]


_MOST = 40


def heat_map(
    view: CertificateView, grid: Float[np.ndarray, "*axes"], *, title: str, what: str = "grid", width: float = 460.0
) -> HeatMap:
    """Lay out a grid of certified accuracy; of axes longer than 40 radii an even choice is drawn.

    Args:
        view: gives names and radii.
        grid: float [radii of the first (, of the second)] in [0, 1]; the accuracy or the baseline.
        title: shown above.
        what: which of the view's figures have the intervals: "grid" or "grid baseline".
        width: in units of the drawing.
    """
    single = len(view.modalities) == 1
    rows = (0,) if single else view.radii[0]
    columns = view.radii[-1]
    values = grid.reshape(len(rows), len(columns))
    picked_rows, picked_columns = _spread(len(rows)), _spread(len(columns))
    left, top = (14.0, 22.0) if single else (52.0, 22.0)
    cell = (width - left - 6) / max(len(picked_columns), 4)
    tall = min(max(cell, 30.0 if single else 0.0), 340 / len(picked_rows), 44.0)
    cells = []
    for y, row in enumerate(reversed(picked_rows)):
        for x, column in enumerate(picked_columns):
            share = float(values[row, column])
            at = ", ".join(map(radius_text, (columns[column],) if single else (rows[row], columns[column])))
            at = at if single else f"({at})"
            figure = view.figure(what, at=row * values.shape[1] + column)
            within = "" if figure is None else f" ({spread(figure)})"
            cells.append(
                Cell(
                    x=round(left + x * cell, 2),
                    y=round(top + y * tall, 2),
                    strength=round(share, 4),
                    inks=(text_on(share, LIGHT), text_on(share, DARK)),
                    text=f"{100 * share:.0f}" if cell >= 22 and tall >= 16 else "",
                    tip=f"r = {at}: {100 * share:.1f} %{within} right and certified",
                )
            )
    bottom = top + len(picked_rows) * tall
    every_column, every_row = _stride(cell, 24.0, len(picked_columns)), _stride(tall, 14.0, len(picked_rows))
    across = tuple(
        Label(round(left + (x + 0.5) * cell, 2), bottom + 16, (radius_text(columns[column]),))
        for x, column in enumerate(picked_columns)
        if x % every_column == 0
    )
    up = tuple(
        Label(left - 8, round(bottom - (y + 0.5) * tall, 2), (radius_text(rows[row]),))
        for y, row in enumerate(picked_rows)
        if y % every_row == 0 and not single
    )
    return HeatMap(
        title=title,
        width=width,
        height=bottom + 42,
        size=(round(cell, 2), round(tall, 2)),
        cells=tuple(cells),
        across=across,
        up=up,
        across_name=_axis(view, -1),
        up_name="" if single else _axis(view, 0),
        middle=(round(left + len(picked_columns) * cell / 2, 2), round((top + bottom) / 2, 2)),
    )


def radius_text(r: float | int) -> str:
    """Return a radius: elements, or an L2 distance to three figures."""
    return str(r) if isinstance(r, int) else f"{r:.3g}"


def _axis(view: CertificateView, place: int) -> str:
    modality = view.modalities[place]
    unit = plural(view.units[place])
    return f"{modality}: {'moved in L2' if modality in view.noise else f'edited {unit}'}"


def _spread(count: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _MOST))})


def _stride(size: float, needed: float, count: int) -> int:
    return 1 if size >= needed else min(count, int(np.ceil(needed / size)))
