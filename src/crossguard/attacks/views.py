"""Changed views of images, at which gradients are taken that other models share: scales, sizes and places, mixes."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from crossguard.attacks.ascent import LossAndGradient, LossPerSample, Pixels, better, with_gradient
from crossguard.attacks.noise import normal, uniform
from crossguard.data import PairBatch


def rescale(
    pixels: Pixels,
    noise: Float[Tensor, "images 3 noise_height noise_width"],
    size: tuple[int, int] | None = None,
) -> Pixels:
    """Resize noisy pixels to another size and back, bicubic both ways; the result is clipped to [0, 1].

    Args:
        pixels: in [0, 1].
        noise: added at the other size, which is its own; or, given a `size`, to the pixels before they are resized.
        size: height and width of the other size.
    """
    if size is None:
        there = _resized(pixels, (noise.shape[-2], noise.shape[-1])) + noise
    else:
        there = _resized(pixels + noise, size)
    return _resized(there, (pixels.shape[-2], pixels.shape[-1])).clamp(0, 1)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(pixels, size=size, mode="bicubic", align_corners=False)


def scaled_gradient(
    loss: LossPerSample,
    batch: PairBatch,
    *,
    scales: Sequence[float],
    noise: float,
    seed: int,
    noise_first: bool = False,
) -> LossAndGradient:
    """Sum the gradients of the image itself and of noisy views at other scales (SGA); the loss is the image's own.

    Args:
        loss: differentiable.
        batch: gives sizes and the ids that noise is drawn by.
        scales: of the views beside the image.
        noise: standard deviation in [0, 1] pixel units.
        seed: of the noise; every call of what is returned draws anew.
        noise_first: add noise to the image at its full size, before it is resized (as published), instead of to the
            resized one.
    """
    height, width = batch.pixels.shape[-2:]
    sizes = [(max(1, math.floor(height * scale)), max(1, math.floor(width * scale))) for scale in scales]
    step = 0

    def gradient(pixels: Pixels) -> tuple[Float[Tensor, " images"], Pixels]:
        nonlocal step
        value, total = with_gradient(loss)(pixels)
        for view, size in enumerate(sizes, start=1):
            stream = view + (len(sizes) + 1) * step
            shape = (3, height, width) if noise_first else (3, *size)
            draw = noise * normal(batch.image_ids, shape, seed=seed, stream=stream, device=pixels.device)
            total = total + with_gradient(_at_scale(loss, draw, size if noise_first else None))(pixels)[1]
        step += 1
        return value, total

    return gradient


def _at_scale(
    loss: LossPerSample, noise: Float[Tensor, "images 3 height width"], size: tuple[int, int] | None
) -> LossPerSample:
    return lambda pixels: loss(rescale(pixels, noise, size))


def diverse_gradient(
    loss: LossPerSample, ids: Int64[Tensor, " images"], *, chance: float, shrink: float, seed: int, stream: int
) -> LossAndGradient:
    """Take the gradient at a random view of each image (diverse inputs; Xie et al., CVPR 2019); the loss is its own.

    Args:
        loss: differentiable.
        ids: of the images, by which views are drawn.
        chance: of an image to be shrunk, per step.
        shrink: the smallest factor.
        seed: of the draws; every call of what is returned draws anew.
        stream: tells ascents of one attack apart.
    """
    step = 0

    def gradient(pixels: Pixels) -> tuple[Float[Tensor, " images"], Pixels]:
        nonlocal step
        # Streams 0, 1, ... are those of random starts.
        where = 1_000_003 * (stream + 1) + step
        draws = uniform(ids, (4,), seed=seed, stream=where, device=pixels.device)
        step += 1
        with torch.no_grad():
            value = loss(pixels)
        return value, with_gradient(lambda p: loss(shrunk(p, draws, chance=chance, shrink=shrink)))(pixels)[1]

    return gradient


def shrunk(pixels: Pixels, draws: Float[Tensor, "images 4"], *, chance: float, shrink: float) -> Pixels:
    """Shrink images to a random size (bilinear) and put them at a random place on black, at the same full size.

    Args:
        pixels: in [0, 1].
        draws: in [0, 1): whether (below `chance`), the factor in (`shrink`, 1], and the place, across and down.
        chance: of an image to be shrunk at all.
        shrink: the smallest factor, in (0, 1].
    """
    factor = 1 - draws[:, 1] * (1 - shrink)
    # In coordinates from -1 to 1 the small picture's centre may lie this far from the middle.
    across, down = ((2 * draws[:, place] - 1) * (1 - factor) for place in (2, 3))
    zero = torch.zeros_like(factor)
    rows = [torch.stack([1 / factor, zero, -across / factor], 1), torch.stack([zero, 1 / factor, -down / factor], 1)]
    grid = affine_grid(torch.stack(rows, 1).to(pixels.dtype), list(pixels.shape), align_corners=False)
    small = grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.where((draws[:, 0] < chance).view(-1, 1, 1, 1), small, pixels)


def mixed_gradient(
    gradient: LossAndGradient, loss: LossPerSample, batch: PairBatch, *, draws: int, seed: int
) -> LossAndGradient:
    """Take a gradient at the worst of random mixes of the clean, the previous and the present image (DRA).

    Args:
        gradient: what is taken there.
        loss: tells which mix is worst, and is returned for the present image.
        batch: gives the clean pixels and the ids that weights are drawn by.
        draws: mixes per step.
        seed: of the draws; every call of what is returned draws anew.
    """
    previous: Pixels | None = None
    step = 0

    def at_worst(pixels: Pixels) -> tuple[Float[Tensor, " images"], Pixels]:
        nonlocal previous, step
        corners = torch.stack([batch.pixels, pixels if previous is None else previous, pixels])
        worst, worst_loss = pixels, None
        with torch.no_grad():
            value = loss(pixels)
            for draw in range(draws):
                weights = simplex(batch, seed=seed, stream=2_000_003 + draws * step + draw)
                mix = torch.einsum("ic,cikhw->ikhw", weights, corners)
                worst, worst_loss = better(worst, worst_loss, mix, loss(mix))
        previous, step = pixels, step + 1
        return value, gradient(worst)[1]

    return at_worst


def simplex(batch: PairBatch, *, seed: int, stream: int) -> Float[Tensor, "images 3"]:
    """Draw three weights that sum to one, uniform on the triangle, per image id: the gaps of two sorted uniforms."""
    cuts = uniform(batch.image_ids, (2,), seed=seed, stream=stream, device=batch.pixels.device).sort(dim=1).values
    ends = torch.cat([torch.zeros_like(cuts[:, :1]), cuts, torch.ones_like(cuts[:, :1])], dim=1)
    return ends.diff(dim=1)
