"""Spending alpha over looks at growing counts: in which round how many votes certify.

A fifth of alpha at most is spent on the early rounds, so that the last one has nearly what a single look at all draws
would have. What is spent is exact: the chance that the votes of a label with p = tau reach a boundary in some round is
followed over the counts of those that reached none before, so nothing is paid twice for votes that rounds share.

The label is read from the same votes. Of labels with p_l <= tau, at most one is above 1/2; with u its probability, f
the exact chance of reaching a boundary (it grows with p) and g the sum of the rounds' tails (convex up to 1/2, as every
boundary is more than half of the votes), the chance of any wrong certificate is at most

    max of  2 g(1/2)  and  f(u) + g(1 - u)  over u in [1/2, tau],

and the latter is bounded over pieces [u, u'] by f(u') + g(1 - u).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.stats import binom

from crossguard.certify.bounds import OUTWARD
from crossguard.certify.preflight import draws_to_reach

EARLY = 0.2
"""Share of alpha that all rounds before the last may spend."""
FIRST = 0.06
"""Share of alpha that the first round may spend: it is where clear cases stop."""
GROWTH = 1.2
PIECES = 8


@dataclass(frozen=True)
class Rounds:
    """Looks that are fixed before the first draw.

    Args:
        draws: total draws at the end of each round, ascending.
        votes: the fewest votes that certify then; one more than the draws where none do.
    """

    draws: tuple[int, ...]
    votes: tuple[int, ...]


@lru_cache(maxsize=64)
def plan_rounds(threshold: float, draws: int, alpha: float) -> Rounds:
    """Return rounds up to `draws` whose certificates of p_A > `threshold` are wrong with probability <= alpha together.

    Args:
        threshold: tau in [1/2, 1).
        draws: the most draws.
        alpha: of all rounds and labels together.

    Raises:
        ValueError: unanimous votes of all draws do not certify; the message names the number that would.
    """
    margin = 2 * threshold - 1
    needed = draws_to_reach(margin, alpha)
    if draws < needed:
        raise ValueError(
            f"Expected enough draws for these radii, but {draws} can only abstain: draw at least {needed}."
        )
    sizes, at = [], float(draws_to_reach(margin, FIRST * alpha))
    while at * math.sqrt(GROWTH) < draws:
        sizes.append(math.ceil(at))
        at = max(at * GROWTH, sizes[-1] + 1)
    looks = (*sizes, draws)
    low, high = 0.0, alpha
    found = _boundaries(looks, threshold, alpha)
    if _error(looks, found, threshold) > alpha:  # where other labels matter, the spending is scaled down
        for _ in range(12):
            middle = (low + high) / 2
            fits = _error(looks, _boundaries(looks, threshold, middle), threshold) <= alpha
            low, high = (middle, high) if fits else (low, middle)
        found = _boundaries(looks, threshold, low) if low else (*(n + 1 for n in sizes), draws)
    votes = list(found)
    for number in reversed(range(len(votes))):  # what whole votes left unspent
        while votes[number] - 1 > looks[number] // 2 and _error(looks, _lowered(votes, number), threshold) <= alpha:
            votes[number] -= 1
    return Rounds(looks, tuple(votes))


def doubling_rounds(margin: float, draws: int, level: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return rounds that double up to `draws`, and the share of alpha that each has: the last nearly all.

    For many elements at once, whose family is looked at anew in every round: the shares are simply added up.

    Args:
        margin: lead that must be proven.
        draws: the most draws.
        level: alpha per element.

    Raises:
        ValueError: unanimous votes of all draws do not reach the margin; the message names the number that would.
    """
    for count in range(1, 64):
        share = EARLY / max(1, count - 1)
        first = math.ceil(1.25 * draws_to_reach(margin, level * share))
        sizes = [size for i in range(count - 1) if (size := first * 2**i) < draws / 1.5]
        if len(sizes) < count - 1:
            break
        found = (*sizes, draws)
    last = 1 - EARLY if len(found) > 1 else 1.0
    if draws < (needed := draws_to_reach(margin, level * last)):
        raise ValueError(
            f"Expected enough draws for these radii, but {draws} can only abstain: draw at least {needed}."
        )
    return found, (*[(1 - last) / max(1, len(found) - 1)] * (len(found) - 1), last)


def _lowered(votes: list[int], number: int) -> tuple[int, ...]:
    return (*votes[:number], votes[number] - 1, *votes[number + 1 :])


def crossing(looks: tuple[int, ...], votes: tuple[int, ...], chance: float) -> float:
    """Return the probability that a label of this probability reaches a boundary in some round, rounded up."""
    left, reached, before = np.ones(1), 0.0, 0
    for draws, fewest in zip(looks, votes, strict=True):
        left = _grown(left, draws - before, chance)
        reached += float(left[fewest:].sum())
        left, before = left[:fewest], draws
    return reached * (1 + OUTWARD)


def _boundaries(looks: tuple[int, ...], threshold: float, alpha: float) -> tuple[int, ...]:
    left, spent, before = np.ones(1), 0.0, 0
    votes = []
    early = len(looks) - 1
    for number, draws in enumerate(looks):
        allowed = alpha if number == early else alpha * (FIRST + (EARLY - FIRST) * number / max(1, early - 1))
        left = _grown(left, draws - before, threshold)
        tails = np.append(np.cumsum(left[::-1])[::-1], 0.0) * (1 + OUTWARD)
        fewest = max(int(np.argmax(tails + spent <= allowed)), draws // 2 + 1)
        fewest = max(fewest, 0) if fewest < len(tails) else draws + 1
        spent += float(tails[min(fewest, len(tails) - 1)])
        votes.append(draws + 1 if fewest >= len(left) else fewest)
        left, before = left[:fewest], draws
    return tuple(votes)


def _grown(left: Float[np.ndarray, " counts"], more: int, chance: float) -> Float[np.ndarray, " more_counts"]:
    """Return the distribution of counts after more draws."""
    return np.convolve(left, binom.pmf(np.arange(more + 1), more, chance))


def _error(looks: tuple[int, ...], votes: tuple[int, ...], threshold: float) -> float:
    def tails(chance: float) -> float:
        return float(np.sum(binom.sf(np.array(votes) - 1, np.array(looks), chance))) * (1 + OUTWARD)

    cuts = np.linspace(0.5, threshold, PIECES + 1) if threshold > 0.5 else np.array([0.5, 0.5])
    pieces = [crossing(looks, votes, high) + tails(1 - low) for low, high in pairwise(cuts.tolist())]
    return max(2 * tails(0.5), *pieces)
