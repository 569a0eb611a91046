"""Deliberately bad sources, for studies of what misaligned samples do to training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from crossguard.attacks.noise import normal
from crossguard.augment.base import Made, MadeText, Request, Side, dice
from crossguard.augment.pixels import PixelSource, check_size
from crossguard.augment.word_edits import swap_words
from crossguard.data import OneToManyPairs

_TRIES = 20


class Shuffled:
    """Captions of other pictures, linked as if they were true.

    Two words of each are exchanged, so that it is a text of its own and the links of the originals stay as they are.
    """

    name = "shuffled"
    per: Side = "images"
    block = 2048

    def __init__(self) -> None:
        self.options: Mapping[str, Any] = {}

    def make_texts(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadeText]]:
        """Return, per picture, texts that the originals link to other pictures only."""
        known = set(pairs.texts)
        return [[Made(text, images=(item,)) for text in self._others(pairs, item, known, request)] for item in items]

    def _others(self, pairs: OneToManyPairs, item: int, known: set[str], request: Request) -> list[str]:
        own = set(np.asarray(pairs.texts_of(item)).tolist())
        found: dict[str, None] = {}
        for draw in range(request.count):
            chance = dice(request.seed, self.name, pairs.images[item].key, draw)
            for _ in range(_TRIES):
                other = chance.randrange(len(pairs.texts))
                text = swap_words(pairs.texts[other], 1, chance)
                if other not in own and text not in known and text not in found:
                    found[text] = None
                    break
        return list(found)


class Distorted(PixelSource):
    """Pictures as coarse mosaics under heavy noise.

    Args:
        cells: width and height of the mosaic.
        noise: standard deviation of the noise, in pixel units.
        size: bring pictures to this shorter side first and crop a square; None leaves them as large as they are.

    Raises:
        ValueError: an option out of range.
    """

    name = "distorted"

    def __init__(self, *, cells: int = 3, noise: float | int = 0.5, size: int | None = None) -> None:
        if cells < 1:
            raise ValueError(f"Expected `cells` >= 1, but got {cells}.")
        if noise < 0:
            raise ValueError(f"Expected `noise` >= 0, but got {noise}.")
        check_size(size)
        self.cells, self.noise, self.size = cells, noise, size
        self.options = {"cells": cells, "noise": noise, "size": size}

    def transform(
        self, pixels: Float[Tensor, "images 3 height width"], ids: Int64[Tensor, " images"], *, seed: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Average over cells and add each picture's own noise."""
        mosaic = interpolate(pixels, size=(self.cells, self.cells), mode="area")
        mosaic = interpolate(mosaic, size=pixels.shape[2:], mode="nearest")
        return (mosaic + self.noise * normal(ids, tuple(pixels.shape[1:]), seed=seed, device=pixels.device)).clamp(0, 1)
