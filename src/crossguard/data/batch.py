"""`PairBatch`: pixels, texts and links of one batch, as attacks and training take them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.data.pairs import OneToManyPairs


@dataclass(frozen=True)
class PairBatch:
    """Images and texts of one batch with all true links among them.

    Args:
        pixels: float [images, 3, height, width] in [0, 1], before the model's normalisation.
        texts: the texts.
        links: int64 [links, 2] of (position in `pixels`, position in `texts`); a position may have no link.
        image_ids: int64 [images], the images' indices in their data set.
        text_ids: int64 [texts], the texts' indices in their data set.
    """

    pixels: Float[Tensor, "images 3 height width"]
    texts: tuple[str, ...]
    links: Int64[Tensor, "links 2"]
    image_ids: Int64[Tensor, " images"]
    text_ids: Int64[Tensor, " texts"]

    @cached_property
    def positives(self) -> Bool[Tensor, "images texts"]:
        """Which (image, text) are true pairs, as a matrix on the device of `pixels`; made once, not to be changed."""
        matrix = torch.zeros(len(self.pixels), len(self.texts), dtype=torch.bool, device=self.pixels.device)
        links = self.links.to(matrix.device)
        matrix[links[:, 0], links[:, 1]] = True
        return matrix

    def to(self, device: torch.device | str) -> "PairBatch":
        """Return the batch with its tensors on `device`."""
        return PairBatch(
            self.pixels.to(device),
            self.texts,
            self.links.to(device),
            self.image_ids.to(device),
            self.text_ids.to(device),
        )


def links_among(
    pairs: OneToManyPairs, image_ids: Int64[np.ndarray, " images"], text_ids: Int64[np.ndarray, " texts"]
) -> Int64[np.ndarray, "links 2"]:
    """Return every true link among the chosen images and texts, as positions in the two choices.

    An index may be chosen more than once; every copy gets its links.
    """
    texts, bounds = pairs.texts_by_image
    first, last = bounds[image_ids], bounds[image_ids + 1]
    row, text = np.repeat(np.arange(len(image_ids)), last - first), texts[_ranges(first, last)]
    order = np.argsort(text_ids, kind="stable")
    first, last = (np.searchsorted(text_ids[order], text, side=side) for side in ("left", "right"))
    found = np.stack([np.repeat(row, last - first), order[_ranges(first, last)]], axis=1)
    return found[np.lexsort((found[:, 1], found[:, 0]))].astype(np.int64)


def _ranges(first: Int64[np.ndarray, " some"], last: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " _"]:
    """Return all numbers from each `first` to the one before each `last`."""
    counts = last - first
    return np.arange(counts.sum()) + np.repeat(first - (counts.cumsum() - counts), counts)
