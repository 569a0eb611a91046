"""Certificates by sub-sampling: what no attacker within given radii can change.

The mathematics (`overlap`, `worst_case`, `certify_counts`, ...) takes and returns NumPy, and loads without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crossguard.callable_module import make_callable
from crossguard.certify.counts import Counts
from crossguard.certify.decide import CountCertificate, certify_counts
from crossguard.certify.edits import Edits
from crossguard.certify.ensemble import certify_product, certify_votes
from crossguard.certify.families import holm
from crossguard.certify.frontier import maximal_radii
from crossguard.certify.overlap import Overlap, joint_overlap, overlap, worst_case
from crossguard.certify.pixel_metrics import PixelBounds, pixel_bounds
from crossguard.certify.preflight import Preflight, draws_to_reach, preflight
from crossguard.certify.thresholds import JointMargins, Margins

if TYPE_CHECKING:
    from crossguard.certify.answers import predict
    from crossguard.certify.certificate import Certificate, Grid
    from crossguard.certify.classify import certify
    from crossguard.certify.collective import CollectiveBound, certify_collective
    from crossguard.certify.early import EarlyDecision, certify_early, certify_segmentation_early
    from crossguard.certify.lengths import VariedCertificate, certify_lengths
    from crossguard.certify.options import CertifyOptions
    from crossguard.certify.retrieval import RetrievalCertificate, certify_retrieval
    from crossguard.certify.segment import SegmentationCertificate, certify_segmentation
    from crossguard.certify.smoothed import Smoothed
    from crossguard.certify.smoothed_retrieval import SmoothedRetrieval
    from crossguard.certify.subsample import ablate, draw_masks

__all__ = [
    "Certificate",
    "CertifyOptions",
    "CollectiveBound",
    "CountCertificate",
    "Counts",
    "EarlyDecision",
    "Edits",
    "Grid",
    "JointMargins",
    "Margins",
    "Overlap",
    "PixelBounds",
    "Preflight",
    "RetrievalCertificate",
    "SegmentationCertificate",
    "Smoothed",
    "SmoothedRetrieval",
    "VariedCertificate",
    "ablate",
    "certify",
    "certify_collective",
    "certify_counts",
    "certify_early",
    "certify_lengths",
    "certify_product",
    "certify_retrieval",
    "certify_segmentation",
    "certify_segmentation_early",
    "certify_votes",
    "draw_masks",
    "draws_to_reach",
    "holm",
    "joint_overlap",
    "maximal_radii",
    "overlap",
    "pixel_bounds",
    "predict",
    "preflight",
    "worst_case",
]

_NEED_TORCH = {
    "Certificate": "certificate",
    "CertifyOptions": "options",
    "CollectiveBound": "collective",
    "EarlyDecision": "early",
    "Grid": "certificate",
    "RetrievalCertificate": "retrieval",
    "ablate": "subsample",
    "SegmentationCertificate": "segment",
    "Smoothed": "smoothed",
    "SmoothedRetrieval": "smoothed_retrieval",
    "VariedCertificate": "lengths",
    "certify": "classify",
    "certify_collective": "collective",
    "certify_early": "early",
    "certify_lengths": "lengths",
    "certify_retrieval": "retrieval",
    "certify_segmentation": "segment",
    "certify_segmentation_early": "early",
    "draw_masks": "subsample",
    "predict": "answers",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module 'crossguard.certify' has no attribute {name!r}")
    return getattr(import_module(f"crossguard.certify.{_NEED_TORCH[name]}"), name)


make_callable(__name__)
