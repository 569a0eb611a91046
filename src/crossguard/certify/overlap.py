"""How often a sub-sample sees nothing of the attack, and the worst a label's probability can become.

A sub-sample keeps k_i of the n_i elements of modality i, uniformly and independently of the other modalities. With e_i
elements left alone by the edits and n'_i elements after them (`Edits`),

    a   = prod_i C(e_i, k_i) / C(n_i,  k_i)     a sub-sample of the clean input has only elements left alone
    b   = prod_i C(e_i, k_i) / C(n'_i, k_i)     the same for the attacked input
    rho = b / a

and by the Neyman-Pearson lemma the least probability of a label that had p_A, and the largest of one that had p_B, are

    rho * max(0, p_A - (1 - a))          rho * min(p_B, a) + (1 - b).

No bound that knows p_A and p_B alone is better. With substitutions only, a = b (MMCert, CVPR 2024, Theorem 1).

Other modalities may be blurred by N(0, sigma_i^2) and moved by at most eps_i in L2. With s the square root of
sum_i (eps_i / sigma_i)^2 the likelihood ratio is a product of both, and the same lemma gives

    b * Phi(Phi^-1((p_A - (1 - a)) / a) - s)          b * Phi(Phi^-1(min(1, p_B / a)) + s) + (1 - b),

which is the above at s = 0, and randomized smoothing (Cohen et al., ICML 2019) at a = b = 1.

All these bounds get worse as a and b fall. Of the splits of r edits of any kind, r substitutions make both smallest:
one more, in place of an insertion, multiplies a by 1 - k / e and b by (1 - k / e) / (1 - k / n'), which is at most 1
as e <= n'; in place of a deletion it leaves a, and b falls as n' grows. So a budget of kind "edit" is one of
substitutions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from crossguard.certify.arguments import sizes, whole_number
from crossguard.certify.edits import Edits
from crossguard.threat import Elements

ULP = 2.0**-52
ROUNDING = 16 * ULP  # an exact sum of logarithms of correctly rounded ratios is within this, relatively
NORMAL = 1e-11  # more than the error of the normal distribution function and its inverse, relatively


@dataclass(frozen=True)
class Overlap:
    """The overlap of clean and attacked sub-samples; every value is rounded so that no claim gains from it.

    Attributes:
        clean: a, rounded down.
        attacked: b, rounded down.
        ratio: rho = b / a, nearest; 0 when a = 0, so that nothing can be certified.
        clean_complement: 1 - a, rounded up; exact to 1e-12 relative however small it is.
        attacked_complement: 1 - b, rounded up.
        ratio_low: rho, rounded down.
        ratio_high: rho, rounded up.
        margin: 1 + 1/rho - 2a, rounded up. A label is certified against another <=> p_A - p_B > margin;
            2 or more when no probabilities suffice.
        edits: the edits it stands for, one entry per modality.
    """

    clean: float
    attacked: float
    ratio: float
    clean_complement: float
    attacked_complement: float
    ratio_low: float
    ratio_high: float
    margin: float
    edits: tuple[Edits, ...]


def log_share(n: int, removed: int, k: int) -> float:
    """Return log(C(n - removed, k) / C(n, k)): no removed element is among k of n; -inf if one must be.

    Exact to a few units in the last place: it is a sum of min(removed, k) logarithms, added without rounding.
    """
    if removed + k > n:
        return -math.inf
    fewer, more = sorted((removed, k))  # the expression is symmetric in the two
    if fewer == 0:
        return 0.0
    return math.fsum(log_share_terms(n, fewer, more))


def log_share_terms(n: int, terms: int, other: int) -> Float[np.ndarray, " terms"]:
    """Return log(1 - other / (n - j)) for j < terms, each accurate near 0 and far from it."""
    left = np.arange(n, n - terms, -1, dtype=np.float64)
    share = other / left
    with np.errstate(divide="ignore"):
        return np.where(share < 0.5, np.log1p(-share), np.log((left - other) / left))


def overlap(*, n: Sequence[int], k: Sequence[int], edits: Sequence[Edits | Elements]) -> Overlap:
    """Return a, b and rho for given edits to every modality.

    Args:
        n: number of elements of each modality, >= 1.
        k: number of elements kept of each modality, 0 <= k <= n.
        edits: per modality the edits, or a budget `Elements(r, kind)`, which stands for the worst split of at most r
            edits of that kind.

    Raises:
        ValueError: k > n, more elements edited than there are, or lengths that differ.

    Example:
        >>> o = overlap(n=(10,), k=(3,), edits=(Edits(substitutions=1),))
        >>> round(o.clean, 12), o.ratio
        (0.7, 1.0)
    """
    n, k = sizes(n, k)
    return _overlap(n, k, _worst(n, edits))


def joint_overlap(*, n: Sequence[int], k: int, edits: Sequence[Edits | Elements]) -> Overlap:
    """Return the overlap of randomized ablation extended to several modalities: k of all n_1 + ... + n_T jointly.

    This is the baseline of MMCert (CVPR 2024, section 5): a = C(sum e, k) / C(sum n, k). It needs sub-samples that were
    drawn jointly, and votes of its own.

    Args:
        n: number of elements of each modality, >= 1.
        k: number of elements kept of all modalities together.
        edits: per modality the edits, or a budget, which stands for its worst split, as in `overlap`.

    Raises:
        ValueError: as `overlap`.
    """
    n, _ = sizes(n, (0,) * len(n))
    k = whole_number(k, "k")
    worst = _worst(n, edits)
    total = Edits(
        substitutions=sum(e.substitutions for e in worst),
        insertions=sum(e.insertions for e in worst),
        deletions=sum(e.deletions for e in worst),
    )
    return overlap(n=(sum(n),), k=(k,), edits=(total,))


def worst_case(
    p_a: float | int | Float[np.ndarray, "*inputs"],
    p_b: float | int | Float[np.ndarray, "*inputs"],
    overlap: Overlap,
    *,
    shift: float = 0.0,
) -> tuple[float | Float[np.ndarray, "*inputs"], float | Float[np.ndarray, "*inputs"]]:
    """Return the least the first label's and the largest another label's probability can be after the edits.

    Args:
        p_a: probability of the smoothed label on clean sub-samples (or a lower bound on it), in [0, 1].
        p_b: probability of another label (or an upper bound), in [0, 1].
        overlap: what `overlap` returned for the edits.
        shift: s, how far the modalities under noise are moved together, in standard deviations of their noise: the
            square root of sum_i (eps_i / sigma_i)^2; 0 without such modalities.

    Returns:
        (lower bound on p'_A, upper bound on p'_B); the label is certified against the other <=> first > second.
        Floats for floats, arrays for arrays.

    Raises:
        ValueError: a probability outside [0, 1], or a shift that is negative or not finite.

    Example:
        >>> nothing = overlap(n=(1,), k=(1,), edits=(Edits(),))  # of the sub-sampled modalities
        >>> [round(p, 4) for p in worst_case(0.9, 0.1, nothing, shift=1.0)]
        [0.6107, 0.3893]
    """
    first, second = np.asarray(p_a, dtype=np.float64), np.asarray(p_b, dtype=np.float64)
    for name, values in (("p_a", first), ("p_b", second)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"Expected `{name}` in [0, 1], but got {values}.")
    if not 0 <= shift < math.inf:
        raise ValueError(f"Expected `shift` finite and >= 0, but got {shift!r}.")
    low, high = _moved(first, second, overlap, shift) if shift else _edited(first, second, overlap)
    low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    if first.ndim == second.ndim == 0:
        return float(low), float(high)
    return np.broadcast_arrays(low, high)[0], np.broadcast_arrays(low, high)[1]


def _edited(first: np.ndarray, second: np.ndarray, overlap: Overlap) -> tuple[np.ndarray, np.ndarray]:
    if overlap.clean_complement == 0:  # nothing edited: exact, so no rounding
        high = overlap.ratio_high * second + overlap.attacked_complement
        return np.asarray(overlap.ratio_low * first), np.asarray(high)
    low = overlap.ratio_low * np.maximum(0.0, first - overlap.clean_complement) * (1 - 4 * ULP)
    high = overlap.ratio_high * np.minimum(second, _clean_high(overlap)) + overlap.attacked_complement
    return np.asarray(low), np.asarray(high * (1 + 4 * ULP))


def _moved(first: np.ndarray, second: np.ndarray, overlap: Overlap, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the worst case under edits and a shift, rounded outward: with a and b rounded down both bounds lose."""
    if overlap.clean == 0:
        return np.zeros_like(first), np.ones_like(second)
    seen = np.maximum(0.0, first - overlap.clean_complement) / _clean_high(overlap)
    low = overlap.attacked * normal_cdf(normal_quantile(seen * (1 - 4 * ULP)) - shift, up=False)
    rival = np.minimum(1.0, second / overlap.clean * (1 + 4 * ULP))
    high = normal_cdf(normal_quantile(rival) + shift, up=True)
    left = 1 - overlap.attacked_complement
    return np.asarray(low * (1 - 4 * ULP)), np.asarray((left * high + overlap.attacked_complement) * (1 + 4 * ULP))


