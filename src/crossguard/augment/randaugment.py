"""RandAugment (Cubuk et al., 2020) on batches, with randomness that belongs to each picture."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.noise import uniform
from crossguard.augment.pixel_edits import PIXEL_EDITS
from crossguard.augment.pixels import PixelSource, check_size


class RandAugment(PixelSource):
    """A few random operations out of fourteen, all at one magnitude.

    Args:
        operations: how many are applied, one after another (N of the paper).
        magnitude: strength of all of them, 0 to 30 (M of the paper).
        size: bring pictures to this shorter side first and crop a square; None leaves them as large as they are.

    Raises:
        ValueError: an option out of range.
    """

    name = "randaugment"

    def __init__(self, *, operations: int = 2, magnitude: float | int = 9, size: int | None = None) -> None:
        if operations < 1:
            raise ValueError(f"Expected `operations` >= 1, but got {operations}.")
        if not 0 <= magnitude <= 30:
            raise ValueError(f"Expected `magnitude` in 0..30, but got {magnitude}.")
        check_size(size)
        self.operations, self.magnitude, self.size = operations, magnitude, size
        self.options = {"operations": operations, "magnitude": magnitude, "size": size}

    def transform(
        self, pixels: Float[Tensor, "images 3 height width"], ids: Int64[Tensor, " images"], *, seed: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Apply each picture's own operations."""
        draws = uniform(ids, (self.operations, 2), seed=seed)
        edits = list(PIXEL_EDITS.values())
        chosen = (draws[..., 0] * len(edits)).long()
        signs = 1 - 2 * (draws[..., 1] < 0.5).float()
        for step in range(self.operations):
            result = pixels.clone()
            for number in chosen[:, step].unique().tolist():
                rows = (chosen[:, step] == number).nonzero().flatten()
                sign = signs[rows, step].to(pixels.device)
                strength = torch.full_like(sign, self.magnitude / 30)
                rows = rows.to(pixels.device)
                result[rows] = edits[number](pixels[rows], strength, sign).clamp(0, 1)
            pixels = result
        return pixels
