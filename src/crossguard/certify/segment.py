"""`certify_segmentation`: a certificate per pixel, one family of alpha per image."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from crossguard.certify.accumulate import add_draws, looked_at, resume
from crossguard.certify.arguments import probability
from crossguard.certify.bounds import majority_bounds
from crossguard.certify.counts import Counts
from crossguard.certify.decide import SCOPES, Correction, CountCertificate, certify_counts
from crossguard.certify.design import Ablation, Design, Drawing, design_for, draws_of, kinds_of, scheme_for
from crossguard.certify.ensemble import leads
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import FIRST, alpha_of_look, choose_seed
from crossguard.certify.noise import noise_levels
from crossguard.certify.pixel_metrics import PixelBounds, pixel_bounds_over
from crossguard.certify.preflight import preflight
from crossguard.certify.rehearsal import show_preflight
from crossguard.certify.sampling import evaluation_mode, pixel_votes
from crossguard.certify.saved_design import SavedDesign
from crossguard.certify.subsample import Fill
from crossguard.certify.thresholds import Scheme
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalSegmenter
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
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
        seconds: wall time of drawing and counting.
        ablation: what became of pixels that were not kept, in words.
        fill: the same, as it was asked for.
    """

    model: str
    samples: MultiModalSamples
    counts: tuple[Counts, ...]
    alpha: float
    kinds: Mapping[str, str]
    seconds: float = 0.0
    ablation: str = ""
    fill: Ablation | None = None

    @property
    def scheme(self) -> Scheme:
        """How sub-samples were drawn: "independent", "joint" for the baseline, "fixed" or "product"."""
        return self.counts[0].scheme

    @property
    def deterministic(self) -> bool:
        """Whether it is of a published design, and so holds without any chance of error."""
        return self.scheme in ("fixed", "product")

    def save_design(self, folder: Path | str) -> None:
        """Keep how sub-samples are drawn with the model in its folder, so that `cg.predict(folder, ...)` answers by it.

        Of a published design that is the design itself; of random draws their number and settings, never the seed.

        Raises:
            ValueError: there is no such folder.
        """
        SavedDesign.of(self.counts[0], fill=self.fill, alpha=self.alpha).save(folder)

    def level(self, index: int) -> float:
        """Return the part of alpha that this look at an image's counts has: all of it where they are looked at once."""
        counts = self.counts[index]
        return alpha_of_look(self.alpha, counts.looks, counts.draws) if counts.looks else self.alpha

    def image(
        self, index: int, radii: Sequence[Mapping[str, float | int]], *, correction: Correction | None = None
    ) -> CountCertificate:
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
        counts = self.counts[index]
        for row in radii:
            for modality in row:
                lookup(dict.fromkeys(counts.modalities), modality, what="modality in `radii`")
        vectors = [[row.get(m, 0) for m in counts.modalities] for row in radii]
        if self.deterministic:
            return self._published(index, vectors)
        return certify_counts(
            counts.votes,
            n=tuple(counts.n.values()),
            k=tuple(counts.k.values()),
            radii=vectors,
            alpha=self.level(index),
            kind=tuple(self.kinds[m] for m in counts.n),
            scheme=counts.scheme,
            correction=correction,
            noise=tuple(counts.noise.values()),
        )

    def _published(self, index: int, vectors: Sequence[Sequence[float | int]]) -> CountCertificate:
        counts = self.counts[index]
        needed = counts.margins(self.kinds).at(vectors) * counts.draws
        label, top = most_votes(counts.votes)
        return CountCertificate(
            label=label,
            votes=top,
            needed=needed.round().astype(np.int64),
            draws=counts.draws,
            alpha=0.0,
            correction=None,
            scope=SCOPES["published"],
            lead=leads(counts.votes),
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
        label, top = most_votes(self.counts[index].votes)
        if self.deterministic:
            return leads(self.counts[index].votes) / self.counts[index].draws
        bounds = majority_bounds(top, self.counts[index].draws, self.level(index) / label.size)
        return 2 * bounds - 1

    def radii(self) -> dict[str, float]:
        """Return the average certified radius of each modality, attacked alone, over the judged pixels of all images.

        0 where a pixel is wrong or abstains. For all radii at once ("bonferroni").
        """
        margins = self.counts[0].margins(self.kinds)
        totals, judged = np.zeros(len(self.counts[0].modalities)), 0
        for i, truth in enumerate(self.samples.labels):
            judged += int((truth >= 0).sum())
            right = (most_votes(self.counts[i].votes)[0] == truth) & (truth >= 0)
            gaps, pixels = np.unique(self.gaps(i)[right], return_counts=True)  # as many as there are counts
            for gap, count in zip(gaps.tolist(), pixels.tolist(), strict=True):
                totals += count * np.maximum(margins.reach(gap), 0)
        return dict(zip(self.counts[0].modalities, (totals / max(1, judged)).tolist(), strict=True))

    def summary(self, *, positive: int = 1) -> dict[str, Any]:
        """Return the settings and the main figures, as plain JSON values; those of no attack hold for all radii too.

        Args:
            positive: the class that recall, precision, F-score and IoU are of.
        """
        counts, judged = self.counts[0], self.samples.labels >= 0
        unattacked = self.bounds([{}], positive=positive, correction="bonferroni")[0]
        right = abstained = 0
        for i, truth in enumerate(self.samples.labels):
            right += int((most_votes(self.counts[i].votes)[0] == truth)[judged[i]].sum())
            abstained += int((self.gaps(i) < 0)[judged[i]].sum())
        return {
            "model": self.model,
            "data": self.samples.name,
            "split": self.samples.split,
            "images": len(self.samples),
            "pixels": int(judged.sum()),
            "n": dict(counts.n),
            "k": dict(counts.k),
            "noise": dict(counts.noise),
            "kind": dict(self.kinds),
            "scheme": self.scheme,
            "draws": counts.draws,
            "alpha": self.alpha,
            "scope": SCOPES["published" if self.deterministic else "bonferroni"],
            "ablation": self.ablation,
            "seed": counts.told_seed,
            "looks": list(counts.looks),
            "clean_accuracy": right / max(1, int(judged.sum())),
            "certified_unattacked": {
                name: getattr(unattacked, name) for name in ("accuracy", "recall", "precision", "f_score", "iou")
            },
            "abstention": abstained / max(1, int(judged.sum())),
            "average_radius": self.radii(),
            "seconds": self.seconds,
        }


@plain_torch()
def certify_segmentation(
    model: MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    noise: Mapping[str, float | int] | None = None,
    design: Drawing = "random",
    draws: int | None = None,
    alpha: float = 0.001,
    seed: int | None = None,
    kind: EditKind | Mapping[str, EditKind] = "substitution",
    scheme: Scheme = "independent",
    fill: Fill = 0.0,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    identity: str | None = None,
    progress: Reporter | None = None,
) -> SegmentationCertificate:
    """Certify every pixel of a segmentation by sub-sampling of every modality.

    Args:
        model: the base segmenter; used in evaluation mode, moved to `device`.
        samples: with masks [samples, height, width]. A modality's elements are its pixels, or the second axis of what
            is no image (points); it may have a size of its own.
        keep: elements kept of each modality, by its name.
        noise: sigma of each other modality, which gets Gaussian noise instead, as `certify`.
        design: "random", or a published one, "fixed" or "product", as `certify`.
        draws: N, sub-samples per image; None takes 100 at random, and what suits the design as `certify`.
        alpha: probability that any pixel of an image is wrongly certified, per image.
        seed: of the masks; as `certify`.
        kind: "substitution"; a segmenter sees where pixels stand, and others are refused.
        scheme: "independent" keeps exactly k_i pixels of every modality i, "joint" the sum of all k_i of the pixels of
            all modalities together: the baseline, see `certify`.
        fill: what ablated pixels become: a constant, or "mean" of those kept.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        folder: where counts are kept, one file per image; what is there is not drawn again.
        identity: the caller's word for which model this is, where its own state cannot be read; used with `folder`.
        progress: shows sub-samples counted and the time left.

    Raises:
        ValueError: wrong names or numbers, draws that can only abstain (the message names the N needed), or counts in
            `folder` that are not of this model and data.
    """
    folder = None if folder is None else Path(folder).expanduser()
    started = time.perf_counter()
    values = input_arrays(model, samples)
    height, width = image_size(values, samples)
    scheme, levels = scheme_for(design, scheme, noise), noise_levels(noise, keep, model.modalities)
    counted = tuple(m for m in model.modalities if m not in levels)
    kinds = kinds_of(kind, counted)
    published = design != "random"
    draws = draws_of(design, draws, keep, {m: element_count(values[m]) for m in counted}, usual=100)
    if published:
        seed = seed or 0
    chosen, secret = choose_seed(seed, image_files(folder, scheme))
    drawn = design_for(
        model,
        values,
        keep=keep,
        scheme=scheme,
        seed=chosen,
        secret=secret,
        fill=fill,
        batch_size=batch_size,
        device=device,
        kinds=kinds,
        published=draws if published else 0,
        noise=noise,
        mask_size=(height, width),
    )
    names = drawn.names(values)
    found = preflight(
        n=tuple(drawn.sizes.values()),
        k=tuple(drawn.keep.values()),
        draws=draws,
        alpha=probability(alpha) * (1.0 if folder is None or published else FIRST),
        kind=kinds,
        scheme=scheme,
        elements=height * width,
        noise=tuple(levels.values()),
    ).require()
    before = counted_before(model, values, drawn, folder, draws, identity)
    total, done = len(samples) * draws, sum(earlier.draws for _, earlier in before)
    counts = []
    with evaluation_mode(model, device):
        show_preflight(found, model, values, drawn, rows=total - done, progress=progress, segments=True)
        with (progress or Silent()).task("certify", total=total, done=done) as task:
            for i, (place, earlier) in enumerate(before):
                vote = partial(pixel_votes, model=model, values=values, names=names, image=i, design=drawn, task=task)
                votes = add_draws(earlier, vote, (0, draws), path=place, least=drawn.batch_size)
                counts.append(looked_at(votes, None if published else place))
    return SegmentationCertificate(
        model=model.name,
        samples=samples,
        counts=tuple(counts),
        alpha=0.0 if published else alpha,
        kinds=dict(zip(counted, kinds, strict=True)) | dict.fromkeys(levels, "l2"),
        seconds=time.perf_counter() - started,
        ablation=drawn.ablation,
        fill=fill,
    )


def counted_before(
    model: MultiModalSegmenter,
    values: Mapping[str, np.ndarray],
    design: Design,
    folder: Path | str | None,
    draws: int,
    identity: str | None,
) -> list[tuple[Path | None, Counts]]:
    """Return where the counts of each image are kept, and what was counted in an earlier call, no draws if nothing.

    Args:
        model: the base segmenter.
        values: its modalities [images, channels, height, width].
        design: how sub-samples are drawn.
        folder: where counts are kept, one file per image; None: nowhere.
        draws: the most that an image may have.
        identity: the caller's word for which model this is.

    Raises:
        ValueError: a file is broken, its counts are not of this model, image and design, or has more than `draws`; or
            a `folder` for a model that cannot be told from others.
    """
    weights = model_fingerprint(model, values, design, kept=folder is not None, identity=identity, segments=True)
    assert design.mask_size is not None
    found = []
    for i in range(len(next(iter(values.values())))):
        place = None if folder is None else Path(folder) / design.file(f"image-{i:05d}")
        image = {m: array[i : i + 1] for m, array in values.items()}
        empty = design.no_votes((*design.mask_size, len(model.classes)), fingerprint(weights, image, design))
        found.append((place, resume(place, empty, draws)))
    return found


def image_files(folder: Path | str | None, scheme: Scheme) -> list[Path]:
    """Return the files of images that were counted under a scheme before."""
    if folder is None:
        return []
    stem = "" if scheme == "independent" else f"-{scheme}"
    return [path for path in sorted(Path(folder).glob("image-*.npz")) if path.stem.removeprefix("image-")[5:] == stem]


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
