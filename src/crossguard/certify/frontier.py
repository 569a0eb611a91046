"""The frontier: all radius vectors at which a label is certified and that cannot grow in any modality."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int64

from crossguard.certify.thresholds import RadiusMargins


def maximal_radii(margins: RadiusMargins, gap: float) -> Int64[np.ndarray, "points modalities"]:
    """Return the maximal radius vectors whose margin is at most `gap`, in ascending order.

    Args:
        margins: of the sub-sampling.
        gap: lower bound on p_A - p_B that holds for all radii at once.

    Returns:
        int64 [points, modalities]; no row when not even radius 0 is certified. Nothing beyond a row is certified, and
        everything below one is.
    """
    return _maximal(margins, float(gap)).copy()


@lru_cache(maxsize=4096)  # inputs share few different counts
def _maximal(margins: RadiusMargins, gap: float) -> np.ndarray:
    reach = margins.reach(gap)
    if reach[0] < 0:
        return np.empty((0, len(reach)), dtype=np.int64)
    inside = margins.grid([range(r + 1) for r in reach]) <= gap
    return np.argwhere(maximal_cells(inside)).astype(np.int64)


def maximal_cells(inside: Bool[np.ndarray, "*axes"]) -> Bool[np.ndarray, "*axes"]:
    """Return the cells of a region that is closed downwards from which no step along any axis stays inside."""
    maximal = inside.copy()
    for axis in range(inside.ndim):
        beyond = np.zeros_like(inside)
        ahead = [slice(None)] * inside.ndim
        ahead[axis] = slice(1, None)
        here = [slice(None)] * inside.ndim
        here[axis] = slice(None, -1)
        beyond[tuple(here)] = inside[tuple(ahead)]
        maximal &= ~beyond
    return maximal


def share_at_least(values: Float[np.ndarray, " right"], needed: Float[np.ndarray, "*axes"], total: int) -> np.ndarray:
    """Return, for each needed margin, the number of values that reach it divided by `total`."""
    ordered = np.sort(values)
    return (len(ordered) - np.searchsorted(ordered, needed, side="left")) / total
