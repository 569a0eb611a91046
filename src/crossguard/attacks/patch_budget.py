"""Staying within a budget of patches: the 8-bit grid, and counting the patches that differ."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.models import VisionLanguageModel
from crossguard.models.patches import to_patches


def patch_grid(model: VisionLanguageModel) -> tuple[int, int]:
    """Return (rows, columns) of the patches that an image's elements are.

    Raises:
        ValueError: the model does not say.
    """
    grid: tuple[int, int] | None = getattr(model, "patch_grid", None)
    if grid is None:
        raise ValueError(
            f"Expected a model with a `patch_grid` (rows, columns), whose patches a budget of elements counts, but "
            f"{model.name!r} has none."
        )
    return grid


def project_patches(
    pixels: Float[Tensor, "images 3 height width"], source: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images 3 height width"]:
    """Move changed pixels to the nearest 8-bit values in [0, 1]; pixels that equal the source keep its value."""
    return torch.where(pixels == source, source, (pixels.clamp(0, 1) * 255).round() / 255)


def changed_patches(
    pixels: Float[Tensor, "images 3 height width"],
    source: Float[Tensor, "images 3 height width"],
    grid: tuple[int, int],
) -> Int64[Tensor, " images"]:
    """Return in how many patches of a grid (rows, columns) a pixel differs from the source's."""
    return to_patches((pixels != source).to(pixels.dtype), grid).flatten(2).any(dim=2).sum(dim=1)
