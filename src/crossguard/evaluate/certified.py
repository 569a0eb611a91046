"""Certified figures as ratios over samples, in their groups: what intervals of certified accuracy are made of."""

from collections.abc import Mapping, Sequence

import numpy as np

from crossguard.certify import SegmentationCertificate
from crossguard.certify.certificate import SampleCertificate
from crossguard.certify.decide import Correction
from crossguard.certify.pixel_metrics import PixelBounds
from crossguard.evaluate.statistics import Estimate, Ratio

Radii = Mapping[str, int | float]


def certified_ratios(
    certificate: SampleCertificate | SegmentationCertificate,
    radii: Sequence[Radii],
    *,
    positive: int = 1,
    correction: Correction | None = None,
) -> list[dict[str, Ratio]]:
    """Return, per radius vector and metric, what is certified and right, sample by sample in their groups.

    Args:
        certificate: of a classifier ("accuracy"), of retrieval ("recall@K"), or of a segmenter (pixel "accuracy", and
            "recall", "precision", "f_score" and "iou" of the positive class).
        radii: the radius vectors; a modality that is not named is not attacked.
        positive: of a segmenter, the positive class.
        correction: of a segmenter, see `SegmentationCertificate.image`.

    Raises:
        ValueError: an unknown modality, or a radius that is not whole, negative or > n.
    """
    groups = certificate.samples.groups
    if isinstance(certificate, SegmentationCertificate):
        images = certificate.image_bounds(radii, positive=positive, correction=correction)
        return [pixel_ratios([bounds[place] for bounds in images], groups) for place in range(len(radii))]
    judged, right = certificate.judged, certificate.right
    return [{certificate.metric: _ratio(certificate.certified(vector) & right, judged, groups)} for vector in radii]


def certified_figures(
    certificate: SampleCertificate | SegmentationCertificate,
    radii: Sequence[Radii],
    *,
    positive: int = 1,
    correction: Correction | None = None,
) -> dict[str, tuple[Estimate | None, ...]]:
    """Return certified figures with their intervals, by metric one per radius vector; None where not defined.

    The interval says how the share would vary with other samples of the same kind; that a certificate may be wrong,
    with probability alpha, is no part of it.

    Args:
        certificate: of a classifier or a segmenter.
        radii: as `certified_ratios`.
        positive: as `certified_ratios`.
        correction: as `certified_ratios`.

    Raises:
        ValueError: as `certified_ratios`.
    """
    return figures_along(certified_ratios(certificate, radii, positive=positive, correction=correction))


def figures_along(ratios: Sequence[Mapping[str, Ratio]]) -> dict[str, tuple[Estimate | None, ...]]:
    """Return the figures of several ratios of the same metrics, by metric."""
    return {metric: tuple(by_metric[metric].figure() for by_metric in ratios) for metric in ratios[0]} if ratios else {}


def differences_along(
    ratios: Sequence[Mapping[str, Ratio]], others: Sequence[Mapping[str, Ratio]]
) -> dict[str, tuple[Estimate | None, ...]]:
    """Return how much more ratios are than others of the same samples, by metric, in points."""
    pairs = list(zip(ratios, others, strict=True))
    return {metric: tuple(one[metric].minus(other[metric]) for one, other in pairs) for metric in ratios[0]}


def pixel_ratios(images: Sequence[PixelBounds], groups: np.ndarray) -> dict[str, Ratio]:
    """Return the metrics of segmentations as ratios over images.

    Args:
        images: pixel numbers of each image.
        groups: the group of each image.
    """
    each = [bounds.ratios for bounds in images]
    found = {}
    for metric in PixelBounds().ratios:
        part, whole = np.array([ratios[metric] for ratios in each]).T
        found[metric] = _ratio(part, whole, groups)
    return found


def smoothed_figures(
    certificate: SampleCertificate | SegmentationCertificate, *, correction: Correction = "bonferroni"
) -> dict[str, Estimate | None]:
    """Return "clean", the share of labels that the smoothed model gives right, and "abstention", that of samples or
    judged pixels without any certificate (of segmentations with a `correction`)."""
    samples = certificate.samples
    groups = samples.groups
    if not isinstance(certificate, SegmentationCertificate):
        every = np.ones(len(samples), dtype=bool)
        found = {
            "clean": _ratio(certificate.right, certificate.judged, groups),
            "abstention": _ratio(certificate.abstained, every, groups),
        }
        return {name: ratio.figure() for name, ratio in found.items()}
    rights, open_, pixels = [], [], []
    for index, truth in enumerate(samples.labels):
        image = certificate.image(index, [{}], correction=correction)
        rights.append(int((image.label == truth)[truth >= 0].sum()))
        open_.append(int((~image.certified[0])[truth >= 0].sum()))
        pixels.append(int((truth >= 0).sum()))
    numbers = {"clean": rights, "abstention": open_}
    return {name: _ratio(np.array(part), np.array(pixels), groups).figure() for name, part in numbers.items()}


def _ratio(part: np.ndarray, whole: np.ndarray, groups: np.ndarray) -> Ratio:
    return Ratio(part.astype(np.float64), whole.astype(np.float64), groups)
