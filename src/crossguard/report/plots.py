"""Geometry of plots of a section: security curves, clean against robust, and paired differences with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from textwrap import shorten

from crossguard.evaluate.statistics import Estimate
from crossguard.report.figures import Label
from crossguard.report.sections import Section
from crossguard.report.views import ONE_SET, ResultView
from crossguard.report.words import metric_title, rests_on, spread
from crossguard.threat import L2, Budget, Elements, LInf, Patch

Key = frozenset[tuple[str, Budget]]
Measured = Mapping[str, Mapping[Key, Mapping[str, Estimate]]]

COLOURS = 6
"""Colours that series are told apart by; then they come again."""
_MOST_LINES = 8
_MOST_ROWS = 30


@dataclass(frozen=True)
class Mark:
    """A point with its interval upwards (`low`, `high`) and, where it has one, to the right (`near`, `far`)."""

    x: float
    y: float
    low: float
    high: float
    tip: str
    near: float | None = None
    far: float | None = None


@dataclass(frozen=True)
class Track:
    """Points of one series: colour, dashes, and the line through them as SVG's "x,y x,y ..." ("" for none)."""

    name: str
    colour: int
    dash: int
    marks: tuple[Mark, ...]
    line: str


@dataclass(frozen=True)
class Plot:
    """A plot of one figure (upwards) against something else."""

    title: str
    across_name: str
    caption: str
    width: float
    height: float
    left: float
    right: float
    base: float
    tracks: tuple[Track, ...]
    ticks: tuple[Label, ...]
    across: tuple[Label, ...]
    diagonal: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Bar:
    """One line of a forest plot: its name, where its value and its interval's ends are, and the value in words."""

    y: float
    name: str
    x: float
    low: float
    high: float
    colour: int
    tip: str


@dataclass(frozen=True)
class Forest:
    """Values with intervals, one below the other; `zero` is where a difference of nothing is, None where it is not."""

    title: str
    caption: str
    width: float
    height: float
    left: float
    base: float
    zero: float | None
    bars: tuple[Bar, ...]
    across: tuple[Label, ...]
    across_name: str


