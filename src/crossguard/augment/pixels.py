"""Sources that change pixels: pictures of one size together in batches, on 8 bits in and out."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from crossguard.augment.base import Made, MadePicture, Request, Side, sample_ids
from crossguard.data import OneToManyPairs


class PixelSource(ABC):
    """Base of sources that make variations of a picture from its pixels; authors write `transform`.

    Attributes:
        name: its name in the table.
        options: everything that decides what it makes.
        size: shorter side in pixels that pictures are brought to first, cropped to a square; None leaves them.
    """

    name: str
    options: Mapping[str, Any]
    size: int | None = None
    per: Side = "images"
    block = 64

    def make_images(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadePicture]]:
        """Return variations of every picture, as large as it is (or as `size` says)."""
        images = [fit_square(pairs.image(item), self.size) for item in items]
        ids = sample_ids(self.name, [pairs.images[item].key for item in items], request.count)
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in range(len(ids)):
            groups[images[row // request.count].size].append(row)
        made: dict[int, Image.Image] = {}
        for rows in groups.values():
            for at in range(0, len(rows), request.batch_size):
                chunk = rows[at : at + request.batch_size]
                pixels = from_images([images[row // request.count] for row in chunk]).to(request.device)
                changed = self.transform(pixels, ids[chunk], seed=request.seed)
                made.update(zip(chunk, to_images(changed), strict=True))
        return [
            [Made(made[place * request.count + draw], images=(item,)) for draw in range(request.count)]
            for place, item in enumerate(items)
        ]

    @abstractmethod
    def transform(
        self, pixels: Float[Tensor, "images 3 height width"], ids: Int64[Tensor, " images"], *, seed: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Return one variation of each picture, pixels in [0, 1].

        Args:
            pixels: in [0, 1]; do not write into it.
            ids: what each variation's randomness belongs to, with `seed` (see `crossguard.attacks.noise`).
            seed: the augmentation's seed.
        """


def fit_square(image: Image.Image, size: int | None) -> Image.Image:
    """Bring the shorter side to `size` (bicubic) and crop the centre; None returns the image as it is."""
    if size is None:
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def from_images(images: Sequence[Image.Image]) -> Float[Tensor, "images 3 height width"]:
    """Return RGB images of one size as float32 pixels in [0, 1]."""
    stack = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255


def to_images(pixels: Float[Tensor, "images 3 height width"]) -> list[Image.Image]:
    """Return pixels in [0, 1], clamped and rounded to 8 bits, as images."""
    stack = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in stack]


def check_size(size: int | None) -> None:
    """Refuse sizes below one pixel.

    Raises:
        ValueError: saying what came.
    """
    if size is not None and size < 1:
        raise ValueError(f"Expected `size` >= 1 pixel or None, but got {size}.")
