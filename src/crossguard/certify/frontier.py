"""The frontier: all radius vectors at which a label is certified and that cannot grow in any modality."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int64

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
    if len(reach) == 1:
        return np.array([reach], dtype=np.int64)
    heights = _heights(margins, gap, reach)
    maximal = heights >= 0
    for axis in range(heights.ndim):
        ahead = np.full_like(heights, -1)  # one step further along the axis; nothing is certified beyond the reach
        np.moveaxis(ahead, axis, 0)[:-1] = np.moveaxis(heights, axis, 0)[1:]
        maximal &= ahead < heights
    return np.column_stack([np.argwhere(maximal), heights[maximal]]).astype(np.int64)


def _heights(margins: RadiusMargins, gap: float, reach: tuple[int, ...]) -> Int64[np.ndarray, "*others"]:
    """Return the largest certified radius of the last modality, -1 for none, at all radii of the others.

    Margins grow with every radius, so that bisection finds it, for all of them at once: the whole grid is never made.
    """
    *others, last = (r + 1 for r in reach)
    grid = np.meshgrid(*map(np.arange, others), indexing="ij")
    vectors = np.stack([*(axis.ravel() for axis in grid), np.zeros(grid[0].size, dtype=np.int64)], axis=1)
    low = np.full(len(vectors), -1, dtype=np.int64)  # certified there, or -1
    high = np.full(len(vectors), last, dtype=np.int64)  # not certified there
    while (open_ := high - low > 1).any():
        middle = (low + high)[open_] // 2
        vectors[open_, -1] = middle
        inside = margins.at(vectors[open_]) <= gap
        low[open_] = np.where(inside, middle, low[open_])
        high[open_] = np.where(inside, high[open_], middle)
    return low.reshape(grid[0].shape)


def share_at_least(values: Float[np.ndarray, " right"], needed: Float[np.ndarray, "*axes"], total: int) -> np.ndarray:
    """Return, for each needed margin, the number of values that reach it divided by `total`."""
    ordered = np.sort(values)
    return (len(ordered) - np.searchsorted(ordered, needed, side="left")) / total
