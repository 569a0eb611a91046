"""Segmentation metrics that hold under every attack: lower bounds from certified pixels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64


@dataclass(frozen=True)
class PixelBounds:
    """Pixel numbers that no attack within the radii can make worse; they add up over images.

    A pixel that is certified and right stays right. A negative pixel certified as another class than the positive one
    cannot become a false positive. All other pixels are taken to be as wrong as they can be.

    Attributes:
        judged: pixels with a true label.
        right: judged pixels that are certified and right.
        positives: judged pixels of the positive class.
        hits: positives that are certified as positive: the least number of true positives.
        false_alarms: judged pixels of other classes that are not certified as one: the largest number of false
        positives.
    """

    judged: int = 0
    right: int = 0
    positives: int = 0
    hits: int = 0
    false_alarms: int = 0

    def __add__(self, other: "PixelBounds") -> "PixelBounds":
        return PixelBounds(
            self.judged + other.judged,
            self.right + other.right,
            self.positives + other.positives,
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
        )

    @property
    def ratios(self) -> dict[str, tuple[int, int]]:
        """Every metric as part and whole: "accuracy", "recall", "precision", "f_score" and "iou"."""
        return {
            "accuracy": (self.right, self.judged),
            "recall": (self.hits, self.positives),
            "precision": (self.hits, self.hits + self.false_alarms),
            "f_score": (2 * self.hits, self.hits + self.positives + self.false_alarms),
            "iou": (self.hits, self.positives + self.false_alarms),
        }

    @property
    def accuracy(self) -> float:
        """Certified pixel accuracy, in [0, 1]; NaN where no pixel has a label."""
        return _share(*self.ratios["accuracy"])

    @property
    def recall(self) -> float:
        """Lower bound on recall of the positive class, in [0, 1]; NaN where there is no such pixel."""
        return _share(*self.ratios["recall"])

    @property
    def precision(self) -> float:
        """Lower bound on precision, in [0, 1]; 0 where no pixel is sure to be positive."""
        return _share(*self.ratios["precision"]) if self.hits else 0.0

    @property
    def f_score(self) -> float:
        """Lower bound on the F-score 2 TP / (2 TP + FP + FN), in [0, 1]; NaN where nothing is or may be positive."""
        return _share(*self.ratios["f_score"])

    @property
    def iou(self) -> float:
        """Lower bound on intersection over union TP / (TP + FP + FN), in [0, 1]; NaN as `f_score`."""
        return _share(*self.ratios["iou"])


def pixel_bounds(
    label: Int64[np.ndarray, "height width"],
    certified: Bool[np.ndarray, "height width"],
    truth: Int64[np.ndarray, "height width"],
    *,
    positive: int = 1,
) -> PixelBounds:
    """Count one image's certified pixels.

    Args:
        label: smoothed labels.
        certified: which of them no attack can change.
        truth: true labels; -1 is not judged.
        positive: the positive class.
    """
    return pixel_bounds_over(label, certified.astype(np.int64), truth, np.array([1]), positive=positive)[0]


def pixel_bounds_over(
    label: Int64[np.ndarray, "height width"],
    votes: Int64[np.ndarray, "height width"],
    truth: Int64[np.ndarray, "height width"],
    needed: Int64[np.ndarray, " radii"],
    *,
    positive: int = 1,
) -> list[PixelBounds]:
    """Count one image's certified pixels at many radii, at the cost of a single pass over the pixels.

    Args:
        label: smoothed labels.
        votes: votes for them, >= 0.
        truth: true labels; -1 is not judged.
        needed: the fewest votes with which a pixel is certified, per radius.
        positive: the positive class.

    Raises:
        ValueError: labels, votes and truth of different shapes, or a truth below -1.
    """
    if not label.shape == votes.shape == truth.shape:
        raise ValueError(
            f"Expected labels, votes and truth of one shape, but got {label.shape}, {votes.shape} and {truth.shape}."
        )
    if truth.size and truth.min() < -1:
        raise ValueError(f"Expected true labels >= -1, but got {truth.min()}.")
    judged, is_positive, says_positive = truth >= 0, truth == positive, label == positive
    steps = max(int(votes.max()), int(needed.max())) + 1

    def certified(pixels: Bool[np.ndarray, "height width"]) -> Int64[np.ndarray, " radii"]:
        histogram = np.bincount(votes[pixels], minlength=steps)
        return np.cumsum(histogram[::-1])[::-1][needed]

    negatives = judged & ~is_positive
    right = certified(judged & (label == truth))
    hits, cleared = certified(is_positive & says_positive), certified(negatives & ~says_positive)
    positives, others = int(is_positive.sum()), int(negatives.sum())
    return [
        PixelBounds(
            judged=positives + others, right=int(r), positives=positives, hits=int(h), false_alarms=others - int(c)
        )
        for r, h, c in zip(right, hits, cleared, strict=True)
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