def nice_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return at most so many round numbers, in equal steps of 1, 2 or 5 times a power of ten, that hold a range.

    Example:
        >>> nice_ticks(0, 5)
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        >>> nice_ticks(41.2, 47.9)
        [40.0, 42.0, 44.0, 46.0, 48.0]
        >>> nice_ticks(0.31, 0.36)
        [0.31, 0.32, 0.33, 0.34, 0.35, 0.36]
    """
    if not high > low:
        low, high = low - 0.5, low + 0.5
    power = 10.0 ** floor(log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * power
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        if last - first + 1 <= most:
            digits = max(0, -floor(log10(step) + 1e-9))
            return [round(place * step, digits) for place in range(first, last + 1)]
    raise AssertionError("no step")


def tick_text(value: float) -> str:
    """Return a round number without needless zeros.

    Example:
        >>> tick_text(40.0), tick_text(0.25)
        ('40', '0.25')
    """
    return f"{value:.10g}"


def budget_size(budget: Budget) -> tuple[float, str]:
    """Return how much a budget allows on an axis, and what the axis is called.

    Example:
        >>> budget_size(LInf(2 / 255)), budget_size(WordEdits(1))
        ((2.0, 'L-inf in 1/255'), (1.0, 'edited words'))
    """
    if isinstance(budget, LInf):
        return round(255 * budget.eps, 6), "L-inf in 1/255"
    if isinstance(budget, L2):
        return budget.eps, "L2"
    if isinstance(budget, Patch):
        return float(budget.height * budget.width), "area of the patch"
    if isinstance(budget, Elements):
        return float(budget.r), "edited elements" + ("" if budget.kind == "substitution" else f" ({budget.kind})")
    kinds = "" if budget.kinds == ("substitution",) else f" ({', '.join(budget.kinds)})"
    return float(budget.words), f"edited words{kinds}"


def security_plots(section: Section) -> list[Plot]:
    """Return each headline metric against the budget of each modality that has several, other budgets held fixed."""
    measured = _measured(section)
    modalities = dict.fromkeys(name for view in section.views for name in view.budgets)
    plots = []
    for modality in modalities:
        kinds = {budget_size(b)[1] for found in measured.values() for key in found for m, b in key if m == modality}
        for kind in sorted(kinds):
            for metric in section.headline:
                lines = _lines(measured, modality, kind, metric)
                if lines:
                    plots.append(_security(lines, modality, kind, metric))
    return plots


def _measured(section: Section) -> dict[str, dict[Key, Mapping[str, Estimate]]]:
    """Return the figures of a section by series (all that tells rows apart but budgets) and by budgets."""
    found: dict[str, dict[Key, Mapping[str, Estimate]]] = {}
    for view in section.views:
        own = found.setdefault(series_name(section, view), {})
        own[frozenset()] = view.columns["clean"]
        for part, figures in view.columns.items():
            if part == "clean" or part.endswith(ONE_SET):
                continue
            names = tuple(view.budgets) if part == "joint" else (part,)
            if all(name in view.budgets for name in names):
                own[frozenset((name, view.budgets[name]) for name in names)] = figures
    return found


def series_name(section: Section, view: ResultView) -> str:
    """Return the model and all that tells rows apart, budgets left out."""
    told = [fact for fact in section.facts if not any(fact in other.budgets for other in section.views)]
    return ", ".join([view.model, *(view.facts[fact] for fact in told if view.facts.get(fact))])


Points = list[tuple[float, Estimate]]


def _lines(measured: Measured, modality: str, kind: str, metric: str) -> dict[tuple[str, str], Points]:
    """Return, by series and other budgets in words, where a line of at least two budgets beside zero goes through."""
    found: dict[tuple[str, str], Points] = {}
    for series, figures in measured.items():
        others: dict[Key, Points] = {}
        for key, metrics in figures.items():
            own = [budget for name, budget in key if name == modality and budget_size(budget)[1] == kind]
            if own and metric in metrics:
                rest = frozenset(pair for pair in key if pair[0] != modality)
                others.setdefault(rest, []).append((budget_size(own[0])[0], metrics[metric]))
        for rest, points in others.items():
            if len(points) < 2:
                continue
            start = figures.get(rest, {}).get(metric)
            if start is not None:
                points.append((0.0, start))
            told = ", ".join(f"{name}: {budget}" for name, budget in sorted(rest, key=lambda pair: pair[0]))
            found[series, told] = sorted(points, key=lambda point: point[0])
    if len(found) > _MOST_LINES:  # the fewest and the most other edits
        rests = sorted({rest for _, rest in found})
        found = {key: points for key, points in found.items() if key[1] in (rests[0], rests[-1])}
    return found


def _security(lines: Mapping[tuple[str, str], Points], modality: str, kind: str, metric: str) -> Plot:
    series, rests = list(dict.fromkeys(s for s, _ in lines)), list(dict.fromkeys(r for _, r in lines))
    across = sorted({x for points in lines.values() for x, _ in points})
    values = [figure for points in lines.values() for _, figure in points]
    frame = _Frame(0.0, across[-1], 0.0, _ceiling(values))
    tracks = []
    for (name, rest), points in lines.items():
        marks = tuple(
            frame.mark(x, figure, f"{name}{f', {rest}' if rest else ''}, {tick_text(x)}: {figure} ({spread(figure)})")
            for x, figure in points
        )
        told = name if len(rests) == 1 else f"{name}; {rest or f'{modality} alone'}"
        line = " ".join(f"{mark.x},{mark.y}" for mark in marks)
        tracks.append(Track(told, series.index(name) % COLOURS, rests.index(rest), marks, line))
    shared = f" Also attacked: {rests[0]}." if len(rests) == 1 and rests[0] else ""
    return frame.plot(
        f"{metric_title(metric)} against the {modality} budget",
        f"{modality}: {kind}",
        f"0 is without that attack.{shared} {_told(values)}",
        tracks,
        across=_thinned(across, frame),
    )


def scatter_plots(section: Section) -> list[Plot]:
    """Return robust against clean figures of the headline, one point per series, at the budget that leaves least; none
    for fewer than two points."""
    plots = []
    for metric in section.headline:
        least: dict[str, tuple[ResultView, Estimate, Estimate]] = {}
        for view in section.views:
            clean, robust = view.columns["clean"].get(metric), view.columns[view.widest].get(metric)
            if view.widest == "clean" or clean is None or robust is None:
                continue
            name = series_name(section, view)
            if name not in least or robust.value < least[name][2].value:
                least[name] = (view, clean, robust)
        if len(least) < 2:
            continue
        figures = [figure for _, *pair in least.values() for figure in pair]
        most = _ceiling(figures)
        frame = _Frame(0.0, most, 0.0, most, height=340.0)
        tracks = []
        for place, (name, (view, clean, robust)) in enumerate(least.items()):
            tip = f"{view.label}: clean {clean} ({spread(clean)}), robust {robust} ({spread(robust)})"
            mark = frame.mark(clean.value, robust, tip, near=clean)
            tracks.append(Track(name, place % COLOURS, 0, (mark,), ""))
        title = f"{metric_title(metric)}: clean against robust"
        caption = f"Robust: under the widest attack of each, at the budget that leaves least. {_told(figures)}"
        plots.append(frame.plot(title, "clean", caption, tracks, diagonal=True))
    return plots


def difference_forest(section: Section) -> Forest | None:
    """Return the paired differences of the headline under the widest attack (clean, where nothing was attacked)."""
    rows = []
    for metric in section.headline:
        for view in section.views:
            columns = {} if view.difference is None else view.difference.columns
            figure = columns.get(view.widest, columns.get("clean", {})).get(metric)
            if view.difference is not None and figure is not None:
                rows.append((f"{metric_title(metric)} {view.label} less {view.difference.reference}", figure))
    return forest("Paired differences under attack", "points", rows[:_MOST_ROWS], signed=True) if rows else None


def forest(
    title: str, across_name: str, rows: Sequence[tuple[str, Estimate]], *, signed: bool = False, width: float = 720.0
) -> Forest:
    """Lay out values with intervals, one below the other.

    Args:
        title: above.
        across_name: below.
        rows: names and figures, at least one.
        signed: whether they are differences, whose zero is drawn.
        width: in units of the drawing.
    """
    ends = [end for _, figure in rows for end in (figure.value, *(figure.interval or ()))]
    ticks = nice_ticks(min([*ends, *([0.0] if signed else [])]), max([*ends, *([0.0] if signed else [])]), most=8)
    left, top, step = 0.46 * width, 34.0, 26.0
    base = top + step * len(rows)
    scale = (width - 14 - left) / (ticks[-1] - ticks[0])

    def x(value: float) -> float:
        return round(left + scale * (value - ticks[0]), 2)

    form = "{:+.1f}" if signed else "{:.1f}"
    bars = tuple(
        Bar(
            round(top + step * (place + 0.5), 2),
            shorten(name, 50, placeholder="…"),
            x(figure.value),
            x((figure.interval or (figure.value,) * 2)[0]),
            x((figure.interval or (figure.value,) * 2)[1]),
            0,
            f"{name}: {form.format(figure.value)} ({spread(figure)})",
        )
        for place, (name, figure) in enumerate(rows)
    )
    across = tuple(Label(x(value), base + 18, (tick_text(value),)) for value in ticks)
    zero = x(0.0) if signed else None
    return Forest(title, _told(f for _, f in rows), width, base + 40, left, base, zero, bars, across, across_name)


class _Frame:
    """Two axes, and where values lie between them."""

    def __init__(
        self, first: float, last: float, low: float, high: float, *, width: float = 480.0, height: float = 300.0
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right, self.top, self.base = 40.0, width - 14, 30.0, height - 46
        self._first, self._last, self._low, self._high = first, last if last > first else first + 1, low, high

    def x(self, value: float) -> float:
        return round(self.left + (self.right - self.left) * (value - self._first) / (self._last - self._first), 2)

    def y(self, value: float) -> float:
        share = (min(max(value, self._low), self._high) - self._low) / (self._high - self._low)
        return round(self.base - (self.base - self.top) * share, 2)

    def mark(self, x: float, figure: Estimate, tip: str, *, near: Estimate | None = None) -> Mark:
        low, high = figure.interval or (figure.value, figure.value)
        ends: tuple[float | None, float | None] = (None, None)
        if near is not None:
            before, after = near.interval or (near.value, near.value)
            ends = self.x(max(before, self._first)), self.x(min(after, self._last))
        return Mark(self.x(x), self.y(figure.value), self.y(low), self.y(high), tip, *ends)

    def plot(
        self,
        title: str,
        across_name: str,
        caption: str,
        tracks: Sequence[Track],
        *,
        across: Sequence[float] | None = None,
        diagonal: bool = False,
    ) -> Plot:
        up = nice_ticks(self._low, self._high)
        beside = nice_ticks(self._first, self._last) if across is None else across
        return Plot(
            title,
            across_name,
            caption,
            self.width,
            self.height,
            self.left,
            self.right,
            self.base,
            tuple(tracks),
            tuple(Label(self.left - 6, self.y(value), (tick_text(value),)) for value in up if value <= self._high),
            tuple(Label(self.x(v), self.base + 18, (tick_text(v),)) for v in beside if v <= self._last),
            (self.x(self._first), self.y(self._low), self.x(self._last), self.y(self._high)) if diagonal else None,
        )


def _thinned(values: Sequence[float], frame: _Frame) -> list[float]:
    """Return the values whose texts do not run into each other."""
    kept: list[float] = []
    for value in values:
        if not kept or frame.x(value) - frame.x(kept[-1]) >= 26:
            kept.append(value)
    return kept


def _ceiling(figures: Iterable[Estimate]) -> float:
    """Return 100, or 200, ... where scores with their intervals are larger."""
    most = max((end for figure in figures for end in (figure.interval or (figure.value,))), default=0.0)
    return 100.0 * max(1, ceil(most / 100 - 1e-9))


def _told(figures: Iterable[Estimate]) -> str:
    every = list(figures)
    with_intervals = any(figure.interval for figure in every)
    return f"n / groups: {rests_on(every)}." + (" Lines through points: 95 % intervals." if with_intervals else "")
