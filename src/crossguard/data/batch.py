"""`PairBatch`: pixels, texts and links of one batch, as attacks and training take them."""

from dataclasses import dataclass

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

    @property
    def positives(self) -> Bool[Tensor, "images texts"]:
        """Which (image, text) are true pairs, as a matrix on the device of `pixels`."""
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
    rows = [
        (row, column)
        for row, image in enumerate(image_ids)
        for column in np.flatnonzero(np.isin(text_ids, pairs.texts_of(int(image))))
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
