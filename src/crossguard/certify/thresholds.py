"""The margin p_A - p_B that a radius vector asks for, for many radius vectors at once.

A label is certified at radii (r_1, ..., r_T) <=> p_A - p_B > margin, where margin = 1 + 1/rho - 2a for the worst
split of each r_i into edits of its kind: of "edit" that is r_i substitutions (see `overlap`). `a` and `rho` are
products over the modalities, so a grid of radii is an outer sum of one short vector of logarithms per modality.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int64

from crossguard.certify.arguments import KINDS, Radii, edit_kinds, radius_vectors, sizes
from crossguard.certify.ensemble import touched_by_blocks
from crossguard.certify.overlap import ROUNDING, ULP, log_share_terms
from crossguard.checks import check_choice

NEVER = 2.0  # p_A - p_B <= 1, so no probabilities reach this margin

Log = Float[np.ndarray, " radii"]


@dataclass(frozen=True)
class RadiusMargins(ABC):
    """Margins of radius vectors (r_1, ..., r_T) under one scheme of sub-sampling; `at` says what they are.

    Args:
        n: number of elements of each modality.
        k: what is kept; what it means is the scheme's.
        kind: kind of edit, one word for all modalities or one per modality.

    Attributes:
        kinds: one kind of edit per modality.
    """

    n: Sequence[int]
    k: Sequence[int]
    kind: str | Sequence[str] = field(default="substitution", compare=False)
    kinds: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        n, k = sizes(self.n, self.k)
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "kinds", edit_kinds(self.kind, len(n)))

    @abstractmethod
    def at(self, radii: Radii) -> Float[np.ndarray, " radii"]:
        """Return the margin of each radius vector, rounded up, in [0, 1), or 2 where nothing can be certified.

        Raises:
            ValueError: a vector of another length, a radius that is not whole or > n.
        """

    def grid(self, axes: Sequence[Sequence[int | float]]) -> Float[np.ndarray, "*axes"]:
        """Return the margins of all combinations of the radii of each modality, [len(axes[0]), len(axes[1]), ...].

        Raises:
            ValueError: as `at`.
        """
        shape = tuple(len(axis) for axis in axes)
        vectors = np.stack(np.meshgrid(*[np.asarray(axis, dtype=np.int64) for axis in axes], indexing="ij"), axis=-1)
        return self.at(vectors.reshape(-1, len(shape))).reshape(shape)

    def slack(self, radii: Radii) -> Log:
        """Return what the sums of logarithms that a radius vector takes can have lost, relatively."""
        return ROUNDING + ULP * np.array([sum(row) for row in radii], dtype=np.float64)

    def along(self, modality: int, largest: int) -> Float[np.ndarray, " radii"]:
        """Return the margins of radii 0, 1, ..., `largest` of one modality when no other one is attacked."""
        vectors = np.zeros((largest + 1, len(self.n)), dtype=np.int64)
        vectors[:, modality] = np.arange(largest + 1)
        return self.at(vectors)

    def reach(self, margin: float) -> tuple[int, ...]:
        """Return, per modality, the largest radius with a margin of at most `margin` when no other one is attacked.

        -1 in every entry when not even radius 0 has it. The radius is limited to n.
        """
        if margin < 0:
            return (-1,) * len(self.n)
        best = []
        for i, size in enumerate(self.n):
            # Doubling, then bisection: the cost grows with the radius found, not with n.
            low, high = 0, 1  # certified at low, not at high
            while high <= size and self.along(i, high)[high] <= margin:
                low, high = high, 2 * high
            path = self.along(i, min(high, int(size)))
            best.append(max(low, int(np.searchsorted(path, margin, side="right")) - 1))
        return tuple(best)


@dataclass(frozen=True)
class LogMargins(RadiusMargins):
    """Margins that follow from log 1/rho and log a, which random sub-samples have; see `RadiusMargins`."""

    def at(self, radii: Radii) -> Float[np.ndarray, " radii"]:
        """Return the margin of each radius vector, rounded up, in [0, 1), or 2 where nothing can be certified."""
        return self.logs(radii)[2]

    @abstractmethod
    def logs(self, radii: Radii) -> tuple[Log, Log, Log]:
        """Return log 1/rho and log a of each radius vector, and its margin.

        Raises:
            ValueError: as `at`.
        """


@dataclass(frozen=True)
class Margins(LogMargins):
    """Margins of radius vectors under independent sub-sampling of k_i of n_i elements.

    Args:
        n: number of elements of each modality.
        k: number of elements kept of each modality.
        kind: kind of edit, one word for all modalities or one per modality.

    Raises:
        ValueError: k > n, an unknown kind, or lengths that differ.

    Example:
        >>> Margins((10, 20), (3, 4)).at([(0, 0), (1, 0)]).round(12)
        array([0. , 0.6])
    """

    def logs(self, radii: Radii) -> tuple[Log, Log, Log]:
        """Return log 1/rho and log a of each radius vector, and its margin."""
        vectors = radius_vectors(radii, tuple(self.n), self.kinds)
        clean, grown = np.zeros(len(vectors)), np.zeros(len(vectors))
        for n, k, kind, r in zip(self.n, self.k, self.kinds, vectors.T, strict=True):
            if kind == "insertion":
                grown += _along(_inserted, n, k, r)
                continue
            left = _along(_removed, n, k, r)
            clean += left
            if kind == "deletion":
                grown += left  # the sub-samples are as many fewer
        return grown, clean, _margin(grown, clean, vectors.sum(axis=1))


@dataclass(frozen=True)
class JointMargins(LogMargins):
    """Margins of radius vectors under joint sub-sampling: k_1 + ... + k_T of all n_1 + ... + n_T elements together.

    This is randomized ablation (Levine and Feizi, AAAI 2020) extended to several modalities, the baseline of MMCert
    (CVPR 2024, section 5), see `joint_overlap`. Only the totals matter: an edit costs the same in every modality.

    Args:
        n: number of elements of each modality.
        k: the numbers whose sum is kept of all elements together.
        kind: kind of edit, one word for all modalities or one per modality.

    Raises:
        ValueError: k > n, an unknown kind, or lengths that differ.

    Example:
        >>> JointMargins((10, 20), (3, 4)).at([(0, 0), (1, 0), (0, 1)]).round(6)
        array([0.      , 0.466667, 0.466667])
    """

    def logs(self, radii: Radii) -> tuple[Log, Log, Log]:
        """Return log 1/rho and log a of each radius vector, and its margin."""
        vectors = radius_vectors(radii, tuple(self.n), self.kinds)
        n, k = sum(self.n), sum(self.k)
        added, deleted = (vectors[:, [kind == own for own in self.kinds]].sum(axis=1) for kind in KINDS[1:3])
        growth = added - deleted
        grown = np.where(
            growth >= 0,
            _along(_inserted, n, k, np.maximum(growth, 0)),
            _along(_removed, n, k, np.maximum(-growth, 0)),
        )
        gone = _along(_removed, n, k, vectors.sum(axis=1) - added)
        return grown, gone, _margin(grown, gone, vectors.sum(axis=1))


@dataclass(frozen=True)
class RateMargins(LogMargins):
    """Margins of radius vectors where every element is kept independently of the others, with probability k_i.

    With s insertions, d deletions and m substitutions, a = prod (1 - p)^(d + m) and b = prod (1 - p)^(s + m): they do
    not depend on n, so one radius holds for texts of any length.

    Args:
        n: number of elements of each modality.
        k: p of each modality, in (0, 1).
        kind: kind of edit, one word for all modalities or one per modality.

    Raises:
        ValueError: p outside (0, 1), an unknown kind, or lengths that differ.

    Example:
        >>> RateMargins((9,), (0.25,), "insertion").at([(0,), (1,), (2,)]).round(4)
        array([0.    , 0.3333, 0.7778])
    """

    k: Sequence[float]  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n, _ = sizes(self.n, (0,) * len(self.n))
        if len(self.k) != len(n) or not all(0 < p < 1 for p in self.k):
            raise ValueError(f"Expected rates in (0, 1), one per modality ({len(n)}), but got {tuple(self.k)}.")
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "k", tuple(map(float, self.k)))
        object.__setattr__(self, "kinds", edit_kinds(self.kind, len(n)))

    def logs(self, radii: Radii) -> tuple[Log, Log, Log]:
        """Return log 1/rho and log a of each radius vector, and its margin."""
        vectors = radius_vectors(radii, tuple(self.n), self.kinds)
        clean, grown = np.zeros(len(vectors)), np.zeros(len(vectors))
        for p, kind, r in zip(self.k, self.kinds, vectors.T, strict=True):
            path = r * np.log1p(-p)
            clean += 0 if kind == "insertion" else path
            grown += path if kind == "deletion" else -path if kind == "insertion" else 0
        return grown, clean, _margin(grown, clean, vectors.sum(axis=1))


@dataclass(frozen=True)
class PublishedMargins(RadiusMargins):
    """Shares of its votes by which a label must lead in a published design: 2 T(r) / N, see `ensemble`.

    Args:
        n: number of elements of each modality.
        k: number of elements kept of each modality.
        kind: "substitution" alone.
        draws: N.
        product: all tuples of blocks vote; otherwise the design is balanced.

    Raises:
        ValueError: another kind, or as `Margins`.

    Example:
        >>> PublishedMargins((10,), (2,), draws=10).at([(0,), (1,), (2,)])
        array([0. , 0.4, 0.8])
    """

    draws: int = field(default=1, kw_only=True)
    product: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.kinds) != {"substitution"}:
            raise ValueError(
                f"Expected kind 'substitution' with a published design, which no other is proven for, but got "
                f"{', '.join(self.kinds)}."
            )

    def at(self, radii: Radii) -> Float[np.ndarray, " radii"]:
        """Return 2 T(r) / N of each radius vector, exactly as votes are divided by N.

        Raises:
            ValueError: a vector of another length, a radius that is not whole or > n.
        """
        vectors = radius_vectors(radii, tuple(self.n), self.kinds)
        if self.product:
            blocks = tuple(-(-n // k) if k else 0 for n, k in zip(self.n, self.k, strict=True))
            touched = touched_by_blocks(blocks, vectors)
        else:
            touched = np.zeros(len(vectors), dtype=np.int64)
            for n, k, r in zip(self.n, self.k, vectors.T, strict=True):
                low, more = divmod(self.draws * k, n)  # `more` elements are in one draw more than the others
                touched += r * low + np.minimum(r, more)
        return 2 * np.minimum(touched, self.draws) / self.draws


Scheme = Literal["independent", "joint", "rate", "fixed", "product"]


def margins_of(
    scheme: Scheme,
    n: Sequence[int],
    k: Sequence[int | float],
    kind: str | Sequence[str] = "substitution",
    *,
    draws: int = 0,
) -> RadiusMargins:
    """Return the margins of a scheme of sub-sampling.

    Args:
        scheme: "independent" (`Margins`), "joint" (`JointMargins`), "rate" (`RateMargins`), or of a published design
            (`PublishedMargins`).
        n: as the classes.
        k: as the classes.
        kind: as the classes.
        draws: N, of a published design.

    Raises:
        ValueError: an unknown scheme, or as the classes.
    """
    check_choice(scheme, get_args(Scheme), "scheme")
    if scheme == "rate":
        return RateMargins(n, k, kind)
    kept = sizes(n, k)[1]  # refuses what is not whole
    if scheme == "joint":
        return JointMargins(n, kept, kind)
    if scheme == "independent":
        return Margins(n, kept, kind)
    return PublishedMargins(n, kept, kind, draws=draws, product=scheme == "product")


def _along(path: Callable[[int, int, int], Log], n: int, k: int, r: Int64[np.ndarray, " radii"]) -> Log:
    """Return the values of a path at the radii; paths of powers of two are shared by the calls of a bisection."""
    largest = int(r.max())
    return path(n, k, 1 << max(6, largest.bit_length()))[r]


@lru_cache(maxsize=32)
def _removed(n: int, k: int, largest: int) -> Log:
    """Return log of C(n - r, k) / C(n, k) for r = 0, 1, ..., min(largest, n)."""
    largest = min(largest, n)
    terms = np.full(largest, -np.inf)  # for good where fewer than k elements are left
    terms[: n - k] = log_share_terms(n, min(largest, n - k), k)
    return np.concatenate([[0.0], np.cumsum(terms)])


@lru_cache(maxsize=32)
def _inserted(n: int, k: int, largest: int) -> Log:
    """Return log of C(n + r, k) / C(n, k) for r = 0, 1, ..., largest."""
    return np.concatenate([[0.0], np.cumsum(-log_share_terms(n + largest, largest, k)[::-1])])


def _margin(log_grown: Log, log_clean: Log, terms: Int64[np.ndarray, "..."]) -> Log:
    """Return (1/rho - 1) + 2 (1 - a), rounded up by what `terms` additions in a row can have lost."""
    slack = ROUNDING + ULP * np.asarray(terms, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        grown = np.expm1(log_grown)
        lost = -np.expm1(log_clean)
        margin = grown + np.abs(grown) * (1 + np.abs(log_grown)) * slack + 2 * lost * (1 + slack)
    return np.where(np.isneginf(log_clean) | (margin >= 1), NEVER, margin)
