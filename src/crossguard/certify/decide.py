"""`certify_counts`: from votes to certificates, pure NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int64

from crossguard.certify.arguments import probability, vote_counts
from crossguard.certify.bounds import fewest_votes, log_p_values
from crossguard.certify.families import holm_critical_counts
from crossguard.certify.leaders import most_votes
from crossguard.certify.noise import margins_with_noise
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice

Correction = Literal["holm", "bonferroni"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)


@dataclass(frozen=True)
class CountCertificate:
    """Labels and certificates of one input (one family of elements).

    Attributes:
        label: int64 [...], the smoothed label of each element: the most votes, the lowest label among equals.
        votes: int64 [...], votes for `label` among `draws`.
        needed: int64 [radii], the fewest votes with which an element of this input is certified; draws + 1: none is.
        draws: N.
        alpha: probability that any certificate of this input is wrong, within `scope`.
        correction: "holm" or "bonferroni"; None of a published design.
        scope: what the probability covers, in words.
        lead: int64 [...], of a published design: votes ahead of the next label, which `needed` is held against instead.
    """

    label: Int64[np.ndarray, "*elements"]
    votes: Int64[np.ndarray, "*elements"]
    needed: Int64[np.ndarray, " radii"]
    draws: int
    alpha: float
    correction: Correction | None
    scope: str
    lead: Int64[np.ndarray, "*elements"] | None = None

    @property
    def counted(self) -> Int64[np.ndarray, "*elements"]:
        """What `needed` is held against: votes, or leads."""
        return self.votes if self.lead is None else self.lead

    @cached_property
    def certified(self) -> Bool[np.ndarray, "*radii_elements"]:
        """Which elements are certified, [radii, ...]; False is an abstention, not a claim that an attack exists."""
        return np.asarray(self.counted >= self.needed.reshape((-1,) + (1,) * self.votes.ndim))


SCOPES = {
    "holm": "per input, for each radius vector taken alone",
    "bonferroni": "per input, for all radius vectors at once",
    "published": "for all inputs and all radius vectors, without any chance of error",
}


def certify_counts(
    counts: npt.ArrayLike,
    *,
    n: Sequence[int],
    k: Sequence[int | float],
    radii: Sequence[Sequence[float | int]],
    alpha: float,
    kind: str | Sequence[str] = "substitution",
    scheme: Scheme = "independent",
    correction: Correction | None = None,
    selection: npt.ArrayLike | None = None,
    noise: Sequence[float | int] = (),
) -> CountCertificate:
    """Turn the votes of one input into certified labels.

    An element is certified at (r_1, ..., r_T) when, with probability 1 - alpha over the sampling, its smoothed label
    cannot be changed by any edit of at most r_i elements in every modality i at once. p_B is taken as at most 1 - p_A.

    Args:
        counts: integers [..., labels]: votes of N sub-samples for each label of each element. [labels] for a
            classification, [height, width, labels] for a segmentation.
        n: number of elements of each modality.
        k: number of elements each sub-sample kept of each modality.
        radii: radius vectors, one entry per modality; those of noisy modalities last, in L2.
        alpha: probability of any wrong certificate among the elements, in (0, 0.5).
        kind: "substitution", "insertion", "deletion" or "edit" (any mix), one word or one per modality.
        scheme: how sub-samples were drawn: "independent", k_i of every modality, or "joint", the sum of all k_i of all
            elements together (`joint_overlap`), or "rate", every element with probability k_i (`RateMargins`).
        correction: "holm" holds alpha for each radius vector taken alone; "bonferroni" for all of them at once; None
            takes "holm" for a single vector and "bonferroni" for several.
        selection: integers [..., labels] of separate draws that choose the label; None chooses by `counts` and pays
            for it in the p-value.
        noise: sigma of each further modality, which had Gaussian noise instead of being sub-sampled.

    Raises:
        ValueError: k > n, r > n, counts that are negative, not integers or not of equal N, shapes that differ.

    Example:
        >>> c = certify_counts([990, 10], n=(100,), k=(10,), radii=[(0,), (3,), (9,)], alpha=0.001)
        >>> int(c.label), c.certified
        (0, array([ True,  True, False]))
    """
    alpha = probability(alpha)
    check_choice(scheme, ("independent", "joint", "rate"), "scheme")
    votes, draws = vote_counts(counts)
    thresholds = np.minimum(0.5 + margins_with_noise(scheme, n, k, kind, noise=noise).at(radii) / 2, 1.0)
    correction = correction or ("holm" if len(thresholds) == 1 else "bonferroni")
    check_choice(correction, CORRECTIONS, "correction")
    if selection is None:
        label, top = most_votes(votes)
    else:
        chosen, _ = vote_counts(selection, "selection")
        if chosen.shape != votes.shape:
            raise ValueError(f"Expected `selection` of shape {votes.shape}, as `counts`, but got {chosen.shape}.")
        label = chosen.argmax(axis=-1)
        top = np.take_along_axis(votes, label[..., None], axis=-1)[..., 0]
    needed = _critical_counts(top, draws, thresholds, alpha, correction, separate=selection is not None)
    return CountCertificate(np.asarray(label), np.asarray(top), needed, draws, alpha, correction, SCOPES[correction])


def _critical_counts(
    top: Int64[np.ndarray, "*elements"],
    draws: int,
    thresholds: np.ndarray,
    alpha: float,
    correction: Correction,
    *,
    separate: bool,
) -> Int64[np.ndarray, " radii"]:
    """Return, per radius, the fewest votes with which an element of this family is certified (draws + 1: none is)."""
    occurring, histogram = _histogram(top, draws)
    if correction == "holm":
        log_p = log_p_values(occurring[None, :], draws, thresholds[:, None], separate=separate)
        passing = holm_critical_counts(histogram, log_p, alpha)
    else:
        fewest = fewest_votes(draws, alpha / top.size, separate=separate)
        log_p = log_p_values(occurring[None, :], draws, thresholds[:, None], separate=separate, fewest=fewest)
        passing = ((occurring >= fewest) & (log_p <= np.log(alpha / top.size))).sum(axis=1)
    ladder = np.append(occurring, draws + 1)
    return ladder[len(occurring) - passing]


def _histogram(
    top: Int64[np.ndarray, "*elements"], draws: int
) -> tuple[Int64[np.ndarray, " occurring"], Int64[np.ndarray, " occurring"]]:
    """Return the counts that occur, ascending, and how many elements have each."""
    if draws > 8 * top.size + 4096:
        occurring, histogram = np.unique(top, return_counts=True)
        return occurring, histogram
    histogram = np.bincount(top.ravel())
    occurring = np.flatnonzero(histogram)
    return occurring, histogram[occurring]
