"""From certified patches to certified stickers: squares that an attacker may put anywhere on an image."""

from math import isqrt

from crossguard.certify.arguments import whole_number


def sticker_patches(side: int, patch: int) -> int:
    """Return how many patches a square sticker touches at most: (ceil((side - 1) / patch) + 1)^2, wherever it lies.

    Args:
        side: of the sticker, in pixels; 0 for none.
        patch: side of a patch, in pixels.

    Raises:
        ValueError: a number that is not whole, a negative side, or a patch below 1.

    Example:
        >>> [sticker_patches(side, 8) for side in (0, 1, 2, 9, 10)]
        [0, 1, 4, 4, 9]
    """
    side, patch = whole_number(side, "side"), whole_number(patch, "patch", least=1)
    return (-(-(side - 1) // patch) + 1) ** 2 if side else 0


def largest_sticker(patches: int, patch: int) -> int:
    """Return the largest side, in pixels, of a sticker that touches at most so many patches wherever it lies.

    Args:
        patches: certified radius in patches.
        patch: side of a patch, in pixels.

    Raises:
        ValueError: a number that is not whole, negative patches, or a patch below 1.

    Example:
        >>> [largest_sticker(r, 8) for r in (0, 1, 3, 4, 8, 9)]
        [0, 1, 1, 9, 9, 17]
    """
    patches, patch = whole_number(patches, "patches"), whole_number(patch, "patch", least=1)
    return (isqrt(patches) - 1) * patch + 1 if patches else 0
