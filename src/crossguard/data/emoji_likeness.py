"""Pictures that are nearly equal: the two styles draw some emoji, or some of their skin tones, almost alike."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Int64, UInt8
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_COARSE = 4  # side of the blocks whose sums rule most pairs out
_CHUNK = 512
_SLACK = 1.001  # single precision may put a coarse distance a little too high


def shrunk(pictures: Sequence[Image.Image], *, side: int) -> UInt8[np.ndarray, "pictures {side} {side} 3"]:
    """Return the pictures as emoji-clip sees them: resized to `side` x `side` pixels (bicubic, 8 bits)."""
    small = [np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in pictures]
    return np.stack(small)


def families(
    pixels: UInt8[np.ndarray, "pictures height width channels"], *, within: float
) -> Int64[np.ndarray, " pictures"]:
    """Join pictures that lie near each other, directly or over others between them.

    Two pictures are joined if the root of their mean squared difference, over all pixels and channels, is at most
    `within`. It is compared in whole numbers, so the answer is the same on every machine.

    Args:
        pixels: at least one picture; height and width divisible by 4.
        within: the distance in grey levels, of 255.

    Returns:
        For each picture the smallest index in its family.

    Example:
        >>> dark, darker, light = (np.full((1, 4, 4, 1), level, np.uint8) for level in (12, 10, 200))
        >>> families(np.concatenate([dark, light, darker]), within=2).tolist()
        [0, 1, 0]
    """
    count = len(pixels)
    first, second = _near_pairs(pixels, within)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    _, leader = np.unique(label, return_index=True)
    result: Int64[np.ndarray, " pictures"] = leader[label]
    return result


def _near_pairs(pixels: UInt8[np.ndarray, "..."], within: float) -> tuple[Int[np.ndarray, "..."], ...]:
    """Return the pairs (lower index, higher index) that are at most `within` apart."""
    whole = pixels.reshape(len(pixels), -1)
    limit = within**2 * whole.shape[1]
    found = []
    for first, second in _candidates(pixels, limit):
        difference = whole[first].astype(np.int32) - whole[second]
        near = np.square(difference).sum(axis=1, dtype=np.int64) <= limit
        found.append((first[near], second[near]))
    return tuple(np.concatenate(side) for side in zip(*found, strict=True))


def _candidates(pixels: UInt8[np.ndarray, "..."], limit: float) -> Iterator[tuple[Int[np.ndarray, "..."], ...]]:
    """Give pairs whose squared distance may be within `limit`: that of means over blocks is never larger.

    The sum of squares of n differences is at least the square of their sum over n.
    """
    count, height, width, channels = pixels.shape
    blocks = pixels.reshape(count, height // _COARSE, _COARSE, width // _COARSE, _COARSE, channels)
    sums = blocks.sum(axis=(2, 4), dtype=np.float32).reshape(count, -1) / _COARSE
    sums -= sums.mean(axis=0)  # keeps the cancellation below small
    norms = np.square(sums).sum(axis=1)
    for start in range(0, count, _CHUNK):
        rows = slice(start, start + _CHUNK)
        squared = norms[rows, None] + norms - 2 * (sums[rows] @ sums.T)
        slack = 1e-5 * (norms[rows, None] + norms)
        first, second = np.nonzero(squared <= _SLACK * limit + slack)
        first += start
        yield first[first < second], second[first < second]
