"""The collective certificate of a segmentation: one attack must serve all pixels at once.

A pixel alone is certified where no T touched draws of a published design can change its label. But the attacker has one
set of touched draws for all pixels, and what turns one pixel may leave another as it is. With y_j in [0, 1] for "draw j
is touched", sum_j y_j <= T(r), and z_p for "pixel p is changed", the most pixels that change are at most

    max sum_p z_p    with    z_p <= 1,    (lead_p + 1) z_p <= sum_j w_pj y_j,

where w_pj is 2 if draw j votes for the label of pixel p, and otherwise 1, or 0 if there are two labels: then it votes
for the only rival already. Pixels that are certified alone do not change. Whole solutions are among those of
this linear programme, so it is a bound; equal pixels share a variable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from scipy.optimize import linprog
from scipy.sparse import csr_array, diags_array, hstack, vstack

from crossguard.certify.arguments import whole_number
from crossguard.certify.design import design_for
from crossguard.certify.ensemble import leads
from crossguard.certify.leaders import most_votes
from crossguard.certify.sampling import Asked, evaluation_mode, pixel_labels
from crossguard.certify.saved_design import SavedDesign
from crossguard.certify.segment import PER_PASS, SegmentationCertificate, image_size
from crossguard.models.base import MultiModalSegmenter
from crossguard.models.inputs import input_arrays


@dataclass(frozen=True)
class CollectiveBound:
    """How many pixels stay right under every attack within a radius vector.

    Attributes:
        pixels: judged pixels.
        alone: pixels that are right and certified each for itself.
        together: at least so many are right at once under any one attack; never fewer than `alone`.
    """

    pixels: int
    alone: int
    together: int


def collective_bound(
    votes: UInt8[np.ndarray, "draws pixels"], right: Bool[np.ndarray, " pixels"], touched: int, *, labels: int
) -> CollectiveBound:
    """Return how many of the right pixels stay right, whichever `touched` draws an attacker changes.

    Args:
        votes: the label of each draw for each pixel.
        right: pixels whose label of most votes (the first among equals) is right.
        touched: T(r), the most draws that an attacker reaches.
        labels: number of labels.

    Raises:
        ValueError: a vote that is no label, or a number that is not whole.
    """
    touched, labels = whole_number(touched, "touched"), whole_number(labels, "labels", least=2)
    if votes.size and int(votes.max()) >= labels:
        raise ValueError(f"Expected votes in 0..{labels - 1}, but got {votes.max()}.")
    counts = np.stack([(votes == label).sum(axis=0) for label in range(labels)], axis=-1).astype(np.int64)
    chosen, lead = most_votes(counts)[0], leads(counts)
    open_ = right & (lead < 2 * touched)
    alone = int((right & ~open_).sum())
    if not open_.any():
        return CollectiveBound(len(right), alone, alone)
    rival = 0 if labels == 2 else 1
    weights = np.where(votes[:, open_] == chosen[open_], 2, rival).astype(np.uint8)
    keyed = np.concatenate([weights, lead[open_].astype(np.int32)[None].view(np.uint8).reshape(4, -1)], axis=0)
    _, first, sizes = np.unique(keyed, axis=1, return_index=True, return_counts=True)
    weights, needed = weights[:, first], lead[open_][first] + 1
    most = _most_changed(weights, needed, sizes, touched)
    return CollectiveBound(len(right), alone, alone + int(open_.sum()) - most)


def _most_changed(
    weights: UInt8[np.ndarray, "draws groups"],
    needed: Int64[np.ndarray, " groups"],
    sizes: Int64[np.ndarray, " groups"],
    touched: int,
) -> int:
    """Return the most pixels that change: any multipliers >= 0 of the constraints give a bound, the solver's the best.

    `linprog` also may fail; then all of them may change.
    """
    draws, groups = weights.shape
    changed: Any = vstack([diags_array(needed.astype(np.float64)), csr_array((1, groups))])
    reached: Any = vstack([csr_array(-weights.T.astype(np.float64)), csr_array(np.ones((1, draws)))])
    table: Any = hstack([changed, reached], format="csr")
    limits = np.concatenate([np.zeros(groups), [float(touched)]])
    gain = np.concatenate([sizes.astype(np.float64), np.zeros(draws)])
    found: Any = linprog(-gain, A_ub=table, b_ub=limits, bounds=(0, 1), method="highs")
    total = int(sizes.sum())
    if found.status != 0:
        return total
    multipliers = np.maximum(0.0, -found.ineqlin.marginals)
    bound = limits @ multipliers + np.maximum(0.0, gain - table.T @ multipliers).sum()
    return min(total, floor(bound * (1 + 1e-12) + 1e-9))


def certify_collective(
    model: MultiModalSegmenter,
    certificate: SegmentationCertificate,
    index: int,
    radii: Sequence[Mapping[str, int]],
) -> list[CollectiveBound]:
    """Return, per radius vector, how many pixels of one image stay right at once under every attack.

    The model is asked about the image's draws once more, since a certificate keeps counts alone.

    Args:
        model: that was certified.
        certificate: of a published design.
        index: of the image.
        radii: pixels that may be edited, by modality.

    Raises:
        ValueError: a certificate of random draws, or votes that are not those of the certificate: another model.
    """
    counts = certificate.counts[index]
    if not certificate.deterministic:
        raise ValueError("Expected a certificate of a published design, but its sub-samples are drawn at random.")
    values = {m: array[index : index + 1] for m, array in input_arrays(model, certificate.samples).items()}
    how = SavedDesign.of(counts, fill=certificate.fill, alpha=0.0, precision=certificate.precision).options()
    size = image_size(values, certificate.samples)
    asked = Asked(model, values, design_for(model, values, how, mask_size=size, batch_size=PER_PASS))
    with evaluation_mode(model, asked.design.device), torch.no_grad():
        votes = [labels.flatten(1).numpy() for labels in pixel_labels(asked, (0, counts.draws), 0)]
    table, labels = np.concatenate(votes), counts.votes.shape[-1]
    told = np.stack([(table == label).sum(axis=0) for label in range(labels)], axis=-1)
    if (told.reshape(counts.votes.shape) != counts.votes).any():
        raise ValueError("Expected the model that was certified, but its votes are others.")
    truth = certificate.samples.labels[index].ravel()
    judged = truth >= 0
    right = (most_votes(told.astype(np.int64))[0] == truth)[judged]
    vectors = [[vector.get(m, 0) for m in counts.n] for vector in radii]
    touched = counts.margins(certificate.kinds).at(vectors) * counts.draws / 2
    return [collective_bound(table[:, judged], right, round(t), labels=labels) for t in touched.tolist()]
