"""Intervals of figures over groups of samples that belong together, such as the captions of one picture.

A share of samples gets Wilson's score interval (1927) at the size that its groups are worth: the number of samples
divided by the design effect (Kish, 1965; Korn and Graubard, 1998), with Student's t on one degree of freedom less than
there are groups. The design effect is the larger of two estimates: the cluster-robust one, from how far the groups lie
from the share, and 1 + (m - 1) rho with the intraclass correlation rho of a one-way analysis of variance and the mean
size m of a sample's group, which is steadier where groups differ in size. Where few groups decide (a share near 0 or
1), both are taken with a small group of hits and one of misses added. None or all hits say nothing about groups: there
the size is the number of groups. Samples that are each a group of their own give exactly Wilson's interval.

All figures are percent; the samples are a draw, the gallery and the model are held fixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import norm
from scipy.stats import t as student

FEWEST_GROUPS = 8
"""With fewer groups a figure has no interval."""
DRAWS = 1000
"""Resamples of a figure that is no ratio of sums."""
LEVEL = 0.95

Totals = Float64[np.ndarray, "*figures groups"]
Ends = Float64[np.ndarray, "*figures"] | np.float64
Bounds = tuple[float, float]


class NoInterval(ValueError):
    """A figure whose groups allow no interval; the message says why."""


@dataclass(frozen=True)
class Estimate:
    """A figure, its interval, and what both rest on.

    Args:
        value: in percent, percent points or times 100.
        low: lower end of the interval; None where there is none.
        high: upper end.
        n: samples.
        groups: groups of samples that belong together.
        by_group: the figure of each group by its name, where there are too few groups for an interval.
        why: why there is no interval, "" where there is one.
    """

    value: float
    low: float | None
    high: float | None
    n: int = 0
    groups: int = 0
    by_group: Mapping[str, float] | None = None
    why: str = ""

    @property
    def interval(self) -> Bounds | None:
        """The ends of the interval, None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        return f"{self.value:.1f}"


@dataclass(frozen=True)
class Ratio:
    """A sum of parts over a sum of wholes, such as hits of queries or right pixels of images.

    Args:
        part: per sample, >= 0 and at most its whole.
        whole: per sample, >= 0; 1 where samples are counted.
        groups: per sample, the group that it belongs to; any values that can be sorted.

    Raises:
        ValueError: lengths that differ, or a part outside [0, whole].
    """

    part: np.ndarray
    whole: np.ndarray
    groups: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.part) == len(self.whole) == len(self.groups):
            raise ValueError(
                f"Expected one part, whole and group per sample, but got {len(self.part)}, {len(self.whole)} and "
                f"{len(self.groups)}."
            )
        if len(self.part) and not ((self.part >= 0) & (self.part <= self.whole)).all():
            raise ValueError("Expected parts between 0 and their wholes.")

    @classmethod
    def of_hits(cls, hits: np.ndarray, groups: np.ndarray) -> "Ratio":
        """Return the share of samples that hit."""
        return cls(np.asarray(hits, dtype=np.float64), np.ones(len(hits)), np.asarray(groups))

    @cached_property
    def _grouped(self) -> tuple[np.ndarray, Int64[np.ndarray, " samples"]]:
        counted = self.whole > 0
        names, index = np.unique(np.asarray(self.groups)[counted], return_inverse=True)
        return names, index

    def _sum(self, values: np.ndarray) -> Float64[np.ndarray, " groups"]:
        names, index = self._grouped
        return np.bincount(index, weights=values[self.whole > 0].astype(np.float64), minlength=len(names))

    @property
    def totals(self) -> tuple[Float64[np.ndarray, " groups"], Float64[np.ndarray, " groups"]]:
        """Parts and wholes by group, of groups that have any."""
        return self._sum(self.part), self._sum(self.whole)

    @property
    def value(self) -> float | None:
        """The ratio in percent; None where there is no whole."""
        whole = float(self.whole.sum())
        return 100 * float(self.part.sum()) / whole if whole else None

    def figure(self, *, level: float = LEVEL) -> Estimate | None:
        """Return the ratio with its interval; None where there is no whole."""
        if self.value is None:
            return None
        part, whole = self.totals
        n, why = int((self.whole > 0).sum()), why_no_interval(whole)
        if why:
            return Estimate(self.value, None, None, n, len(whole), _by_group(self._grouped[0], 100 * part / whole), why)
        low, high = share_bounds(part, whole, level=level)
        return Estimate(self.value, float(low), float(high), n, len(whole))

    def minus(self, other: "Ratio", *, level: float = LEVEL) -> Estimate | None:
        """Return how much more this ratio is than another one of the same samples, in points, with its interval.

        Where both are shares of the same wholes, the interval follows from the shares that only one of them has, lost
        and won (Zou and Donner's combination, 2008, with the correlation of both over groups). Others, such as IoU,
        get Student's t from the groups' linearised contributions to the difference; a term for the groups that do not
        differ, as in a share of none, keeps it from vanishing where few do.

        Raises:
            ValueError: other samples or other groups.
        """
        if len(self.part) != len(other.part) or not np.array_equal(self.groups, other.groups):
            raise ValueError("Expected two ratios of the same samples in the same groups.")
        if self.value is None or other.value is None:
            return None
        difference = self.value - other.value
        both = Ratio(np.zeros(len(self.part)), self.whole + other.whole, self.groups)
        names, n = both._grouped[0], int((both.whole > 0).sum())
        mine, others = ((both._sum(r.part), both._sum(r.whole)) for r in (self, other))
        why = why_no_interval(both.totals[1])
        if why:
            with np.errstate(invalid="ignore"):
                each = 100 * (mine[0] / mine[1] - others[0] / others[1])
            return Estimate(difference, None, None, n, len(names), _by_group(names, each), why)
        if np.array_equal(self.whole, other.whole):
            lost, won = (both._sum(np.maximum(0, sign * (self.part - other.part))) for sign in (1, -1))
            low, high = lost_and_won_bounds(lost, won, mine[1], level=level)
        else:
            low, high = jackknife_bounds(mine, others, level=level)
        return Estimate(difference, float(low), float(high), n, len(names))


