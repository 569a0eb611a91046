"""Drawing sub-samples, and ablating what they do not keep.

Masks come from a counter, not from a stream: every (seed, input, modality, draw) has its own generator, SplitMix64
(Steele, Lea and Flood, OOPSLA 2014) started at a hash of the four. So a sub-sample does not depend on the batch it
is drawn in, on the device, or on which process draws it.
"""

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from crossguard.certify.arguments import whole_number

Fill = float | Literal["mean"]

_NOISE = 2**29  # stream of the noise, out of the way of other streams of the same seed
_RATE = 2**28  # stream of masks at a rate
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64's constants as signed 64-bit integers, whose products wrap
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def draw_masks(
    *,
    seed: int,
    inputs: Int64[Tensor, " rows"],
    modality: int,
    draws: Int64[Tensor, " rows"],
    n: int,
    k: int,
) -> Bool[Tensor, "rows n"]:
    """Return masks that keep exactly k of n elements, uniformly over all such sets, one per (input, draw).

    Indices are drawn with replacement until k different ones are there, which is uniform; the k or the n - k, whichever
    are fewer, so that the cost per mask is about min(k, n - k) random numbers and one row of n bytes.

    Args:
        seed: of the certification.
        inputs: what the inputs are called, any whole numbers.
        modality: position of the modality.
        draws: index of the draw of each row; row i is draw `draws[i]` of input `inputs[i]`.
        n: number of elements.
        k: number of elements to keep, 0 <= k <= n.

    Returns:
        bool [rows, n] on the device of `inputs`.

    Raises:
        ValueError: k > n, or a number that is not whole.
    """
    n, k = whole_number(n, "n", least=1), whole_number(k, "k")
    if k > n:
        raise ValueError(f"Expected k <= n, but got k = {k} kept of n = {n} elements.")
    state = mixed(seed, inputs, inputs.new_full(inputs.shape, modality), draws)
    few = min(k, n - k)
    chosen = torch.zeros(len(inputs), n, dtype=torch.bool, device=inputs.device)
    used = torch.zeros_like(inputs)
    missing = inputs.new_full(inputs.shape, few)
    rows = torch.arange(len(inputs), device=inputs.device)
    while len(rows):
        # Exactly the missing number of indices is drawn, so that a row never gets more than k.
        steps = torch.arange(int(missing.max()), device=inputs.device)
        counters = used[:, None] + 1 + steps
        index = (_mix(state[rows, None] + counters * _GOLDEN) & (2**63 - 1)) % n + rows[:, None] * n
        wanted = index if (missing == len(steps)).all() else index[steps < missing[:, None]]
        chosen.view(-1)[wanted.flatten()] = True
        used += missing
        missing = few - chosen.sum(dim=1)[rows]
        unfinished = missing > 0
        rows, used, missing = rows[unfinished], used[unfinished], missing[unfinished]
    return chosen if few == k else ~chosen


def rate_masks(
    seed: int,
    inputs: Int64[Tensor, " rows"],
    *,
    modality: int,
    draws: Int64[Tensor, " rows"],
    n: int,
    rate: float,
) -> Bool[Tensor, "rows n"]:
    """Return masks that keep every element independently of the others, with probability `rate` in (0, 1).

    Args:
        seed: of the certification.
        inputs: what the inputs are called.
        modality: position of the modality.
        draws: index of the draw of each row.
        n: number of elements.
        rate: chance that an element is kept, to within 2^-62.
    """
    state = mixed(seed, inputs, inputs.new_full(inputs.shape, _RATE + modality), draws)
    bits = _mix(state[:, None] + (torch.arange(n, device=inputs.device) + 1) * _GOLDEN)
    return (bits & (2**62 - 1)) < int(rate * 2**62)


def gaussian(
    seed: int, names: Int64[Tensor, " rows"], modality: int, draw: Int64[Tensor, " rows"], shape: Sequence[int]
) -> Float[Tensor, "rows ..."]:
    """Return standard normal noise of each (input, draw), whatever the batch: float32 [rows, *shape].

    Args:
        seed: of the certification.
        names: what the inputs are called.
        modality: position of the modality among the noisy ones.
        draw: index of the draw of each row.
        shape: of one sample.
    """
    state = mixed(seed, names, names.new_full(names.shape, _NOISE + modality), draw)
    bits = _mix(state[:, None] + (torch.arange(prod(shape), device=names.device) + 1) * _GOLDEN)
    uniform = ((bits >> 11) & (2**53 - 1)).double().add_(0.5).mul_(2.0**-53)
    return torch.special.ndtri(uniform).float().reshape(len(names), *shape)


def mixed(seed: int, *parts: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
    """Return a hash of the seed and of each row's numbers."""
    state = torch.full_like(parts[0], whole_number(seed, "seed") % 2**63)
    for part in parts:
        state = _mix(state + (part + 1) * _GOLDEN)
    return state


def ablate(
    values: Shaped[Tensor, "rows elements *features"], kept: Bool[Tensor, "rows elements"], *, fill: Fill = 0.0
) -> Shaped[Tensor, "rows elements *features"]:
    """Return the values with everything that is not kept replaced.

    Args:
        values: [rows, elements, ...], floats for a mean; not changed.
        kept: bool [rows, elements].
        fill: a constant, or "mean": the mean over the row's *kept* elements (a mean over all of them would tell the
            model about ablated ones, and the certificate would not hold).

    Raises:
        ValueError: shapes that do not agree.
    """
    if values.shape[: kept.ndim] != kept.shape:
        raise ValueError(f"Expected a mask of the leading shape of {list(values.shape)}, but got {list(kept.shape)}.")
    mask = kept.reshape(kept.shape + (1,) * (values.ndim - kept.ndim))
    if fill == "mean":
        counted = torch.where(mask, values, torch.zeros_like(values)).sum(dim=1, keepdim=True)
        other = counted / mask.sum(dim=1, keepdim=True).clamp_min(1)
    else:
        other = torch.full_like(values[:1, :1], fill)
    return torch.where(mask, values, other)


def ablate_elements(
    values: Shaped[Tensor, "rows ..."], kept: Bool[Tensor, "rows elements"], *, fill: Fill = 0.0
) -> Shaped[Tensor, "rows ..."]:
    """Ablate [rows, elements, ...], or the pixels of [rows, channels, height, width] across their channels."""
    if values.ndim != 4:
        return ablate(values, kept, fill=fill)
    if fill == "mean":
        pixels = values.flatten(2).transpose(1, 2)
        return ablate(pixels, kept, fill=fill).transpose(1, 2).reshape(values.shape)
    mask = kept.reshape(len(values), 1, *values.shape[2:])
    return torch.where(mask, values, torch.tensor(fill, dtype=values.dtype, device=values.device))


def _mix(state: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Int64[Tensor, "*shape"], bits: int) -> Int64[Tensor, "*shape"]:
    return (state >> bits) & (2 ** (64 - bits) - 1)  # a logical shift: torch's >> copies the sign
