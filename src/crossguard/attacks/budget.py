"""Staying within a budget: projection of pixels onto the 8-bit grid inside the L-inf ball, counting word edits."""

import torch
from jaxtyping import Float
from torch import Tensor


def project_pixels(
    pixels: Float[Tensor, "images 3 height width"],
    source: Float[Tensor, "images 3 height width"],
    *,
    eps: float,
) -> Float[Tensor, "images 3 height width"]:
    """Move pixels to the nearest 8-bit values within `eps` of the source and in [0, 1].

    A pixel that has no 8-bit value within `eps` of it keeps its source value, so that the result is always within
    budget, both as it is and after it was stored with 8 bits.

    Args:
        pixels: what an attack made.
        source: the clean pixels in [0, 1].
        eps: L-inf budget in [0, 1].
    """
    slack = 1e-4  # grey levels; sources come as float32 multiples of 1/255
    low = torch.ceil((source - eps).clamp(min=0) * 255 - slack)
    high = torch.floor((source + eps).clamp(max=1) * 255 + slack)
    grid = torch.minimum(torch.maximum(torch.round(pixels * 255), low), high) / 255
    moved = (low <= high) & (pixels != source)
    return torch.where(moved, grid, source)


def count_word_edits(source: str, edited: str) -> int:
    """Return the Levenshtein distance between two texts in words (split at white space).

    Example:
        >>> count_word_edits("a cat on a mat", "a dog on mat")
        2
    """
    a, b = source.split(), edited.split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]
