"""Random numbers that belong to a sample: same seed and sample, same noise, in any batch and on any device.

A counter-based generator: every value is a hash of (seed, stream, sample id, position), so nothing has a state. The
mixing function is a 32-bit xor-multiply-shift hash of good avalanche (constants of C. Wellons' hash-prospector).
"""

import math

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor


def uniform(
    ids: Int64[Tensor, " samples"],
    shape: tuple[int, ...],
    *,
    seed: int,
    stream: int = 0,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "samples ..."]:
    """Draw from [0, 1), one independent row per sample id; equal ids get equal rows.

    Args:
        ids: what the samples are called, any whole numbers.
        shape: the shape of one row.
        seed: the seed of the whole attack.
        stream: a number per use (restart, step, view), so that uses are independent.
        device: where the numbers are made.

    Example:
        >>> rows = uniform(torch.tensor([7, 3]), (2,), seed=0)
        >>> torch.equal(rows[1:], uniform(torch.tensor([3]), (2,), seed=0))
        True
    """
    bits = _bits(ids.to(device), math.prod(shape), seed=seed, stream=stream)
    # 24 bits: every value is exact in float32 and below one.
    return (_shifted(bits, 8).float() / 2**24).view(len(ids), *shape)


def normal(
    ids: Int64[Tensor, " samples"],
    shape: tuple[int, ...],
    *,
    seed: int,
    stream: int = 0,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "samples ..."]:
    """Draw from the standard normal distribution (Box-Muller), one independent row per sample id."""
    size = math.prod(shape)
    pairs = (size + 1) // 2
    both = uniform(ids, (2, pairs), seed=seed, stream=stream, device=device)
    radius, angle = (-2 * torch.log1p(-both[:, 0])).sqrt(), 2 * math.pi * both[:, 1]
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :size].reshape(len(ids), *shape)


def _bits(ids: Int64[Tensor, " samples"], size: int, *, seed: int, stream: int) -> Int32[Tensor, "samples values"]:
    # Two keys per row, so that rows whose first keys differ little are not shifted copies of each other.
    folded = _mix((ids ^ (ids >> 32)).to(torch.int32))
    keys = [_mix(_mix(folded ^ _folded(seed, salt)) ^ _folded(stream, salt + 1)) for salt in (1, 3)]
    counter = torch.arange(size, dtype=torch.int32, device=ids.device)
    return _mix(_mix(counter ^ keys[0][:, None]) + keys[1][:, None])


def _folded(value: int, salt: int) -> int:
    mixed = (value * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & (2**64 - 1)
    folded = (mixed ^ (mixed >> 32)) & 0xFFFFFFFF
    return folded - ((folded & 0x80000000) << 1)  # the same 32 bits, with a sign


def _shifted(x: Int32[Tensor, "*shape"], places: int) -> Int32[Tensor, "*shape"]:
    """Shift right, zeros coming in: the shift of signed numbers repeats the sign."""
    return (x >> places) & ((1 << (32 - places)) - 1)


def _mix(x: Int32[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
    # Signed numbers, whose sums and products wrap around as those of unsigned ones do; the constants have no sign.
    x = (x ^ _shifted(x, 16)) * 0x21F0AAAD
    x = (x ^ _shifted(x, 15)) * 0x735A2D97
    return x ^ _shifted(x, 15)