Estimates = Mapping[str, Mapping[str, Estimate | None]]
"""Estimates by what they are ("clean", "robust", "conditional", "drop", ...) and metric; None where not defined."""


def attack_figures(
    clean: Mapping[str, Ratio],
    robust: Mapping[str, Ratio] | None = None,
    *,
    lost: Mapping[str, Ratio] | None = None,
) -> dict[str, dict[str, Estimate | None]]:
    """Return the figures of a measurement: "clean" and, under attack, "robust", "conditional" and "drop", by metric.

    Args:
        clean: by metric, what is right without attack.
        robust: by metric, what is right under attack, of the same samples.
        lost: by metric, what the attack made wrong of what was right ("conditional"); None: hits that were lost.
    """
    found: dict[str, dict[str, Estimate | None]] = {"clean": {m: ratio.figure() for m, ratio in clean.items()}}
    if robust is None:
        return found
    found["robust"] = {m: ratio.figure() for m, ratio in robust.items()}
    if lost is None:
        lost = {m: hits_lost(before, robust[m]) for m, before in clean.items()}
    found["conditional"] = {m: ratio.figure() for m, ratio in lost.items()}
    found["drop"] = {m: before.minus(robust[m]) for m, before in clean.items()}
    return found


def hits_lost(before: Ratio, after: Ratio) -> Ratio:
    """Return the share of the hits before that are none after."""
    return Ratio(before.part * (after.part == 0), before.part, before.groups)


def values_of(figures: Mapping[str, Estimate | None]) -> dict[str, float | None]:
    """Return the values of figures by metric, None where one is not defined."""
    return {metric: None if figure is None else figure.value for metric, figure in figures.items()}


def intervals_of(figures: Estimates) -> dict[str, dict[str, Bounds | None]]:
    """Return the intervals of figures, None where there is none."""
    return {
        what: {metric: None if figure is None else figure.interval for metric, figure in by_metric.items()}
        for what, by_metric in figures.items()
    }


