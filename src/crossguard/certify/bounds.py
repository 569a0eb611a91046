"""Exact binomial statistics for votes: p-values, Clopper-Pearson bounds, and the price of choosing a label.

N sub-samples vote; label A has c votes. "Certified" needs p_A > tau for some tau >= 1/2, and is claimed when the
p-value of the hypothesis p_A <= tau is at most alpha. p-values are rounded up, bounds outward, by 1e-10 relative.

Where A is fixed before the votes are seen (separate selection draws) the p-value is P(Bin(N, tau) >= c). Where A is
read from the same votes it is not valid; then, for c > N / 2 and any number of labels,

    P(Bin(N, tau) >= c) + P(Bin(N, 1 - tau) >= c)                      for one tau
    P(Bin(N, tau) >= c) + P(Bin(N, 1 - tau) >= c_min)                  for all tau >= 1/2 at once

are. Reason: the events "label l reaches c" exclude each other, so their probabilities add up; the sum of the convex
tails over probabilities with p_l <= tau is largest at (tau, 1 - tau). For all tau at once, a wrong label with p_l <=
1/2 is caught at the smallest count c_min that certifies anything, the right one at its own.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64
from scipy import special

from crossguard.certify.arguments import probability, whole_number

Bound = Literal["both", "majority", "gap"]
OUTWARD = 1e-10
_TINY = 1e-280  # below this the incomplete beta function loses digits to underflow

Counts = Int64[np.ndarray, "*elements"]
Values = Float[np.ndarray, "*elements"]


def log_tail(counts: Counts, draws: int, chance: float | Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return log P(Bin(draws, chance) >= counts), elementwise with broadcasting, rounded up.

    Exact (the incomplete beta function) down to 1e-280; below, the geometric upper bound
    pmf(c) / (1 - pmf(c + 1) / pmf(c)), which is within a factor of c + 1 over c + 1 - draws * chance of it.
    """
    c, p = np.broadcast_arrays(np.asarray(counts, dtype=np.float64), np.asarray(chance, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = special.betainc(np.maximum(c, 1), draws - np.maximum(c, 1) + 1, p)
        log_pmf = special.xlogy(c, p) + special.xlog1py(draws - c, -p) + _log_binomial(draws, c)
        step = (draws - c) / (c + 1) * (p / (1 - p))
        far = log_pmf - np.log1p(-np.where(step < 1, step, 0.0))
        logs = np.where((tail < _TINY) & (step < 1), far, np.log(tail)) + OUTWARD
    logs = np.where(p <= 0, -np.inf, logs)
    return np.where(c <= 0, 0.0, np.where(c > draws, -np.inf, np.minimum(logs, 0.0)))


def log_p_values(
    counts: Counts,
    draws: int,
    threshold: Float[np.ndarray, "..."] | float,
    *,
    separate: bool = False,
    fewest: int | None = None,
) -> Float[np.ndarray, "..."]:
    """Return the logarithm of the p-value of "p_A <= threshold" for each count, elementwise with broadcasting.

    Args:
        counts: votes for A, 0..draws.
        draws: N.
        threshold: tau, in [1/2, 1].
        separate: True where A was chosen by separate draws, False where it has the most of these very votes.
        fewest: c_min of `fewest_votes`, for p-values that hold for all tau at once; None for one tau.

    Returns:
        float64, the logarithm of a number in [0, 1]; 0 (never significant) at counts that are no majority.
    """
    c, tau = np.broadcast_arrays(counts, np.asarray(threshold, dtype=np.float64))
    logs = log_tail(c, draws, tau)
    if separate:
        return logs
    other = log_tail(c if fewest is None else np.asarray(np.minimum(c, fewest)), draws, 1 - tau)
    return np.where(2 * c > draws, np.minimum(np.logaddexp(logs, other), 0.0), 0.0)


def p_value_table(draws: int, threshold: float, *, separate: bool = False) -> Float[np.ndarray, " counts"]:
    """Return the log p-values of "p_A <= threshold" for the counts 0..draws, as a table indexed by the count.

    Raises:
        ValueError: `threshold` is not in [1/2, 1], or `draws` < 1.
    """
    draws = whole_number(draws, "draws", least=1)
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"Expected `threshold` in [0.5, 1], but got {threshold!r}.")
    return log_p_values(np.arange(draws + 1), draws, threshold, separate=separate)


@lru_cache(maxsize=1024)
def fewest_votes(draws: int, alpha: float, *, separate: bool = False) -> int:
    """Return c_min, the smallest count that certifies anything (tau = 1/2) at level alpha; draws + 1 if none does."""
    low, high = draws // 2, draws + 1  # half of the votes never certify; more votes have smaller p-values
    while high - low > 1:
        middle = (low + high) // 2
        passes = log_p_values(np.array(middle), draws, 0.5, separate=separate) <= np.log(alpha)
        low, high = (low, middle) if passes else (middle, high)
    return high


def majority_bounds(counts: Counts, draws: int, alpha: float, *, separate: bool = False) -> Values:
    """Return lower bounds on p_A in [1/2, 1) that hold with probability 1 - alpha, or 0 where no majority is sure.

    One bound serves every radius: the label is certified wherever its threshold tau <= the bound. It inverts
    `log_p_values` for all tau at once by bisection; the end that is returned is the one at which the p-value is <=
    alpha.

    Raises:
        ValueError: `alpha` is not in (0, 0.5).
    """
    alpha = probability(alpha)
    distinct, inverse = np.unique(counts, return_inverse=True)
    fewest = fewest_votes(draws, alpha, separate=separate)
    low, high = np.full(distinct.shape, 0.5), np.ones(distinct.shape)
    for _ in range(54):
        middle = (low + high) / 2
        passes = log_p_values(distinct, draws, middle, separate=separate, fewest=fewest) <= np.log(alpha)
        low, high = np.where(passes, middle, low), np.where(passes, high, middle)
    low = np.where(distinct >= fewest, low, 0.0)
    return np.asarray(low[inverse]).reshape(np.shape(counts))


def clopper_pearson(counts: Counts, draws: int, alpha: float, *, side: Literal["lower", "upper"]) -> Values:
    """Return one-sided Clopper-Pearson bounds on the probability of a label fixed before, each at level alpha.

    Simultaneous bounds over L labels and m elements are these at alpha / (L m).

    Raises:
        ValueError: `alpha` is not in (0, 0.5).
    """
    alpha = probability(alpha)
    c = np.asarray(counts, dtype=np.float64)
    if side == "upper":
        return np.asarray(1 - clopper_pearson(np.asarray(draws - counts), draws, alpha, side="lower"))
    bound = special.betaincinv(np.maximum(c, 1), draws - np.maximum(c, 1) + 1, alpha) * (1 - OUTWARD)
    return np.where(c <= 0, 0.0, bound)


def gap_bounds(votes: Int64[np.ndarray, "*elements labels"], draws: int, alpha: float) -> Values:
    """Return lower bounds on p_A - max p_B from simultaneous Clopper-Pearson bounds, alpha split over the labels.

    A is the label with the most votes; all bounds hold at once, so choosing it costs nothing. p_B is at most the
    smaller of its own upper bound and 1 - p_A. Holds for every radius at once; better than a majority where votes
    are spread over many labels.
    """
    labels = votes.shape[-1]
    top = np.sort(votes, axis=-1)[..., -2:]
    lower = clopper_pearson(top[..., 1], draws, alpha / labels, side="lower")
    upper = np.minimum(clopper_pearson(top[..., 0], draws, alpha / labels, side="upper"), 1 - lower)
    return np.asarray(lower - upper)


def lead_bounds(
    votes: Int64[np.ndarray, "*elements labels"],
    chosen: Int64[np.ndarray, "*elements"],
    draws: int,
    alpha: float,
    *,
    bound: Bound = "both",
    separate: bool = False,
) -> Values:
    """Return lower bounds on p_A - p_B that hold for every radius at once, below 0 where nothing is sure.

    Args:
        votes: of each label.
        chosen: votes of the label that is certified.
        draws: N.
        alpha: per element.
        bound: "majority" (p_B <= 1 - p_A), "gap" (a bound for every label), or "both": the better one, each at half of
            alpha. Of two labels the majority says all that there is, and so it does of labels that were chosen apart.
        separate: the label was chosen by separate draws; needs "majority" or "both".
    """
    bound = settled(bound, labels=votes.shape[-1], separate=separate)
    if bound == "gap":
        return gap_bounds(votes, draws, alpha)
    if bound == "majority":
        return np.asarray(2 * majority_bounds(chosen, draws, alpha, separate=separate) - 1)
    majority = 2 * majority_bounds(chosen, draws, alpha / 2) - 1
    return np.asarray(np.maximum(majority, gap_bounds(votes, draws, alpha / 2)))


def settled(bound: Bound, *, labels: int, separate: bool) -> Bound:
    """Return "majority" instead of "both" where that says all that there is, see `lead_bounds`."""
    return "majority" if bound == "both" and (separate or labels == 2) else bound


def _log_binomial(draws: int, counts: Values) -> Values:
    found = special.gammaln(draws + 1) - special.gammaln(counts + 1) - special.gammaln(draws - counts + 1)
    return np.asarray(found)
