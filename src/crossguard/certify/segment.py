"""`certify_segmentation`: a certificate per pixel, one family of alpha per image."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from crossguard.certify.accumulate import add_draws, looked_at, resume
from crossguard.certify.counts import Counts
from crossguard.certify.decide import SCOPES, Correction, CountCertificate
from crossguard.certify.design import design_for
from crossguard.certify.elements import Radii, certified_elements, gaps
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.issued import Issued, settings_of
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import level_of
from crossguard.certify.options import CertifyOptions
from crossguard.certify.pixel_metrics import PixelBounds, pixel_bounds_over
from crossguard.certify.rehearsal import show_preflight
from crossguard.certify.sampling import Asked, evaluation_mode, pixel_votes
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalSegmenter
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Silent

IMAGE = "image-"
"""What the files of an image's counts begin with."""
PER_PASS = 4
"""Sub-samples per forward pass by default: of whole images even a few take much memory."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SegmentationCertificate(Issued):
    """Votes of every pixel of every image; certificates are computed when asked for.

    Args:
        counts: votes [height, width, labels] of each image.
    """

    counts: tuple[Counts, ...]

    @property
    def first(self) -> Counts:
        """The votes of the first image."""
        return self.counts[0]

    def level(self, index: int) -> float:
        """Return the part of alpha that this look at an image's counts has: all of it where they are looked at once."""
        return level_of(self.counts[index], self.alpha)

    def image(self, index: int, radii: Sequence[Radii], *, correction: Correction | None = None) -> CountCertificate:
        """Return labels and certified pixels of one image at each of `radii`.

        Args:
            index: of the image.
            radii: elements that may be edited, by modality, and L2 distances of noisy ones; a modality that is not
                named is not attacked.
            correction: "holm" holds alpha for one radius vector, "bonferroni" for all of them at once; None takes
                "holm" for a single vector and "bonferroni" for several.

        Raises:
            ValueError: an unknown modality, or a radius that is not whole, negative or > n.
        """
        return certified_elements(
            self.counts[index], radii, kinds=self.kinds, alpha=self.level(index), correction=correction
        )

    def bounds(
        self,
        radii: Sequence[Mapping[str, float | int]],
        *,
        positive: int = 1,
        correction: Correction | None = None,
    ) -> list[PixelBounds]:
        """Return, per radius vector, metrics that hold under every attack within it, over the pixels of all images.

        Args:
            radii: as `image`.
            positive: the class that recall, precision, F-score and IoU are of.
            correction: as `image`.
        """
        totals = [PixelBounds() for _ in radii]
        for here in self.image_bounds(radii, positive=positive, correction=correction):
            totals = [total + bounds for total, bounds in zip(totals, here, strict=True)]
        return totals

    def mean_iou(self, radii: Sequence[Radii], *, correction: Correction | None = None) -> Float[np.ndarray, " radii"]:
        """Return, per radius vector, the mean certified IoU of the classes that occur in the masks, in [0, 1].

        Each class's own is a lower bound under every attack within the radii, and so is their mean; NaN where no pixel
        is judged.
        """
        found = []
        for label in range(len(self.samples.classes)):
            bounds = self.bounds(radii, positive=label, correction=correction)
            if bounds[0].positives:
                found.append([each.iou for each in bounds])
        return np.mean(found, axis=0) if found else np.full(len(radii), np.nan)

    def image_bounds(
        self,
        radii: Sequence[Mapping[str, int | float]],
        *,
        positive: int = 1,
        correction: Correction | None = None,
    ) -> list[list[PixelBounds]]:
        """Return the same image by image, so that intervals can be over images."""
        images = []
        for i, truth in enumerate(self.samples.labels):
            found = self.image(i, radii, correction=correction)
            images.append(pixel_bounds_over(found.label, found.counted, truth, found.needed, positive=positive))
        return images

    def gaps(self, index: int) -> Float[np.ndarray, "height width"]:
        """Return lower bounds on p_A - p_B of one image's pixels, which hold for all of them and all radii at once.

        A pixel is certified wherever the margin of the radii is at most its gap ("bonferroni"); below 0 it abstains.
        """
        return gaps(self.counts[index], self.alpha)

    def radii(self) -> dict[str, float]:
        """Return the average certified radius of each modality, attacked alone, over the judged pixels of all images.

        0 where a pixel is wrong or abstains. For all radii at once ("bonferroni").
        """
        margins = self.counts[0].margins(self.kinds)
        totals, judged = np.zeros(len(self.counts[0].modalities)), 0
        for i, truth in enumerate(self.samples.labels):
            judged += int((truth >= 0).sum())
            right = (most_votes(self.counts[i].votes)[0] == truth) & (truth >= 0)
            found, pixels = np.unique(self.gaps(i)[right], return_counts=True)  # as many as there are counts
            for gap, count in zip(found.tolist(), pixels.tolist(), strict=True):
                totals += count * np.maximum(margins.reach(gap), 0)
        return dict(zip(self.counts[0].modalities, (totals / max(1, judged)).tolist(), strict=True))

    def summary(self, *, positive: int = 1) -> dict[str, Any]:
        """Return the settings and the main figures, as plain JSON values; those of no attack hold for all radii too.

        Args:
            positive: the class that recall, precision, F-score and IoU are of.
        """
        judged = self.samples.labels >= 0
        unattacked = self.bounds([{}], positive=positive, correction="bonferroni")[0]
        right = abstained = 0
        for i, truth in enumerate(self.samples.labels):
            right += int((most_votes(self.counts[i].votes)[0] == truth)[judged[i]].sum())
            abstained += int((self.gaps(i) < 0)[judged[i]].sum())
        return {
            **self.settings,
            "images": len(self.samples),
            "pixels": int(judged.sum()),
            "scope": SCOPES["published" if self.deterministic else "bonferroni"],
            "ablation": self.ablation,
            "looks": list(self.first.looks),
            "clean_accuracy": right / max(1, int(judged.sum())),
            "certified_unattacked": {
                name: getattr(unattacked, name) for name in ("accuracy", "recall", "precision", "f_score", "iou")
            },
            "mean_iou_unattacked": float(self.mean_iou([{}], correction="bonferroni")[0]),
            "abstention": abstained / max(1, int(judged.sum())),
            "average_radius": self.radii(),
            "seconds": self.seconds,
        }


