"""95 % confidence intervals of shares and of paired differences of shares."""

from math import sqrt

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson(hits: int, total: int, *, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share, in percent (Wilson 1927; Brown, Cai and DasGupta 2001).

    It takes the queries as independent draws; the captions of one image are not quite, so that the true uncertainty
    of image retrieval is somewhat larger.

    Args:
        hits: number of hits, in [0, total].
        total: number of trials, at least 1.
        z: normal quantile; the default gives 95 %.

    Raises:
        ValueError: `hits` outside [0, total], or no trials.

    Example:
        >>> low, high = wilson(0, 10)
        >>> round(low, 2), round(high, 2)
        (0.0, 27.75)
    """
    if total < 1 or not 0 <= hits <= total:
        raise ValueError(f"Expected 0 <= hits <= total and total >= 1, but got {hits} of {total}.")
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == total else min(1.0, centre + half)
    return 100 * low, 100 * high


def paired_drop(only_before: int, only_after: int, total: int, *, z: float = Z95) -> tuple[float, float]:
    """Return an interval of `before - after` for two shares of the same trials, in percent points.

    Agresti and Min (2005): a half is added to each cell of the 2 x 2 table, then the normal interval is taken.

    Args:
        only_before: trials that hit before and miss after.
        only_after: trials that miss before and hit after.
        total: all trials, at least 1.
        z: normal quantile; the default gives 95 %.

    Raises:
        ValueError: negative counts, or more of them than trials.
    """
    if total < 1 or only_before < 0 or only_after < 0 or only_before + only_after > total:
        raise ValueError(
            f"Expected counts >= 0 that sum to at most `total` >= 1, but got {only_before}, {only_after} of {total}."
        )
    lost, won, size = only_before + 0.5, only_after + 0.5, total + 2
    drop = (lost - won) / size
    half = z * sqrt((lost + won) - (lost - won) ** 2 / size) / size
    return 100 * max(-1.0, drop - half), 100 * min(1.0, drop + half)
