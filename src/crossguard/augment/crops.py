"""Random crops, brought back to the size of the picture."""

import math

import torch
from jaxtyping import Float, Int64
from kornia.geometry.transform import crop_and_resize
from torch import Tensor

from crossguard.attacks.noise import uniform
from crossguard.augment.pixels import PixelSource, check_size


class Crops(PixelSource):
    """A part of the picture, of random area, shape and place, enlarged to the picture's size (bilinear).

    Args:
        smallest: the smallest area of a part, as a share of the picture; the largest is all of it.
        stretch: the most a part's shape differs from the picture's, as a ratio of ratios.
        size: bring pictures to this shorter side first and crop a square; None leaves them as large as they are.

    Raises:
        ValueError: an option out of range.
    """

    name = "crops"

    def __init__(self, *, smallest: float | int = 0.5, stretch: float | int = 4 / 3, size: int | None = None) -> None:
        if not 0 < smallest <= 1:
            raise ValueError(f"Expected `smallest` in (0, 1], but got {smallest}.")
        if stretch < 1:
            raise ValueError(f"Expected `stretch` >= 1, but got {stretch}.")
        check_size(size)
        self.smallest, self.stretch, self.size = smallest, stretch, size
        self.options = {"smallest": smallest, "stretch": stretch, "size": size}

    def boxes(self, ids: Int64[Tensor, " images"], *, seed: int) -> Float[Tensor, "images 4"]:
        """Draw (left, top, width, height) of every part, as shares of the picture."""
        area, shape, across, along = uniform(ids, (4,), seed=seed).T
        area = self.smallest + (1 - self.smallest) * area
        ratio = torch.exp((2 * shape - 1) * math.log(self.stretch))
        width = (area * ratio).sqrt().clamp(max=1)
        height = (area / width).clamp(max=1)  # what one side cannot give the other does
        width = (area / height).clamp(max=1)
        return torch.stack([across * (1 - width), along * (1 - height), width, height], dim=1)

    def transform(
        self, pixels: Float[Tensor, "images 3 height width"], ids: Int64[Tensor, " images"], *, seed: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Cut and enlarge each picture's own part."""
        rows, columns = pixels.shape[2:]
        left, top, width, height = self.boxes(ids, seed=seed).to(pixels.device).T
        left, right = left * (columns - 1), (left + width) * (columns - 1)
        top, bottom = top * (rows - 1), (top + height) * (rows - 1)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        boxes = torch.stack([torch.stack(corner, dim=1) for corner in corners], dim=1)
        return crop_and_resize(pixels, boxes, (rows, columns), padding_mode="border", align_corners=True)
