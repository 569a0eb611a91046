"""Filling the pixels that were not kept from those that were, so that an ordinary network can read sparse images."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_LEVELS = 10.0  # scale of the channel that tells how far the nearest kept pixels are: 2^10 pixels are a whole image


def fill_holes(
    values: Float[Tensor, "images channels height width"], measured: Bool[Tensor, "images height width"]
) -> Float[Tensor, "images channels_and_level height width"]:
    """Fill by an image pyramid: each hole takes the mean of the measured pixels at the finest level that has any.

    A level halves the one before it, each of its pixels being the mean of the measured ones below it (the pull phase
    of Gortler et al., "The lumigraph", SIGGRAPH 1996); on the way back empty pixels take the coarser level's
    values, interpolated bilinearly (push). Measured pixels keep their values. Of one pixel in 500 a plain network sees
    nearly nothing but zeros; of the filled image it sees a blurred scene.

    Args:
        values: float [images, channels, height, width]; not changed. What is not measured is not read, not even NaN.
        measured: bool [images, height, width].

    Returns:
        The filled channels, zeros where an image has no measured pixel at all, and one channel more: the level at which
        the value was found, divided by 10; 0 where it was measured.
    """
    mask = measured[:, None].to(values.dtype)
    level = torch.where(measured[:, None], values, torch.zeros_like(values))
    pyramid = [(level, mask)]
    while max(level.shape[2:]) > 1:
        level, mask = (
            nn.functional.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (level, mask)
        )
        pyramid.append((level, mask))
    filled = torch.zeros_like(pyramid[-1][0])
    found = torch.full_like(pyramid[-1][1], len(pyramid))
    for depth in reversed(range(len(pyramid))):
        level, mask = pyramid[depth]
        if filled.shape[2:] != level.shape[2:]:
            both = nn.functional.interpolate(
                torch.cat([filled, found], dim=1), size=level.shape[2:], mode="bilinear", align_corners=False
            )
            filled, found = both[:, :-1], both[:, -1:]
        here = mask > 0
        # Sums over a cell and its share of measured pixels were divided by the same area.
        filled = torch.where(here, level / mask.clamp_min(1e-12), filled)
        found = torch.where(here, torch.full_like(found, depth), found)
    return torch.cat([filled, found / _LEVELS], dim=1)
