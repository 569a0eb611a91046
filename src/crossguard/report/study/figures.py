"""Geometry of a study's figures: robustness against a number, one point per arm, with whiskers over the seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log2

from crossguard.evaluate.statistics import Estimate
from crossguard.report.figures import Label
from crossguard.report.plots import Forest, forest, nice_ticks, tick_text
from crossguard.report.study.collect import CLEAN, SeedMean, StudyRow, StudyTable


@dataclass(frozen=True)
class Point:
    """One arm; the whisker is its interval."""

    x: float
    y: float
    low: float
    high: float
    label: str
    tip: str


@dataclass(frozen=True)
class Series:
    """Points of one kind, joined where they follow each other; `shade` is the position of the series."""

    name: str
    shade: int
    points: tuple[Point, ...]
    joined: str


@dataclass(frozen=True)
class Plane:
    """A figure: robust recall upwards, a number of the arms to the right."""

    title: str
    across_name: str
    width: float
    height: float
    left: float
    base: float
    series: tuple[Series, ...]
    ticks: tuple[Label, ...]
    across: tuple[Label, ...]


def planes(table: StudyTable, *, rank: int = 1, width: float = 460.0, height: float = 300.0) -> list[Plane]:
    """Lay out the figures of a table: one per attack against the number of samples, or one per measure of the sources.

    Arms without sources stand at 0 samples.

    Args:
        table: with `figure` "samples" or "measures"; others have none, see `ways`.
        rank: K of the table's recalls.
        width: in units of the drawing.
        height: in units of the drawing.
    """
    if table.figure == "samples":
        return [
            _plane(column, "samples per item", table.rows, rank, _samples, width=width, height=height, joined=True)
            for column in table.columns
            if not column.startswith(CLEAN) and table.rows
        ]
    if table.figure == "measures":
        found = []
        for measure in ("alignment", "diversity", "gap"):
            drawn = [row for row in table.rows if measure in row.measures]
            column = table.columns[-1]
            if drawn:

                def of(row: StudyRow, measure: str = measure) -> float:
                    return row.measures[measure].mean

                found.append(_plane(column, measure, drawn, rank, of, width=width, height=height, joined=False))
        return found
    return []


def ways(table: StudyTable, *, rank: int = 1) -> Forest | None:
    """Lay out all arms of a table without a figure of its own, one below the other: robust recall under its last
    attack, with intervals over seeds; None where there is none."""
    if table.figure is not None or not table.columns:
        return None
    column = table.columns[-1]
    means = {row.name: row.recall[column] for row in table.rows if column in row.recall}
    rows = [
        (name, Estimate(m.mean, *((None, None) if m.half is None else (m.mean - m.half, m.mean + m.half))))
        for name, m in means.items()
    ]
    if not rows:
        return None
    drawn = forest(f"Mean of TR@{rank} and IR@{rank} under {column}, %", "%", rows)
    return replace(drawn, caption="Lines: 95 % intervals over seeds (Student's t).")


NONE = "no sources"
"""The series of arms that learn from the originals alone."""


def _samples(row: StudyRow) -> float:
    return -1.0 if row.per_sample is None else log2(row.per_sample)


def _series_of(row: StudyRow) -> str:
    return " + ".join(row.sources) or NONE


def _plane(
    column: str,
    across_name: str,
    rows: Sequence[StudyRow],
    rank: int,
    place: Callable[[StudyRow], float],
    *,
    width: float,
    height: float,
    joined: bool,
) -> Plane:
    rows = [row for row in rows if column in row.recall]
    left, top, base, right = 44.0, 40.0, height - 44, width - 16
    values = [row.recall[column] for row in rows]
    low = min((v.mean - (v.half or 0.0) for v in values), default=0.0)
    high = max((v.mean + (v.half or 0.0) for v in values), default=1.0)
    up = nice_ticks(low, max(high, low + 1))
    bottom, ceiling = up[0], up[-1]
    places = [place(row) for row in rows]
    first, last = min(places, default=0.0), max(places, default=1.0)
    margin = 0.08 * (last - first) or 0.5

    def x(value: float) -> float:
        return round(float(left + (right - left) * (value - first + margin) / (last - first + 2 * margin)), 2)

    def y(value: float) -> float:
        return round(float(base - (base - top) * (min(max(value, bottom), ceiling) - bottom) / (ceiling - bottom)), 2)

    series = []
    for shade, name in enumerate(dict.fromkeys(map(_series_of, rows))):
        points = [
            _point(row, row.recall[column], x(place(row)), y, labelled=not joined or name == NONE)
            for row in sorted(rows, key=place)
            if _series_of(row) == name
        ]
        line = " ".join(f"{point.x},{point.y}" for point in points) if joined and name != NONE else ""
        series.append(Series(name, 1 + shade % 4, tuple(points), line))
    if joined:
        across = [Label(x(v), base + 18, (tick_text(2**v) if v >= 0 else "0",)) for v in sorted(set(places))]
    else:
        beside = [v for v in nice_ticks(first, last) if first - margin <= v <= last + margin]
        across = [Label(x(v), base + 18, (tick_text(v),)) for v in beside]
    ticks = [Label(left - 6, y(v), (tick_text(v),)) for v in up]
    return Plane(
        f"Mean of TR@{rank} and IR@{rank} under {column}, %",
        across_name,
        width,
        height,
        left,
        base,
        tuple(series),
        tuple(ticks),
        tuple(across),
    )


def _point(row: StudyRow, value: SeedMean, x: float, y: Callable[[float], float], *, labelled: bool) -> Point:
    half = value.half or 0.0
    label = row.name if labelled else ""
    return Point(x, y(value.mean), y(value.mean - half), y(value.mean + half), label, f"{row.name}: {value} %")
