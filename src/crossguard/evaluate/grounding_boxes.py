"""From maps to boxes: score every proposal, take the best, and hold it against the true box."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch.nn.functional import interpolate

RIGHT = 0.5
"""The overlap (intersection over union) with the true box from which an answer is right."""


def box_scores(
    maps: Float64[np.ndarray, "maps rows columns"],
    boxes: Float64[np.ndarray, "boxes 4"],
    *,
    height: int,
    width: int,
) -> Float64[np.ndarray, "maps boxes"]:
    """Score boxes by the map inside them: its sum over their pixels, divided by the root of their area (ALBEF).

    A map stands for its bicubic enlargement to the photo. That is linear in the map, rows and columns apart, so that
    the sum over a box needs no enlarged map: it is r' M c with the box's share r of every row of cells and c of every
    column.

    Args:
        maps: of one photo, >= 0.
        boxes: (left, top, width, height) in pixels of the photo; their corners are cut to whole pixels, as slices are.
        height: of the photo, in pixels.
        width: of the photo.

    Returns:
        One score per map and box; exactly 0 for a map of zeros.
    """
    left, top, wide, tall = boxes.T
    rows = _shares(maps.shape[1], height, top, top + tall)
    columns = _shares(maps.shape[2], width, left, left + wide)
    inside = np.einsum("br,mrc,bc->mb", rows, maps, columns, optimize=True)
    scores: np.ndarray = inside / np.sqrt(wide * tall)
    return scores


def choose(scores: Float64[np.ndarray, "maps boxes"]) -> Int64[np.ndarray, " maps"]:
    """Return the box of the highest score per map, the first among equals; -1 where no score is above 0."""
    best = scores.argmax(axis=1)
    return np.where(scores.max(axis=1) > 0, best, -1).astype(np.int64)


def overlap(
    boxes: Float64[np.ndarray, "boxes 4"], others: Float64[np.ndarray, "boxes 4"]
) -> Float64[np.ndarray, " boxes"]:
    """Return the intersection over union of boxes, one by one, in [0, 1].

    Args:
        boxes: (left, top, width, height), of positive area.
        others: as many.
    """
    corner = np.maximum(boxes[:, :2], others[:, :2])
    end = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = (end - corner).clip(min=0).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + others[:, 2:].prod(axis=1) - shared
    found: np.ndarray = (shared / union).clip(max=1)  # rounding
    return found


def _shares(
    cells: int, length: int, start: Float64[np.ndarray, " boxes"], stop: Float64[np.ndarray, " boxes"]
) -> Float64[np.ndarray, "boxes cells"]:
    """Return how much of every cell lies on the pixels from `start` to before `stop`, both cut to whole pixels."""
    total = _cumulated(cells, length)
    first, last = (np.trunc(ends).astype(np.int64).clip(0, length) for ends in (start, stop))
    found: np.ndarray = total[np.maximum(first, last)] - total[first]
    return found


@lru_cache(maxsize=64)
def _cumulated(cells: int, length: int) -> Float64[np.ndarray, "places cells"]:
    """Return, for every pixel of an axis, the sum of the enlargement's weights before it."""
    each = torch.eye(cells, dtype=torch.float64)[None, :, :, None]  # one cell per channel
    weights = interpolate(each, size=(length, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
    total = np.zeros((length + 1, cells))
    total[1:] = weights.numpy().cumsum(axis=0)
    total.setflags(write=False)
    return total