def _clean_high(overlap: Overlap) -> float:
    """Return a, rounded up."""
    return min(1.0, overlap.clean * (1 + 8 * ROUNDING) + ULP) if overlap.clean_complement else 1.0


def normal_quantile(probabilities: np.ndarray | float) -> np.ndarray:
    """Return the standard normal quantile, -inf at 0 and inf at 1."""
    return np.asarray(special.ndtri(np.asarray(probabilities, dtype=np.float64)))


def normal_cdf(values: np.ndarray | float, *, up: bool) -> np.ndarray:
    """Return the standard normal distribution function, rounded up or down by more than SciPy's error of both ways."""
    away, plain = 1 if up else -1, np.clip(np.asarray(values, dtype=np.float64), -1e3, 1e3)
    return np.asarray(special.ndtr(plain + away * NORMAL * (1 + np.abs(plain))) * (1 + away * NORMAL))


def _worst(n: tuple[int, ...], edits: Sequence[Edits | Elements]) -> tuple[Edits, ...]:
    """Return the edits, and for each budget its worst split."""
    if len(edits) != len(n):
        raise ValueError(f"Expected `edits` with one entry per modality ({len(n)}), but got {len(edits)}.")
    return tuple(_split(edit, size, i) for i, (edit, size) in enumerate(zip(edits, n, strict=True)))


