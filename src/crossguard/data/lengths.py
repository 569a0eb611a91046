"""Samples of different lengths: how many of the elements of a padded array each has."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from crossguard.checks import lookup


def checked_lengths(
    lengths: Mapping[str, np.ndarray], sizes: Mapping[str, int], samples: int
) -> dict[str, Int64[np.ndarray, " samples"]]:
    """Return the lengths of the modalities that are named.

    Args:
        lengths: elements of each sample, >= 1, by modality.
        sizes: elements of the arrays, by modality.
        samples: number of samples.

    Raises:
        ValueError: an unknown modality, lengths of another shape, or beyond the data.
    """
    found = {}
    for modality, given in lengths.items():
        size, own = lookup(sizes, modality, what="modality in `lengths`"), np.asarray(given)
        if own.shape != (samples,) or not np.issubdtype(own.dtype, np.integer):
            raise ValueError(
                f"Expected `lengths[{modality!r}]` to be integers [{samples}], but got {own.dtype} {list(own.shape)}."
            )
        if samples and (own.min() < 1 or own.max() > size):
            raise ValueError(
                f"Expected `lengths[{modality!r}]` in 1..{size}, the elements there are, but got {own.min()}.."
                f"{own.max()}."
            )
        found[modality] = own.astype(np.int64)
    return found