@plain_torch()
def certify_segmentation(
    model: MultiModalSegmenter, samples: MultiModalSamples, **options: Any
) -> SegmentationCertificate:
    """Certify every pixel of a segmentation by sub-sampling of every modality.

    Args:
        model: the base segmenter; used in evaluation mode, moved to `device`.
        samples: with masks [samples, height, width]. A modality's elements are its pixels, or the second axis of what
            is no image (points); it may have a size of its own.
        options: by the names of `CertifyOptions`, but `lengths`, `bound` and `selection_draws`: p_B is taken as at most
            1 - p_A. A segmenter sees where pixels stand, so that kinds of edit other than "substitution" are refused.
            Counts in a `folder` are one file per image.

    Raises:
        ValueError: an unknown option (the nearest is named), wrong names or numbers, draws that can only abstain (the
            message names the N needed), or counts in `folder` that are not of this model and data.
    """
    how = CertifyOptions.read(options, "certify_segmentation", without=("lengths", "bound", "selection_draws"))
    started, values = time.perf_counter(), input_arrays(model, samples)
    size = image_size(values, samples)
    design = design_for(model, values, how, names=(IMAGE,), mask_size=size, usual=100, batch_size=PER_PASS)
    found = design.preflight(how, labels=len(model.classes), elements=size[0] * size[1])
    asked = Asked(model, values, design)
    before = counted_before(asked, how, design.draws)
    total, done = len(samples) * design.draws, sum(earlier.draws for _, earlier in before)
    counts = []
    with evaluation_mode(model, design.device):
        show_preflight(found, asked, rows=total - done, progress=how.progress)
        with (how.progress or Silent()).task("certify", total=total, done=done) as task:
            for i, (place, earlier) in enumerate(before):
                vote = partial(pixel_votes, asked=asked, image=i, task=task)
                votes = add_draws(earlier, vote, (0, design.draws), path=place, least=design.batch_size)
                counts.append(looked_at(votes, None if how.published else place))
    return SegmentationCertificate(
        counts=tuple(counts),
        seconds=time.perf_counter() - started,
        **settings_of(how, samples, asked),
    )


def counted_before(asked: Asked, options: CertifyOptions, draws: int) -> list[tuple[Path | None, Counts]]:
    """Return where the counts of each image are kept, and what was counted in an earlier call, no draws if nothing.

    Args:
        asked: the base segmenter and all images.
        options: they say where counts are kept, if at all.
        draws: the most that an image may have.

    Raises:
        ValueError: a file is broken, its counts are not of this model, image and design, or has more than `draws`; or
            a folder for a model that cannot be told from others.
    """
    design, weights = asked.design, model_fingerprint(asked, options)
    assert design.mask_size is not None
    found = []
    for i in range(len(asked)):
        place = None if options.place is None else options.place / design.file(f"{IMAGE}{i:05d}")
        image = {m: array[i : i + 1] for m, array in asked.values.items()}
        empty = design.no_votes((*design.mask_size, len(asked.model.classes)), fingerprint(weights, image, design))
        found.append((place, resume(place, empty, draws)))
    return found


def image_size(values: Mapping[str, np.ndarray], samples: MultiModalSamples) -> tuple[int, int]:
    """Return height and width of the samples' masks; modalities may have other sizes.

    Raises:
        ValueError: labels that are no masks, or a modality that has no elements.
    """
    if samples.labels.ndim != 3:
        raise ValueError(f"Expected masks [samples, height, width], but got labels of shape {samples.labels.shape}.")
    for m, array in values.items():
        if array.ndim < 3:
            raise ValueError(
                f"Expected {m!r} [samples, channels, height, width] or [samples, elements, numbers], but got "
                f"{array.shape}."
            )
    height, width = samples.labels.shape[1:]
    return int(height), int(width)