def _split(edit: Edits | Elements, n: int, modality: int) -> Edits:
    if isinstance(edit, Edits):
        worst = edit
    elif edit.kind == "insertion":
        worst = Edits(insertions=edit.r)
    elif edit.kind == "deletion":
        worst = Edits(deletions=edit.r)
    elif edit.kind == "edit":  # what substitutions are left over insert
        worst = Edits(substitutions=min(edit.r, n), insertions=edit.r - min(edit.r, n))
    else:
        worst = Edits(substitutions=edit.r)
    if worst.common(n) < 0:
        raise ValueError(
            f"Expected at most n = {n} elements of modality {modality} substituted or deleted, but got {edit}."
        )
    return worst


def _overlap(n: tuple[int, ...], k: tuple[int, ...], edits: tuple[Edits, ...]) -> Overlap:
    sizes_and_edits = list(zip(n, k, edits, strict=True))
    log_clean = math.fsum(log_share(size, size - edit.common(size), keep) for size, keep, edit in sizes_and_edits)
    if log_clean == -math.inf:  # the attack reaches every sub-sample
        return Overlap(0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, math.inf, edits)
    log_attacked = math.fsum(
        log_share(edit.size_after(size), edit.size_after(size) - edit.common(size), keep)
        for size, keep, edit in sizes_and_edits
    )
    changes = [_log_growth(size, edit.size_after(size), keep) for size, keep, edit in sizes_and_edits]
    log_ratio, error = -math.fsum(changes), ROUNDING * math.fsum(map(abs, changes))
    clean_complement = _complement_up(log_clean)
    attacked_complement = _complement_up(log_attacked)
    grown = _expm1(error - log_ratio)
    return Overlap(
        clean=_low(log_clean, clean_complement),
        attacked=_low(log_attacked, attacked_complement),
        ratio=_exp(log_ratio),
        clean_complement=clean_complement,
        attacked_complement=attacked_complement,
        ratio_low=_exp(log_ratio - error) * (1 - 4 * ULP) if error else 1.0,
        ratio_high=_exp(log_ratio + error) * (1 + 4 * ULP) if error else 1.0,
        margin=(grown + 4 * ULP * abs(grown) + 2 * clean_complement) * (1 + ULP),
        edits=edits,
    )


def _log_growth(before: int, after: int, k: int) -> float:
    """Return log(C(after, k) / C(before, k)), how many times more sub-samples there are after the edits."""
    return -log_share(after, after - before, k) if after >= before else log_share(before, before - after, k)


def _complement_up(log_value: float) -> float:
    """Return 1 - exp(log_value) rounded up; 0 only where it is exactly 0."""
    complement = -math.expm1(log_value * (1 + ROUNDING))
    return min(1.0, complement * (1 + 4 * ULP))


def _low(log_value: float, complement_up: float) -> float:
    """Return exp(log_value) rounded down, by whichever way loses less."""
    if complement_up == 0:
        return 1.0
    return max(0.0, math.nextafter(1 - complement_up, 0.0), math.exp(log_value) * (1 - ROUNDING * (1 - log_value)))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf


def _expm1(value: float) -> float:
    return math.expm1(value) if value < 709 else math.inf