def told(figures: Estimates) -> dict[str, dict[str, dict[str, Any] | None]]:
    """Return figures as JSON values; `read_figure` reads one back."""
    return {
        what: {metric: None if figure is None else dict(vars(figure)) for metric, figure in by_metric.items()}
        for what, by_metric in figures.items()
    }


def told_along(figures: Mapping[str, Mapping[str, Sequence[Estimate | None]]]) -> dict[str, Any]:
    """Return rows of figures as JSON values, such as those of a certificate along its radii."""
    return {
        what: {metric: [None if f is None else dict(vars(f)) for f in along] for metric, along in metrics.items()}
        for what, metrics in figures.items()
    }


def read_estimates(values: Mapping[str, Mapping[str, Mapping[str, Any] | None]]) -> Estimates:
    """Return what `told` gave."""
    return {
        what: {metric: read_figure(value) for metric, value in by_metric.items()} for what, by_metric in values.items()
    }


def read_figure(value: Mapping[str, Any] | None) -> Estimate | None:
    """Return a figure of a summary; None where it is not defined."""
    return None if value is None else Estimate(**value)


def clustered_interval(
    hits: Sequence[Any] | np.ndarray, groups: Sequence[Any] | np.ndarray, *, level: float = LEVEL, seed: int = 0
) -> Bounds:
    """Return the interval of a share of samples that come in groups, in percent.

    Args:
        hits: per sample, whether it hits: booleans, or 0 and 1.
        groups: per sample, the group that it belongs to; samples of one group may depend on each other in any way.
        level: of the interval, in (0, 1).
        seed: there is nothing to draw for a share, so that every seed gives the same; figures that are resampled take
            it, see `bootstrap_figure`.

    Returns:
        The lower and the upper end, in [0, 100]; they hold the share.

    Raises:
        NoInterval: fewer than 8 groups, or one that holds more than half of the samples.
        ValueError: no samples, other numbers of hits and groups, hits that are not 0 or 1, or a level outside (0, 1).

    Example:
        >>> groups = [picture for picture in range(20) for caption in range(5)]
        >>> low, high = clustered_interval([1, 1, 1, 1, 0] * 10 + [0, 0, 0, 0, 0] * 10, groups)
        >>> round(low, 1), round(high, 1)
        (23.7, 58.9)
    """
    found, names = np.asarray(hits), np.asarray(groups)
    if found.ndim != 1 or names.shape != found.shape or not len(found):
        raise ValueError(f"Expected one group per hit, at least one, but got shapes {found.shape} and {names.shape}.")
    if not np.isin(found, (0, 1)).all():
        raise ValueError("Expected hits that are booleans or 0 and 1, but got other values.")
    figure = Ratio.of_hits(found, names).figure(level=_checked(level))
    assert figure is not None
    if figure.interval is None:
        raise NoInterval(f"Expected groups that allow an interval, but {figure.why}.")
    return figure.interval


def why_no_interval(whole: Float64[np.ndarray, " groups"]) -> str:
    """Return why groups allow no interval; "" where they do.

    Args:
        whole: samples (or their wholes) of each group.
    """
    groups = int((whole > 0).sum())
    if groups == 1:
        return "one group holds all samples"
    if groups < FEWEST_GROUPS:
        return f"there are {groups} groups, fewer than {FEWEST_GROUPS}"
    most = float(whole.max() / whole.sum())
    return f"one group holds {100 * most:.0f} % of the samples" if most > 0.5 else ""


def share_bounds(part: Totals, whole: Totals, *, level: float = LEVEL) -> tuple[Ends, Ends]:
    """Return the interval ends of ratios of sums over groups, in percent; many figures at once.

    Args:
        part: parts by group, in [0, whole].
        whole: wholes by group, at least two groups of each figure with any; groups without one do not count.
        level: of the interval.
    """
    order = np.lexsort((part, whole), axis=-1)  # figures do not depend on how groups are called, to the last digit
    part, whole = np.take_along_axis(part, order, -1), np.take_along_axis(whole, order, -1)
    total, groups = whole.sum(axis=-1, keepdims=True), (whole > 0).sum(axis=-1, keepdims=True)
    share = part.sum(axis=-1, keepdims=True) / total
    single = (whole <= 1).all(axis=-1, keepdims=True)
    size = np.where(single, total, total / np.maximum(1.0, _design_effect(part, whole, total, groups)))
    size = np.where(~single & ((share <= 0) | (share >= 1)), groups, size)
    above = (1 + level) / 2
    quantile = np.where(single, norm.ppf(above), student.ppf(above, np.maximum(groups - 1, 1)))
    low, high = _wilson(share, size, quantile)
    return 100 * low[..., 0], 100 * high[..., 0]


