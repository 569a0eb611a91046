"""Many elements at once: Holm's step-down and Bonferroni, from a histogram of counts.

An element's p-value depends only on its count, so a family of m elements is a histogram over 0..N. Elements with equal
counts are tied, and are certified all or not at all.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64

from crossguard.certify.arguments import probability


def holm(p_values: Float[np.ndarray, " elements"], alpha: float) -> Bool[np.ndarray, " elements"]:
    """Return which hypotheses Holm's step-down rejects: the smallest p-values, up to the first failure.

    Sorted ascending, the j-th of m is compared with alpha / (m - j + 1); nothing after the first failure counts.

    Ties are rejected all or not at all. The family-wise error is at most alpha under any dependence (Holm, 1979).

    Raises:
        ValueError: `alpha` is not in (0, 0.5).
    """
    alpha = probability(alpha)
    distinct, inverse, sizes = np.unique(p_values, return_inverse=True, return_counts=True)
    before = np.cumsum(sizes) - sizes
    passing = np.cumprod(distinct * (len(p_values) - before) <= alpha).astype(bool)
    return passing[inverse]


def holm_critical_counts(
    histogram: Int64[np.ndarray, " occurring"],
    log_p: Float[np.ndarray, "radii occurring"],
    alpha: float,
) -> Int64[np.ndarray, " radii"]:
    """Return, per radius, how many of the occurring counts Holm's step-down rejects, from the largest count down.

    Args:
        histogram: elements at each count that occurs (all > 0), by ascending count.
        log_p: log p-values of those counts, one row per radius, descending along a row.
        alpha: family-wise error over all elements, for one radius.

    Returns:
        r per radius: the elements at the r largest occurring counts are certified.
    """
    sizes = histogram[::-1]
    remaining = sizes.sum() - (np.cumsum(sizes) - sizes)  # m - j + 1 at the first element of each group of ties
    passing = log_p[:, ::-1] + np.log(remaining) <= np.log(alpha)
    return np.cumprod(passing, axis=1).sum(axis=1)
