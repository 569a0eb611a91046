"""Certificates of many elements that share an input's alpha: the pixels of a mask, the items of a gallery."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from crossguard.certify.bounds import majority_bounds
from crossguard.certify.counts import Counts
from crossguard.certify.decide import SCOPES, Correction, CountCertificate, certify_counts
from crossguard.certify.ensemble import leads
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import level_of
from crossguard.checks import lookup

Radii = Mapping[str, float | int]


def certified_elements(
    counts: Counts,
    radii: Sequence[Radii],
    *,
    kinds: Mapping[str, str],
    alpha: float,
    correction: Correction | None = None,
) -> CountCertificate:
    """Return labels and certified elements of one input at each of `radii`.

    Args:
        counts: votes [..., labels].
        radii: elements that may be edited, by modality, and L2 distances of noisy ones; a modality that is not named is
            not attacked.
        kinds: kind of edit by modality.
        alpha: of this look; not used by a published design.
        correction: as `certify_counts`.

    Raises:
        ValueError: an unknown modality, or a radius that is not whole, negative or > n.
    """
    for row in radii:
        for modality in row:
            lookup(dict.fromkeys(counts.modalities), modality, what="modality in `radii`")
    vectors = [[row.get(m, 0) for m in counts.modalities] for row in radii]
    if counts.published:
        label, top = most_votes(counts.votes)
        return CountCertificate(
            label=label,
            votes=top,
            needed=(counts.margins(kinds).at(vectors) * counts.draws).round().astype(np.int64),
            draws=counts.draws,
            alpha=0.0,
            correction=None,
            scope=SCOPES["published"],
            lead=leads(counts.votes),
        )
    return certify_counts(
        counts.votes,
        n=tuple(counts.n.values()),
        k=tuple(counts.k.values()),
        radii=vectors,
        alpha=alpha,
        kind=tuple(kinds[m] for m in counts.n),
        scheme=counts.scheme,
        correction=correction,
        noise=tuple(counts.noise.values()),
    )


def gaps(counts: Counts, alpha: float) -> Float[np.ndarray, "*elements"]:
    """Return lower bounds on p_A - p_B of one input's elements, which hold for all of them and all radii at once.

    An element is certified wherever the margin of the radii is at most its gap ("bonferroni"); below 0 it abstains.
    """
    if counts.published:
        return np.asarray(leads(counts.votes) / counts.draws)
    label, top = most_votes(counts.votes)
    return 2 * majority_bounds(top, counts.draws, level_of(counts, alpha) / label.size) - 1
