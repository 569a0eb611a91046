"""Random views of small drawings, as batched tensor operations.

Two art styles differ in outline and colour most of all, so the strong views draw outlines, remove them, and shift
colours; hue moves little because colour is meaning here (a green square is not a blue one).
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

Pixels = Float[Tensor, "images 3 height width"]


def strong_views(pixels: Pixels, generator: Generator) -> Pixels:
    """Return outlines changed, colours shifted and shapes warped, at the same size; pixels in [0, 1]."""
    return warp(shift_colours(change_outlines(pixels, generator), generator), generator, size=pixels.shape[-1])


def light_views(pixels: Pixels, generator: Generator, *, size: int) -> Float[Tensor, "images 3 {size} {size}"]:
    """Return a little of everything, at `size` x `size` pixels, with a patch erased and noise on some."""
    pixels = warp(pixels, generator, size=size, strength=0.5)
    return soften(erase(shift_colours(pixels, generator, strength=0.5), generator), generator)


def change_outlines(pixels: Pixels, generator: Generator) -> Pixels:
    """Close dark lines, draw new ones along the edges, thicken them, or (half of the time) leave a picture alone."""
    bright = F.max_pool2d(pixels, 3, 1, 1)
    dark = -F.max_pool2d(-pixels, 3, 1, 1)
    closed = -F.max_pool2d(-bright, 3, 1, 1)  # lines up to 2 pixels wide vanish
    closed_more = -F.max_pool2d(-F.max_pool2d(pixels, 5, 1, 2), 5, 1, 2)  # up to 4
    edge = (bright - dark).amax(1, keepdim=True)
    thin_line = pixels * (1 - (2 * edge - 0.3).clamp(0, 1))
    thick_line = pixels * (1 - (2 * F.max_pool2d(edge, 3, 1, 1) - 0.3).clamp(0, 1))
    choice = _uniform(len(pixels), 0.0, 1.0, generator)
    result = pixels
    bounds = ((0.0, closed_more), (0.15, closed), (0.25, thick_line), (0.40, thin_line), (0.48, dark))
    for low, variant in bounds:
        result = torch.where(choice >= low, variant, result)
    return torch.where(choice >= 0.53, pixels, result)


def shift_colours(pixels: Pixels, generator: Generator, *, strength: float = 1.0) -> Pixels:
    """Change saturation (sometimes to grey), hue, contrast, brightness and the balance of the channels."""
    count, s = len(pixels), strength
    grey = (pixels * pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = torch.exp(_uniform(count, -0.5 * s, 0.4 * s, generator))
    saturation = saturation * (_uniform(count, 0.0, 1.0, generator) >= 0.08 * s)
    pixels = grey + (pixels - grey) * saturation
    turn = _hue_rotation(_uniform(count, -0.35 * s, 0.35 * s, generator).flatten())
    pixels = torch.einsum("nij,njhw->nihw", turn, pixels)
    contrast = torch.exp(_uniform(count, -0.3 * s, 0.25 * s, generator))
    pixels = 0.6 + (pixels - 0.6) * contrast + _uniform(count, -0.1 * s, 0.1 * s, generator)
    balance = torch.exp(_uniform(3 * count, -0.1 * s, 0.1 * s, generator).view(count, 3, 1, 1))
    return (pixels * balance).clamp(0, 1)


def _hue_rotation(angle: Float[Tensor, " images"]) -> Float[Tensor, "images 3 3"]:
    """Return rotations of RGB about the grey axis by `angle` radians (Rodrigues' formula)."""
    cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
    same, next_one, last = cos + (1 - cos) / 3, (1 - cos) / 3 - sin, (1 - cos) / 3 + sin
    rows = (same, next_one, last, last, same, next_one, next_one, last, same)
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def warp(
    pixels: Pixels, generator: Generator, *, size: int, strength: float = 1.0
) -> Float[Tensor, "images 3 {size} {size}"]:
    """Scale, turn, stretch, shear and move, on a white ground, and resample to `size` x `size`."""
    count, s = len(pixels), strength
    scale = torch.exp(_uniform(count, -0.12 * s, 0.3 * s, generator)).flatten()
    angle = (_uniform(count, -0.3 * s, 0.3 * s, generator) * (_uniform(count, 0.0, 1.0, generator) < 0.6)).flatten()
    stretch = torch.exp(_uniform(count, -0.12 * s, 0.12 * s, generator)).flatten()
    shear = _uniform(count, -0.15 * s, 0.15 * s, generator).flatten()
    moves = _uniform(2 * count, -0.15 * s, 0.15 * s, generator).view(count, 2)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    matrix = torch.stack((cos * stretch, shear - sin, moves[:, 0], sin, cos / stretch, moves[:, 1]), dim=1)
    if size < pixels.shape[-1]:  # blur a little first, so that lines do not alias
        pixels = F.interpolate(pixels, size=int(1.25 * size), mode="bilinear", antialias=True, align_corners=False)
    grid = F.affine_grid(matrix.view(count, 2, 3), [count, 3, size, size], align_corners=False)
    ink = F.grid_sample(1 - pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 1 - ink


def erase(pixels: Pixels, generator: Generator, *, share: float = 0.35) -> Pixels:
    """Cover a rectangle of 16 to 44 % of each side with white or one colour, in a `share` of the pictures."""
    count, _, height, width = pixels.shape
    middle = _uniform(2 * count, 0.0, 1.0, generator).view(count, 2, 1, 1)
    half = _uniform(2 * count, 0.08, 0.22, generator).view(count, 2, 1, 1)
    rows = torch.arange(height).view(1, height, 1) / height
    columns = torch.arange(width).view(1, 1, width) / width
    inside = ((rows - middle[:, 0]).abs() < half[:, 0]) & ((columns - middle[:, 1]).abs() < half[:, 1])
    inside = inside[:, None] & (_uniform(count, 0.0, 1.0, generator) < share)
    colour = _uniform(3 * count, 0.0, 1.0, generator).view(count, 3, 1, 1)
    colour = torch.where(_uniform(count, 0.0, 1.0, generator) < 0.5, torch.ones_like(colour), colour)
    return torch.where(inside, colour, pixels)


def soften(pixels: Pixels, generator: Generator) -> Pixels:
    """Blur a quarter of the pictures, sharpen some, and put faint noise on some."""
    count = len(pixels)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    choice, amount = _uniform(count, 0.0, 1.0, generator), _uniform(count, 0.0, 1.0, generator)
    sign = torch.where(choice < 0.25, 1.0, torch.where(choice < 0.4, -1.0, 0.0))
    noise = torch.randn(pixels.shape, generator=generator) * _uniform(count, 0.0, 0.03, generator)
    noise = noise * (_uniform(count, 0.0, 1.0, generator) < 0.4)
    return (pixels + sign * amount * (blurred - pixels) + noise).clamp(0, 1)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Float[Tensor, "count 1 1 1"]:
    return torch.empty(count, 1, 1, 1).uniform_(low, high, generator=generator)
