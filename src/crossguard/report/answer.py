"""What a report answers first: which model stands, under which attack, with intervals; and what is certified."""

from collections.abc import Sequence

from crossguard.certify.units import plural
from crossguard.evaluate.statistics import Estimate
from crossguard.report.figures import radius_text
from crossguard.report.sections import Section
from crossguard.report.views import CertificateView, ResultView
from crossguard.report.words import metric_title, spread

_MOST = 6


def answers(found: Sequence[Section], certificates: Sequence[CertificateView]) -> list[str]:
    """Return a few sentences for each section and certificate."""
    return [*(said for section in found for said in _section(section)), *map(_certificate, certificates)]


def _section(section: Section) -> list[str]:
    attacked = [view for view in section.views if view.attack]
    if not attacked:
        best = max(section.views, key=lambda view: _mean(view, "clean", section))
        most = " has the most" if len(section.views) > 1 else ""
        return [f"{section.heading}, without attack: {best.label}{most}: {_figures(best, 'clean', section)}."]
    worst: dict[str, ResultView] = {}
    for view in attacked:
        known = worst.get(view.model)
        if known is None or _mean(view, view.widest, section) < _mean(known, known.widest, section):
            worst[view.model] = view
    ranked = sorted(worst.values(), key=lambda view: -_mean(view, view.widest, section))
    said = [_verdict(section, ranked, several=len(attacked) > len(ranked))]
    best = ranked[0]
    if best.difference is not None and len(ranked) > 1:
        column = best.difference.columns.get(best.widest, {})
        more = [f"{metric_title(m)} {f.value:+.1f} ({spread(f)})" for m in section.headline if (f := column.get(m))]
        if more:
            said.append(f"{best.label} less {best.difference.reference}, paired, in points: {', '.join(more)}.")
    warnings = len(section.warnings)
    if warnings:
        told = "One warning says" if warnings == 1 else f"{warnings} warnings say"
        said.append(f"{told} that a figure may promise too much; see {section.heading} below.")
    return said


def _verdict(section: Section, ranked: Sequence[ResultView], *, several: bool) -> str:
    best = ranked[0]
    clean = _figures(best, "clean", section, intervals=False)
    left = _figures(best, best.widest, section)
    on = f"{best.samples} of {best.data} ({best.split})"
    attack = best.facts.get("attack", best.attack)
    lead = f"{section.heading} on {on}: "
    under = f"{attack}, {best.threat}"
    if len(ranked) == 1:
        which = "the attack and budget that leave least" if several else "attack"
        return f"{lead}under {which} ({under}) {best.model} keeps {left}; without attack it has {clean}."
    others = [f"{view.model} with {_figures(view, view.widest, section)}" for view in ranked[1:_MOST]]
    more = f"; and {len(ranked) - _MOST} more" if len(ranked) > _MOST else ""
    which = "Each under the attack and budget that leave it least" if several else f"Under attack ({under})"
    return (
        f"{lead}{which[0].lower()}{which[1:]}, {best.model} keeps the most: {left} (without attack {clean}). "
        f"Then {'; '.join(others)}{more}."
    )


def _figures(view: ResultView, column: str, section: Section, *, intervals: bool = True) -> str:
    shown = {metric: view.columns.get(column, {}).get(metric) for metric in section.headline}
    return " and ".join(
        f"{metric_title(metric)} {figure.value:.1f}{_interval(figure) if intervals else ''}"
        for metric, figure in shown.items()
        if figure is not None
    )


def _interval(figure: Estimate) -> str:
    return "" if figure.interval is None else f" (95 % interval {spread(figure)})"


def _mean(view: ResultView, column: str, section: Section) -> float:
    values = [figure.value for m in section.headline if (figure := view.columns.get(column, {}).get(m)) is not None]
    return sum(values) / len(values) if values else 0.0


def _certificate(view: CertificateView) -> str:
    vector, share, figure, attacked = _chosen(view)
    items = "judged pixels" if view.of_pixels else "samples"
    edits = " and ".join(_edit(view, axis, r) for axis, r in enumerate(vector) if r) or "nothing"
    sure = "without any chance of error" if view.alpha == 0 else f"alpha = {view.alpha:g}, {view.scope}"
    interval = "" if figure is None else _interval(figure)
    kind = "right" if view.metric == "accuracy" else f"answered right ({view.metric.replace('recall', 'R')})"
    of = f"of the {items} of {view.samples} images" if view.of_pixels else f"of {view.samples} {items}"
    said = (
        f"Certified, {view.label} on {view.data} ({view.split}): {100 * share:.1f} %{interval} {of} are {kind}, and no "
        f"attack on {edits} can change that ({sure})."
    )
    if attacked is not None:
        said += f" Under the sparse attack at these radii {100 * attacked:.1f} % stay right: the truth lies between."
    return said


def _edit(view: CertificateView, axis: int, r: int | float) -> str:
    modality, kind = view.modalities[axis], view.kinds[axis]
    if modality in view.noise:
        return f"{modality} of up to {radius_text(r)} in L2"
    unit = view.units[axis] if r == 1 else plural(view.units[axis])
    return f"up to {r} {unit} of {modality} ({kind})"


def _chosen(
    view: CertificateView,
) -> tuple[tuple[int | float, ...], float, Estimate | None, float | None]:
    """Return the largest radii of the curve, or of the grid, at which half is certified (else the smallest beside 0),
    the share there with its interval, and what an attack leaves there."""
    if view.curve is not None:
        metric = view.metric if view.metric in view.curve.certified else next(iter(view.curve.certified))
        values = view.curve.certified[metric]
        moved = [place for place, vector in enumerate(view.curve.radii) if any(vector)] or [0]
        enough = [place for place in moved if (values[place] or 0.0) >= 0.5]
        at = enough[-1] if enough else moved[0]
        attacked = (view.curve.attacked or {}).get(metric, (None,) * len(values))[at]
        return view.curve.radii[at], values[at] or 0.0, view.figure("certified", metric, at), attacked
    frontier = [vector for vector in view.frontier if any(vector)]
    first = tuple(radii[min(1, len(radii) - 1)] for radii in view.radii)
    chosen = frontier[len(frontier) // 2] if frontier else first
    places = tuple(radii.index(r) for radii, r in zip(view.radii, chosen, strict=True))
    flat = 0
    for size, place in zip(view.accuracy.shape, places, strict=True):
        flat = flat * size + place
    return chosen, float(view.accuracy[places]), view.figure("grid", at=flat), None
