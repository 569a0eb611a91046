"""The fourteen operations of RandAugment (Cubuk et al., 2020), each on a batch with one strength per picture.

Pixels are in [0, 1] in and out. Strengths are in [0, 1]; signs are +1 or -1 and only matter to operations that have
two directions. The ranges are those of the paper's code at its strongest setting, magnitude 30.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from kornia.enhance import equalize, posterize, sharpness, solarize
from kornia.geometry.transform import warp_affine
from torch import Tensor

Pixels: TypeAlias = Float[Tensor, "images 3 height width"]
PerImage: TypeAlias = Float[Tensor, " images"]
PixelEdit: TypeAlias = Callable[[Pixels, PerImage, PerImage], Pixels]

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma, as in Pillow


def identity(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Leave the picture as it is."""
    return pixels


def autocontrast(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Stretch every channel to [0, 1]; a channel of one value stays."""
    low, high = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (pixels - low) / (high - low).clamp(min=1e-6), pixels)


def equalise(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Make the histogram of every channel flat."""
    return equalize(pixels)


def invert_bright(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Solarise: invert all values at or above 1 - strength."""
    return solarize(pixels, thresholds=(1 - strength).clamp(0, 1))


def reduce_bits(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Posterise to 8 down to 4 bits per channel."""
    return posterize(pixels, (8 - (4 * strength).round()).int())


def colour(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Blend away from grey or towards it, by up to 90 %."""
    return _blend(_grey(pixels).expand_as(pixels), pixels, strength, sign)


def contrast(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Blend away from the mean grey or towards it, by up to 90 %."""
    mean = _grey(pixels).mean(dim=(2, 3), keepdim=True)
    return _blend(mean.expand_as(pixels), pixels, strength, sign)


def brightness(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Blend away from black or towards it, by up to 90 %."""
    return _blend(torch.zeros_like(pixels), pixels, strength, sign)


def sharpen(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Blend away from a smoothed picture or towards it, by up to 90 %."""
    return sharpness(pixels, 1 + 0.9 * sign * strength)


def rotate(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Turn by up to 30 degrees about the centre."""
    angle = sign * strength * math.radians(30)
    cos, sin = angle.cos(), angle.sin()
    return _warp(pixels, cos, -sin, sin, cos)


def shear_x(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Shear sideways by up to 0.3."""
    one = torch.ones_like(strength)
    return _warp(pixels, one, 0.3 * sign * strength, 0 * one, one)


def shear_y(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Shear up or down by up to 0.3."""
    one = torch.ones_like(strength)
    return _warp(pixels, one, 0 * one, 0.3 * sign * strength, one)


def shift_x(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Shift sideways by up to 150/331 of the width."""
    one = torch.ones_like(strength)
    return _warp(pixels, one, 0 * one, 0 * one, one, right=sign * strength * 150 / 331)


def shift_y(pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    """Shift up or down by up to 150/331 of the height."""
    one = torch.ones_like(strength)
    return _warp(pixels, one, 0 * one, 0 * one, one, down=sign * strength * 150 / 331)


PIXEL_EDITS: dict[str, PixelEdit] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalise": equalise,
    "solarise": invert_bright,
    "posterise": reduce_bits,
    "colour": colour,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpen,
    "rotate": rotate,
    "shear-x": shear_x,
    "shear-y": shear_y,
    "shift-x": shift_x,
    "shift-y": shift_y,
}


def _grey(pixels: Pixels) -> Float[Tensor, "images 1 height width"]:
    weights = torch.tensor(_GREY, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)


def _blend(base: Pixels, pixels: Pixels, strength: PerImage, sign: PerImage) -> Pixels:
    factor = (1 + 0.9 * sign * strength).view(-1, 1, 1, 1)
    return (base + factor * (pixels - base)).clamp(0, 1)


def _warp(
    pixels: Pixels,
    xx: PerImage,
    xy: PerImage,
    yx: PerImage,
    yy: PerImage,
    *,
    right: PerImage | None = None,
    down: PerImage | None = None,
) -> Pixels:
    """Map (x, y) about the centre to (xx x + xy y, yx x + yy y), shifted by shares of width and height.

    What comes in from outside repeats the border.
    """
    height, width = pixels.shape[2:]
    x, y = (width - 1) / 2, (height - 1) / 2
    across = x - xx * x - xy * y + (0 if right is None else right * width)
    along = y - yx * x - yy * y + (0 if down is None else down * height)
    matrix = torch.stack([torch.stack([xx, xy, across], dim=1), torch.stack([yx, yy, along], dim=1)], dim=1)
    return warp_affine(pixels, matrix, (height, width), padding_mode="border", align_corners=True)
