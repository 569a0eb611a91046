"""Pre-flight: what a setting can certify at best, known before anything is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Shaped

from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.bounds import Bound, fewest_votes, gap_bounds, lead_bounds, log_p_values, settled
from crossguard.certify.ensemble import best_draws, block_counts, tuple_count
from crossguard.certify.frontier import maximal_radii
from crossguard.certify.noise import NoisyMargins, margins_with_noise
from crossguard.certify.thresholds import Margins, PublishedMargins, RadiusMargins, Scheme


@dataclass(frozen=True)
class Preflight:
    """What unanimous votes would certify.

    Attributes:
        draws: N.
        alpha: per input.
        elements: m, elements that share alpha.
        fewest_votes: the smallest count for a label that certifies anything, draws + 1 when none does.
        fewest_draws: the smallest N with which anything can be certified.
        gap: the largest lower bound on p_A - p_B that N draws can give; 0 or less when they can only abstain.
        reach: per modality, the largest certifiable radius when no other one is attacked; -1 when none is. Of a noisy
            modality it is in L2.
        frontier: int64 [points, modalities], all maximal certifiable radius vectors; beside noise float64, see
            `NoisyMargins.frontier`.
        published: what unanimous votes of published designs reach for certain, as (design, N, reach): the balanced one
            with the N up to `draws` that wastes least, and the product of blocks; none beside other kinds than
            substitutions, or noise.
        seconds: expected time of the draws, from a few forward passes that were timed; None where none was.
    """

    draws: int
    alpha: float
    elements: int
    fewest_votes: int
    fewest_draws: int
    gap: float
    reach: tuple[float | int, ...]
    frontier: Shaped[np.ndarray, "points modalities"]
    seconds: float | None = None
    published: tuple[tuple[str, int, tuple[int, ...]], ...] = ()

    @property
    def possible(self) -> bool:
        """Whether anything can be certified at all."""
        return self.fewest_votes <= self.draws

    def require(self) -> "Preflight":
        """Return itself.

        Raises:
            ValueError: the setting can only abstain; the message names the N that would do.
        """
        if not self.possible:
            raise ValueError(
                f"Expected enough draws to certify anything, but {self.draws} can only abstain at alpha = "
                f"{self.alpha:g} shared by {self.elements} element{'s' if self.elements != 1 else ''}: "
                f"draw at least {self.fewest_draws}."
            )
        return self

    def __str__(self) -> str:
        if not self.possible:
            return f"{self.draws} draws can only abstain: {self.fewest_draws} are needed (alpha {self.alpha:g})"
        reach = ", ".join(f"{r:.3g}" if isinstance(r, float) else str(r) for r in self.reach)
        time = "" if self.seconds is None else f"; about {_duration(self.seconds)}"
        if not self.alpha:
            return f"{self.draws} published draws; unanimous votes reach radius {reach} for certain{time}"
        beside = "".join(
            f"; {design} with N = {draws}: {', '.join(map(str, radii))} for certain"
            for design, draws, radii in self.published
        )
        return (
            f"{self.draws} draws, alpha {self.alpha:g}: at least {self.fewest_votes} votes for a certificate; "
            f"unanimous votes reach radius {reach} (one modality attacked at a time){beside}{time}"
        )


def preflight(
    *,
    n: Sequence[int],
    k: Sequence[int | float],
    draws: int,
    alpha: float,
    kind: str | Sequence[str] = "substitution",
    scheme: Scheme = "independent",
    elements: int = 1,
    labels: int = 2,
    bound: Bound = "majority",
    separate: bool = False,
    noise: Sequence[float | int] = (),
) -> Preflight:
    """Say what a setting can certify at best.

    Args:
        n: number of elements of each modality.
        k: number of elements kept of each modality.
        draws: N.
        alpha: per input.
        kind: kind of edit, one word or one per modality.
        scheme: "independent"; "joint" for the baseline, which keeps the sum of all k of all elements together; "fixed"
            or "product" of a published design.
        elements: m, elements of an input that share alpha (1 for a classification, the pixels of a segmentation).
        labels: number of labels; only the "gap" bound depends on it.
        bound: "majority" (p_B <= 1 - p_A), "gap" (a bound for every label), or "both": the better of the two.
        separate: the label is chosen by separate draws.
        noise: sigma of each further modality, which is under noise.

    Raises:
        ValueError: k > n, alpha outside (0, 0.5), or numbers that are not whole.
    """
    draws, elements = whole_number(draws, "draws", least=1), whole_number(elements, "elements", least=1)
    margins = margins_with_noise(scheme, n, k, kind, noise=noise, draws=draws)
    if scheme in ("fixed", "product"):
        assert isinstance(margins, RadiusMargins)
        return _published(margins, draws)
    level = probability(alpha) / elements
    gap = best_gap(draws, level, labels=labels, bound=bound, separate=separate)
    sure = _fewest_votes(draws, level, labels=labels, bound=bound, separate=separate)
    return Preflight(
        draws=draws,
        alpha=alpha,
        elements=elements,
        fewest_votes=sure,
        fewest_draws=draws_to_reach(0.0, level, labels=labels, bound=bound, separate=separate),
        gap=gap,
        reach=margins.reach(gap if sure <= draws else -1.0),
        frontier=_frontier(margins, gap if sure <= draws else -1.0),
        published=_beside(margins, draws) if scheme == "independent" and isinstance(margins, Margins) else (),
    )


def _beside(margins: Margins, draws: int) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """Return what published designs of the same n and k reach, the balanced one with at most as many draws."""
    if set(margins.kinds) != {"substitution"} or not any(margins.k):
        return ()
    named, kept = ({str(i): size for i, size in enumerate(sizes)} for sizes in (margins.n, margins.k))
    sizes = {"fixed": best_draws(named, kept, draws), "product": tuple_count(block_counts(named, kept))}
    return tuple(
        (
            design,
            size,
            PublishedMargins(margins.n, margins.k, draws=size, product=design == "product").reach(1.0),
        )
        for design, size in sizes.items()
    )


def _frontier(margins: RadiusMargins | NoisyMargins, gap: float) -> np.ndarray:
    return margins.frontier(gap) if isinstance(margins, NoisyMargins) else maximal_radii(margins, gap)


def _published(margins: RadiusMargins, draws: int) -> Preflight:
    """Return what unanimous votes of a published design reach: no alpha, and more than half of the votes suffice."""
    return Preflight(
        draws=draws,
        alpha=0.0,
        elements=1,
        fewest_votes=draws // 2 + 1,
        fewest_draws=1,
        gap=1.0,
        reach=margins.reach(1.0),
        frontier=maximal_radii(margins, 1.0),
    )


def best_gap(draws: int, level: float, *, labels: int = 2, bound: Bound = "majority", separate: bool = False) -> float:
    """Return the lower bound on p_A - p_B that `draws` unanimous votes give at error `level`."""
    votes = np.array([draws] + [0] * (labels - 1))
    return float(lead_bounds(votes, np.array(draws), draws, level, bound=bound, separate=separate))


def draws_to_reach(
    margin: float, level: float, *, labels: int = 2, bound: Bound = "majority", separate: bool = False
) -> int:
    """Return the smallest N whose unanimous votes certify at a margin, at error `level`.

    Raises:
        ValueError: the margin is 1 or more, which no number of draws reaches.
    """
    if margin >= 1:
        raise ValueError(f"Expected a margin below 1, which some number of draws reaches, but got {margin}.")
    reaches = partial(_reaches, margin=margin, level=level, labels=labels, bound=bound, separate=separate)
    low, high = 0, 1
    while not reaches(high):
        low, high = high, 2 * high
    while high - low > 1:  # more unanimous votes never certify less
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _reaches(draws: int, *, margin: float, level: float, labels: int, bound: Bound, separate: bool) -> bool:
    if settled(bound, labels=labels, separate=separate) != "majority":
        return best_gap(draws, level, labels=labels, bound=bound) >= margin
    fewest = fewest_votes(draws, level, separate=separate)
    log_p = log_p_values(np.array(draws), draws, 0.5 + margin / 2, separate=separate, fewest=fewest)
    return bool(fewest <= draws and log_p <= np.log(level))


def _fewest_votes(draws: int, level: float, *, labels: int, bound: Bound, separate: bool) -> int:
    bound = settled(bound, labels=labels, separate=separate)
    if bound == "majority":
        return fewest_votes(draws, level, separate=separate)
    if bound == "both":
        other = _fewest_votes(draws, level / 2, labels=labels, bound="gap", separate=False)
        return min(fewest_votes(draws, level / 2), other)
    low, high = 0, draws + 1  # by bisection, with the other votes spread evenly: that leaves the best rival the fewest
    while high - low > 1:
        middle = (low + high) // 2
        rivals = (draws - middle + np.arange(labels - 1)) // (labels - 1)
        won = middle > rivals.max() and gap_bounds(np.array([middle, *rivals]), draws, level) > 0
        low, high = (low, middle) if won else (middle, high)
    return high


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
