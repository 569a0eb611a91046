"""`certify_segmentation`: a certificate per pixel, one family of alpha per image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.classify import kept_counts, kinds_of
from crossguard.certify.counts import Counts
from crossguard.certify.decide import Correction, CountCertificate, certify_counts
from crossguard.certify.pixel_metrics import PixelBounds, pixel_bounds_over
from crossguard.certify.preflight import preflight
from crossguard.certify.sampling import (
    Design,
    add_draws,
    element_count,
    evaluation_mode,
    fingerprint,
    model_fingerprint,
    pixel_votes,
    resume,
)
from crossguard.certify.subsample import Fill
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalSegmenter
from crossguard.progress import Reporter, Silent
from crossguard.threat import EditKind


@dataclass(frozen=True)
class SegmentationCertificate:
    """Votes of every pixel of every image; certificates are computed when asked for.

    Args:
        model: name of the base model.
        samples: what was certified; masks enter in `bounds` alone.
        counts: votes [height, width, labels] of each image.
        alpha: probability that any pixel of an image is wrongly certified, per image.
        kinds: kind of edit by modality.
    """

    model: str
    samples: MultiModalSamples
    counts: tuple[Counts, ...]
    alpha: float
    kinds: Mapping[str, str]

    def image(
        self, index: int, radii: Sequence[Mapping[str, int]], *, correction: Correction | None = None
    ) -> CountCertificate:
        """Return labels and certified pixels of one image at each of `radii`.

        Args:
            index: of the image.
            radii: elements that may be edited, by modality; a modality that is not named is not attacked.
            correction: "holm" holds alpha for one radius vector, "bonferroni" for all of them at once; None takes
                "holm" for a single vector and "bonferroni" for several.

        Raises:
            ValueError: an unknown modality, or a radius that is not whole, negative or > n.
        """
        counts = self.counts[index]
        for row in radii:
            for modality in row:
                lookup(counts.n, modality, what="modality in `radii`")
        return certify_counts(
            counts.votes,
            n=tuple(counts.n.values()),
            k=tuple(counts.k.values()),
            radii=[[row.get(m, 0) for m in counts.n] for row in radii],
            alpha=self.alpha,
            kind=tuple(self.kinds.values()),
            correction=correction or ("holm" if len(radii) == 1 else "bonferroni"),
        )

    def bounds(
        self,
        radii: Sequence[Mapping[str, int]],
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
        for i, truth in enumerate(self.samples.labels):
            found = self.image(i, radii, correction=correction)
            here = pixel_bounds_over(found.label, found.votes, truth, found.needed, positive=positive)
            totals = [total + bounds for total, bounds in zip(totals, here, strict=True)]
        return totals


def certify_segmentation(
    model: MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    draws: int = 100,
    alpha: float = 0.001,
    seed: int = 0,
    kind: EditKind | Mapping[str, EditKind] = "substitution",
    fill: Fill = 0.0,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    progress: Reporter | None = None,
) -> SegmentationCertificate:
    """Certify every pixel of a segmentation by independent sub-sampling of every modality.

    Args:
        model: the base segmenter; used in evaluation mode, moved to `device`.
        samples: images with masks [samples, height, width].
        keep: elements kept of each modality, by its name.
        draws: N, sub-samples per image.
        alpha: probability that any pixel of an image is wrongly certified, per image.
        seed: of the masks; as `certify`.
        kind: the attacker's kind of edit, one for all modalities or by name.
        fill: what ablated elements become: a constant, or "mean" of those kept.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        folder: where counts are kept, one file per image; what is there is not drawn again.
        progress: shows sub-samples counted and the time left.

    Raises:
        ValueError: wrong names or numbers, draws that can only abstain (the message names the N needed), or counts in
            `folder` that are not of this model and data.
    """
    values = {m: lookup(samples.modalities, m, what="modality") for m in model.modalities}
    if samples.labels.ndim != 3:
        raise ValueError(f"Expected masks [samples, height, width], but got labels of shape {samples.labels.shape}.")
    height, width = samples.labels.shape[1:]
    if tuple(samples.classes) != tuple(model.classes):
        raise ValueError(f"Expected samples of the model's classes {model.classes}, but got {samples.classes}.")
    for m, array in values.items():
        if array.ndim != 4 or array.shape[2:] != samples.labels.shape[1:]:
            raise ValueError(f"Expected {m!r} [samples, channels, {height}, {width}], as masks, but got {array.shape}.")
    sizes = {m: element_count(array) for m, array in values.items()}
    kept, kinds = kept_counts(keep, sizes), kinds_of(kind, model.modalities)
    draws = whole_number(draws, "draws", least=1)
    preflight(
        n=tuple(sizes.values()),
        k=tuple(kept.values()),
        draws=draws,
        alpha=probability(alpha),
        kind=kinds,
        elements=height * width,
    ).require()
    design = Design(
        kept, sizes, whole_number(seed, "seed"), fill, whole_number(batch_size, "batch_size", least=1), device
    )
    if isinstance(model, torch.nn.Module):
        model.to(device)
    weights, counts = model_fingerprint(model), []
    with evaluation_mode(model), (progress or Silent()).task("certify", total=len(samples) * draws) as task:
        for i in range(len(samples)):
            empty = Counts(
                votes=np.zeros((height, width, len(model.classes)), dtype=np.int64),
                spans=(),
                seed=design.seed,
                n=sizes,
                k=kept,
                source=fingerprint(weights, {m: array[i : i + 1] for m, array in values.items()}, fill=fill),
            )
            path = None if folder is None else Path(folder) / f"image-{i:05d}.npz"
            before = resume(path, empty, draws)
            task.advance(before.draws)
            vote = partial(
                pixel_votes, model=model, values=values, image=i, shape=(height, width), design=design, task=task
            )
            counts.append(add_draws(before, vote, (0, draws), path=path))
    return SegmentationCertificate(
        model=model.name,
        samples=samples,
        counts=tuple(counts),
        alpha=alpha,
        kinds=dict(zip(model.modalities, kinds, strict=True)),
    )