def _design_effect(part: Totals, whole: Totals, total: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return how many samples are worth one independent one, from how hits gather in groups; see the module."""

    def summed(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=-1, keepdims=True)

    deciding = np.minimum(summed(part > 0), summed((part < whole) & (whole > 0)))
    added = 2 * (1 - deciding / groups) / np.maximum(10, deciding) * total / groups  # size of the two added groups
    size, count = total + 2 * added, groups + 2 * (added > 0)
    share = (summed(part) + added) / size
    apart = share**2 + (1 - share) ** 2
    residual = part - share * whole
    robust = (summed(residual**2) + added**2 * apart) / (share * (1 - share) * size)
    each = np.divide(1.0, whole, out=np.zeros_like(whole), where=whole > 0)
    squares = summed(whole**2)
    between = (summed(residual**2 * each) + added * apart) / (count - 1)
    within = summed(part - part**2 * each) / np.maximum(size - count, 1e-9)
    typical = (size - (squares + 2 * added**2) / size) / (count - 1)
    rho = np.clip((between - within) / (between + (typical - 1) * within + 1e-300), 0, 1)
    return np.asarray(np.maximum(robust, 1 + (squares / total - 1) * rho))


def _wilson(share: np.ndarray, size: np.ndarray, quantile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squared = quantile**2
    centre = (share + squared / (2 * size)) / (1 + squared / size)
    half = quantile / (1 + squared / size) * np.sqrt(share * (1 - share) / size + squared / (4 * size**2))
    low = np.where(share <= 0, 0.0, np.clip(centre - half, 0, share))
    return low, np.where(share >= 1, 1.0, np.clip(centre + half, share, 1))


def lost_and_won_bounds(lost: Totals, won: Totals, whole: Totals, *, level: float = LEVEL) -> tuple[Ends, Ends]:
    """Return the interval ends of differences of two shares of the same samples, in points; many figures at once.

    Args:
        lost: by group, what only the first share has.
        won: by group, what only the second one has.
        whole: wholes by group.
        level: of the interval.
    """
    order = np.lexsort((won, lost, whole), axis=-1)
    lost, won, whole = (np.take_along_axis(values, order, -1) for values in (lost, won, whole))
    total = whole.sum(axis=-1)
    shares, below, above, residuals = [], [], [], []
    for part in (lost, won):
        share = part.sum(axis=-1) / total
        low, high = share_bounds(part, whole, level=level)
        shares.append(100 * share)
        below.append(100 * share - low)
        above.append(high - 100 * share)
        residuals.append(part - share[..., None] * whole)
    scale = np.sqrt((residuals[0] ** 2).sum(axis=-1) * (residuals[1] ** 2).sum(axis=-1))
    common = (residuals[0] * residuals[1]).sum(axis=-1)
    together = np.divide(common, scale, out=np.zeros_like(scale), where=scale > 0)

    def reach(one: Ends, other: Ends) -> Ends:
        return np.sqrt(np.maximum(0, one**2 + other**2 - 2 * together * one * other))

    difference = shares[0] - shares[1]
    low, high = difference - reach(below[0], above[1]), difference + reach(above[0], below[1])
    return np.maximum(-100.0, low), np.minimum(100.0, high)


def jackknife_bounds(
    first: tuple[Totals, Totals], second: tuple[Totals, Totals], *, level: float = LEVEL
) -> tuple[Ends, Ends]:
    """Return the interval ends of differences of two ratios of sums over the same groups; many figures at once.

    The delete-one-group jackknife, with Student's t on one less than the groups' effective number (Kish).

    Args:
        first: parts and wholes by group.
        second: the same of the ratio that is taken away.
        level: of the interval.

    Returns:
        In points.
    """
    order = np.lexsort((*second, *first), axis=-1)
    groups = order.shape[-1]
    difference, without, weight = 0.0, 0.0, 0.0
    for (part, whole), sign in ((first, 1), (second, -1)):
        p, w = np.take_along_axis(part, order, -1), np.take_along_axis(whole, order, -1)
        parts, wholes = p.sum(axis=-1, keepdims=True), w.sum(axis=-1, keepdims=True)
        difference = difference + sign * parts / wholes
        without = without + sign * (parts - p) / (wholes - w)
        weight = weight + w / wholes / 2
    spread = np.asarray(without - np.mean(without, axis=-1, keepdims=True))
    variance = (groups - 1) / groups * (spread**2).sum(axis=-1, keepdims=True)
    changed = ((first[0] != second[0]) | (first[1] != second[1])).sum(axis=-1, keepdims=True)
    unchanged = 8 * (1 - changed / groups) / np.maximum(4, changed) / groups**2
    effective = 1 / np.square(weight).sum(axis=-1, keepdims=True)
    half = student.ppf((1 + level) / 2, np.maximum(effective - 1, 1)) * np.sqrt(variance + unchanged)
    low, high = np.maximum(-1.0, difference - half), np.minimum(1.0, difference + half)
    return 100 * low[..., 0], 100 * high[..., 0]


def group_draws(groups: int, *, seed: int, draws: int = DRAWS) -> Float64[np.ndarray, "draws groups"]:
    """Return how often each group is drawn in a bootstrap over groups: as many as there are, with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def bootstrap_figure(
    value: float,
    values: Float64[np.ndarray, " draws"],
    *,
    n: int,
    groups: int,
    by_group: Mapping[str, float] | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Return a figure with its interval from its values over bootstrap resamples of groups.

    The percentiles are moved outwards, as far as Student's t on `groups` - 1 lies from the normal quantile (Hesterberg,
    2015): plain percentiles are too narrow where groups are few. The interval holds the figure itself.

    Args:
        value: the figure of the data.
        values: over the resamples, see `group_draws`; not looked at where there are too few groups.
        n: samples.
        groups: how many groups are drawn.
        by_group: the figure of each group, where they are few.
        level: of the interval.
    """
    why = why_no_interval(np.ones(groups))
    if why:
        return Estimate(value, None, None, n, groups, by_group, why)
    quantile = sqrt(groups / (groups - 1)) * float(student.ppf((1 + level) / 2, groups - 1))
    below = float(norm.cdf(-quantile))
    low, high = np.quantile(values, (below, 1 - below))
    return Estimate(value, min(float(low), value), max(float(high), value), n, groups)


def wilson(hits: int, total: int, *, level: float = LEVEL) -> Bounds:
    """Return Wilson's score interval of a share of independent samples, in percent (Wilson, 1927).

    Args:
        hits: number of hits, in [0, total].
        total: number of trials, at least 1.
        level: of the interval, in (0, 1).

    Raises:
        ValueError: `hits` outside [0, total], no trials, or a level outside (0, 1).

    Example:
        >>> low, high = wilson(0, 10)
        >>> round(low, 2), round(high, 2)
        (0.0, 27.75)
    """
    if total < 1 or not 0 <= hits <= total:
        raise ValueError(f"Expected 0 <= hits <= total and total >= 1, but got {hits} of {total}.")
    quantile = np.asarray(norm.ppf((1 + _checked(level)) / 2))
    low, high = _wilson(np.asarray(hits / total), np.asarray(total), quantile)
    return 100 * float(low), 100 * float(high)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"Expected `level` in (0, 1), but got {level}.")
    return level


def _by_group(names: np.ndarray, values: Float64[np.ndarray, " groups"]) -> dict[str, float] | None:
    if len(names) >= FEWEST_GROUPS:
        return None
    return {str(name): float(value) for name, value in zip(names, values, strict=True) if np.isfinite(value)}
