"""Modalities under Gaussian noise, beside others that are sub-sampled: levels, and margins of radii.

A sub-sample keeps k_i of n_i elements of some modalities, and every value of others gets noise of N(0, sigma_i^2). With
a and b of the first (`overlap`) and s = sqrt(sum_i (eps_i / sigma_i)^2) of the second, moved by at most eps_i in L2,

    certified  <=>  b > 1/2  and  p_A > 1 - a + a Phi(Phi^-1(1 / (2 b)) + s),

where p_B is at most 1 - p_A (see `worst_case`). Without sub-sampled modalities it is randomized smoothing (Cohen et
al., ICML 2019), without noise the certificate by sub-sampling (MMCert, CVPR 2024).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as tuples
from math import inf, isfinite, prod
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from crossguard.certify.overlap import ULP, normal_cdf, normal_quantile
from crossguard.certify.thresholds import (
    NEVER,
    JointMargins,
    Margins,
    PublishedMargins,
    RadiusMargins,
    RateMargins,
    Scheme,
    margins_of,
)
from crossguard.checks import lookup


def noise_levels(
    noise: Mapping[str, float | int] | None, keep: Mapping[str, int | float], modalities: Sequence[str]
) -> dict[str, float]:
    """Return sigma by modality, in the model's order; none where there is no noise.

    Raises:
        ValueError: an unknown modality, a sigma that is not finite and > 0, or a modality that is sub-sampled too.
    """
    given = dict(noise or {})
    for modality, sigma in given.items():
        lookup(dict.fromkeys(modalities), modality, what="modality in `noise`")
        if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < inf:
            raise ValueError(f"Expected `noise[{modality!r}]` to be a finite sigma > 0, but got {sigma!r}.")
        if modality in keep:
            raise ValueError(
                f"Expected {modality!r} in `keep` or in `noise`, but got it in both: an attacker's budget of one "
                "modality counts its elements or measures their L2 distance."
            )
    return {m: float(given[m]) for m in modalities if m in given}


Elements = Sequence[Sequence[float | int]] | Int64[np.ndarray, "radii modalities"]
_DOWN = 1 - 32 * ULP  # what turning s into eps and back can gain


@dataclass(frozen=True)
class NoisyMargins:
    """Margins of radius vectors (r_1, ..., eps_1, ...): elements of sub-sampled modalities, L2 distances of noisy ones.

    Args:
        inner: of the sub-sampled modalities; None where there are none.
        noise: sigma of each noisy modality.

    Example:
        >>> NoisyMargins(None, (0.5,)).at([(0.0,), (0.5,)]).round(4)
        array([0.    , 0.6827])
    """

    inner: Margins | JointMargins | RateMargins | None
    noise: tuple[float | int, ...]

    @property
    def n(self) -> tuple[int, ...]:
        """Elements of the sub-sampled modalities."""
        return () if self.inner is None else tuple(self.inner.n)

    def at(
        self, radii: Sequence[Sequence[float | int]] | Float[np.ndarray, "radii modalities"]
    ) -> Float[np.ndarray, " radii"]:
        """Return the margin of each radius vector, rounded up, in [0, 1), or 2 where nothing can be certified.

        Raises:
            ValueError: a vector of another length, a radius that is not whole or > n, or a distance that is negative
                or not finite.
        """
        parts, width = len(self.n), len(self.n) + len(self.noise)
        for j, row in enumerate(radii):
            if len(row) != width:
                raise ValueError(
                    f"Expected {width} entries in radii[{j}], one per modality, but got {len(row)}: {row}."
                )
            if not all(eps >= 0 and isfinite(eps) for eps in row[parts:]):
                raise ValueError(f"Expected L2 radii that are finite and >= 0, but radii[{j}] has {list(row[parts:])}.")
        elements: Any = [[int(r) if r == int(r) else r for r in row[:parts]] for row in radii]
        if all(isinstance(r, int) for row in elements for r in row):
            elements = np.array(elements, dtype=np.int64).reshape(len(elements), parts)
        moved = np.array([row[parts:] for row in radii], dtype=np.float64).reshape(len(elements), len(self.noise))
        return self._at(elements, np.sqrt(((moved / self.noise) ** 2).sum(axis=1)) * (1 + 8 * ULP))

    def _at(self, elements: Elements, shift: Float[np.ndarray, " radii"]) -> Float[np.ndarray, " radii"]:
        if self.inner is None:
            passed = normal_cdf(shift, up=True)
            return np.where(shift == 0, 0.0, np.where(passed < 1, 2 * passed - 1, NEVER))
        grown, clean, plain = self.inner.logs(elements)
        slack = 64 * ULP * (1 + np.abs(grown) + np.abs(clean)) + self.inner.slack(elements)
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.minimum(1.0, -np.expm1(clean) * (1 + slack))
            left = np.where(np.isneginf(clean), 0.0, np.exp(clean - grown) * (1 - slack))  # b, rounded down
            half = np.minimum(1.0, 1 / (2 * np.maximum(left, 0.5)) * (1 + 4 * ULP))
            passed = np.minimum(1.0, normal_cdf(normal_quantile(half) + shift, up=True))
        margin = 2 * (lost * (1 - passed) + passed) * (1 + 4 * ULP) - 1
        return np.where(shift == 0, plain, np.where((left <= 0.5) | (margin >= 1) | (plain >= 1), NEVER, margin))

    def shift(self, elements: Elements, gap: float) -> Float[np.ndarray, " radii"]:
        """Return the largest s, in standard deviations, whose margin is at most `gap`; -1 where none is.

        Args:
            elements: radii of the sub-sampled modalities.
            gap: lower bound on p_A - p_B.
        """
        zero = np.zeros(len(elements))
        low, high = np.where(self._at(elements, zero) <= gap, 0.0, -1.0), np.full(len(elements), 40.0)
        for _ in range(60):
            middle = np.maximum(low + high, 0.0) / 2
            inside = (self._at(elements, middle) <= gap) & (low >= 0)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return low

    def grid(self, axes: Sequence[Sequence[float | int]]) -> Float[np.ndarray, "*axes"]:
        """Return the margins of all combinations of the radii of each modality."""
        return self.at(list(tuples(*axes))).reshape([len(axis) for axis in axes])

    def reach(self, margin: float) -> tuple[float | int, ...]:
        """Return, per modality, the largest radius with a margin of at most `margin` when no other one is attacked.

        -1 in every entry when not even radius 0 has it.
        """
        elements = () if self.inner is None else self.inner.reach(margin)
        shift = float(self.shift(np.zeros((1, len(self.n)), dtype=np.int64), margin)[0])
        return (*elements, *(shift * sigma * _DOWN if shift >= 0 else -1.0 for sigma in self.noise))

    def frontier(self, gap: float) -> Float[np.ndarray, "points axes"]:
        """Return the maximal radii, ascending: those of elements, and last how far the noisy modalities may be moved.

        That is eps in L2 of a single noisy modality; of several ones s, the square root of sum_i (eps_i / sigma_i)^2.
        """
        reach = () if self.inner is None else self.inner.reach(gap)
        shape = tuple(r + 1 for r in reach)
        if gap < 0 or prod(shape) == 0:
            return np.empty((0, len(reach) + 1))
        vectors = np.array([*tuples(*map(range, shape))], dtype=np.int64).reshape(prod(shape), len(shape))
        shift = self.shift(vectors, gap).reshape(shape)
        maximal = shift >= 0
        for axis in range(shift.ndim):
            ahead = np.full_like(shift, -1.0)
            np.moveaxis(ahead, axis, 0)[:-1] = np.moveaxis(shift, axis, 0)[1:]
            maximal &= ahead < shift
        unit = (self.noise[0] if len(self.noise) == 1 else 1.0) * _DOWN
        table = np.column_stack([vectors, shift.ravel() * unit])
        return table[maximal.ravel()]


AnyMargins = RadiusMargins | NoisyMargins


def margins_with_noise(
    scheme: Scheme,
    n: Sequence[int],
    k: Sequence[int | float],
    kind: str | Sequence[str] = "substitution",
    *,
    noise: Sequence[float | int] = (),
    draws: int = 0,
) -> AnyMargins:
    """Return the margins of a scheme of sub-sampling, beside modalities under noise where there are some.

    Args:
        scheme: as `margins_of`.
        n: of the sub-sampled modalities.
        k: as `n`.
        kind: as `n`.
        noise: sigma of each noisy modality.
        draws: N, of a published design.

    Raises:
        ValueError: noise beside a published design, or as `margins_of`.
    """
    if not noise:
        return margins_of(scheme, n, k, kind, draws=draws)
    if scheme in ("fixed", "product"):
        raise ValueError(
            "Expected no `noise` beside a published design: what it certifies needs draws that are random."
        )
    inner = margins_of(scheme, n, k, kind) if len(n) else None
    assert not isinstance(inner, PublishedMargins)
    return NoisyMargins(inner, tuple(noise))  # type: ignore[arg-type]
