"""Geometry of certified curves: a metric along a line of radius vectors, with the baseline beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from crossguard.certify.units import plural
from crossguard.report.figures import Label, radius_text
from crossguard.report.views import CertificateView, CurveView
from crossguard.report.words import spread

METRIC_NAMES = {
    "accuracy": "Certified accuracy",
    "recall": "Certified recall",
    "precision": "Certified precision",
    "f_score": "Certified F-score",
    "iou": "Certified IoU",
    "mean_iou": "Certified mean IoU",
    "collective": "Certified accuracy of all together",
}


@dataclass(frozen=True)
class Dot:
    """One radius vector of a line; `low` and `high` are the ends of its interval, None without."""

    x: float
    y: float
    tip: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One line, cut where its metric is not defined.

    Args:
        name: "certified", "baseline", "attacked", or "design" of other designs.
        title: what it is called.
        pieces: the points of each uncut piece, as SVG's "x,y x,y ...".
        dots: its points.
    """

    name: str
    title: str
    pieces: tuple[str, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class CurveChart:
    """A metric on a scale of 0 to 100 % over the radii.

    Args:
        between: the area between what is certified and what attacks leave, as SVG's "x,y x,y ..."; "" without attacks.
    """

    metric: str
    title: str
    width: float
    height: float
    left: float
    right: float
    base: float
    lines: tuple[Line, ...]
    between: str
    ticks: tuple[Label, ...]
    across: tuple[Label, ...]
    across_name: str


def curve_charts(view: CertificateView, *, width: float = 460.0, height: float = 260.0) -> list[CurveChart]:
    """Lay out one chart per metric of a certificate's curve; none when it has no curve.

    Args:
        view: the certificate.
        width: in units of the drawing.
        height: in units of the drawing.
    """
    if view.curve is None:
        return []
    return [_chart(view, view.curve, metric, width=width, height=height) for metric in view.curve.certified]


def legend(view: CertificateView) -> list[tuple[str, str]]:
    """Return what the lines and the area of a curve are, as (name of the line, words), in the order of drawing."""
    if view.curve is None:
        return []
    how = (
        ("sub-sampled or under noise" if view.noise else "sub-sampled apart")
        if len(view.modalities) > 1
        else ("under noise" if view.noise else "sub-sampled")
    )
    what = "modalities" if len(view.modalities) > 1 else view.modalities[0]
    found = [("certified", f"{what} {how}{' by a published design' if view.alpha == 0 else ''}")]
    found += [(f"design-{place}", name) for place, name in enumerate(view.curve.designs)]
    if view.curve.baseline is not None:
        found.append(("baseline", "sub-sampled together (randomized ablation, the baseline)"))
    if view.curve.attacked is not None:
        found.append(("attacked", "right under the sparse attack: at most this is true"))
        found.append(("between", "the truth lies here"))
    return found


def metric_name(metric: str, *, of_pixels: bool) -> str:
    """Return what a metric is called in headings.

    Example:
        >>> metric_name("accuracy", of_pixels=True)
        'Certified pixel accuracy'
    """
    most = metric.removeprefix("recall@")
    name = METRIC_NAMES.get(metric, metric if most == metric else f"Certified R@{most}")
    return name.replace("accuracy", "pixel accuracy") if of_pixels else name


def along(curve: CurveView, modalities: Sequence[str], units: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return what the radius axis of a curve is called, and the text of each of its radius vectors.

    Example:
        >>> curve = CurveView(((0, 0), (2, 4), (4, 8)), {"accuracy": (1.0, 0.5, 0.0)})
        >>> along(curve, ("rgb", "depth"), ("pixel", "pixel"))
        ('r edited pixels of rgb, 2 r of depth', ('0', '2', '4'))
        >>> along(curve, ("video", "sound"), ("frame", "step"))
        ('r edited frames of video, 2 r steps of sound', ('0', '2', '4'))
    """
    whole = [tuple(int(r) for r in vector) for vector in curve.radii if all(isinstance(r, int) for r in vector)]
    direction = _direction(whole) if len(whole) == len(curve.radii) else None
    alike = len(set(units)) == 1
    if direction is None:
        named = modalities if alike else [f"{m} ({plural(unit)})" for m, unit in zip(modalities, units, strict=True)]
        edited = f"edited {plural(units[0])}" if alike else "edits"
        return f"{edited if len(whole) == len(curve.radii) else 'radii'} of {', '.join(named)}", tuple(
            "(" + ", ".join(map(radius_text, vector)) + ")" for vector in curve.radii
        )
    first = next(axis for axis, share in enumerate(direction) if share)
    parts: list[str] = []
    for share, m, unit in zip(direction, modalities, units, strict=True):
        if share:
            said = f" edited {plural(unit)}" if not parts else "" if alike else f" {plural(unit)}"
            parts.append(f"{'r' if share == 1 else f'{share} r'}{said} of {m}")
    return ", ".join(parts), tuple(str(vector[first] // direction[first]) for vector in whole)


def _direction(vectors: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    """Return the smallest whole vector that all are multiples of, or None where there is none."""
    moved = [vector for vector in vectors if any(vector)]
    if not moved:
        return None
    divisor = gcd(*moved[0])
    unit = tuple(r // divisor for r in moved[0])
    first = next(axis for axis, share in enumerate(unit) if share)
    if all(
        tuple(share * vector[first] for share in unit) == tuple(unit[first] * r for r in vector) for vector in moved
    ):
        return unit
    return None


def _between(lines: Sequence[Line]) -> str:
    """Return the outline of where the truth lies: along the attacked line, and back along the certified one."""
    by_name = {line.name: line for line in lines}
    if "attacked" not in by_name or not by_name["attacked"].dots:
        return ""
    above = by_name["attacked"].dots
    below = [dot for dot in by_name["certified"].dots if above[0].x <= dot.x <= above[-1].x]
    return " ".join(f"{dot.x},{dot.y}" for dot in (*above, *reversed(below)))


def _chart(view: CertificateView, curve: CurveView, metric: str, *, width: float, height: float) -> CurveChart:
    left, right, top, base = 34.0, width - 10, 26.0, height - 46
    across, texts = along(curve, view.modalities, view.units)
    step = (right - left) / max(1, len(texts) - 1)
    places = [round(left + i * step, 2) for i in range(len(texts))]

    def y(share: float) -> float:
        return round(base - share * (base - top), 2)

    def placed(x: float, value: float, tip: str, name: str, place: int) -> Dot:
        figure = view.figure(name, metric, place)
        if figure is None or figure.interval is None:
            return Dot(x, y(value), tip)
        low, high = (y(end / 100) for end in figure.interval)
        return Dot(x, y(value), f"{tip} ({spread(figure)})", low, high)

    def line(name: str, values: Sequence[float | None], *, title: str = "", bridged: bool = False) -> Line:
        title = title or name
        dots = [
            None if value is None else placed(x, value, f"{title}, r = {text}: {100 * value:.1f} %", name, place)
            for place, (x, value, text) in enumerate(zip(places, values, texts, strict=True))
        ]
        pieces: list[list[str]] = [[]]
        for dot in dots:
            if dot is None:
                pieces += [] if bridged else [[]]
            else:
                pieces[-1].append(f"{dot.x},{dot.y}")
        return Line(name, title, tuple(" ".join(piece) for piece in pieces if piece), tuple(dot for dot in dots if dot))

    beside, attacked = curve.baseline or {}, curve.attacked or {}
    lines = [line("baseline", beside[metric])] if metric in beside else []
    lines += [
        line(f"design-{i}", of[metric], title=name)
        for i, (name, of) in enumerate(curve.designs.items())
        if metric in of
    ]
    lines.append(line("certified", curve.certified[metric]))
    if metric in attacked:
        # Radii that were not attacked lie between others that were.
        lines.append(line("attacked", attacked[metric], bridged=True))
    every = max(1, -(-len(texts) // max(1, int((right - left) / (9 * max(map(len, texts)) + 8)))))
    return CurveChart(
        metric=metric,
        title=f"{metric_name(metric, of_pixels=view.of_pixels)}, %",
        width=width,
        height=height,
        left=left,
        right=right,
        base=base,
        lines=tuple(lines),
        between=_between(lines),
        ticks=tuple(
            Label(left - 6, round(base - value / 100 * (base - top), 2), (str(value),))
            for value in (0, 25, 50, 75, 100)
        ),
        across=tuple(Label(places[i], base + 18, (texts[i],)) for i in range(0, len(texts), every)),
        across_name=across,
    )
